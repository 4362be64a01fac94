"""What must hold between settings: the rules of Microsoft's guide, and those of common sense.

"The guide" is Microsoft's article "How to set up a multifunction device or application to send
email using Microsoft 365 or Office 365". A mistake stops the start. Each is one line that names
the setting, the rule and the remedy. What is allowed and will surprise someone stands in
`cautions.py`.

The rules look at what could be read: where one route is broken, the others are still judged,
so that all mistakes are seen at once.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Address, IPv6Address, ip_network
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from service.routes.certificates import (
    BadCertificate,
    check_application_certificate,
    check_client_certificate,
    read_authorities,
)
from service.routes.kinds import CLOUDS, MICROSOFT_DOMAINS, MX_DOMAINS, Cloud, Domains, is_below
from service.routes.route import RouteKind
from service.settings.build import (
    SANDBOX,
    certificate_of,
    host_of,
    kind_of,
    login_of,
    mailboxes_of,
    mx_of,
    rights_of,
    tls_of,
)
from service.settings.route_shapes import (
    AzureCommunicationServices,
    ClientSubmission,
    DirectSend,
    HighVolumeEmail,
    Mailbox,
    MailboxPassword,
    OAuth,
    RouteShape,
    Smarthost,
    SmtpRelay,
)
from service.settings.shapes import (
    ConsoleShape,
    Dispatch,
    EntraShape,
    Organization,
    SandboxShape,
    WebhooksShape,
)
from service.settings.values import Names, is_address
from service.smtp.peer import TlsMode

_ROUTE: TypeAdapter[RouteShape] = TypeAdapter(RouteShape)
_ORDER: TypeAdapter[tuple[str, ...] | None] = TypeAdapter(Names | None)

_Read = TypeVar("_Read")

_GUID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_DOCUMENTATION = tuple(map(ip_network, ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")))  # RFC 5737
# The last two are resources below /routes.
_RESERVED = frozenset({"auto", SANDBOX, "compare", "recommend"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The settings that could be read, by themselves; what could not is left out."""

    organization: Organization
    entra: EntraShape
    routes: Mapping[int, RouteShape]  # by their place in the list
    route_order: tuple[str, ...] | None
    dispatch: Dispatch
    sandbox: SandboxShape
    webhooks: WebhooksShape
    console: ConsoleShape
    unread: frozenset[
        str
    ]  # which of the above could not be read, or not wholly: what is missing there may be given


def readable(values: Mapping[str, object]) -> Parts:
    """Read each part by itself, so that a mistake in one does not hide those in the others."""
    unread: set[str] = set()
    return Parts(
        organization=_read("organization", TypeAdapter(Organization), values, unread) or Organization(),
        entra=_read("entra", TypeAdapter(EntraShape), values, unread) or EntraShape(),
        routes=_read_routes(values.get("routes"), unread),
        route_order=_read("route_order", _ORDER, values, unread),
        dispatch=_read("dispatch", TypeAdapter(Dispatch), values, unread) or Dispatch(),
        sandbox=_read("sandbox", TypeAdapter(SandboxShape), values, unread) or SandboxShape(),
        webhooks=_read("webhooks", TypeAdapter(WebhooksShape), values, unread) or WebhooksShape(),
        console=_read("console", TypeAdapter(ConsoleShape), values, unread) or ConsoleShape(),
        unread=frozenset(unread),
    )


def _read(
    name: str, shape: TypeAdapter[_Read], values: Mapping[str, object], unread: set[str]
) -> _Read | None:
    if values.get(name) is None:
        return None
    try:
        return shape.validate_python(values[name])
    except ValidationError:
        unread.add(name)
        return None


def _read_routes(listed: object, unread: set[str]) -> dict[int, RouteShape]:
    routes: dict[int, RouteShape] = {}
    for index, given in enumerate(listed if isinstance(listed, list) else []):
        try:
            routes[index] = _ROUTE.validate_python(given)
        except ValidationError:
            unread.add("routes")
    return routes


def mistakes(parts: Parts, *, now: datetime) -> Iterator[str]:
    """List every rule that is broken; `now` is for the dates of certificates."""
    for index, shape in parts.routes.items():
        for line in _broken(shape, parts, now):
            yield f"routes[{index}].{line}"
    yield from _names(parts)
    yield from _mailbox_twice(parts.routes)
    yield from _order(parts)
    yield from _sandbox(parts.sandbox)
    yield from _ca_file("entra.ca_file", parts.entra.ca_file)
    yield from _ca_file("webhooks.ca_file", parts.webhooks.ca_file)
    yield from _entra_api(parts)
    yield from _console(parts)
    if parts.dispatch.retry.first > parts.dispatch.retry.cap:
        yield "dispatch.retry.first: is longer than dispatch.retry.cap. Raise cap or lower first."


def _broken(shape: RouteShape, parts: Parts, now: datetime) -> Iterator[str]:
    yield from _host(shape, parts)
    yield from _port(shape)
    yield from _tls(shape, parts)
    yield from _domains(shape, parts)
    yield from _mailboxes(shape)
    yield from _high_volume(shape, parts)
    yield from _azure(shape)
    yield from _oauth(shape, parts, now)
    yield from _relay(shape, parts)
    yield from _direct_send(shape, parts)
    yield from _certificate(shape, parts, now)
    yield from _ca_file("ca_file", shape.ca_file)


def _host(shape: RouteShape, parts: Parts) -> Iterator[str]:
    host = host_of(shape, parts.entra.cloud)
    if isinstance(shape, DirectSend | SmtpRelay) and shape.host and shape.mx_of:
        yield "mx_of: host is given too. Keep one of the two."
    if host is None:
        either = "host or mx_of" if isinstance(shape, DirectSend | SmtpRelay) else "host"
        yield f"host: is missing, and a {shape.kind} route has no usual one. Set {either}."
    elif kind_of(shape).microsoft and is_address(host):
        yield (
            "host: is an IP address, and Microsoft's addresses change without notice (the guide). "
            "Set the name; connect_to may have an address."
        )
    else:
        yield from _endpoint(shape, host)
    if isinstance(shape, DirectSend | SmtpRelay) and shape.allow_private and mx_of(shape) is None:
        yield "allow_private: is about the host that mx_of finds, and there is no mx_of. Remove it."


def _endpoint(shape: RouteShape, host: str) -> Iterator[str]:
    """See that a route does not lead to the endpoint of another kind."""
    submission = {facts.submission_host for facts in CLOUDS.values()} | {"smtp.outlook.com"}
    if isinstance(shape, DirectSend | SmtpRelay) and host in submission:
        yield (
            f"host: is the endpoint of client submission, and {shape.kind} goes to the tenant's MX (the guide). "
            "Set mx_of, or host as the MX record has it."
        )
    if isinstance(shape, Smarthost) and host in submission and shape.login is None:
        yield "host: is the endpoint of client submission, which takes nothing without a login. Use kind: client_submission."
    if isinstance(shape, ClientSubmission) and is_below(host, MX_DOMAINS):
        yield (
            "host: is an MX endpoint, which takes no logins. Remove host, or use kind: direct_send or smtp_relay."
        )


def _port(shape: RouteShape) -> Iterator[str]:
    kind = kind_of(shape)
    if shape.port is None or kind.ports is None or shape.port in kind.ports:
        return
    ports = " or ".join(str(port) for port in sorted(kind.ports, reverse=True))
    reason = (
        "465 is for TLS from the first octet, which Microsoft 365 does not offer: it wants STARTTLS"
        if shape.port == 465
        else f"a {shape.kind} route uses port {ports} (the guide)"
    )
    yield f"port: {reason}. Set {ports}; connect_to may have any port."


def _tls(shape: RouteShape, parts: Parts) -> Iterator[str]:
    kind, tls = kind_of(shape), tls_of(shape)
    modes = kind.tls_modes
    if TlsMode.OPPORTUNISTIC in modes and not _is_microsoft(shape, parts.entra.cloud):
        modes |= {TlsMode.NONE}  # an endpoint of one's own, such as a sandbox
    if tls is not TlsMode.REQUIRED and (secret := _secret_of(shape)):
        remedy = "Set required" + (", or remove login." if TlsMode.OPPORTUNISTIC in modes else ".")
        yield f"tls: {tls} would let the {secret} go out unprotected; Postroom logs in over TLS only. {remedy}"
    elif tls not in modes:
        yield f"tls: {tls} is not possible with {shape.kind} at this host. Set {' or '.join(sorted(modes))}."
    elif tls is not TlsMode.REQUIRED and certificate_of(shape) and not isinstance(shape, DirectSend):
        yield f"tls: {tls} would let the client certificate go unused. Set required, or remove client_certificate."


def _secret_of(shape: RouteShape) -> str | None:
    """Say what a route proves itself with in its login; None where it has none."""
    if login_of(shape) is not None:
        return "password of login"
    if not mailboxes_of(shape):
        return None
    return f"logins of {list_name(shape)}"


def _is_microsoft(shape: RouteShape, cloud: Cloud) -> bool:
    """Say whether Microsoft answers there; what an MX record of the tenant names is taken for Microsoft's."""
    if isinstance(shape, DirectSend | SmtpRelay) and mx_of(shape) is not None:
        return shape.connect_to is None and not shape.allow_private
    return is_below(host_of(shape, cloud) or "", MICROSOFT_DOMAINS)


def _domains(shape: RouteShape, parts: Parts) -> Iterator[str]:
    kind = kind_of(shape)
    needs = Domains.ACCEPTED in {kind.senders, kind.recipients}
    own = getattr(shape, "sender_domains", None) is not None and kind.recipients is not Domains.ACCEPTED
    if needs and not own and not parts.organization.accepted_domains and "organization" not in parts.unread:
        yield f"kind: {shape.kind} sends for the accepted domains only. Set organization.accepted_domains."


def _mailboxes(shape: RouteShape) -> Iterator[str]:
    if kind_of(shape).senders is Domains.ACCOUNT and not mailboxes_of(shape):
        yield f"{list_name(shape)}: is empty, so nobody could send. Add one."
    seen: set[str] = set()
    for index, mailbox in enumerate(mailboxes_of(shape)):
        if mailbox.address.key in seen:
            yield f"{list_name(shape)}[{index}].address: the mailbox is there twice. Keep one, with all of send_as."
        seen.add(mailbox.address.key)


def _mailbox_twice(routes: Mapping[int, RouteShape]) -> Iterator[str]:
    """See that no two lanes log in to one mailbox: Microsoft counts them together, we count each lane."""
    seen: dict[str, tuple[int, int]] = {}
    for index, shape in routes.items():
        for number, mailbox in enumerate(mailboxes_of(shape) if shape.enabled else ()):
            first = seen.setdefault(_logged_in(mailbox), (index, number))
            same_address = first[0] == index and (
                mailboxes_of(shape)[first[1]].address.key == mailbox.address.key
            )
            if first != (index, number) and not same_address:  # said by `_mailboxes` otherwise
                place = f"routes[{first[0]}].{list_name(routes[first[0]])}[{first[1]}]"
                yield (
                    f"routes[{index}].{list_name(shape)}[{number}]: {place} logs in to this mailbox, too. Microsoft "
                    "counts both together, so the limits of neither would hold. Keep it in one place."
                )


def _logged_in(mailbox: Mailbox) -> str:
    login = mailbox.login
    name = login.username if isinstance(login, MailboxPassword) else None
    return name.casefold() if name else mailbox.address.key


def _high_volume(shape: RouteShape, parts: Parts) -> Iterator[str]:
    if not isinstance(shape, HighVolumeEmail):
        return
    if CLOUDS[parts.entra.cloud].high_volume is False and "entra" not in parts.unread:
        yield "kind: High Volume Email is not offered in the China cloud. Use client_submission or smtp_relay."
    for index, account in enumerate(shape.accounts):
        if account.send_as:
            yield (
                f"accounts[{index}].send_as: an account of High Volume Email sends as itself only (5.7.62). Remove it."
            )


def _azure(shape: RouteShape) -> Iterator[str]:
    if not isinstance(shape, AzureCommunicationServices) or "|" not in shape.login.username:
        return  # without a bar it is the name of an SMTP username resource
    parts = shape.login.username.split("|")
    if len(parts) != 3 or not all(part.strip() for part in parts):
        yield (
            "login.username: has three parts, the resource's name, the application's id and the directory's id, with | "
            "between them: resource|application|tenant. Correct it, or use the name of an SMTP username resource."
        )


def list_name(shape: RouteShape) -> str:
    """Say what the list of a route's mailboxes is called."""
    return "accounts" if shape.kind is RouteKind.HIGH_VOLUME_EMAIL else "mailboxes"


def _oauth(shape: RouteShape, parts: Parts, now: datetime) -> Iterator[str]:
    for index, mailbox in enumerate(mailboxes_of(shape)):
        place = f"{list_name(shape)}[{index}].login"
        if not isinstance(mailbox.login, OAuth):
            continue
        if parts.entra.tenant_id is None and "entra" not in parts.unread:
            yield f"{place}: OAuth needs to know the directory. Set entra.tenant_id."
        if mailbox.login.certificate_file and mailbox.login.private_key_file:
            try:
                check_application_certificate(
                    mailbox.login.certificate_file, mailbox.login.private_key_file, now=now
                )
            except BadCertificate as bad:
                yield f"{place}.{bad.field}: {bad}"


def _relay(shape: RouteShape, parts: Parts) -> Iterator[str]:
    if not isinstance(shape, SmtpRelay):
        return
    if shape.authenticate_by == "certificate" and shape.client_certificate is None:
        yield "client_certificate: is missing, and authenticate_by says certificate. Set it, or authenticate_by: ip."
    if shape.authenticate_by == "ip" and shape.client_certificate is not None:
        yield "client_certificate: is given, but authenticate_by says ip. Remove it, or set authenticate_by: certificate."
    if shape.authenticate_by == "ip" and "organization" not in parts.unread:
        yield from _relay_by_ip(parts.organization)


def _relay_by_ip(organization: Organization) -> Iterator[str]:
    egress = organization.egress
    if not any(is_public_ipv4(ip) for ip in egress.static_ips):
        yield (
            "authenticate_by: ip needs a static public IPv4 address that is this organisation's alone (the guide). "
            "Set organization.egress.static_ips, or use a certificate."
        )
    if egress.hosting not in {None, "own_static_ip"}:
        yield (
            f"authenticate_by: ip does not work from {egress.hosting}, whose addresses others have too (the guide). "
            "Use a certificate."
        )


def is_public_ipv4(ip: IPv4Address | IPv6Address) -> bool:
    """Say whether a connector can know us by this address: it has to be a public IPv4."""
    # What is set aside for documentation stands for a public address
    # wherever someone tries things out.
    return ip.version == 4 and (ip.is_global or any(ip in network for network in _DOCUMENTATION))


def _direct_send(shape: RouteShape, parts: Parts) -> Iterator[str]:
    if isinstance(shape, DirectSend) and shape.client_certificate is not None:
        yield (
            "client_certificate: direct send must not match a connector (the guide). "
            "Remove it, or use kind: smtp_relay."
        )
    mx = mx_of(shape)
    if (
        mx is not None
        and mx not in parts.organization.accepted_domains
        and "organization" not in parts.unread
    ):
        yield "mx_of: is not one of organization.accepted_domains. Add it there, or correct it."


def _certificate(shape: RouteShape, parts: Parts, now: datetime) -> Iterator[str]:
    certificate = certificate_of(shape)
    if certificate is None or isinstance(shape, DirectSend):
        return
    relay = isinstance(shape, SmtpRelay)
    try:
        check_client_certificate(
            certificate.certificate_file,
            certificate.private_key_file or certificate.certificate_file,
            ca_file=shape.ca_file,
            # A connector finds its tenant by these; another mail server has its own idea.
            domains=parts.organization.accepted_domains
            if relay and "organization" not in parts.unread
            else None,
            now=now,
        )
    except BadCertificate as bad:
        yield f"client_certificate.{bad.field}: {bad}"


def _ca_file(setting: str, path: Path | None) -> Iterator[str]:
    try:
        if path is not None:
            read_authorities(path)
    except BadCertificate as bad:
        yield f"{setting}: {bad}"


def _names(parts: Parts) -> Iterator[str]:
    seen: set[str] = set()
    for index, shape in parts.routes.items():
        if shape.name in _RESERVED:
            yield f"routes[{index}].name: {shape.name} has a meaning of its own. Choose another name."
        if shape.name in seen:
            yield f"routes[{index}].name: another route has it too. Choose another name."
        seen.add(shape.name)


def _order(parts: Parts) -> Iterator[str]:
    names = {shape.name for shape in parts.routes.values()}
    order = parts.route_order or ()
    for index, name in enumerate(order):
        if name not in names and "routes" not in parts.unread:
            yield f"route_order[{index}]: there is no route of that name. Correct it, or add the route."
        if name in order[:index]:
            yield f"route_order[{index}]: the route is there twice. Keep one."


def _sandbox(sandbox: SandboxShape) -> Iterator[str]:
    if sandbox.login and sandbox.tls is not TlsMode.REQUIRED:
        yield "sandbox.tls: a login needs TLS. Set required, or remove sandbox.login."
    yield from _ca_file("sandbox.ca_file", sandbox.ca_file)


def _console(parts: Parts) -> Iterator[str]:
    signs_in = parts.console.entra is not None
    if signs_in and not _GUID.fullmatch(parts.entra.tenant_id or "") and "entra" not in parts.unread:
        yield (
            "entra.tenant_id: the answers to a sign-in name their directory by its id. "
            "Write the id (a GUID), not a domain, or remove console.entra."
        )


def _entra_api(parts: Parts) -> Iterator[str]:
    api = parts.entra.api
    if api.audience and not _GUID.fullmatch(parts.entra.tenant_id or "") and "entra" not in parts.unread:
        yield (
            "entra.tenant_id: access tokens name their directory by its id. "
            "Write the id (a GUID), not a domain, or remove entra.api.audience."
        )
    if not api.applications:
        return
    # Imported here: the ledger's room takes its time, and few commands need it.
    from service.ledger import rights

    routes = {shape.name for shape in parts.routes.values()} | {SANDBOX}
    ids = [application.client_id.lower() for application in api.applications]
    for index, application in enumerate(api.applications):
        place = f"entra.api.applications[{index}]"
        if ids[index] in ids[:index]:
            yield f"{place}.client_id: the application is there twice. Keep one."
        try:
            rights.read(rights_of(application), routes=routes)
        except rights.BadRights as bad:
            for mistake in bad.mistakes:
                if mistake.code != "unknown_route" or "routes" not in parts.unread:
                    entry = "" if mistake.index is None else f"[{mistake.index}]"
                    yield f"{place}.{mistake.member}{entry}: {mistake.detail}"
