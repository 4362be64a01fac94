"""What is done in the admin centres and portals, way by way."""

from collections.abc import Callable, Mapping
from typing import Final

from service.routes.advice.names import DOMAIN, Names
from service.routes.advice.options import Option
from service.routes.advice.retirement import REGISTER, register

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
            f"Microsoft 365 admin center → Settings → Domains → {names.domain or DOMAIN} → DNS records: note what the MX "
            "record points to."
        ),
        f"At the registrar of {names.domain or DOMAIN}: put the SPF record into DNS.",
    ]


def _connector_centre(how: str) -> Callable[[Names], list[str]]:
    return lambda names: [
        *_mx_centre(names),
        (
            f"Microsoft 365 admin center → Settings → Domains: see that {names.domain or DOMAIN} is verified; otherwise mail "
            "may get lost without a trace (the guide)."
        ),
        (
            "Exchange admin center → Mail flow → Connectors → Add a connector → from “Your organization's email server” to "
            f"“Office 365” → {how}."
        ),
        _TEST,
    ]


#: The steps of each way, from the names that are known.
CENTRES: Mapping[Option, Callable[[Names], list[str]]] = {
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
