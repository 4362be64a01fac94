"""A message and its ledger entry on a screen, for people.

Everything here comes from the API's answers: the message, its attempts, the transcripts. What an answer
does not have is left out. Text that a peer wrote is shown without control characters, so that no server
can write to the terminal.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

BOLD, DIM, RED, GREEN, YELLOW = "1", "2", "31", "32", "33"
STATUS_COLOURS = {"sent": GREEN, "delivered": GREEN, "failed": RED, "bounced": RED, "expired": RED}
LABEL_WIDTH = 12
_GLANCE = 300  # characters of a reply; Exchange Online writes some of 2,000

Json = Mapping[str, Any]


def report(message: Json, attempts: Sequence[Json], dialogues: Mapping[str, str], *, colour: bool) -> str:
    """Write a message with all of its attempts; `dialogues` are transcripts as text by attempt id."""
    pen = _Pen(colour)
    lines = [*_message(message, pen)]
    for attempt in attempts:
        lines += ["", *_attempt(attempt, pen), *_dialogue(dialogues.get(attempt["id"], ""), pen)]
    return "\n".join(lines)


class _Pen:
    """Escape sequences, or none."""

    def __init__(self, colour: bool) -> None:
        self._colour = colour

    def __call__(self, text: str, *styles: str) -> str:
        return f"\033[{';'.join(styles)}m{text}\033[0m" if self._colour and styles else text

    def status(self, status: str | None) -> str:
        word = status or "running"
        return self(word, BOLD, STATUS_COLOURS.get(word, YELLOW))

    def row(self, label: str, text: object) -> Iterator[str]:
        if text not in (None, ""):
            yield f"  {self(label.ljust(LABEL_WIDTH), DIM)}{printable(str(text))}"


def _message(message: Json, pen: _Pen) -> Iterator[str]:
    yield f"{pen(message['id'], BOLD)}  {pen.status(message['status'])}"
    sender = message["from"]
    yield from pen.row("subject", message.get("subject"))
    yield from pen.row(
        "from", f"{sender['name']} <{sender['email']}>" if sender.get("name") else sender["email"]
    )
    for recipient in message["recipients"]:
        yield from pen.row(recipient["type"], f"{recipient['email']}  {recipient['status']}")
    yield from pen.row("lane", message.get("lane"))
    yield from pen.row("accepted", f"{_clock(message['created_at'])}, {_octets(message.get('size'))}")
    yield from _error(message.get("last_error"), pen)


def _attempt(attempt: Json, pen: _Pen) -> Iterator[str]:
    title = pen(f"Attempt {attempt['number']}", BOLD)
    yield f"{title}  {pen.status(attempt['outcome'])}  {_span(attempt)}"
    session = attempt.get("session") or {}
    yield from pen.row("peer", _peer(session))
    yield from pen.row("TLS", _tls(session.get("tls") or {}))
    yield from pen.row("certificate", _certificate((session.get("tls") or {}).get("certificate") or {}))
    login = session.get("login") or {}
    yield from pen.row("login", _joined(login.get("method"), login.get("identity"), by=" as "))
    for recipient in attempt["recipients"]:
        yield from pen.row("RCPT", f"{recipient['email']}  {_reply(recipient.get('reply'))}")
    yield from pen.row("reply", _reply(attempt.get("reply")))
    yield from pen.row("content", f"{_octets(attempt.get('size'))}, SHA-256 {attempt.get('sha256')}")
    yield from _error(attempt.get("error"), pen)


def _error(error: Json | None, pen: _Pen) -> Iterator[str]:
    if not error:
        return
    diagnosis = error.get("diagnosis") or {}
    yield from pen.row("error", _joined(error.get("code"), diagnosis.get("title"), by=": "))
    yield from pen.row("", diagnosis.get("explanation"))
    for remedy in diagnosis.get("remedy") or ():
        yield from pen.row("remedy", remedy)


def _dialogue(text: str, pen: _Pen) -> Iterator[str]:
    for line in text.splitlines():
        yield pen(f"  │ {printable(line)}", DIM)


def _peer(session: Json) -> str:
    name = _joined(session.get("host"), session.get("port"), by=":")
    return f"{name} at {session['peer_address']}" if name and session.get("peer_address") else name


def _tls(tls: Json) -> str:
    verified = "" if tls.get("verified", True) else "not verified"
    return _joined(tls.get("version"), tls.get("cipher"), verified, by="  ")


def _certificate(certificate: Json) -> str:
    until = certificate.get("not_after")
    issuer = certificate.get("issuer")
    return _joined(
        certificate.get("subject"),
        f"from {issuer}" if issuer else "",
        f"until {str(until)[:10]}" if until else "",
        by=", ",
    )


def _reply(reply: Json | None) -> str:
    if not reply:
        return "no reply"
    return shortened(_joined(reply.get("code"), reply.get("enhanced"), reply.get("text"), by=" "))


def shortened(text: str) -> str:
    """Cut the middle out of what does not fit a glance; the transcript has all of it."""
    if len(text) <= _GLANCE:
        return text
    return f"{text[: _GLANCE * 2 // 3]} … {text[-_GLANCE // 3 :]}"


def _span(attempt: Json) -> str:
    began, ended = attempt.get("started_at"), attempt.get("ended_at")
    if not began or not ended:
        return f"since {_clock(began)}" if began else ""
    seconds = (datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds()
    return f"{_clock(began)}, {seconds:.2f} s"


def _clock(moment: str) -> str:
    return f"{datetime.fromisoformat(moment):%Y-%m-%d %H:%M:%S} UTC"


def _octets(size: int | None) -> str:
    return f"{size:,} octets" if size is not None else ""


def _joined(*parts: object, by: str) -> str:
    return by.join(str(part) for part in _given(parts))


def _given(parts: Iterable[object]) -> Iterator[object]:
    return (part for part in parts if part not in (None, ""))


def printable(text: str) -> str:
    """Put everything on one line, without a character that a terminal would act upon."""
    return "".join(character if character.isprintable() else "·" for character in text.replace("\n", " / "))
