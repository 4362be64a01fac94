"""Certificates and secrets of a route: are they in order, and when do they end?

Files are read again at each check, so that what was renewed on disk is seen without a restart, and
what was broken after the start is found before the next handshake.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, time
from pathlib import Path
from typing import TYPE_CHECKING

from service.routes.certificates import (
    BadCertificate,
    check_application_certificate,
    check_client_certificate,
    read_authorities,
)
from service.routes.preflight.expiry import Ending
from service.routes.preflight.steps import Step, fail, ok, warn
from service.routes.route import BasicLogin, OAuthLogin, Route, RouteKind

if TYPE_CHECKING:
    from cryptography import x509

#: So many days before its end a certificate or secret makes its step a warning.
SOON = 14


def steps(route: Route, *, accepted_domains: Sequence[str], now: datetime) -> Iterator[Step]:
    """Look at what the route presents: its client certificate, its applications' certificates and secrets."""
    peer = route.peer
    if peer.client_certificate is not None:
        yield _client_certificate(route, accepted_domains=accepted_domains, now=now)
    for lane in route.lanes():
        login = lane.login
        if isinstance(login, OAuthLogin) and login.certificate and login.private_key:
            yield _application_certificate(login.certificate, login.private_key, lane=lane.name, now=now)
        if login is not None and login.client_secret_expires is not None:
            yield _secret(login, lane=lane.name, now=now)


def endings(route: Route) -> Iterator[Ending]:
    """List what of the route ends some day; a file that cannot be read has no end here."""
    peer = route.peer
    if peer.client_certificate is not None:
        yield from _of_file(
            peer.client_certificate,
            subject=f"client_certificate:{route.name}",
            route=route.name,
            what=f"the client certificate of route {route.name}",
            remedy="Renew it in good time with the same name, and put the new one, with its chain, into its file. "
            "A connector goes on as long as the certificate's name stays.",
        )
    for lane in route.lanes():
        login = lane.login
        if isinstance(login, OAuthLogin) and login.certificate is not None:
            yield from _of_file(
                login.certificate,
                subject=f"application_certificate:{login.client_id}",
                route=route.name,
                what=f"the certificate of the application {login.client_id}",
                remedy="Make a new one, upload it (Entra ID, App registrations, Certificates & secrets), then replace "
                "the files.",
            )
        if login is not None and login.client_secret_expires is not None:
            name = login.client_id if isinstance(login, OAuthLogin) else lane.name
            yield Ending(
                subject=f"client_secret:{name}",
                route=route.name,
                what=f"the client secret of {name}",
                ends_at=_end_of(login),
                remedy="Make a new one (Entra ID, App registrations, the application, Certificates & secrets), set it in "
                "the login, and set client_secret_expires to its end.",
            )


def of_peer(route: Route, found: Sequence[Step]) -> Iterator[Ending]:
    """Find the end of the peer's own certificate in the steps of a check."""
    for step in found:
        if step.name == "peer_certificate" and step.facts.get("not_after") and step.facts.get("verified"):
            host = step.facts.get("host", route.peer.host)
            owner = (
                "Nobody has to act as long as Microsoft renews it, which it does."
                if route.kind is not RouteKind.SMARTHOST
                else f"Renew the certificate of {host}."
            )
            yield Ending(
                subject=f"peer_certificate:{host}",
                route=route.name,
                what=f"the certificate of {host}",
                ends_at=datetime.fromisoformat(str(step.facts["not_after"])),
                remedy=owner,
            )


def _client_certificate(route: Route, *, accepted_domains: Sequence[str], now: datetime) -> Step:
    peer, name = route.peer, "client_certificate"
    assert peer.client_certificate is not None
    try:
        check_client_certificate(
            peer.client_certificate,
            peer.client_key or peer.client_certificate,
            ca_file=peer.ca_file,
            domains=accepted_domains if route.kind is RouteKind.SMTP_RELAY else None,
            now=now,
        )
        leaf = read_authorities(peer.client_certificate)[0]
    except BadCertificate as bad:
        return _broken(name, bad)
    return _in_date(name, leaf, now=now, what="Our certificate is in order, its chain is complete")


def _application_certificate(certificate: Path, key: Path, *, lane: str, now: datetime) -> Step:
    name = "application_certificate"
    try:
        check_application_certificate(certificate, key, now=now)
        leaf = read_authorities(certificate)[0]
    except BadCertificate as bad:
        return _broken(name, bad, lane=lane)
    return _in_date(name, leaf, now=now, what="The application's certificate is in order", lane=lane)


def _broken(name: str, bad: BadCertificate, *, lane: str | None = None) -> Step:
    """The text of a BadCertificate ends with its remedy: the last sentence."""
    said = f"{bad.field} {bad}"
    detail, _, remedy = said.rstrip(".").rpartition(". ")
    return fail(name, f"{detail or said}.", f"{remedy}.", lane=lane)


def _in_date(
    name: str, leaf: "x509.Certificate", *, now: datetime, what: str, lane: str | None = None
) -> Step:
    ends_at = leaf.not_valid_after_utc
    days = (ends_at - now).days
    names = certificate_names(leaf)
    facts = {"names": names, "not_after": ends_at.isoformat(), "days_left": days}
    detail = f"{what}; for {', '.join(names) or 'no name'}, {days} days left (until {ends_at:%Y-%m-%d})."
    if days <= SOON:
        return warn(name, detail, "Renew it now.", lane=lane, **facts)
    return ok(name, detail, lane=lane, **facts)


def certificate_names(certificate: "x509.Certificate") -> list[str]:
    """List the common name and the DNS names of a certificate, each once."""
    from cryptography import x509

    subject = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    names = [str(attribute.value) for attribute in subject]
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names += extension.value.get_values_for_type(x509.DNSName)
    except (x509.ExtensionNotFound, ValueError):
        pass
    return list(dict.fromkeys(names))[:50]


def _secret(login: OAuthLogin | BasicLogin, *, lane: str, now: datetime) -> Step:
    ends_at = _end_of(login)
    days = (ends_at - now).days
    detail = (
        f"The client secret has {days} days left (until {ends_at:%Y-%m-%d}, as client_secret_expires says)."
    )
    remedy = (
        "Make a new secret (Entra ID, App registrations, Certificates & secrets) and set it in the login."
    )
    facts = {"not_after": ends_at.isoformat(), "days_left": days}
    if ends_at <= now:
        gone = f"The client secret ended at {ends_at:%Y-%m-%d}, as client_secret_expires says."
        return warn("client_secret", gone, remedy, lane=lane, **facts)
    if days <= SOON:
        return warn("client_secret", detail, remedy, lane=lane, **facts)
    return ok("client_secret", detail, lane=lane, **facts)


def _end_of(login: OAuthLogin | BasicLogin) -> datetime:
    """A date means its beginning, in UTC: whoever renews a day early has lost nothing."""
    assert login.client_secret_expires is not None
    return datetime.combine(login.client_secret_expires, time(), UTC)


def _of_file(path: Path, *, subject: str, route: str, what: str, remedy: str) -> Iterator[Ending]:
    try:
        leaf = read_authorities(path)[0]
    except BadCertificate:
        return
    yield Ending(subject=subject, route=route, what=what, ends_at=leaf.not_valid_after_utc, remedy=remedy)
