"""The simulated tenant: its domains, mailboxes, connectors and applications, and the switches.

`SandboxConfig` is fixed for the life of a sandbox. `Switches` can be changed while it runs
(`PUT /switches`): they stand for what an administrator does in a real tenant, and for the
moods of the service. The values start where a healthy tenant stands, with the limits that
Microsoft publishes for client submission.

Everything is checked when it is built; `BadSandbox` names each mistake.
"""

import re
from dataclasses import field
from ipaddress import IPv4Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
_ADDRESS = re.compile(r"[^\s@<>\"(),:;\[\]\\]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")
_DOMAIN = re.compile(r"[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})+")

_STAGED = re.compile(r"[245][0-5][0-9] [ -~]{1,3990}")

MEGABYTE = 1024 * 1024


def _address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise ValueError("not an IP address") from None


def _network(text: str) -> str:
    try:
        return str(ip_network(text, strict=False))
    except ValueError:
        raise ValueError("neither an IP address nor a network") from None


Port = Annotated[int, Field(ge=0, le=65535)]
Count = Annotated[int, Field(ge=0, le=10_000_000, strict=True)]
Seconds = Annotated[float, Field(ge=0, le=7 * 24 * 3600)]
IpAddress = Annotated[str, AfterValidator(_address)]
Network = Annotated[str, AfterValidator(_network)]
DoorName = Literal["submission", "mx", "hve", "acs"]
Moment = Literal["connect", "ehlo", "starttls", "auth", "mail", "rcpt", "data", "dot"]


class BadSandbox(ValueError):
    """The sandbox's configuration or switches are wrong; `mistakes` has one line for each."""

    def __init__(self, mistakes: list[str]) -> None:
        """Keep the lines, none of which repeats the value that was wrong."""
        super().__init__("; ".join(mistakes))
        self.mistakes = mistakes


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class TokenFault:
    """How the token endpoint treats one application until further notice."""

    kind: Literal["throttled", "unavailable", "slow", "garbled"]
    retry_after: Annotated[int, Field(ge=0, le=86400)] | None = None  # seconds, of 429 and 503
    seconds: Seconds = 5.0  # how long `slow` takes
    times: Annotated[int, Field(ge=1)] | None = None  # None: until the switch is taken back


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class StagedReply:
    """A reply that is said at one moment of the dialogue, word for word and without a trailer.

    It refuses; at `rcpt` and `dot` it may also be another yes than the usual one. At `connect` it
    takes the greeting's place, and the session ends.
    """

    at: Moment
    text: str
    times: Annotated[int, Field(ge=1, le=1_000_000)] | None = None  # None: until the switch is taken back
    door: DoorName | None = None  # None: on each of them

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not _STAGED.fullmatch(self.text):
            raise ValueError("text is one line of printable ASCII: a code of RFC 5321, a space, words")
        if self.text[0] == "2" and self.at not in {"rcpt", "dot"}:
            raise ValueError("only rcpt and dot can be answered with another yes; text has to be 4yz or 5yz")
        return self


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class SandboxConnector:
    """An inbound connector (New-InboundConnector), by certificate or by address."""

    name: str
    kind: Literal["OnPremises", "Partner"] = "OnPremises"  # only OnPremises may relay to the internet
    certificate: str | None = None  # TlsSenderCertificateName: a domain, or * and a domain
    addresses: tuple[str, ...] = ()  # SenderIPAddresses: IPv4, one or a network of /24 to /32
    require_tls: bool = False

    @model_validator(mode="after")
    def _is_one_or_the_other(self) -> Self:
        if (self.certificate is None) == (not self.addresses):
            raise ValueError(
                "a connector knows its clients by `certificate` or by `addresses`, one of the two"
            )
        if self.certificate is not None and not _DOMAIN.fullmatch(self.certificate.removeprefix("*.")):
            raise ValueError("certificate is a domain name, with nothing but a leading *. as wildcard")
        for address in self.addresses:
            if not _fits_connector(address):
                raise ValueError("addresses are IPv4 addresses, or networks of /24 to /32")
        return self

    @property
    def networks(self) -> tuple[IPv4Network, ...]:
        """The addresses, for comparing."""
        return tuple(IPv4Network(address) for address in self.addresses)


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class Switches:
    """What can be changed while the sandbox runs."""

    # What an administrator switches
    smtp_auth_org: bool = True  # Set-TransportConfig -SmtpClientAuthenticationDisabled, the other way round
    smtp_auth_mailboxes: dict[str, bool | None] = field(default_factory=dict)  # null: as the organisation
    basic_disabled: bool = False  # an authentication policy without AllowBasicAuthSmtp
    basic_retired: bool = False  # the reply that Microsoft has announced for the end of basic logins
    security_defaults: bool = False  # Entra security defaults: no password logins
    conditional_access: bool = False  # a Conditional Access policy that blocks legacy logins

    reject_direct_send: bool = False  # Set-OrganizationConfig -RejectDirectSend
    connectors: tuple[SandboxConnector, ...] | None = None  # null: as configured
    hve_billing: Literal[
        "BillingPolicyValid",
        "NoProperBillingPolicyStored",
        "BillingPolicyNotFound",
        "SubscriptionIsNotActive",
    ] = "BillingPolicyValid"  # Get-HVEAccountBillingPolicy
    subscription: bool = True  # false: no mail-enabled subscription in the tenant

    # Limits of one mailbox, as Microsoft counts them
    messages_per_minute: Count = 30
    throttle_mode: Literal["delay", "refuse"] = "delay"  # above it: taken and delivered later, or 421
    connections: Count = 3
    recipients_per_day: Count = 10_000
    recipients_per_envelope: Count = 1000  # the organisation's cap; a mailbox has its own below it
    repeated_errors: Count = 20  # so many errors of one kind in an hour close the mailbox for good mail too
    repeated_errors_seconds: Seconds = 6 * 3600.0  # for so long
    # Limits of the tenant
    external_per_day: Count | None = None  # message and external recipient, over all routes; null: no limit
    onmicrosoft_per_day: Count | None = 100  # the same for senders in onmicrosoft.com
    external_mode: Literal["report", "refuse"] = "report"  # above them: a report after the 250, or 550
    trial: bool = False  # a trial tenant hears 5.7.232
    acs_per_minute: Count = 30  # messages of one resource with a domain of its own
    acs_per_hour: Count = 100
    # The MX
    seen_as: IpAddress | None = "203.0.113.10"  # the client's address as the MX sees it; null: the true one
    banned_ips: tuple[Network, ...] = ()  # on Microsoft's block list
    ip_reputation: Literal["good", "new"] = "good"  # a new address is throttled, unless a connector matches
    unknown_ip_per_hour: Count | None = None  # messages from an address without a connector; null: no limit
    ip_block_seconds: Seconds = 3600.0  # how long an address that sent more is refused
    blocked_connectors: tuple[str, ...] = ()  # by name; taken for compromised
    unregistered_domains: Literal["taken", "refused"] = "taken"  # connectors' mail from foreign domains
    mx_requires_tls: bool = False
    mx_recipients: Count = 200  # of one domain in a transaction
    one_domain: bool = False  # a second recipient domain in a transaction is put off, connector or not
    wrong_region: bool = False  # the MX believes that the mail belongs to another region
    # Limits of one session
    failed_logins: Count = 3
    protocol_errors: Count = 5
    idle_seconds: Seconds = 300.0
    idle_goodbye: Literal["451", "421", "none"] = "451"
    session_seconds: Seconds = 600.0
    tarpit_seconds: Seconds = 0.0  # waited before each refusal

    # Moods of the service
    available: bool = True  # false: new sessions get 421 4.3.2
    starttls: Literal["offered", "refused", "absent"] = "offered"
    login_busy: bool = False  # 454 4.7.0 to every login
    gmail_mode: bool = False  # a refused token gets a 334 with JSON first, as at Gmail
    slow_seconds: Seconds = 5.0  # what `slow-reply@` and `slow-rcpt@` wait
    wording: Literal["new", "old"] = "new"
    trailer: bool = True  # [host time session] at the end of refusals; only [host] in the old wording
    replies: tuple[StagedReply, ...] = ()  # the first that fits is said

    # Entra ID
    token_seconds: Annotated[int, Field(ge=1, le=86400)] = 3599
    token_faults: dict[str, TokenFault] = field(default_factory=dict)  # by client id; "*" is every one
    directory_fault: TokenFault | None = None  # of discovery and the keys; `times` does not count

    def changed(self, changes: dict[str, Any]) -> "Switches":
        """Return a copy with `changes`, or raise BadSandbox naming each one that is not possible."""
        adapter = TypeAdapter(Switches)
        try:
            return adapter.validate_python(adapter.dump_python(self) | changes)
        except ValidationError as exc:
            raise BadSandbox(_mistakes(exc)) from None

    def as_json(self) -> dict[str, Any]:
        """Return every switch by name."""
        shown: dict[str, Any] = TypeAdapter(Switches).dump_python(self, mode="json")
        return shown


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class SandboxMailbox:
    """A mailbox that can log in."""

    address: str
    password: str | None = field(default=None, repr=False)  # None: no password opens it
    send_as: tuple[str, ...] = ()  # Add-RecipientPermission -AccessRights SendAs
    applications: tuple[str, ...] = ()  # client ids with Add-MailboxPermission
    recipient_limit: Annotated[int, Field(ge=1, le=1000)] = 500  # Set-Mailbox -RecipientLimits
    smtp_auth: bool | None = None  # None: as the organisation
    max_send_octets: Annotated[int, Field(ge=1)] = 35 * MEGABYTE  # Set-Mailbox -MaxSendSize
    quota_octets: Annotated[int, Field(ge=0)] = 100 * 1024 * MEGABYTE  # what Sent Items may fill
    sent_items: bool = True  # MessageCopyForSMTPClientSubmissionEnabled


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class SandboxApplication:
    """An application registered in the tenant."""

    client_id: str
    client_secret: str | None = field(default=None, repr=False)
    certificate: str | None = None  # PEM, of the public part
    roles: tuple[str, ...] = ("SMTP.SendAsApp",)
    api_roles: dict[str, tuple[str, ...]] = field(default_factory=dict)  # app roles, by the API's identifier
    redirect_uris: tuple[str, ...] = ()  # where people may be sent back to


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class SandboxPerson:
    """Somebody with an account in the tenant."""

    username: str
    name: str
    roles: dict[str, tuple[str, ...]] = field(
        default_factory=dict
    )  # app roles, by the application's client id


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class SandboxApi:
    """An API of the tenant's own, such as Postroom, for which applications get tokens."""

    identifier: str  # its application id URI: api://…
    client_id: str
    token_version: Literal[1, 2] = 2  # requestedAccessTokenVersion; the audience of 1 is what was asked for


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class SandboxHveAccount:
    """An account of High Volume Email (New-MailUser -HVEAccount)."""

    address: str
    password: str | None = field(default=None, repr=False)  # None: no password opens it
    applications: Annotated[tuple[str, ...], Field(max_length=10)] = ()  # client ids with Add-HVEAppAccess


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class SandboxAcsResource:
    """A resource of Azure Communication Services with its e-mail domain.

    The user name is `name|application|tenant_id`, the password the application's client secret.
    """

    name: str
    application: str  # client id of an application with a role on the resource
    senders: tuple[str, ...]  # the MailFrom addresses of its verified domain
    username: str | None = None  # a friendlier user name (an SMTP Username resource) besides
    managed: bool = False  # Azure's own domain: 5 messages a minute and 10 an hour, whatever the switches say


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class SandboxConfig:
    """One simulated tenant. Port 0 takes any free port."""

    state: Path  # certificate authority, keys (0600) and spilled mail
    tenant_id: str
    accepted_domains: tuple[str, ...]
    mailboxes: tuple[SandboxMailbox, ...]
    applications: tuple[SandboxApplication, ...] = ()
    apis: tuple[SandboxApi, ...] = ()
    people: tuple[SandboxPerson, ...] = ()  # who can sign in at an application
    recipients: tuple[str, ...] | None = None  # beside the mailboxes; None: all but unknown…@ and nobody…@
    connectors: tuple[SandboxConnector, ...] = ()
    client_cas: tuple[Path, ...] = ()  # authorities (PEM) trusted for client certificates, beside our own
    hve_accounts: tuple[SandboxHveAccount, ...] = ()
    acs_resources: tuple[SandboxAcsResource, ...] = ()
    switches: Switches = field(default_factory=Switches)
    host: str = "127.0.0.1"
    submission_port: Port = 0
    mx_port: Port = 0
    hve_port: Port = 0
    acs_port: Port = 0
    http_port: Port = 0
    https_port: Port = 0
    names: tuple[str, ...] = ()  # further names for the certificate, such as a service's in Kubernetes
    max_sessions: Annotated[int, Field(ge=1)] = 1000
    keep_messages: Annotated[int, Field(ge=1)] = 10_000  # the oldest are forgotten
    keep_octets: Annotated[int, Field(ge=1)] = 1024 * MEGABYTE  # the same, by their content
    memory_octets: Annotated[int, Field(ge=0)] = 64 * MEGABYTE  # content beyond it lies in `state`

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        mistakes = [f"accepted_domains: not a domain name: {name}" for name in self.accepted_domains
                    if not _DOMAIN.fullmatch(name)]  # fmt: skip
        mistakes += _repeated("mailboxes", [mailbox.address.lower() for mailbox in self.mailboxes])
        mistakes += _repeated("applications", [application.client_id for application in self.applications])
        known = {application.client_id for application in self.applications}
        mistakes += [f"applications: {application.client_id} has no readable RSA certificate (PEM)"
                     for application in self.applications if not _readable(application.certificate)]  # fmt: skip
        for mailbox in self.mailboxes:
            mistakes += _mailbox_mistakes(mailbox, domains=self.accepted_domains, applications=known)
        mistakes += _hve_mistakes(self.hve_accounts, domains=self.accepted_domains, applications=known)
        mistakes += _acs_mistakes(self.acs_resources, applications=known)
        mistakes += _repeated("connectors", [connector.name for connector in self.connectors])
        mistakes += [f"recipients: not a plain address: {address}" for address in self.recipients or ()
                     if not _ADDRESS.fullmatch(address)]  # fmt: skip
        if mistakes:
            raise BadSandbox(mistakes)
        return self


_CONSOLE = "66666666-6666-4666-8666-666666666666"
_OPERATOR = (
    "messages.read", "transcripts.read", "content.read", "routes.read", "routes.check", "operate", "admin",
)  # fmt: skip


def contoso(state: Path, **changes: Any) -> SandboxConfig:
    """Return the tenant that the documentation shows, with `changes` to any field.

    Its credentials are public and open nothing but a sandbox.
    """
    application = SandboxApplication(
        client_id="11111111-1111-4111-8111-111111111111",
        client_secret="sandbox-client-secret",  # noqa: S106  (a public one, see above)
        roles=("SMTP.SendAsApp", "Mail.Send"),
    )
    described: dict[str, Any] = {
        "tenant_id": "c0ffee00-0000-4000-8000-000000000365",
        "accepted_domains": ("contoso.com", "contoso.onmicrosoft.com"),
        # One that sends for itself, one that calls Postroom with access tokens, and the console's.
        "applications": (
            application,
            SandboxApplication(
                client_id="55555555-5555-4555-8555-555555555555",
                client_secret="sandbox-caller-secret",  # noqa: S106  (a public one, see above)
                roles=(),
                api_roles={"api://postroom": ("messages.send", "messages.read", "transcripts.read")},
            ),
            SandboxApplication(
                client_id=_CONSOLE,
                client_secret="sandbox-console-secret",  # noqa: S106  (a public one, see above)
                roles=(),
                redirect_uris=tuple(
                    f"http://{host}:8025/console/sign-in/entra/back" for host in ("127.0.0.1", "localhost")
                ),
            ),
        ),
        "people": (
            SandboxPerson(username="olga@contoso.com", name="Olga, operator", roles={_CONSOLE: _OPERATOR}),
            SandboxPerson(username="ana@contoso.com", name="Ana, without a role"),
        ),
        "apis": (SandboxApi(identifier="api://postroom", client_id="77777777-7777-4777-8777-777777777777"),),
        "mailboxes": (
            SandboxMailbox(
                address="noreply@contoso.com",
                password="sandbox-password",  # noqa: S106  (a public one, see above)
                send_as=("billing@contoso.com",),
                applications=(application.client_id,),
            ),
        ),
        "connectors": (SandboxConnector(name="By certificate", certificate="*.contoso.com"),),
        "hve_accounts": (
            SandboxHveAccount(
                address="hve@contoso.com",
                password="sandbox-hve-password",  # noqa: S106  (a public one, see above)
                applications=(application.client_id,),
            ),
        ),
        "acs_resources": (
            SandboxAcsResource(
                name="contoso-acs", application=application.client_id, senders=("donotreply@contoso.com",)
            ),
        ),
    }
    if "applications" in changes or "contoso.com" not in changes.get("accepted_domains", ("contoso.com",)):
        # What names Contoso's application or domain is left to the caller.
        described |= {"hve_accounts": (), "acs_resources": ()}
    return SandboxConfig(state=state, **(described | changes))


def _mailbox_mistakes(
    mailbox: SandboxMailbox, *, domains: tuple[str, ...], applications: set[str]
) -> list[str]:
    mistakes = [
        f"mailboxes: not a plain address: {address}"
        for address in (mailbox.address, *mailbox.send_as)
        if not _ADDRESS.fullmatch(address)
    ]
    if mailbox.address.rpartition("@")[2].lower() not in {domain.lower() for domain in domains}:
        mistakes.append(f"mailboxes: the domain of {mailbox.address} is not among accepted_domains")
    mistakes += [
        f"mailboxes: {mailbox.address} names an application that does not exist: {name}"
        for name in mailbox.applications
        if name not in applications
    ]
    return mistakes


def _hve_mistakes(
    accounts: tuple[SandboxHveAccount, ...], *, domains: tuple[str, ...], applications: set[str]
) -> list[str]:
    mistakes = _repeated("hve_accounts", [account.address.lower() for account in accounts])
    accepted = {domain.lower() for domain in domains}
    for account in accounts:
        if (
            not _ADDRESS.fullmatch(account.address)
            or account.address.rpartition("@")[2].lower() not in accepted
        ):
            mistakes.append(f"hve_accounts: not a plain address of an accepted domain: {account.address}")
        mistakes += [f"hve_accounts: {account.address} names an application that does not exist: {name}"
                     for name in account.applications if name not in applications]  # fmt: skip
    return mistakes


def _acs_mistakes(resources: tuple[SandboxAcsResource, ...], *, applications: set[str]) -> list[str]:
    mistakes = _repeated("acs_resources", [resource.name.lower() for resource in resources])
    mistakes += [f"acs_resources: {resource.name} names an application that does not exist"
                 for resource in resources if resource.application not in applications]  # fmt: skip
    mistakes += [f"acs_resources: not a plain address: {sender}"
                 for resource in resources for sender in resource.senders if not _ADDRESS.fullmatch(sender)]  # fmt: skip
    return mistakes


def _fits_connector(address: str) -> bool:
    """Whether a connector takes it: IPv4 only, 256 addresses at most, no bits beside the network's."""
    try:
        return IPv4Network(address).prefixlen >= 24
    except ValueError:
        return False


def _readable(certificate: str | None) -> bool:
    """Whether a certificate, where there is one, can check a client assertion."""
    try:
        key = x509.load_pem_x509_certificate(certificate.encode()).public_key() if certificate else None
    except ValueError:
        return False
    return key is None or isinstance(key, RSAPublicKey)


def _repeated(what: str, names: list[str]) -> list[str]:
    return [f"{what}: {name} is there twice" for name in sorted({n for n in names if names.count(n) > 1})]


def _mistakes(error: ValidationError) -> list[str]:
    """Say where and what, without the value; names beyond the switch's own are the caller's."""
    known = Switches.__dataclass_fields__
    lines = []
    for mistake in error.errors(include_url=False, include_context=False, include_input=False):
        name = str(mistake["loc"][0]) if mistake["loc"] else ""
        lines.append(f"{name}: {mistake['msg']}" if name in known else "there is no such switch")
    return sorted(set(lines))
