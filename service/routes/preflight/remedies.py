"""What to do about names, connections, STARTTLS and certificates, where no peer said why.

The catalogue of diagnoses explains what Microsoft answers. Before there is an answer, the remedy
depends on the host, the port and the way there; these are written here, by the code of the fault.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from service.routes.kinds import KINDS
from service.routes.route import Route, RouteKind
from service.routes.tokens import Entra
from service.smtp.faults import SmtpFault

_PORT_25 = (
    "Port 25 is closed outbound at most hosters and clouds (Azure, AWS and Google among them) and on many office "
    "lines: ask yours to open it. Client submission uses 587, which is open nearly everywhere."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the connection goes, in the words of the configuration."""

    route: Route
    host: str  # the peer's name
    dialled: str  # host:port, or what connect_to says
    tenant_id: str = ""
    address: str | None = None  # ours, as the peer sees it

    @property
    def port(self) -> int:
        return self.route.peer.port

    @property
    def microsoft(self) -> bool:
        return KINDS[self.route.kind].microsoft

    @property
    def setting(self) -> str:
        """Which setting names the place."""
        if self.route.peer.connect_to:
            return "connect_to"
        return "mx_of" if self.route.mx_of else "host"


def for_fault(fault: SmtpFault, place: Place) -> tuple[str, ...]:
    """Say what to do about a fault without a reply; empty where this module knows nothing."""
    write = _BY_CODE.get(fault.code)
    return () if write is None else write(place, fault)


_Writer = Callable[[Place, SmtpFault], tuple[str, ...]]


def _unknown_name(place: Place, _: SmtpFault) -> tuple[str, ...]:
    name = place.route.peer.connect_to[0] if place.route.peer.connect_to else place.host
    own = _own_host(place)
    return (
        f"Correct routes[{place.route.name}].{place.setting}: {name} has no address in DNS.{own}",
        (
            f"If the name is right, ask from this machine: nslookup {name}. Inside a network of its own, a resolver may not "
            "know the internet's names."
        ),
    )


def _own_host(place: Place) -> str:
    if place.route.peer.connect_to:
        return ""
    if place.route.kind is RouteKind.CLIENT_SUBMISSION:
        return " The usual host is smtp.office365.com: leave `host` out."
    if place.route.kind in {RouteKind.DIRECT_SEND, RouteKind.SMTP_RELAY}:
        return (
            " The right one is the MX record that the Microsoft 365 admin center shows (Settings, Domains); "
            "`mx_of` reads it from DNS."
        )
    return ""


def _resolver(place: Place, _: SmtpFault) -> tuple[str, ...]:
    return (
        (
            f"Nobody answered this machine's question for {place.host}: look after its DNS (/etc/resolv.conf; in Kubernetes "
            "dnsPolicy and network policies for port 53), or set dns.nameservers."
        ),
    )


def _refused(place: Place, _: SmtpFault) -> tuple[str, ...]:
    if place.route.peer.connect_to:
        return (f"Nothing listens at {place.dialled}: start what belongs there, or correct connect_to.",)
    if place.microsoft:
        return (
            (
                f"Microsoft 365 does not refuse connections to port {place.port}: a firewall or proxy in between does. "
                f"Allow outbound TCP to {place.host}:{place.port}."
            ),
            *_closed_port(place),
        )
    return (
        f"Nothing listens at {place.dialled}: start the mail server, or correct `host` and `port` of the route.",
    )


def _no_answer(place: Place, _: SmtpFault) -> tuple[str, ...]:
    return (
        f"A firewall drops the packets: allow outbound TCP from this machine to {place.dialled}.",
        *_closed_port(place),
    )


def _closed_port(place: Place) -> tuple[str, ...]:
    if place.port == 25:
        return (_PORT_25,)
    if place.port == 465:
        return ("Microsoft 365 does not offer port 465: set port 587.",)
    return ()


def _silent(place: Place, _: SmtpFault) -> tuple[str, ...]:
    if place.port == 465:
        return (
            "Port 465 waits for TLS from the first octet, and STARTTLS is spoken here: set port 587, or 25.",
        )
    return (
        (
            f"Something took the connection to {place.dialled} and says nothing: a proxy or an inspecting firewall that "
            "cannot reach the server behind it, or a server under load. Try again; then look at what is in between."
        ),
    )


def _lost(place: Place, _: SmtpFault) -> tuple[str, ...]:
    return (
        (
            f"The connection to {place.dialled} was closed in the middle: a firewall that inspects SMTP, a port that wants "
            "TLS from the first octet (465), or a server that ends. Compare with another network."
        ),
    )


def no_starttls(place: Place) -> tuple[str, ...]:
    """Say what to do where STARTTLS is missing in the peer's list."""
    if place.microsoft:
        return (
            (
                "Microsoft 365 always offers STARTTLS: a firewall in between takes it out (Cisco's `inspect esmtp` and "
                f"similar). Switch SMTP inspection off for {place.host}:{place.port}."
            ),
        )
    return (
        f"Switch STARTTLS on at {place.host}, or set `tls: opportunistic` where nothing secret is sent there.",
    )


def _handshake(place: Place, fault: SmtpFault) -> tuple[str, ...]:
    if "version" in fault.detail or "protocol" in fault.detail:
        return (f"{place.host} has no TLS 1.2 or newer: bring it up to date. Postroom uses nothing older.",)
    if place.route.peer.client_certificate:
        return (
            (
                "The peer may have refused our client certificate: send its full chain (certificate first, then the "
                "authorities in between), from a public authority, in date."
            ),
            (
                f"See it as the peer does: openssl s_client -starttls smtp -connect {place.dialled} "
                f"-cert {place.route.peer.client_certificate}"
            ),
        )
    return (
        f"See what breaks: openssl s_client -starttls smtp -connect {place.dialled} -servername {place.host}",
    )


def _certificate(place: Place, fault: SmtpFault) -> tuple[str, ...]:
    said = fault.detail.lower()
    if "hostname mismatch" in said or "ip address mismatch" in said:
        return (
            (
                f"Set `host` of route {place.route.name} to a name that the certificate has, and `connect_to` to where it is "
                f"dialled; or give {place.host} a certificate with this name."
            ),
        )
    if "expired" in said:
        return (
            f"Renew the certificate of {place.host}. If it is in date elsewhere, set this machine's clock.",
        )
    if "not yet valid" in said:
        return ("Set this machine's clock: the certificate is not valid yet by it.",)
    if place.route.peer.ca_file:
        return (
            (
                f"The authority that issued it is not in ca_file ({place.route.peer.ca_file.name}), and with ca_file no other "
                "is trusted: add its certificate there, or remove ca_file for a public one."
            ),
        )
    if place.microsoft:
        return (
            (
                "Microsoft's certificates are from public authorities: a firewall that breaks TLS open is in between. Take "
                f"{place.host} out of its inspection."
            ),
            "If the machine has no authorities at all: install ca-certificates.",
        )
    return (
        (
            f"Set ca_file of route {place.route.name} to the certificate of the authority that issued it (PEM), or give "
            f"{place.host} one from a public authority with its full chain."
        ),
    )


def _files(place: Place, _: SmtpFault) -> tuple[str, ...]:
    return (
        f"Correct ca_file and client_certificate of route {place.route.name}: PEM files that this process may read.",
    )


def _mx_missing(place: Place, _: SmtpFault) -> tuple[str, ...]:
    return (
        (
            f"Publish the MX record of {place.route.mx_of} that the Microsoft 365 admin center shows (Settings, Domains), "
            "or set `host` on the route."
        ),
    )


def _mx_private(place: Place, _: SmtpFault) -> tuple[str, ...]:
    return (
        "This machine's DNS gives an inside answer: set dns.nameservers to one that gives the public one.",
        f"Where that is meant (a sandbox): allow_private: true on route {place.route.name}, or connect_to.",
    )


_BY_CODE: Mapping[str, _Writer] = {
    "name_not_found": _unknown_name,
    "resolver_failed": _resolver,
    "resolve_timeout": _resolver,
    "mx_missing": _mx_missing,
    "mx_null": _mx_missing,
    "mx_private": _mx_private,
    "connection_refused": _refused,
    "connect_timeout": _no_answer,
    "network_unreachable": _no_answer,
    "connect_failed": _no_answer,
    "timeout": _silent,
    "connection_lost": _lost,
    "starttls_not_offered": lambda place, _: no_starttls(place),
    "tls_handshake_failed": _handshake,
    "certificate_invalid": _certificate,
    "tls_files_unusable": _files,
}


def password(username: str) -> tuple[str, ...]:
    """Say what to do about a password that was refused without a reason."""
    return (
        (
            f"Log in as {username} by hand (https://outlook.office.com). If that works, set the password in the login again "
            "(password or password_file); otherwise have it reset."
        ),
        f"Get-CASMailbox {username} | fl SmtpClientAuthenticationDisabled",
    )


def for_token(code: str | None, *, client_id: str, entra: Entra) -> tuple[str, ...]:
    """Say what to do about a token that Entra ID refused, by Microsoft's code; empty for an unknown one."""
    write = _BY_AADSTS.get(code or "")
    return () if write is None else write(client_id, entra)


def _secret(client_id: str, _: Entra) -> tuple[str, ...]:
    return (
        (
            f"Set client_secret (or client_secret_file) of the login to the secret's *value*, not its id: Entra ID, App "
            f"registrations, {client_id}, Certificates & secrets."
        ),
        "A secret is shown once: where nobody has it any more, make a new one there.",
    )


def _expired_secret(client_id: str, _: Entra) -> tuple[str, ...]:
    return (
        (
            f"The secret's time is over: make a new one (Entra ID, App registrations, {client_id}, Certificates & secrets) "
            "and set it in the login, with its end in client_secret_expires."
        ),
    )


def _tenant(_: str, entra: Entra) -> tuple[str, ...]:
    return (
        (
            f"Set entra.tenant_id to the Directory (tenant) ID (Entra ID, Overview); {entra.tenant_id} is none that "
            f"{entra.authority} knows."
        ),
        "If the id is right, the tenant is in another cloud: set entra.cloud.",
    )


def _application(client_id: str, entra: Entra) -> tuple[str, ...]:
    return (
        (
            f"There is no application {client_id} in the tenant {entra.tenant_id}: set client_id to the Application (client) "
            "ID (Entra ID, App registrations, Overview), not an object id; or set entra.tenant_id to its directory."
        ),
    )


def _assertion(client_id: str, _: Entra) -> tuple[str, ...]:
    return (
        (
            f"Upload the certificate of certificate_file: Entra ID, App registrations, {client_id}, Certificates & secrets, "
            "Certificates. If it is there, set this machine's clock."
        ),
    )


_BY_AADSTS: Mapping[str, Callable[[str, Entra], tuple[str, ...]]] = {
    "AADSTS7000215": _secret,
    "AADSTS7000222": _expired_secret,
    "AADSTS90002": _tenant,
    "AADSTS900023": _tenant,
    "no_directory": _tenant,
    "AADSTS700016": _application,
    "AADSTS700027": _assertion,
}
