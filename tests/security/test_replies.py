"""What a peer says comes into logs, answers and terminals as text: it ends no line, and moves no cursor."""

import base64
import contextlib
import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from service.smtp.reply import readable
from service.telemetry import logs
from tests.house import a_house, smarthost
from tests.peer import ScriptedPeer

#: Behind it stands what somebody would like to be read as a line of its own.
FORGED = "2026-01-01T00:00:00Z [info] message.accepted"

#: A reply as it is on the wire; of each at least one control would do something where it is shown.
SAID = (
    b"550 5.1.1 \x1b[2J\x1b]0;pwned\x07\x1b[31m" + FORGED.encode() + b"\r\n",
    b"550 5.1.1 x\r" + FORGED.encode() + b"\r\n",
    b"550 5.1.1 x\x00\x08\x08\x7f" + FORGED.encode() + b"\r\n",
    b"550 5.1.1 \xc2\x9b2J\xe2\x80\xae\xe2\x80\xa8" + FORGED.encode() + b"\r\n",
    b"550-5.1.1 x\r\n550-5.1.1 " + FORGED.encode() + b"\r\n550 5.1.1 X-Forged: yes\r\n",
    b"550 5.1.1 <script>alert(1)</script>{{7*7}}%s%n${jndi:ldap://x}\r\n",
    b"550 5.1.1 \xff\xfe\xed\xa0\x80\r\n",
)
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


@pytest.mark.parametrize("form", ["json", "console"])
async def test_a_reply_is_text_wherever_it_is_shown(
    form: str, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """In the message, the attempt, the transcript, the explanation and the feed, in headers, and in both forms of logs."""
    with logged(form) as said:
        shown = await _everywhere(form, database_url, redis_url, tmp_path)

    assert any(FORGED in text for text in shown), "it was there to be seen"
    assert not [text for text in shown if CONTROLS.search(text)]
    assert "attempt.closed" in said.getvalue()
    for line in said.getvalue().split("\n"):
        assert not CONTROLS.search(line), ascii(line)
        assert not line.startswith(FORGED)
        assert form == "console" or not line.startswith("{") or json.loads(line)


async def _everywhere(form: str, database_url: str, redis_url: str, folder: Path) -> list[str]:
    """Have each reply said, and return every text that is shown of it."""
    async with (
        ScriptedPeer() as peer,
        a_house(
            database_url, redis_url, routes=[smarthost(peer)], folder=folder,
            settings_changes={"log_level": "debug", "log_format": form},
        ) as house,
    ):  # fmt: skip
        for number, raw in enumerate(SAID):
            peer.on("rcpt", raw=raw, when=f"r{number}@example.com".__eq__)
        messages = [await house.submit(to=[f"r{number}@example.com"]) for number in range(len(SAID))]
        shown: list[str] = []
        for message in messages:
            await house.in_state(message, "failed", "deferred")
            (attempt, *_) = await house.attempts(message)
            for path in (
                f"/messages/{message}", f"/messages/{message}/attempts", f"/messages/{message}/explain",
                f"/messages/{message}/events", f"/attempts/{attempt['id']}", "/events?limit=100", "/lanes", "/routes",
            ):  # fmt: skip
                answer = await house.client.get(path)
                shown += [*_texts(answer.json()), *answer.headers.values()]
            transcript = (await house.client.get(f"/attempts/{attempt['id']}/transcript")).text
            shown += transcript.split("\n")
            begins = [line for line in transcript.split("\n") if line.startswith(FORGED)]
            assert begins == []
    return shown


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    members = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for member in members for text in _texts(member)]


@contextlib.contextmanager
def logged(form: str) -> Iterator[io.StringIO]:
    """Log into a text, in this form; afterwards everything is logged as before."""
    root, configured = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers[:], root.level
    with contextlib.redirect_stderr(io.StringIO()) as said:
        logs.set_up(level="debug", form=form)  # type: ignore[arg-type]  # one of two
        try:
            yield said
        finally:
            structlog.configure(**configured)
            root.handlers[:] = handlers
            root.setLevel(level)


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize(
    "text", ["x\r\n" + FORGED, "x\n" + FORGED, "\x1b[2J", "\x9b2J", "x\0", "\u2028" + FORGED, "\ud800"]
)
def test_no_value_of_a_log_is_a_line_of_its_own(form: str, text: str) -> None:
    """Whatever a field holds, in our own logs and in those of libraries: one line, without controls."""
    with logged(form) as said:
        structlog.get_logger().info("event.name", value=text, values=[text], **{"name of a field": text})
        logging.getLogger("library").warning("said %s", text)
        try:
            raise ValueError(text)  # noqa: TRY301  # as deep as need be
        except ValueError:
            structlog.get_logger().exception("event.bug")

    lines = said.getvalue().split("\n")
    assert len([line for line in lines if "event.name" in line or "said" in line]) == 2
    assert not [line for line in lines if CONTROLS.search(line) or line.startswith(FORGED)]


def test_readable_text_has_no_controls() -> None:
    """All that could move a cursor, in every plane of ASCII and Latin-1."""
    everything = "".join(map(chr, range(0x100))) + "\ud800" + base64.b64encode(b"x").decode()

    assert not CONTROLS.search(readable(everything))
