"""What is allowed and will surprise someone: one line each, that names the setting and what to do.

They are logged at the start and shown by `config show`. What Microsoft does not say itself, or
says in one place only, is told as "unverified". The rules that stop a start are in `rules.py`.
"""

from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

from service.routes.certificates import (
    BadCertificate,
    Presented,
    check_application_certificate,
    check_client_certificate,
)
from service.routes.kinds import (
    ACS_MANAGED_LIMITS,
    CLOUDS,
    HIGH_VOLUME_SCOPE,
    MICROSOFT_DOMAINS,
    MX_DOMAINS,
    Cloud,
    is_below,
)
from service.routes.route import COUNT_EXTERNAL, Limits
from service.settings.build import (
    certificate_of,
    default_limits,
    external_budget,
    host_of,
    kind_of,
    limits_of,
    login_of,
    mailboxes_of,
)
from service.settings.route_shapes import (
    ApplicationPassword,
    AzureCommunicationServices,
    ClientSubmission,
    DirectSend,
    HighVolumeEmail,
    MailboxPassword,
    OAuth,
    RouteShape,
    SmtpRelay,
)
from service.settings.rules import Parts, is_public_ipv4, list_name

SOON = timedelta(days=60)  # before its end a certificate or secret is spoken of

BASIC_LOGIN = (
    "basic login: Microsoft switches it off by default at the end of December 2026 (an administrator can allow it "
    "again), tenants created after that do not have it, and the date of its end is announced in the second half of "
    "2027. Change to method: oauth."
)
_BASIC_LOGIN_OF_HIGH_VOLUME = (
    "basic login: High Volume Email goes on taking passwords after 2026; until when is unverified (an earlier "
    "announcement named 2028). Change to method: oauth where that is possible."
)
_HOSTS = {
    "smtp-hve.office365.com": "is the old name of High Volume Email, which Microsoft gives up. Remove host.",
    "smtp-legacy.office365.com": "is Microsoft's endpoint for TLS 1.0 and 1.1, which we do not use. Remove host.",
    "smtp-legacy.partner.outlook.cn": "is Microsoft's endpoint for TLS 1.0 and 1.1, which we do not use. Remove host.",
}


def cautions(parts: Parts, *, now: datetime) -> Iterator[str]:
    """List what is allowed but will surprise someone; `now` is for what ends some day."""
    if not parts.routes:
        yield "routes: there is none, so every message will be refused with no_route. Add a route."
    for index, shape in parts.routes.items():
        for line in (
            *_passwords(shape),
            *_everybody(shape, parts),
            *_mailbox_domains(shape, parts),
            *_hosts(shape, parts),
            *_scopes(shape, parts),
            *_azure_ids(shape),
            *_above_microsoft(shape),
            *_endings(shape, parts, now),
        ):
            yield f"routes[{index}].{line}"
    yield from _same_connector(parts)
    yield from _same_peer(parts)
    yield from _addresses(parts)
    yield from _budget(parts)


def _passwords(shape: RouteShape) -> Iterator[str]:
    text = _BASIC_LOGIN_OF_HIGH_VOLUME if isinstance(shape, HighVolumeEmail) else BASIC_LOGIN
    for index, mailbox in enumerate(mailboxes_of(shape)):
        if isinstance(mailbox.login, MailboxPassword):
            yield f"{list_name(shape)}[{index}].login: {text}"


def _everybody(shape: RouteShape, parts: Parts) -> Iterator[str]:
    everybody = {"*", *(f"*@{domain}" for domain in parts.organization.accepted_domains)}
    for index, mailbox in enumerate(mailboxes_of(shape)):
        if not everybody.isdisjoint(mailbox.send_as):
            yield (
                f"{list_name(shape)}[{index}].send_as: one mailbox with Send As for everybody is not supported by "
                "Microsoft (the guide). Name the addresses, or use smtp_relay."
            )


def _mailbox_domains(shape: RouteShape, parts: Parts) -> Iterator[str]:
    domains = parts.organization.accepted_domains
    for index, mailbox in enumerate(mailboxes_of(shape)):
        place = f"{list_name(shape)}[{index}].address"
        if domains and mailbox.address.domain not in domains:
            yield (
                f"{place}: its domain is not in organization.accepted_domains. Add it there, or correct the address."
            )
        if isinstance(shape, ClientSubmission) and is_below(mailbox.address.domain, ("onmicrosoft.com",)):
            yield (
                f"{place}: a sender in onmicrosoft.com has at most 100 external recipients in 24 hours for the whole "
                "organisation (550 5.7.236). Use an address of a domain of one's own."
            )


def _hosts(shape: RouteShape, parts: Parts) -> Iterator[str]:
    cloud = parts.entra.cloud
    if shape.host in _HOSTS:
        yield f"host: {_HOSTS[shape.host]}"
    facts = CLOUDS[cloud]
    if isinstance(shape, ClientSubmission) and shape.host is None and "submission_host" in facts.unverified:
        yield (
            f"host: that {facts.submission_host} is the endpoint of the {cloud} cloud is unverified (one source, or "
            "sources that disagree). Ask Microsoft, and set host."
        )
    if isinstance(shape, DirectSend | SmtpRelay) and shape.host and not _known(shape, MX_DOMAINS):
        yield (
            "host: is none of Microsoft's MX endpoints. Set mx_of instead, or host as the MX record of an accepted "
            "domain has it."
        )
    if isinstance(shape, ClientSubmission | HighVolumeEmail | AzureCommunicationServices) and (
        shape.host and not _known(shape, MICROSOFT_DOMAINS)
    ):
        yield "host: is none of Microsoft's endpoints. Remove host, or correct it."
    of_another = [
        other
        for other in Cloud
        if isinstance(shape, ClientSubmission)
        and other is not cloud
        and shape.host == CLOUDS[other].submission_host
    ]
    if of_another:
        yield f"host: is the endpoint of the {of_another[0]} cloud, and entra.cloud says {cloud}. Correct one of them."
    if isinstance(shape, HighVolumeEmail) and facts.high_volume is None:
        yield f"kind: whether High Volume Email is offered in the {cloud} cloud is unverified. Ask Microsoft before you rely on it."


def _known(shape: RouteShape, domains: tuple[str, ...]) -> bool:
    """Say whether the host lies there; who names an endpoint to dial instead knows what they do."""
    return shape.connect_to is not None or is_below(shape.host or "", domains)


def _scopes(shape: RouteShape, parts: Parts) -> Iterator[str]:
    facts = CLOUDS[parts.entra.cloud]
    for index, mailbox in enumerate(mailboxes_of(shape)):
        if not isinstance(mailbox.login, OAuth) or mailbox.login.scope is not None:
            continue
        place = f"{list_name(shape)}[{index}].login"
        if isinstance(shape, HighVolumeEmail):
            yield (
                f"{place}: that tokens for High Volume Email have the scope {HIGH_VOLUME_SCOPE} is unverified (one "
                "source). Set scope where Microsoft names another."
            )
        elif "submission_scope" in facts.unverified:
            yield (
                f"{place}: that tokens of the {parts.entra.cloud} cloud have the scope {facts.submission_scope} is "
                "unverified (sources disagree). Set scope where Microsoft names another."
            )


def _azure_ids(shape: RouteShape) -> Iterator[str]:
    if not isinstance(shape, AzureCommunicationServices):
        return
    ids = shape.login.username.split("|")[1:]
    if ids and not all(len(part.strip()) == 36 and part.count("-") == 4 for part in ids):
        yield (
            "login.username: its second part is the application's id and its third the directory's id, and they do not "
            "look like ids (00000000-0000-0000-0000-000000000000). Look at their order."
        )


def _above_microsoft(shape: RouteShape) -> Iterator[str]:
    caps = _caps(shape)
    own = asdict(limits_of(shape.limits, default_limits(shape)))
    for name, cap in asdict(caps).items():
        if cap is not None and (own[name] is None or own[name] > cap):
            of = "for a mailbox" if isinstance(shape, ClientSubmission) else f"on {shape.kind} routes"
            yield f"limits.{name}: Microsoft's limit is {cap:,} {of}; what is above it will be refused. Lower it."


def _caps(shape: RouteShape) -> Limits:
    defaults = default_limits(shape)
    return defaults if defaults is ACS_MANAGED_LIMITS else kind_of(shape).caps


def _endings(shape: RouteShape, parts: Parts, now: datetime) -> Iterator[str]:
    """Say what of a route's certificates and secrets ends soon; what is broken stopped the start."""
    presented = _presented(shape, parts, now)
    if presented is not None:
        yield from _ends(
            "client_certificate.certificate_file: the certificate or its chain", presented.ends_at, now
        )
        if isinstance(shape, SmtpRelay) and _to_microsoft(shape, parts) and not presented.public:
            yield (
                "client_certificate.certificate_file: its chain ends in ca_file, and Microsoft takes certificates of "
                "public authorities only. Get one from such an authority."
            )
        if not presented.for_clients:
            yield (
                "client_certificate.certificate_file: it does not say that a client may use it (extended key usage); "
                "whether Exchange Online minds is unverified. Get one with client authentication if it is refused."
            )
    for index, mailbox in enumerate(mailboxes_of(shape)):
        if isinstance(mailbox.login, OAuth):
            yield from _application_ends(mailbox.login, f"{list_name(shape)}[{index}].login", now)
    login = login_of(shape)
    if isinstance(login, ApplicationPassword) and login.client_secret_expires is not None:
        ends = datetime.combine(login.client_secret_expires, time(), UTC)
        yield from _ends("login.client_secret_expires: the secret", ends, now)


def _application_ends(login: OAuth, place: str, now: datetime) -> Iterator[str]:
    if login.client_secret_expires is not None:
        ends = datetime.combine(login.client_secret_expires, time(), UTC)
        yield from _ends(f"{place}.client_secret_expires: the secret", ends, now)
    if login.certificate_file is not None and login.private_key_file is not None:
        try:
            ends = check_application_certificate(login.certificate_file, login.private_key_file, now=now)
        except BadCertificate:
            return
        yield from _ends(f"{place}.certificate_file: the certificate", ends, now)


def _ends(what: str, ends_at: datetime, now: datetime) -> Iterator[str]:
    days = (ends_at - now) // timedelta(days=1)
    if ends_at <= now:
        yield f"{what} ended on {ends_at:%Y-%m-%d}. Renew it, and say so here."
    elif ends_at - now <= SOON:
        yield f"{what} ends on {ends_at:%Y-%m-%d}, in {days} days. Renew it before."


def _presented(shape: RouteShape, parts: Parts, now: datetime) -> Presented | None:
    certificate = certificate_of(shape)
    if certificate is None or isinstance(shape, DirectSend):
        return None
    key: Path = certificate.private_key_file or certificate.certificate_file
    try:
        return check_client_certificate(
            certificate.certificate_file, key, ca_file=shape.ca_file, domains=None, now=now
        )
    except BadCertificate:
        return None


def _to_microsoft(shape: RouteShape, parts: Parts) -> bool:
    host = host_of(shape, parts.entra.cloud) or ""
    return shape.connect_to is None and is_below(host, MICROSOFT_DOMAINS)


def _same_connector(parts: Parts) -> Iterator[str]:
    """Say where Microsoft would take direct send for relay, because a connector knows the address."""
    relays = [
        index
        for index, shape in parts.routes.items()
        if isinstance(shape, SmtpRelay) and shape.authenticate_by == "ip" and shape.enabled
    ]
    for index, shape in parts.routes.items():
        if isinstance(shape, DirectSend) and shape.enabled and relays:
            yield (
                f"routes[{index}].kind: direct send must never match a connector (the guide), and its connections come "
                f"from the addresses by which the connector of routes[{relays[0]}] knows us: Microsoft takes this mail "
                "for relay. Disable one of the two routes, or let relay authenticate by certificate."
            )


def _same_peer(parts: Parts) -> Iterator[str]:
    """Say where two routes are one to Microsoft, which counts them together."""
    seen: dict[tuple[object, ...], int] = {}
    for index, shape in parts.routes.items():
        identity = _identity(shape, parts)
        if identity is None or not shape.enabled:
            continue
        first = seen.setdefault(identity, index)
        if first != index:
            yield (
                f"routes[{index}].host: routes[{first}] leads there in the same way. Microsoft counts both together, "
                "we count each route. Keep one."
            )


def _identity(shape: RouteShape, parts: Parts) -> tuple[object, ...] | None:
    """Give what Microsoft knows a route by; None where it is known by its mailboxes, or is not Microsoft's."""
    host = host_of(shape, parts.entra.cloud)
    match shape:
        case DirectSend():
            return shape.kind, host
        case SmtpRelay():
            certificate = shape.client_certificate
            return shape.kind, host, shape.authenticate_by, certificate and certificate.certificate_file
        case AzureCommunicationServices():
            return shape.kind, shape.login.username.split("|")[0].casefold()
        case _:
            return None


def _addresses(parts: Parts) -> Iterator[str]:
    for index, ip in enumerate(parts.organization.egress.static_ips):
        if not is_public_ipv4(ip):
            yield (
                f"organization.egress.static_ips[{index}]: is no public IPv4 address, so neither a connector nor an SPF "
                "record can name it. Give the address that the internet sees."
            )


def _budget(parts: Parts) -> Iterator[str]:
    counts = any(shape.enabled and shape.kind in COUNT_EXTERNAL for shape in parts.routes.values())
    if counts and external_budget(parts.organization) is None and "organization" not in parts.unread:
        yield (
            "organization.licences: is not set, so the tenant's limit of external recipients in 24 hours is not kept, "
            "and Microsoft will refuse what is above it (5.7.233). Set the number of paid licences."
        )
    if parts.organization.trial and parts.organization.external_recipients_per_day is None:
        yield (
            "organization.trial: a trial tenant has 5,000 external recipients in 24 hours; that it is 500 since "
            "September 2026 is unverified (one source). Set external_recipients_per_day where Microsoft shows another "
            "number."
        )
