"""The simulated tenant: its domains, mailboxes and applications, and the switches.

`SandboxConfig` is fixed for the life of a sandbox. `Switches` can be changed while it runs
(`PUT /switches`): they stand for what an administrator does in a real tenant, and for the
moods of the service. The values start where a healthy tenant stands, with the limits that
Microsoft publishes for client submission.

Everything is checked when it is built; `BadSandbox` names each mistake.
"""

import re
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
_ADDRESS = re.compile(r"[^\s@<>\"(),:;\[\]\\]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")
_DOMAIN = re.compile(r"[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})+")

MEGABYTE = 1024 * 1024

Port = Annotated[int, Field(ge=0, le=65535)]
Count = Annotated[int, Field(ge=0, le=10_000_000, strict=True)]
Seconds = Annotated[float, Field(ge=0, le=7 * 24 * 3600)]


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
class Switches:
    """What can be changed while the sandbox runs."""

    # What an administrator switches
    smtp_auth_org: bool = True  # Set-TransportConfig -SmtpClientAuthenticationDisabled, the other way round
    smtp_auth_mailboxes: dict[str, bool | None] = field(default_factory=dict)  # null: as the organisation
    basic_disabled: bool = False  # an authentication policy without AllowBasicAuthSmtp
    basic_retired: bool = False  # the reply that Microsoft has announced for the end of basic logins
    security_defaults: bool = False  # Entra security defaults: no password logins
    conditional_access: bool = False  # a Conditional Access policy that blocks legacy logins

    # Limits of one mailbox, as Microsoft counts them
    messages_per_minute: Count = 30
    throttle_mode: Literal["delay", "refuse"] = "delay"  # above it: taken and delivered later, or 421
    connections: Count = 3
    recipients_per_day: Count = 10_000
    recipients_per_envelope: Count = 1000  # the organisation's cap; a mailbox has its own below it
    repeated_errors: Count = 20  # so many errors of one kind in an hour close the mailbox for good mail too
    repeated_errors_seconds: Seconds = 6 * 3600.0  # for so long
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

    # Entra ID
    token_seconds: Annotated[int, Field(ge=1, le=86400)] = 3599
    token_faults: dict[str, TokenFault] = field(default_factory=dict)  # by client id; "*" is every one

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


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class SandboxConfig:
    """One simulated tenant. Port 0 takes any free port."""

    state: Path  # certificate authority, keys (0600) and spilled mail
    tenant_id: str
    accepted_domains: tuple[str, ...]
    mailboxes: tuple[SandboxMailbox, ...]
    applications: tuple[SandboxApplication, ...] = ()
    switches: Switches = field(default_factory=Switches)
    host: str = "127.0.0.1"
    submission_port: Port = 0
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
        if mistakes:
            raise BadSandbox(mistakes)
        return self


def contoso(state: Path, **changes: Any) -> SandboxConfig:
    """Return the tenant that the documentation shows, with `changes` to any field.

    Its credentials are public and open nothing but a sandbox.
    """
    application = SandboxApplication(
        client_id="11111111-1111-4111-8111-111111111111",
        client_secret="sandbox-client-secret",  # noqa: S106  (a public one, see above)
    )
    described: dict[str, Any] = {
        "tenant_id": "c0ffee00-0000-4000-8000-000000000365",
        "accepted_domains": ("contoso.com", "contoso.onmicrosoft.com"),
        "applications": (application,),
        "mailboxes": (
            SandboxMailbox(
                address="noreply@contoso.com",
                password="sandbox-password",  # noqa: S106  (a public one, see above)
                send_as=("billing@contoso.com",),
                applications=(application.client_id,),
            ),
        ),
    }
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
