"""Routes as they are written: limits and times, logins, mailboxes, and one class a kind.

What the guide and common sense say about their values together stands in `rules.py`.
"""

from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, SecretStr, model_validator

from service.routes.route import RouteKind
from service.settings.group import NO_CONTROLS, Group
from service.settings.values import (
    GROUP,
    LIST,
    Domain,
    Domains,
    Duration,
    EhloName,
    Host,
    HostAndPort,
    MailAddress,
    Port,
    Senders,
    Size,
)
from service.smtp.peer import TlsMode

_NAME = r"^[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?$"
_DAY = timedelta(days=1)


class LimitsShape(Group):
    """What a lane may use. What is not named has the default of the route's kind; null is no limit."""

    messages_per_minute: int | None = Field(default=None, ge=1)
    messages_per_hour: int | None = Field(default=None, ge=1)
    recipients_per_day: int | None = Field(default=None, ge=1)
    connections: int | None = Field(default=None, ge=1, le=1000)
    recipients_per_message: int | None = Field(default=None, ge=1)
    message_bytes: Size | None = Field(default=None)
    messages_per_connection: int | None = Field(default=None, ge=1)


class TimeoutsShape(Group):
    """How long the peer may take in each phase; what is not named has the default of RFC 5321 §4.5.3.2."""

    connect: Duration | None = Field(default=None, gt=timedelta(0), le=_DAY)
    greeting: Duration | None = Field(default=None, gt=timedelta(0), le=_DAY)
    ehlo: Duration | None = Field(default=None, gt=timedelta(0), le=_DAY)
    starttls: Duration | None = Field(default=None, gt=timedelta(0), le=_DAY)
    auth: Duration | None = Field(default=None, gt=timedelta(0), le=_DAY)
    mail: Duration | None = Field(default=None, gt=timedelta(0), le=_DAY)
    rcpt: Duration | None = Field(default=None, gt=timedelta(0), le=_DAY)
    data: Duration | None = Field(default=None, gt=timedelta(0), le=_DAY)
    body: Duration | None = Field(default=None, gt=timedelta(0), le=_DAY)
    dot: Duration | None = Field(default=None, gt=timedelta(0), le=_DAY)
    rset: Duration | None = Field(default=None, gt=timedelta(0), le=_DAY)
    quit: Duration | None = Field(default=None, gt=timedelta(0), le=_DAY)


class OAuth(Group):
    """A login by access token: an application of Entra ID with SMTP.SendAsApp."""

    method: Literal["oauth"]
    client_id: str = Field(pattern=NO_CONTROLS, max_length=256, description="The application (client) id.")
    client_secret: SecretStr | None = Field(
        default=None, min_length=1, description="The application's secret."
    )
    certificate_file: Path | None = Field(
        default=None, description="The application's certificate, PEM, instead of a secret."
    )
    private_key_file: Path | None = Field(
        default=None, description="The certificate's private key, PEM, unencrypted."
    )
    client_secret_expires: date | None = Field(
        default=None, description="The day on which the secret ends, to be reminded before: 2027-05-31."
    )
    scope: str | None = Field(
        default=None,
        pattern=r"^https://[\x21-\x7e]{1,200}$",
        description="The scope of its tokens, instead of the cloud's.",
    )

    @model_validator(mode="after")
    def _one_credential(self) -> Self:
        if (self.certificate_file is None) != (self.private_key_file is None):
            raise ValueError(
                "a certificate needs its key. Set certificate_file and private_key_file together."
            )
        if self.client_secret_expires is not None and self.certificate_file is not None:
            raise ValueError(
                "client_secret_expires is for a secret; a certificate says itself when it ends. Remove it."
            )
        if (self.client_secret is None) == (self.certificate_file is None):
            raise ValueError(
                "an application proves itself by one credential. Set client_secret or client_secret_file, "
                "or certificate_file with private_key_file."
            )
        return self


class MailboxPassword(Group):
    """A mailbox's login by password."""

    method: Literal["basic"]
    username: str | None = Field(
        default=None, pattern=NO_CONTROLS, max_length=320, description="Unless it is the mailbox's address."
    )
    password: SecretStr = Field(min_length=1, description="The password.")


class Password(Group):
    """A login by user name and password."""

    method: Literal["basic"]
    username: str = Field(pattern=NO_CONTROLS, max_length=512, description="The user name.")
    password: SecretStr = Field(min_length=1, description="The password.")


class ApplicationPassword(Password):
    """A login of Azure Communication Services: the password is the secret of an application."""

    client_secret_expires: date | None = Field(
        default=None, description="The day on which the secret ends, to be reminded before: 2027-05-31."
    )


MailboxLogin: TypeAlias = Annotated[OAuth | MailboxPassword, Field(discriminator="method")]


class Mailbox(Group):
    """A mailbox that a route logs in with."""

    address: MailAddress = Field(description="The mailbox's address.")
    login: Annotated[MailboxLogin, GROUP] = Field(description="How it logs in.")
    send_as: Senders = Field(
        default=(),
        description="Addresses it has Send As for; *@contoso.com for a whole domain, * for everybody.",
    )


class ClientCertificate(Group):
    """What we present in the TLS handshake."""

    certificate_file: Path = Field(description="The certificate with its full chain, PEM.")
    private_key_file: Path | None = Field(
        default=None, description="Its private key, PEM, unless the certificate's file has it."
    )


class RouteBase(Group):
    """What every route may say."""

    name: str = Field(pattern=_NAME, description="The route's name in API, ledger and metrics; lower case.")
    host: Host | None = Field(default=None, description="The peer's name: for TLS, the rules and the ledger.")
    port: Port | None = Field(default=None, description="The peer's port.")
    connect_to: HostAndPort | None = Field(
        default=None, description="host:port to dial instead; the name stays host."
    )
    ca_file: Path | None = Field(
        default=None, description="Certificates trusted for this peer, PEM, instead of the system's."
    )
    ehlo_name: EhloName | None = Field(
        default=None, description="How we introduce ourselves; our own host name unless set."
    )
    tls: TlsMode | None = Field(default=None, description="required, opportunistic or none.")
    limits: Annotated[LimitsShape, GROUP] = Field(default=LimitsShape())
    timeouts: Annotated[TimeoutsShape, GROUP] = Field(default=TimeoutsShape())
    enabled: bool = Field(
        default=True, description="A disabled route takes no message and keeps its backlog."
    )


class ClientSubmission(RouteBase):
    """SMTP AUTH client submission: mailboxes of the tenant."""

    kind: Literal[RouteKind.CLIENT_SUBMISSION]
    mailboxes: Annotated[tuple[Mailbox, ...], LIST] = Field(description="Who logs in.")


class DirectSend(RouteBase):
    """Direct send: to recipients of one's own, without a login."""

    kind: Literal[RouteKind.DIRECT_SEND]
    mx_of: Domain | None = Field(
        default=None, description="The accepted domain whose MX record names the host."
    )
    allow_private: bool = Field(
        default=False, description="Whether the MX host may have a private address, as a sandbox has."
    )
    client_certificate: ClientCertificate | None = Field(
        default=None, description="Never: direct send must not match a connector."
    )


class SmtpRelay(RouteBase):
    """SMTP relay through an inbound connector."""

    kind: Literal[RouteKind.SMTP_RELAY]
    mx_of: Domain | None = Field(
        default=None, description="The accepted domain whose MX record names the host."
    )
    allow_private: bool = Field(
        default=False, description="Whether the MX host may have a private address, as a sandbox has."
    )
    authenticate_by: Literal["certificate", "ip"] = Field(description="How the connector knows us.")
    client_certificate: Annotated[ClientCertificate, GROUP] | None = Field(default=None)


class Smarthost(RouteBase):
    """The organisation's own mail server."""

    kind: Literal[RouteKind.SMARTHOST]
    login: Annotated[Password, GROUP] | None = Field(default=None)
    client_certificate: Annotated[ClientCertificate, GROUP] | None = Field(default=None)
    sender_domains: Domains | None = Field(
        default=None, description="Domains it takes as sender; all unless set."
    )
    recipient_domains: Domains | None = Field(
        default=None, description="Domains it leads to; all unless set."
    )


class HighVolumeEmail(RouteBase):
    """High Volume Email: accounts for mail within the organisation."""

    kind: Literal[RouteKind.HIGH_VOLUME_EMAIL]
    accounts: Annotated[tuple[Mailbox, ...], LIST] = Field(description="Who logs in.")


class AzureCommunicationServices(RouteBase):
    """Azure Communication Services Email over SMTP."""

    kind: Literal[RouteKind.AZURE_COMMUNICATION_SERVICES]
    login: Annotated[ApplicationPassword, GROUP]
    sender_domains: Domains | None = Field(
        default=None, description="Its verified domains; the accepted domains unless set."
    )


RouteShape: TypeAlias = Annotated[
    ClientSubmission | DirectSend | SmtpRelay | Smarthost | HighVolumeEmail | AzureCommunicationServices,
    Field(discriminator="kind"),
]
