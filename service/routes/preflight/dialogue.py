"""From what is known of a session to the steps of a check.

`open_session` goes through connect, greeting, EHLO, STARTTLS, TLS and login, and keeps what it
learns. So the steps are read out of its facts: what lies before the phase in which it broke went
well, that phase failed, and what lies behind it was not tried.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address
from typing import Any

from service.mail.address import Address
from service.routes import diagnoses
from service.routes.diagnoses import Class, Diagnosis
from service.routes.internet import is_public
from service.routes.preflight import remedies
from service.routes.preflight.papers import SOON
from service.routes.preflight.remedies import Place
from service.routes.preflight.steps import Status, Step, fail, ok, skip, warn
from service.routes.route import BasicLogin, Lane, OAuthLogin
from service.smtp.faults import SmtpFault
from service.smtp.opening import SessionFacts, extensions_of
from service.smtp.peer import TlsMode
from service.smtp.phase import Phase
from service.smtp.reply import Reply
from service.smtp.session import Report

NETWORK = ("connect", "greeting", "ehlo", "starttls", "tls", "peer_certificate")

_OUR_ADDRESS = re.compile(r"\[(?:IPv6:)?([0-9A-Fa-f.:]{2,45})\]")
_PHASE_OF = {
    Phase.CONNECT: "connect",
    Phase.GREETING: "greeting",
    Phase.EHLO: "ehlo",
    Phase.STARTTLS: "starttls",
    Phase.AUTH: "auth",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """How far the opening of a session came."""

    facts: SessionFacts | None
    fault: SmtpFault | None  # None: it is open
    place: Place
    presented: Mapping[str, Any] | None = None  # the certificate of a peer that was not trusted

    @property
    def broke_at(self) -> str | None:
        """The step in which it broke; None where it did not."""
        if self.fault is None:
            return None
        if self.fault.code in {"certificate_invalid", "tls_handshake_failed", "tls_files_unusable"}:
            return "peer_certificate" if self.fault.code == "certificate_invalid" else "tls"
        return _PHASE_OF.get(self.fault.phase, "connect")


def network_steps(opened: Opened, *, now: datetime) -> Iterator[Step]:
    """Tell the way from the connection to the peer's certificate."""
    broke = opened.broke_at
    for name in NETWORK:
        if name == broke:
            assert opened.fault is not None
            yield fault_step(name, opened.fault, opened)
            yield from (
                skip(each, f"Not tried: {name} failed.") for each in NETWORK[NETWORK.index(name) + 1 :]
            )
            return
        assert opened.facts is not None, "a session that got beyond its name has facts"
        yield _WENT_WELL[name](opened.facts, opened.place, now)


def fault_step(name: str, fault: SmtpFault, opened: Opened, *, lane: Lane | None = None) -> Step:
    """Explain a fault: by the catalogue where the peer spoke, by our own remedies where it did not."""
    if fault.reply is not None and fault.reply.code >= 400:
        return refusal(name, fault.reply, fault.phase, opened.place, lane=lane)
    diagnosis = diagnoses.of_code(fault.code)
    names = _names(opened.place, lane)
    remedy = remedies.for_fault(fault, opened.place) or _remedy(diagnosis, names)
    detail = fault.detail + _presented(opened.presented)
    return Step(
        name=name,
        status=Status.FAIL,
        detail=detail,
        remedy=remedy,
        lane=lane.name if lane else None,
        facts={"code": fault.code} | ({"presented": dict(opened.presented)} if opened.presented else {}),
        diagnosis=None if diagnosis.code == "internal" else diagnosis.id,
    )


def refusal(
    name: str,
    reply: Reply,
    phase: Phase,
    place: Place,
    *,
    lane: Lane | None,
    sender: Address | None = None,
    recipient: Address | None = None,
) -> Step:
    """Explain a refusal with the catalogue of diagnoses, the real names filled in."""
    diagnosis = diagnoses.of_reply(reply, phase, place.route.kind)
    written = diagnosis.as_json(_names(place, lane, sender=sender, recipient=recipient))
    return Step(
        name=name,
        status=_status(diagnosis),
        detail=f"{reply}\n{written['title']}: {written['explanation']}",
        remedy=_listed(written["remedy"]),
        lane=lane.name if lane else None,
        facts={"reply": reply.as_json(), "class": diagnosis.kind.value, "who": diagnosis.who},
        diagnosis=diagnosis.id,
    )


def auth_step(opened: Opened, lane: Lane) -> Step:
    """Tell how the login went."""
    if lane.login is None:
        return skip("auth", "This route has no login.", lane=lane.name)
    if opened.fault is None:
        login = opened.facts.login if opened.facts else None
        assert login is not None, "a session with a login is open only when it was accepted"
        method = {"login": "LOGIN", "xoauth2": "XOAUTH2"}.get(login["method"], login["method"])
        return ok(
            "auth",
            f"AUTH {method} was accepted for {login['identity']}.",
            lane=lane.name,
            method=login["method"],
        )
    if opened.broke_at != "auth":
        return skip("auth", f"Not tried: {opened.broke_at} failed.", lane=lane.name)
    return fault_step("auth", opened.fault, opened, lane=lane)


def rehearsal_steps(
    report: Report, place: Place, *, lane: Lane, sender: Address, recipient: Address, usable: bool
) -> Iterator[Step]:
    """Tell how MAIL, RCPT and RSET went."""
    at = lane.name
    if report.mail is None:
        assert report.fault is not None
        yield fault_step("mail", report.fault, Opened(facts=None, fault=report.fault, place=place), lane=lane)
    elif not report.mail.positive():
        yield refusal("mail", report.mail, Phase.MAIL, place, lane=lane, sender=sender, recipient=recipient)
    else:
        yield ok("mail", f"MAIL FROM:<{sender}> was accepted: {report.mail}", lane=at)
    yield _rcpt(report, place, lane=lane, sender=sender, recipient=recipient)
    if report.mail is not None and report.mail.positive() and usable:
        yield ok("rset", "RSET was accepted: nothing was sent.", lane=at)
    elif report.recipients:
        yield warn(
            "rset",
            "The session ended at RSET; nothing was sent.",
            "Nobody has to act: Postroom opens another session.",
            lane=at,
        )
    else:
        yield skip("rset", "There was nothing to take back.", lane=at)


def _rcpt(report: Report, place: Place, *, lane: Lane, sender: Address, recipient: Address) -> Step:
    reply = report.recipients.get(recipient)
    if reply is None:
        if report.mail is not None and report.mail.positive() and report.fault is not None:
            broken = Opened(facts=None, fault=report.fault, place=place)
            return fault_step("rcpt", report.fault, broken, lane=lane)
        return skip("rcpt", "Not tried: mail failed.", lane=lane.name)
    if reply.positive():
        return ok("rcpt", f"RCPT TO:<{recipient}> was accepted: {reply}", lane=lane.name)
    step = refusal("rcpt", reply, Phase.RCPT, place, lane=lane, sender=sender, recipient=recipient)
    if step.facts["class"] != Class.PR:
        return step
    # The route works: it is this address that the peer does not know.
    ask = f"Check with an address that exists: postroom check --route {place.route.name} --to <address>"
    return Step(
        name="rcpt",
        status=Status.WARN,
        detail=step.detail,
        remedy=(ask, *step.remedy),
        lane=step.lane,
        facts=step.facts,
        diagnosis=step.diagnosis,
    )


def _status(diagnosis: Diagnosis) -> Status:
    """What passes by itself is a warning; what somebody has to mend is a failure."""
    return Status.WARN if diagnosis.kind in {Class.T1, Class.T2} else Status.FAIL


def _remedy(diagnosis: Diagnosis, names: Mapping[str, str]) -> tuple[str, ...]:
    return _listed(diagnosis.as_json(names)["remedy"])


def _listed(remedy: object) -> tuple[str, ...]:
    assert isinstance(remedy, list)
    return tuple(map(str, remedy))


def _names(
    place: Place, lane: Lane | None, *, sender: Address | None = None, recipient: Address | None = None
) -> dict[str, str]:
    """Say what the remedies call by name; what is not known is left out, and shows as `<name>`."""
    login = lane.login if lane else place.route.login
    mailbox = place.route.name
    if lane and lane.account:
        mailbox = str(lane.account.address)
    elif isinstance(login, BasicLogin):
        mailbox = login.username
    names = {
        "mailbox": mailbox,
        "sender": str(sender) if sender else mailbox,
        "domain": (str(sender) if sender else mailbox).rpartition("@")[2],
        "recipient": str(recipient) if recipient else "",
        "host": place.host,
        "route": place.route.name,
        "tenant_id": place.tenant_id,
        "address": place.address or "",
        "application_id": login.client_id if isinstance(login, OAuthLogin) else "",
        "login": "password" if isinstance(login, BasicLogin) else "",
    }
    return {name: value for name, value in names.items() if value}


def _presented(certificate: Mapping[str, Any] | None) -> str:
    if not certificate:
        return ""
    names = ", ".join(certificate.get("names") or []) or certificate.get("subject") or "no name"
    return (
        f" It presented a certificate for {names}, issued by {certificate.get('issuer')}, "
        f"valid until {str(certificate.get('not_after'))[:10]}."
    )


# -- what a session that got further says ---------------------------------------------------------


def _connect(facts: SessionFacts, place: Place, _: datetime) -> Step:
    seconds = _seconds_to_connect(facts)
    took = "" if seconds is None else f" in {seconds * 1000:.0f} ms"
    return ok(
        "connect",
        f"Connected to {facts.peer_address} from {facts.local_address}{took}.",
        peer_address=facts.peer_address,
        local_address=facts.local_address,
        seconds=seconds,
    )


def _seconds_to_connect(facts: SessionFacts) -> float | None:
    for entry in facts.transcript:
        if entry["phase"] == Phase.CONNECT.word and entry["text"].startswith("(connected to"):
            return round((datetime.fromisoformat(entry["at"]) - facts.opened_at).total_seconds(), 4)
    return None


def _greeting(facts: SessionFacts, _: Place, __: datetime) -> Step:
    return ok("greeting", facts.greeting or "(empty)", greeting=facts.greeting)


def _ehlo(facts: SessionFacts, place: Place, _: datetime) -> Step:
    extensions = extensions_of(facts.ehlo[1:])
    ours = our_address(facts)
    seen = f" The peer sees us as {ours}." if ours else ""
    listed = ", ".join(f"{name} {value}".strip() for name, value in extensions.items()) or "no extension"
    return ok("ehlo", f"It offers {listed}.{seen}", extensions=extensions, our_address=ours)


def our_address(facts: SessionFacts) -> str | None:
    """Read our own address as the peer sees it: Microsoft answers EHLO with `Hello [203.0.113.10]`."""
    found = _OUR_ADDRESS.search(facts.ehlo[0]) if facts.ehlo else None
    try:
        return None if found is None else str(ip_address(found[1]))
    except ValueError:
        return None


def _starttls(facts: SessionFacts, place: Place, _: datetime) -> Step:
    if place.route.peer.tls is TlsMode.NONE:
        return skip("starttls", "The route says tls: none.")
    offered = facts.tls is not None or "STARTTLS" in extensions_of(facts.ehlo[1:])
    if not offered:
        detail = "STARTTLS is not offered; the mail would go in clear text."
        return warn("starttls", detail, *remedies.no_starttls(place))
    if facts.tls is None and place.route.peer.tls is TlsMode.OPPORTUNISTIC:
        detail = "STARTTLS is offered, and was refused; the mail would go in clear text."
        return warn(
            "starttls", detail, f"Mend TLS at {place.host}, or set `tls: required` to send nothing meanwhile."
        )
    return ok("starttls", "STARTTLS was offered and accepted.")


def _tls(facts: SessionFacts, place: Place, _: datetime) -> Step:
    if facts.tls is None:
        return skip("tls", "No TLS came about in this session.")
    version, cipher = facts.tls["version"], facts.tls["cipher"]
    return ok("tls", f"{version} with {cipher}.", version=version, cipher=cipher)


def _peer_certificate(facts: SessionFacts, place: Place, now: datetime) -> Step:
    name = "peer_certificate"
    certificate = facts.tls.get("certificate") if facts.tls else None
    if facts.tls is None or not isinstance(certificate, Mapping):
        return skip(name, "This session has no certificate.")
    verified = bool(facts.tls["verified"])
    names, ends_at = certificate["names"], certificate["not_after"]
    days = (datetime.fromisoformat(ends_at) - now).days if ends_at else None
    authorities = place.route.peer.ca_file.name if place.route.peer.ca_file else "the system's authorities"
    judged = (
        f"The chain leads to {authorities} and the name is {place.host}"
        if verified
        else "Noted and not judged (tls: opportunistic)"
    )
    detail = f"{judged}; for {', '.join(names[:6]) or 'no name'}, {days} days left."
    seen = {"host": place.host, "verified": verified, "days_left": days, **certificate}
    if days is not None and days <= SOON:
        return warn(name, detail, _renewal(place), **seen)
    return ok(name, detail, **seen)


def _renewal(place: Place) -> str:
    if place.microsoft:
        return f"Microsoft renews the certificate of {place.host}: nobody has to act yet."
    return f"Renew the certificate of {place.host} now."


_WENT_WELL = {
    "connect": _connect,
    "greeting": _greeting,
    "ehlo": _ehlo,
    "starttls": _starttls,
    "tls": _tls,
    "peer_certificate": _peer_certificate,
}


def egress_step(facts: SessionFacts | None, static_ips: tuple[str, ...], *, relay_by_ip: bool) -> Step | None:
    """Compare the address that the peer sees with the configured ones; None where nothing can be said."""
    ours = our_address(facts) if facts is not None else None
    if ours is None or not static_ips:
        return None
    if ours in static_ips:
        return ok(
            "egress", f"The peer sees us as {ours}, one of organization.egress.static_ips.", address=ours
        )
    if not is_public(ours):
        return skip("egress", f"The peer sees us as {ours}, from inside: the public address is not known.")
    detail = f"The peer sees us as {ours}, which is not one of organization.egress.static_ips ({', '.join(static_ips)})."
    remedy = (
        (
            f"Route outbound mail over {static_ips[0]}, or correct organization.egress.static_ips, the SPF records and the "
            f"connector (SenderIPAddresses) to {ours}."
        ),
    )
    return (fail if relay_by_ip else warn)("egress", detail, *remedy, address=ours)
