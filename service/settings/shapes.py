"""The settings as they are written: one class a group, one field a setting.

These are pydantic models, as all that comes from outside is. They say what a value looks like;
what the guide and common sense say about values together stands in `rules.py`, and `build.py`
makes the values of the rooms below out of them. Every group is frozen and refuses names that
it does not know.
"""

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, model_validator

from service.routes.kinds import MEGABYTE, Cloud
from service.settings.group import NO_CONTROLS, Group
from service.settings.route_shapes import Password
from service.settings.values import (
    GROUP,
    LIST,
    Domains,
    Duration,
    Durations,
    Host,
    HostAndPort,
    IpAddresses,
    Names,
    NameServers,
    Networks,
    Port,
    Size,
)
from service.smtp.peer import TlsMode

_GUID = r"^[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$"


class Egress(Group):
    """How this installation reaches the internet; relay by IP depends on it."""

    static_ips: IpAddresses = Field(
        default=(), description="The static public addresses that our connections come from."
    )
    hosting: Literal["own_static_ip", "own_dynamic_ip", "third_party_cloud"] | None = Field(
        default=None,
        description="Where it runs: with static or dynamic addresses of one's own, or in someone's cloud.",
    )


class Organization(Group):
    """The Microsoft 365 tenant, as far as routes depend on it."""

    accepted_domains: Domains = Field(default=(), description="The tenant's accepted domains.")
    licences: int | None = Field(
        default=None,
        ge=1,
        le=10_000_000,
        description="Paid licences; they size the tenant's budget of external recipients.",
    )
    trial: bool = Field(default=False, description="Whether it is a trial tenant, whose budget is smaller.")
    external_recipients_per_day: int | None = Field(
        default=None,
        ge=1,
        description="The tenant's external recipients in 24 hours, where they are another number than the licences'.",
    )
    egress: Annotated[Egress, GROUP] = Field(default=Egress())


class Dns(Group):
    """Who is asked for MX records, where a route says mx_of."""

    nameservers: NameServers = Field(
        default=(), description="Addresses, with a port where it is not 53; this machine's unless set."
    )
    timeout: Duration = Field(
        default=timedelta(seconds=5),
        gt=timedelta(0),
        le=timedelta(minutes=1),
        description="How long one question may take.",
    )


class EntraApplicationShape(Group):
    """An application that calls with access tokens: who it is here, and what it may do."""

    client_id: str = Field(pattern=_GUID, description="The application (client) id.")
    name: str = Field(
        min_length=1,
        max_length=100,
        pattern=NO_CONTROLS,
        description="The application's name in Postroom, as a key has one.",
    )
    test: bool = Field(default=False, description="Whether its mail goes to the sandbox only.")
    senders: Names = Field(
        default=(), description="Addresses or @domains that it may send from; any of the routes' unless set."
    )
    routes: Names | None = Field(default=None, description="The routes that its mail may take.")
    recipient_domains: Names | None = Field(default=None, description="The domains that it may send to.")
    networks: Names | None = Field(
        default=None, description="The networks that it may call from: 10.0.0.0/8."
    )
    messages_per_minute: int | None = Field(default=None, ge=1, description="Its allowance in a minute.")
    messages_per_day: int | None = Field(default=None, ge=1, description="Its allowance in 24 hours.")


class EntraApiShape(Group):
    """Which access tokens open the HTTP door."""

    audience: Names = Field(
        default=(),
        description="The audience of tokens for Postroom: its application id URI (api://…), its client id. "
        "No token is taken unless set.",
    )
    applications: Annotated[tuple[EntraApplicationShape, ...], LIST] = Field(
        default=(),
        description="Applications with a name or restrictions here; others are named by their client id.",
    )


class EntraShape(Group):
    """Where access tokens come from."""

    cloud: Cloud = Field(default=Cloud.WORLDWIDE, description="The cloud of the tenant.")
    tenant_id: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$",
        description="The directory (tenant) id; required where something logs in with OAuth.",
    )
    authority: str | None = Field(
        default=None,
        pattern=r"^https://[A-Za-z0-9.\-\[\]:]+/?$",
        description="Base URL of the token service without the tenant, instead of the cloud's.",
    )
    ca_file: Path | None = Field(default=None, description="Certificates trusted for the token service, PEM.")
    timeout: Duration = Field(
        default=timedelta(seconds=15),
        gt=timedelta(0),
        description="How long one request for a token may take.",
    )
    api: Annotated[EntraApiShape, GROUP] = Field(default=EntraApiShape())


class RetryShape(Group):
    """How long a delivery waits before it is tried again."""

    first: Duration = Field(default=timedelta(seconds=30), gt=timedelta(0), description="The first wait.")
    factor: float = Field(
        default=2.0, ge=1, le=100, description="Each wait is this many times the one before."
    )
    cap: Duration = Field(default=timedelta(minutes=15), gt=timedelta(0), description="No wait is longer.")


class Dispatch(Group):
    """How deliveries are worked off."""

    lease: Duration = Field(
        default=timedelta(seconds=30),
        ge=timedelta(seconds=1),
        description="A worker's right to a delivery; renewed each third of it.",
    )
    poll_interval: Duration = Field(
        default=timedelta(seconds=5),
        gt=timedelta(0),
        description="How often the sweep looks for what no bell announced.",
    )
    retry: Annotated[RetryShape, GROUP] = Field(default=RetryShape())
    uncertain_after: Duration = Field(
        default=timedelta(minutes=15),
        description="When an uncertain recipient is sent to again, with the same octets.",
    )
    expires_after: Duration = Field(
        default=timedelta(hours=72),
        gt=timedelta(0),
        description="How long a message is tried, from its acceptance or its scheduled_at.",
    )
    shutdown_grace: Duration = Field(
        default=timedelta(seconds=60),
        description="How long a worker that was told to stop may finish what is in hand.",
    )
    queue_limit: int = Field(
        default=100_000, ge=1, description="So many recipients may wait; then new messages get a 503."
    )
    contents_in_flight: Size = Field(
        default=256_000_000,
        ge=1_000_000,
        description="Octets of large messages that a worker holds at a time; the others wait for room.",
    )


class ChecksShape(Group):
    """How the worker looks after the routes by itself."""

    enabled: bool = Field(default=True, description="Whether routes are checked without being asked.")
    interval: Duration = Field(
        default=timedelta(hours=1),
        ge=timedelta(seconds=1),
        description="How often each route is checked, and looked at for what expires.",
    )


class WebhooksShape(Group):
    """How events are told to applications, and where to."""

    allow_http: bool = Field(default=False, description="Whether webhooks may be called without TLS.")
    allow_private: bool = Field(
        default=False,
        description="Whether webhooks may lead to private addresses (RFC 1918, 4193, 6598) and to this machine.",
    )
    allowed_networks: Networks = Field(
        default=(), description="Networks that webhooks may lead to, whatever else is closed: 10.20.0.0/16."
    )
    ca_file: Path | None = Field(
        default=None, description="Certificates trusted besides the system's, PEM: an authority of one's own."
    )
    timeout: Duration = Field(
        default=timedelta(seconds=15),
        gt=timedelta(0),
        le=timedelta(minutes=1),
        description="How long one call may take, from the look-up of its name to its answer.",
    )
    retries: Durations = Field(
        default=tuple(
            timedelta(seconds=wait) for wait in (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
        ),
        max_length=50,
        description="The waits between one call that failed and the next; after the last one a delivery has failed.",
    )
    disable_after: Duration = Field(
        default=timedelta(days=5),
        gt=timedelta(0),
        description="A webhook that failed for so long without a success is disabled.",
    )


class Api(Group):
    """The HTTP door."""

    host: Host = Field(default="0.0.0.0", description="The address to listen on.")
    port: Port = Field(default=8025, description="The port to listen on.")
    max_body: Size = Field(
        default=50 * MEGABYTE, description="The largest request: 35 MB of message are 48 MB in base64."
    )
    body_timeout: Duration = Field(
        default=timedelta(seconds=60),
        gt=timedelta(0),
        description="How long a request's body may take to arrive.",
    )
    bodies_in_flight: Size = Field(
        default=256 * MEGABYTE, description="The bodies of all requests that are in hand; beyond it is a 503."
    )
    head_timeout: Duration = Field(
        default=timedelta(seconds=10),
        ge=timedelta(milliseconds=100),
        description="How long a request's head may take to arrive.",
    )
    connections: int = Field(
        default=1000, ge=1, le=100_000, description="Connections at a time; each needs an open file."
    )
    trusted_proxies: Networks = Field(
        default=(),
        description="Networks of proxies whose X-Forwarded-For says who the client is; none unless set.",
    )


class MetricsShape(Group):
    """What the process tells Prometheus and the kubelet."""

    enabled: bool = Field(default=True, description="Whether there is /metrics.")
    host: Host = Field(default="0.0.0.0", description="The address to listen on, where there is a port.")
    port: Port | None = Field(
        default=None,
        description="A port of its own for /livez, /readyz and /metrics: of a worker, which has none unless set; "
        "of an API, which then answers /metrics there and not on its own port.",
    )


class ConsoleEntraShape(Group):
    """The application of Entra ID by which people sign in at the console."""

    client_id: str = Field(pattern=_GUID, description="Its application (client) id.")
    client_secret: SecretStr = Field(min_length=1, description="Its secret.")


class RetentionShape(Group):
    """How long data is kept, kind by kind; what is not named is kept for ever."""

    content: Duration | None = Field(
        default=None,
        ge=timedelta(seconds=1),
        description="What was sent: its octets, once the message is over.",
    )
    transcripts: Duration | None = Field(
        default=None, ge=timedelta(seconds=1), description="The dialogues of attempts."
    )
    personal: Duration | None = Field(
        default=None,
        ge=timedelta(seconds=1),
        description="Addresses, names, subjects, tags and metadata of messages that are over, and their content.",
    )
    attempts: Duration | None = Field(
        default=None,
        ge=timedelta(days=2),
        description="Attempts of messages that are over; at least 2d, because limits are counted from them.",
    )
    events: Duration | None = Field(default=None, ge=timedelta(seconds=1), description="Events.")
    audit: Duration | None = Field(default=None, ge=timedelta(seconds=1), description="Who did what.")
    interval: Duration = Field(
        default=timedelta(minutes=10),
        ge=timedelta(milliseconds=100),
        le=timedelta(days=1),
        description="How often a worker looks for what has had its time.",
    )


class ConsoleShape(Group):
    """The operators' pages."""

    enabled: bool = Field(default=True, description="Whether there is /console.")
    sign_in: Duration = Field(
        default=timedelta(hours=12),
        ge=timedelta(minutes=1),
        le=timedelta(days=30),
        description="How long somebody stays signed in.",
    )
    url: str | None = Field(
        default=None,
        pattern=r"^https?://[A-Za-z0-9.\-\[\]:]+/?$",
        description="Where browsers find the service: https://postroom.contoso.com; needed for a sign-in by Entra ID.",
    )
    entra: Annotated[ConsoleEntraShape, GROUP] | None = Field(
        default=None, description="People sign in by Entra ID too, where it is set."
    )

    @model_validator(mode="after")
    def _a_way_back(self) -> Self:
        if self.entra is not None and self.url is None:
            raise ValueError("Entra ID sends people back to an address it knows. Set console.url.")
        return self


class SandboxShape(Group):
    """The way of test keys: a simulated Microsoft 365 that takes everything and delivers nothing."""

    enabled: bool = Field(default=False, description="Whether test keys may send.")
    host: Host = Field(default="localhost", description="The sandbox's name, for its TLS certificate.")
    port: Port = Field(default=2587, description="The sandbox's submission port.")
    connect_to: HostAndPort | None = Field(default=None, description="host:port to dial instead.")
    tls: TlsMode = Field(default=TlsMode.OPPORTUNISTIC, description="required, opportunistic or none.")
    ca_file: Path | None = Field(default=None, description="The sandbox's own authority, PEM.")
    login: Annotated[Password, GROUP] | None = Field(default=None)
