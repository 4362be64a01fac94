"""However the network cuts what a peer says, the report is the same.

The peer here is no server: it waits for a mark in what it reads, and says octets that were written beforehand,
in pieces of any size, or a part of them and then closes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from service.smtp.peer import Peer, TlsMode
from service.smtp.session import Report, open_session
from tests.peer import patient_timeouts
from tests.smtp.builders import ANA, BEN, a_parcel, an_envelope, yes
from tests.smtp.test_pipelining import conclusions

GROUP, DOT, RESET = b"DATA\r\n", b"\r\n.\r\n", b"RSET\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cuts:
    """How octets travel: in pieces of these sizes, in turn; `lost_at` is the octet at which the peer closes."""

    sizes: Sequence[int] = ()
    lost_at: int | None = None

    def pieces(self, octets: bytes) -> Iterator[bytes]:
        place, turn = 0, 0
        while place < len(octets):
            size = self.sizes[turn % len(self.sizes)] if self.sizes else len(octets)
            yield octets[place : place + size]
            place, turn = place + size, turn + 1


#: For each step, what to say at which mark.
Script = Sequence[Mapping[bytes, bytes]]


class CutPeer:
    """Says what the script has; the octet at which it closes is counted in its step `closing`."""

    def __init__(self, script: Script, cuts: Cuts, *, closing: int) -> None:
        self._script = script
        self._cuts = cuts
        self._closing = closing

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(b"220 cut ESMTP\r\n")
            await reader.readuntil(b"\r\n")
            writer.write(b"250-cut\r\n250 PIPELINING\r\n")
            seen = b""
            for number, step in enumerate(self._script):
                while not (mark := next((mark for mark in step if mark in seen), None)):
                    octets = await reader.read(65_536)
                    if not octets:
                        return
                    seen += octets
                seen = seen[seen.index(mark) + len(mark) :]
                if not await self._say(step[mark], writer, closing=number == self._closing):
                    return
            while await reader.read(65_536):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client is gone, or the test is over
        finally:
            writer.close()

    async def _say(self, octets: bytes, writer: asyncio.StreamWriter, *, closing: bool) -> bool:
        lost = closing and self._cuts.lost_at is not None
        if lost:
            octets = octets[: (self._cuts.lost_at or 0) % len(octets)]
        for piece in self._cuts.pieces(octets):
            writer.write(piece)
            await writer.drain()
            for _ in range(3):
                await asyncio.sleep(0)
        return not lost


async def converse(script: Script, cuts: Cuts, *, closing: int, behind: bool) -> list[dict[str, Any]]:
    """Transmit two messages to such a peer, the second begun behind the first one's dot or not."""
    server = await asyncio.start_server(CutPeer(script, cuts, closing=closing).converse, "127.0.0.1", 0)
    async with server:
        session = await open_session(_reaching(server), None, session_id="ses_test")
        this, other = a_parcel(an_envelope(ANA, BEN)), a_parcel(an_envelope(BEN, ANA))
        reports = [await session.transmit(this, before_dot=yes, behind=lambda: other if behind else None)]
        if session.begun is other:
            reports.append(await session.transmit(other, before_dot=yes))
        ended = not session.usable
        session.abort()
    return [seen(report, ended=ended) for report in reports]


def _reaching(server: asyncio.Server) -> Peer:
    return Peer(
        host="localhost",
        port=25,
        connect_to=("127.0.0.1", server.sockets[0].getsockname()[1]),
        ehlo_name="client.contoso.com",
        tls=TlsMode.NONE,
        timeouts=patient_timeouts(),
    )


def seen(report: Report, *, ended: bool) -> dict[str, Any]:
    """What must not depend on cuts; what comes behind the end of a session may have come or not."""
    told = [(entry["who"], entry["phase"], entry["text"]) for entry in report.transcript]
    return conclusions(report) | {"told": None if ended else told, "behind": report.begun_behind}


_mail = st.sampled_from([b"250 2.1.0 ok\r\n", b"250-ok\r\n250 ok\r\n"] * 4 + [b"550 no\r\n", b"451-a\r\n451 b\r\n", b"421 bye\r\n"])  # fmt: skip
_rcpt = st.sampled_from([b"250 2.1.5 ok\r\n", b"250-ok\r\n250 ok\r\n"] * 3 + [b"550 5.1.1 no\r\n", b"452-4.5.3 a\r\n452 b\r\n", b"421 bye\r\n", b"what?\r\n", b"250 bare\n"])  # fmt: skip
_data = st.sampled_from([b"354 go\r\n"] * 6 + [b"451 later\r\n", b"554-no\r\n554 no\r\n", b"250 ok\r\n", b"421 bye\r\n"])  # fmt: skip
_final = st.sampled_from([b"250 2.0.0 taken\r\n", b"250-2.0.0 taken\r\n250 OK\r\n"] * 2 + [b"554 5.7.1 no\r\n", b"451 4.3.1 later\r\n", b"421 bye\r\n", b"2_0\r\n", b"250-yes\r\n550 no\r\n"])  # fmt: skip
_group = st.tuples(_mail, _rcpt, _rcpt, _data).map(b"".join)
_cuts = st.builds(
    Cuts,
    sizes=st.one_of(st.just([1]), st.lists(st.integers(1, 60), min_size=1, max_size=8)),
    lost_at=st.none() | st.integers(0, 200),
)


def _both_ways(script: Script, cuts: Cuts, *, closing: int, behind: bool) -> None:
    whole = Cuts(lost_at=cuts.lost_at)
    with asyncio.Runner() as runner:
        at_once = runner.run(converse(script, whole, closing=closing, behind=behind))
        in_pieces = runner.run(converse(script, cuts, closing=closing, behind=behind))
    assert at_once == in_pieces


@settings(max_examples=200, deadline=None)
@given(_group, _final, _cuts)
def test_one_message(group: bytes, final: bytes, cuts: Cuts) -> None:
    """Octet by octet, glued together or lost in the middle of the replies: one report."""
    script = [{GROUP: group}, {DOT: final, RESET: b"250 reset\r\n"}]
    _both_ways(script, cuts, closing=0, behind=False)


@settings(max_examples=200, deadline=None)
@given(_final, _group, _final, _cuts)
def test_two_messages(first: bytes, group: bytes, second: bytes, cuts: Cuts) -> None:
    """The reply to a dot and all that belongs to the message behind it: two reports, whatever the cuts."""
    begin = b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n"
    script = [{GROUP: begin}, {GROUP: first + group}, {DOT: second, RESET: b"250 reset\r\n"}]
    _both_ways(script, cuts, closing=1, behind=True)


async def test_all_at_once_lands_where_it_belongs() -> None:
    """The reply to the dot and all replies behind it in one segment: each in its own transcript."""
    begin = b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n"
    rest = b"250 first\r\n250 two\r\n250 two\r\n550 two\r\n354 two\r\n"
    script = [{GROUP: begin}, {GROUP: rest}, {DOT: b"250 second\r\n"}]

    first, second = await converse(script, Cuts(), closing=0, behind=True)

    assert first["told"][-1] == ("peer", "dot", "250 first")
    assert [told for told in second["told"] if told[0] == "peer"] == [
        ("peer", "mail", "250 two"),
        ("peer", "rcpt", "250 two"),
        ("peer", "rcpt", "550 two"),
        ("peer", "data", "354 two"),
        ("peer", "dot", "250 second"),
    ]
    assert (first["dot"], second["dot"]) == (True, True)


async def test_a_word_too_many_lands_behind_the_last_reply() -> None:
    """What nobody asked for, glued behind all replies to two messages, belongs to the second one."""
    begin = b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n"
    rest = b"250 first\r\n250 two\r\n250 two\r\n250 two\r\n354 two\r\n421 bye\r\n"
    server = await asyncio.start_server(
        CutPeer([{GROUP: begin}, {GROUP: rest}], Cuts(), closing=0).converse, "127.0.0.1", 0
    )
    async with server:
        session = await open_session(_reaching(server), None, session_id="ses_test")
        this, other = a_parcel(an_envelope(ANA, BEN)), a_parcel(an_envelope(BEN, ANA))
        first = await session.transmit(this, before_dot=yes, behind=lambda: other)
        second = await session.transmit(other, before_dot=yes)

    assert first.final is not None
    assert (first.fault, first.transcript[-1]["text"]) == (None, "250 first")
    assert (second.transcript[-1]["text"], second.transcript[-1]["phase"]) == ("421 bye", "data")
    assert second.fault is not None
    assert (second.fault.code, second.dot_sent) == ("closing", False)


async def test_a_lost_step_shows_at_the_reset() -> None:
    """A refusal of DATA, and then a 354 in the place of RSET's reply: the refusal was somebody else's."""
    script = [{GROUP: b"250 ok\r\n250 ok\r\n250 one too many\r\n554 no\r\n"}, {RESET: b"354 go\r\n"}]

    (report,) = await converse(script, Cuts(), closing=0, behind=False)

    assert report["fault"][1] == "unexpected_code"
    assert (report["mail"], report["recipients"], report["data"], report["dot"]) == (None, {}, None, False)
