"""How a way is set up: Postroom's settings, the guide's settings, SPF, PowerShell, admin centres.

Commands are composed from the documentation of their parameters ("Exchange PowerShell" on
learn.microsoft.com, August 2026) and the guide; none was run against a tenant. Real names are
filled in where they are known; what an administrator has to fill in stands in angle brackets,
which PowerShell refuses.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any, Final

import yaml

from service.mail.address import Address
from service.routes.advice.needs import IpAddress, Organization, is_public
from service.routes.advice.options import Option
from service.routes.advice.powershell import quoted
from service.routes.advice.retirement import REGISTER, oauth_commands, register
from service.routes.kinds import CLOUDS, KINDS, Cloud
from service.routes.route import RouteKind

_DOMAIN: Final = "<accepted domain>"
_ADDRESS: Final = "<address>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """The real names that go into settings and commands; None where one is not known."""

    sender: Address | None = None
    domain: str | None = None
    mx_host: str | None = None  # the tenant's MX, as an administrator wrote it into the configuration
    smarthost: str | None = None
    ips: tuple[IpAddress, ...] = ()  # public ones
    client_id: str | None = None
    tenant_id: str | None = None
    cloud: Cloud = Cloud.WORLDWIDE

    @property
    def address(self) -> str:
        return _ADDRESS if self.sender is None else str(self.sender)

    @property
    def mx(self) -> str:
        return (
            self.mx_host
            or f"the host that the MX record of {self.domain or _DOMAIN} names: read it, never "
            "build it from the domain's name"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Spf:
    """The SPF record that belongs to a way (RFC 7208)."""

    domain: str
    record: str | None  # None: none is needed, or another place shows it; the notes say which
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SetUp:
    """Everything that has to be done for one way."""

    configuration: str | None  # YAML for Postroom's file; None where it has no such route
    settings: tuple[tuple[str, str], ...]  # the guide's table: setting, value
    spf: Spf
    powershell: tuple[str, ...]
    admin_centre: tuple[str, ...]
    unverified: tuple[str, ...]


def names_of(organization: Organization, *, sender: Address | None, **known: Any) -> Names:
    """Collect the real names: the sender's domain before the organisation's first one."""
    domains = organization.accepted_domains
    own = sender is not None and (not domains or sender.domain in domains)
    return Names(
        sender=sender,
        domain=sender.domain if own and sender is not None else next(iter(domains), None),
        ips=tuple(ip for ip in organization.static_ips if is_public(ip)),
        tenant_id=organization.tenant_id,
        cloud=organization.cloud,
        **known,
    )


def set_up(option: Option, names: Names) -> SetUp:
    """Write down how this way is set up."""
    return SetUp(
        configuration=_configuration(option, names),
        settings=tuple(_settings(option, names)),
        spf=_spf(option, names),
        powershell=tuple(_POWERSHELL[option](names)),
        admin_centre=tuple(_ADMIN_CENTRE[option](names)),
        unverified=tuple(_unverified(option, names)),
    )


# -- Postroom's configuration -----------------------------------------------------------------


def _configuration(option: Option, names: Names) -> str | None:
    route = _route(option, names)
    if route is None:
        return None
    document: dict[str, Any] = {}
    if names.domain:
        document["organization"] = {"accepted_domains": [names.domain]}
    if option is Option.SMTP_RELAY_IP:
        ips = [str(ip) for ip in names.ips] or ["<static public IPv4 address>"]
        document.setdefault("organization", {})["egress"] = {
            "static_ips": ips,
            "hosting": "own_static_ip",
        }
    if option is Option.CLIENT_SUBMISSION_OAUTH:
        document["entra"] = {
            "cloud": str(names.cloud),
            "tenant_id": names.tenant_id or "<directory (tenant) id>",
        }
    elif names.cloud is not Cloud.WORLDWIDE:
        document["entra"] = {"cloud": str(names.cloud)}
    document["routes"] = [route]
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110)


def _route(option: Option, names: Names) -> dict[str, Any] | None:
    mx = {"host": names.mx_host} if names.mx_host else {"mx_of": names.domain or _DOMAIN}
    password = {"method": "basic", "password_file": "/run/secrets/mailbox-password"}
    oauth = {
        "method": "oauth",
        "client_id": names.client_id or "<application (client) id>",
        "client_secret_file": "/run/secrets/entra-client-secret",
    }
    match option:
        case Option.CLIENT_SUBMISSION_OAUTH | Option.CLIENT_SUBMISSION_BASIC:
            login = oauth if option is Option.CLIENT_SUBMISSION_OAUTH else password
            return {
                "name": "mailbox",
                "kind": "client_submission",
                "mailboxes": [{"address": names.address, "login": login}],
            }
        case Option.DIRECT_SEND:
            return {"name": "own-domain", "kind": "direct_send", **mx}
        case Option.SMTP_RELAY_CERTIFICATE:
            return {
                "name": "connector",
                "kind": "smtp_relay",
                **mx,
                "authenticate_by": "certificate",
                "client_certificate": {
                    "certificate_file": "/run/secrets/relay-fullchain.pem",
                    "private_key_file": "/run/secrets/relay-key.pem",
                },
            }
        case Option.SMTP_RELAY_IP:
            return {"name": "connector", "kind": "smtp_relay", **mx, "authenticate_by": "ip"}
        case Option.HIGH_VOLUME_EMAIL:
            return {
                "name": "high-volume",
                "kind": "high_volume_email",
                "accounts": [{"address": names.address, "login": password}],
            }
        case Option.AZURE_COMMUNICATION_SERVICES:
            resource = f"<resource>|<application id>|{names.tenant_id or '<tenant id>'}"
            return {
                "name": "azure",
                "kind": "azure_communication_services",
                "login": {
                    "method": "basic",
                    "username": resource,
                    "password_file": "/run/secrets/azure-client-secret",
                },
            }
        case Option.OWN_MAIL_SERVER | Option.SPECIALISED_PROVIDER:
            host = names.smarthost if option is Option.OWN_MAIL_SERVER else None
            return {"name": "smarthost", "kind": "smarthost", "host": host or "<name of the mail server>"}
        case Option.GRAPH:
            return None


# -- the guide's table of settings ------------------------------------------------------------


def _settings(option: Option, names: Names) -> list[tuple[str, str]]:
    host, port, tls, proof, sender = _SETTINGS[option](names)
    return [
        ("Server or smart host", host),
        ("Port", port),
        ("TLS / STARTTLS", tls),
        ("Login", proof),
        ("Sender address", sender),
    ]


_Answers = tuple[str, str, str, str, str]


def _of_mailbox(proof: str) -> Callable[[Names], _Answers]:
    return lambda names: (
        CLOUDS[names.cloud].submission_host,
        "587 (recommended) or 25; never 465",
        "Required, TLS 1.2 or newer",
        proof,
        f"{names.address}, or an address that it has Send As for",
    )


def _of_mx(tls: str, proof: str, sender: str) -> Callable[[Names], _Answers]:
    return lambda names: (names.mx, "25", tls, proof, sender)


_SETTINGS: Mapping[Option, Callable[[Names], _Answers]] = {
    Option.CLIENT_SUBMISSION_OAUTH: _of_mailbox("OAuth (XOAUTH2), as an application"),
    Option.CLIENT_SUBMISSION_BASIC: _of_mailbox("User name and password of the mailbox"),
    Option.DIRECT_SEND: _of_mx(
        "Optional; used when offered", "None", "Any address of an accepted domain; it needs no mailbox"
    ),
    Option.SMTP_RELAY_CERTIFICATE: _of_mx(
        "Required, TLS 1.2 or newer",
        "The client certificate, with its full chain; an accepted domain in its CN or SAN",
        "Any address",
    ),
    Option.SMTP_RELAY_IP: _of_mx(
        "Used when offered (the guide says both enabled and optional)",
        "The source address: static, public, IPv4, nobody else's",
        "Any address of an accepted domain; it needs no mailbox",
    ),
    Option.HIGH_VOLUME_EMAIL: lambda _: (
        KINDS[RouteKind.HIGH_VOLUME_EMAIL].host or "",
        "587",
        "Required, TLS 1.2 or newer",
        "The account's name and password, or OAuth",
        "The account itself",
    ),
    Option.AZURE_COMMUNICATION_SERVICES: lambda _: (
        KINDS[RouteKind.AZURE_COMMUNICATION_SERVICES].host or "",
        "587 (recommended) or 25",
        "Required, TLS 1.2 or newer",
        "User name <resource>|<application id>|<tenant id> and the application's secret",
        "A MailFrom address of a verified domain",
    ),
    Option.GRAPH: lambda names: (
        "graph.microsoft.com (POST /v1.0/users/{mailbox}/sendMail)",
        "443",
        "HTTPS",
        "OAuth, application permission Mail.Send",
        f"{names.address}, or an address that it has Send As for",
    ),
    Option.OWN_MAIL_SERVER: lambda names: (
        names.smarthost or "the name of your mail server",
        "as its administrator says",
        "as its administrator says",
        "as its administrator says",
        "as its administrator says",
    ),
    Option.SPECIALISED_PROVIDER: lambda _: (
        "the provider's host",
        "587",
        "Required",
        "as the provider says",
        "an address of a domain that the provider has verified",
    ),
}


# -- SPF --------------------------------------------------------------------------------------

_ONE_RECORD = (
    "A domain has one SPF record: where there is one already, put these mechanisms into it (RFC 7208 §3.2)."
)


def _spf(option: Option, names: Names) -> Spf:
    domain = names.domain or _DOMAIN
    include = f"include:{CLOUDS[names.cloud].spf_include}"
    match option:
        case (
            Option.DIRECT_SEND | Option.SMTP_RELAY_CERTIFICATE | Option.SMTP_RELAY_IP | Option.OWN_MAIL_SERVER
        ):
            own = [f"{'ip4' if isinstance(ip, IPv4Address) else 'ip6'}:{ip}" for ip in names.ips]
            caution = (
                "Whoever can send from these addresses passes SPF for the domain (the guide); public addresses only, "
                "although the guide's own example is a private one."
                if own
                else "No public static address is known (organization.egress.static_ips): without one in the record, "
                "this mail does not pass SPF and is taken for spam sooner."
            )
            return Spf(
                domain=domain,
                record=" ".join(["v=spf1", *own, include, "~all"]),
                notes=(_ONE_RECORD, caution),
            )
        case Option.AZURE_COMMUNICATION_SERVICES | Option.SPECIALISED_PROVIDER:
            return Spf(
                domain=domain,
                record=None,
                notes=("The portal shows the record, and DKIM's, when it verifies the domain.", _ONE_RECORD),
            )
        case Option.HIGH_VOLUME_EMAIL:
            return Spf(
                domain=domain,
                record=None,
                notes=(
                    "No record is needed: this mail stays inside Microsoft 365, where SPF is not asked (inferred).",
                ),
            )
        case _:
            return Spf(
                domain=domain,
                record=f"v=spf1 {include} -all",
                notes=(
                    (
                        "This mail leaves from Microsoft's addresses (inferred). Use ~all as long as another server sends "
                        "for the domain."
                    ),
                    _ONE_RECORD,
                ),
            )


# -- PowerShell and admin centres -------------------------------------------------------------


_MAY_STAY_OFF: Final = (
    "Get-TransportConfig | Format-List SmtpClientAuthenticationDisabled"
    "  # may stay True: the mailbox's own switch goes before it"
)


def _submission_by_oauth(names: Names) -> list[str]:
    return [
        _MAY_STAY_OFF,
        *oauth_commands(names.address, names.client_id),
        _send_as("<service principal id>"),
    ]


def _send_as(trustee: str) -> str:
    return (
        f"Add-RecipientPermission <other address> -AccessRights SendAs -Trustee {trustee}"
        "  # for each further sender"
    )


def _submission_by_password(names: Names) -> list[str]:
    user = quoted(names.address)
    return [
        _MAY_STAY_OFF,
        f"Set-CASMailbox -Identity {user} -SmtpClientAuthenticationDisabled $false",
        "New-AuthenticationPolicy -Name AllowSmtp -AllowBasicAuthSmtp",
        f"Set-User -Identity {user} -AuthenticationPolicy AllowSmtp",
        f"Set-User -Identity {user} -STSRefreshTokensValidFrom ([DateTime]::UtcNow)",
        _send_as(user),
    ]


def _direct_send(names: Names) -> list[str]:
    return [
        "Get-OrganizationConfig | Format-List RejectDirectSend  # has to be False",
        "Set-OrganizationConfig -RejectDirectSend $false  # only where it is True; takes up to 30 minutes",
    ]


def _relay_by_certificate(names: Names) -> list[str]:
    subject = quoted(f"*.{names.domain}" if names.domain else _DOMAIN)
    return [
        (
            'New-InboundConnector -Name "Postroom (certificate)" -ConnectorType OnPremises -SenderDomains * '
            f"-RequireTls $true -TlsSenderCertificateName {subject}"
        ),
        "Get-InboundConnector | Format-List Name,ConnectorType,Enabled,TlsSenderCertificateName",
    ]


def _relay_by_ip(names: Names) -> list[str]:
    # Connectors take IPv4 only, single addresses or /24 to /32.
    ips = ",".join(f"{ip}/32" for ip in names.ips if isinstance(ip, IPv4Address))
    return [
        (
            'New-InboundConnector -Name "Postroom (address)" -ConnectorType OnPremises -SenderDomains * '
            f"-SenderIPAddresses {ips or '<static public IPv4 address>'}"
        ),
        "Get-InboundConnector | Format-List Name,ConnectorType,Enabled,SenderIPAddresses",
    ]


def _high_volume(names: Names) -> list[str]:
    account = quoted(names.address)
    return [
        (
            f"New-MailUser -HVEAccount -Name {quoted(names.sender.local if names.sender else '<name>')} "
            f"-PrimarySmtpAddress {account} -Password (Read-Host -AsSecureString)"
        ),
        "Get-BillingPolicy -ResourceType HVE",
        f"Set-HVEAccountBillingPolicy -Identity {account} -BillingPolicyId <billing policy id>",
        f"Get-HVEAccountBillingPolicy -Identity {account}  # BillingPolicyValid",
        f"Add-HVEAppAccess -Identity {account} -AppIds <object id of the enterprise application>  # for OAuth only",
    ]


def _graph(names: Names) -> list[str]:
    return [
        (
            f"New-ServicePrincipal -AppId {names.client_id or '<client id>'} "
            "-ObjectId <object id of the enterprise application>"
        ),
        (
            "New-ManagementScope -Name Postroom -RecipientRestrictionFilter "
            f"\"MemberOfGroup -eq '<distinguished name of a group with {names.address.replace(chr(39), chr(39) * 2)}>'\""
        ),
        (
            "New-ManagementRoleAssignment -Role 'Application Mail.Send' "
            f"-App {names.client_id or '<client id>'} -CustomResourceScope Postroom"
        ),
    ]


def _none(names: Names) -> list[str]:
    return []


_POWERSHELL: Mapping[Option, Callable[[Names], list[str]]] = {
    Option.CLIENT_SUBMISSION_OAUTH: _submission_by_oauth,
    Option.CLIENT_SUBMISSION_BASIC: _submission_by_password,
    Option.DIRECT_SEND: _direct_send,
    Option.SMTP_RELAY_CERTIFICATE: _relay_by_certificate,
    Option.SMTP_RELAY_IP: _relay_by_ip,
    Option.HIGH_VOLUME_EMAIL: _high_volume,
    Option.AZURE_COMMUNICATION_SERVICES: _none,
    Option.GRAPH: _graph,
    Option.OWN_MAIL_SERVER: _none,
    Option.SPECIALISED_PROVIDER: _none,
}

_TEST: Final = (
    "Send a test message and see that it arrives (the guide's last step): `postroom send`, or "
    "`postroom check` without sending."
)


def _submission_centre(names: Names) -> list[str]:
    return [
        (
            f"Microsoft 365 admin center → Users → Active users → {names.address} → Mail → Manage email apps → "
            "Authenticated SMTP."
        ),
    ]


def _oauth_centre(names: Names) -> list[str]:
    return [*_submission_centre(names), REGISTER, _TEST]


def _password_centre(names: Names) -> list[str]:
    return [
        *_submission_centre(names),
        (
            "Entra admin center → Identity → Overview → Properties → Manage security defaults: off, with Conditional Access "
            f"in their place; leave {names.address} out of the policy that blocks legacy authentication."
        ),
        _TEST,
    ]


def _mx_centre(names: Names) -> list[str]:
    return [
        (
            f"Microsoft 365 admin center → Settings → Domains → {names.domain or _DOMAIN} → DNS records: note what the MX "
            "record points to."
        ),
        f"At the registrar of {names.domain or _DOMAIN}: put the SPF record into DNS.",
    ]


def _connector_centre(how: str) -> Callable[[Names], list[str]]:
    return lambda names: [
        *_mx_centre(names),
        (
            f"Microsoft 365 admin center → Settings → Domains: see that {names.domain or _DOMAIN} is verified; otherwise mail "
            "may get lost without a trace (the guide)."
        ),
        (
            "Exchange admin center → Mail flow → Connectors → Add a connector → from “Your organization's email server” to "
            f"“Office 365” → {how}."
        ),
        _TEST,
    ]


_ADMIN_CENTRE: Mapping[Option, Callable[[Names], list[str]]] = {
    Option.CLIENT_SUBMISSION_OAUTH: _oauth_centre,
    Option.CLIENT_SUBMISSION_BASIC: _password_centre,
    Option.DIRECT_SEND: lambda names: [*_mx_centre(names), _TEST],
    Option.SMTP_RELAY_CERTIFICATE: _connector_centre(
        "verify by the subject name on the certificate, which belongs to an accepted domain"
    ),
    Option.SMTP_RELAY_IP: _connector_centre(
        "verify by the sending server's IP address, and enter the static address"
    ),
    Option.HIGH_VOLUME_EMAIL: lambda _: [
        "Exchange admin center → Mail flow → High Volume Email: add the account and link a billing policy.",
        f"For OAuth instead of the account's password: {register('Mail.Send')}",
        _TEST,
    ],
    Option.AZURE_COMMUNICATION_SERVICES: lambda names: [
        "Azure portal: create a Communication Services and an Email Communication Services resource.",
        (
            f"Email resource → Provision domains: verify {names.domain or 'your domain'}, with its SPF and DKIM records; "
            "connect it to the Communication Services resource."
        ),
        "Entra admin center → App registrations: register an application and make a secret.",
        (
            "Communication Services resource → Access control (IAM): give the application the role “Communication and Email "
            "Service Owner”, or one of your own with Microsoft.Communication/CommunicationServices/Read, "
            "Microsoft.Communication/CommunicationServices/Write and Microsoft.Communication/EmailServices/write."
        ),
        (
            "For a short user name: Communication Services resource → SMTP Usernames: link one to the application, and write it "
            "as `username`."
        ),
        _TEST,
    ],
    Option.GRAPH: lambda _: [
        (
            "Entra admin center → App registrations → API permissions → Microsoft Graph → Mail.Send (application) → "
            "Grant admin consent; or only the scoped role of the PowerShell lines."
        ),
        "Graph is not a route of this version of Postroom.",
    ],
    Option.OWN_MAIL_SERVER: lambda _: [
        "On your mail server: let this host's address, or its login, relay; the settings are its administrator's.",
        "For the way from there to Microsoft 365, see `microsoft` in this answer. IIS SMTP is not supported (the guide).",
        _TEST,
    ],
    Option.SPECIALISED_PROVIDER: lambda _: [
        "Choose a provider for bulk mail, verify your domain there, and enter its host as a smarthost.",
        _TEST,
    ],
}


# -- what nobody could verify -----------------------------------------------------------------


def _unverified(option: Option, names: Names) -> list[str]:
    said = ["The PowerShell lines are composed from their documentation; none was run."]
    submission = {Option.CLIENT_SUBMISSION_OAUTH, Option.CLIENT_SUBMISSION_BASIC}
    mx = {Option.DIRECT_SEND, Option.SMTP_RELAY_CERTIFICATE, Option.SMTP_RELAY_IP}
    if option in submission:
        said.append(
            "What Microsoft answers to the 31st message of a minute (delay or refusal) is unverified."
        )
        said += cloud_marks(names.cloud)
    if option in mx:
        said.append("No number is published for the limits of direct send and relay.")
        if "spf_include" in CLOUDS[names.cloud].unverified:
            said.append("The SPF include of this cloud is known from one source.")
    if option is Option.SMTP_RELAY_CERTIFICATE:
        said.append("Whether the certificate needs the usage “client authentication” is unverified.")
    if option is Option.HIGH_VOLUME_EMAIL:
        said.append("How many accounts and connections a tenant may have is unverified.")
        if CLOUDS[names.cloud].high_volume is None:
            said.append("Whether High Volume Email is offered in this cloud is unverified.")
    if option is Option.CLIENT_SUBMISSION_BASIC:
        said.append("The day within December 2026 on which passwords go off by default is unverified.")
    return said


def cloud_marks(cloud: Cloud) -> list[str]:
    """Say what is not sure about the hosts of a national cloud."""
    said = {
        "submission_host": "The submission host of this cloud is known from one source, or sources differ; "
        "`host` can say another one.",
        "submission_scope": "The scope of access tokens in this cloud is known from one source, or sources differ.",
    }
    return [text for fact, text in said.items() if fact in CLOUDS[cloud].unverified]
