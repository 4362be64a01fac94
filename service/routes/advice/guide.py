"""The guide's table of settings for a way: host, port, TLS, login, sender."""

from collections.abc import Callable, Mapping

from service.routes.advice.names import Names
from service.routes.advice.options import Option
from service.routes.kinds import CLOUDS, KINDS
from service.routes.route import RouteKind


def settings(option: Option, names: Names) -> list[tuple[str, str]]:
    """Give each setting with its value, in the guide's order."""
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
