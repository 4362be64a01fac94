"""What a peer can do wrong × the phase in which it does, with and without PIPELINING.

Every misbehaviour has a lane and a peer of its own, so that many of them happen at the same time. It happens twice, to
four messages (two of them `hold`); then the peer behaves. What is wrong for good (a certificate, no STARTTLS) never
heals: those messages expire, and neither a login nor a command of theirs has left.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.chaos.clients import Letter
from tests.chaos.records import count
from tests.chaos.registry import Run, scenario
from tests.chaos.world import LOGIN, World, a_world, secured
from tests.peer import MICROSOFT_EXTENSIONS, ScriptedPeer

#: Seconds after which a peer that does not answer is given up here; minutes in production.
_LIMIT = 2

#: Lanes of one world: each of them costs every acceptance a little.
_LANES = 85

_PHASES = ("connect", "greeting", "ehlo", "starttls", "auth", "mail", "rcpt", "data", "body", "dot", "quit")

_PLAIN = tuple(name for name in MICROSOFT_EXTENSIONS if name != "PIPELINING")

#: What would have been said.
_USUAL = {
    "greeting": "220 peer.contoso.com ready",
    "ehlo": "250-peer.contoso.com\r\n250-PIPELINING\r\n250-STARTTLS\r\n250 AUTH LOGIN",
    "starttls": "220 2.0.0 go ahead",
    "auth": "235 2.7.0 welcome",
    "mail": "250 2.1.0 Sender OK",
    "rcpt": "250 2.1.5 Recipient OK",
    "data": "354 go on",
    "dot": "250 2.0.0 taken",
    "quit": "221 2.0.0 bye",
}


def _replies(usual: str) -> Mapping[str, dict[str, Any]]:
    """List what can be said instead of a reply, with what a rule of the peer needs for it."""
    code, line = usual[:3], usual.encode()
    return {
        "says no reply at all": {"raw": b"what do you want?\r\n"},
        "says wrong digits": {"raw": f"{code[0]}_{code[2]} ok\r\n".encode()},
        "says two digits": {"raw": f"{code[:2]} ok\r\n".encode()},
        "says a code beyond all codes": {"raw": b"999 ok\r\n"},
        "says mixed codes, no and then yes": {"raw": f"550-no\r\n{usual}\r\n".encode()},
        "says mixed codes, yes and then no": {"raw": f"{code}-well\r\n550 no\r\n".encode()},
        "glues a refusal to its reply": {"raw": line + b"\r\n550 5.0.0 or rather not\r\n"},
        "glues a second yes to its reply": {"raw": line + b"\r\n250 2.0.0 and once more\r\n"},
        "glues a farewell to its reply": {"raw": line + b"\r\n421 4.4.2 bye\r\n", "then": "close"},
        "says 2 kB on one line": {"raw": f"{code} {'x' * 2040}\r\n".encode()},
        "says megabytes on one line": {"raw": f"{code} ".encode() + b"x" * 4_000_000 + b"\r\n"},
        "says a reply without an end": {"raw": f"{code}-more\r\n".encode() * 100_000},
        "says NUL and 8 bits": {"raw": f"{code} \0".encode() + b"\xff\xfe\r\n"},
        "ends its line with LF alone": {"raw": line + b"\n"},
        "says one octet a second": {"raw": f"{code} k\r\n".encode(), "pace": 1.0},
        "says half a reply and closes": {"raw": line[:5], "then": "close"},
        "says half a reply and is silent": {"raw": line[:5], "then": "stall"},
        "refuses for now": {"reply": "451 4.6.0 later"},
        "refuses for good": {"reply": "550 5.6.0 never"},
        "is busy and closes": {"reply": "421 4.3.2 not now", "then": "close"},
        "wants something else": {"reply": "334 VXNlcm5hbWU6" if code != "354" else "250 2.0.0 fine"},
        "closes": {"then": "close"},
        "resets": {"then": "reset"},
        "is silent": {"then": "stall"},
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Mischief:
    """One thing that a peer does wrong."""

    phase: str
    what: str
    rules: tuple[tuple[str, dict[str, Any]], ...] = ()  # phase and words of a rule of the peer
    peer: dict[str, Any] = field(default_factory=dict)  # how the peer is made
    limit: int = _LIMIT  # seconds of each phase's limit
    for_good: bool = False  # it never heals

    @property
    def done(self) -> str:
        plain = "" if "PIPELINING" in self.peer.get("extensions", MICROSOFT_EXTENSIONS) else ", no PIPELINING"
        return f"in phase {self.phase} the peer {self.what}{plain}"


def mischiefs() -> Iterator[Mischief]:
    """List everything that a peer does wrong here."""
    for phase, usual in _USUAL.items():
        for what, words in _replies(usual).items():
            limit = 20 if "pace" in words else _LIMIT
            rules = ((phase, {**words, "times": 2}),)
            yield Mischief(phase=phase, what=what, rules=rules, limit=limit)
            if phase in {"mail", "rcpt", "data", "dot"}:
                yield Mischief(phase=phase, what=what, rules=rules, limit=limit, peer={"extensions": _PLAIN})
    for phase in ("connect", "tls"):
        yield Mischief(phase=phase, what="closes", rules=((phase, {"then": "close", "times": 2}),))
        yield Mischief(phase=phase, what="resets", rules=((phase, {"then": "reset", "times": 2}),))
        yield Mischief(phase=phase, what="is silent", rules=((phase, {"then": "stall", "times": 2}),))
        garbage = {"raw": b"HTTP/1.1 400 Bad Request\r\n\r\n", "then": "close", "times": 2}
        yield Mischief(phase=phase, what="speaks HTTP", rules=((phase, garbage),))
    for what, words in {
        "closes": {"then": "close"},
        "resets": {"then": "reset"},
        "stops reading": {"then": "stall"},
        "says yes early": {"reply": "250 2.0.0 taken already"},
        "refuses in the middle": {"reply": "552 5.3.4 too much", "then": "close"},
        "is busy in the middle": {"reply": "421 4.3.2 not now", "then": "close"},
    }.items():
        yield Mischief(phase="body", what=what, rules=(("body", {**words, "after_octets": 100, "times": 2}),))
    for what, words in {
        "takes it and closes": {"then": "close", "take": True},
        "drops it and closes": {"then": "close", "take": False},
        "takes it and resets": {"then": "reset", "take": True},
        "takes it and is silent": {"then": "stall", "take": True},
        "drops it and is silent": {"then": "stall", "take": False},
        "refuses it, and takes it all the same": {"reply": "451 4.3.0 later", "take": False},
    }.items():
        yield Mischief(phase="dot", what=what, rules=(("dot", {**words, "times": 2}),))
    yield from _for_good()


def _for_good() -> Iterator[Mischief]:
    made: dict[str, dict[str, Any]] = {
        "has a certificate of another name": {"certificate_names": ["elsewhere.contoso.com"]},
        "has an expired certificate": {"certificate_expired": True},
        "has a certificate of an unknown authority": {"certificate_untrusted": True},
        "has signed its certificate itself": {"certificate_self_signed": True},
        "speaks TLS 1.1": {"maximum_tls": ssl.TLSVersion.TLSv1_1},
        "has no STARTTLS, and offers AUTH without": {"tls": False, "login_without_tls": True},
    }
    for what, given in made.items():
        yield Mischief(phase="starttls", what=what, peer=given, for_good=True)
    injected = {"raw": b"220 2.0.0 go ahead\r\n250-peer\r\n250 AUTH LOGIN PLAIN\r\n"}
    yield Mischief(
        phase="starttls", what="injects an EHLO answer", rules=(("starttls", injected),), for_good=True
    )
    stripped = {"raw": b"250-peer.contoso.com\r\n250 AUTH LOGIN\r\n"}
    yield Mischief(phase="ehlo", what="leaves out STARTTLS", rules=(("ehlo", stripped),), for_good=True)


async def misbehave(run: Run, chosen: list[Mischief], *, workers: int = 1) -> None:
    """Let every chosen thing happen at the same time, each on its own lane, and count lane by lane."""
    async with contextlib.AsyncExitStack() as closing:
        peers = [await closing.enter_async_context(_peer(mischief)) for mischief in chosen]
        pairs = list(zip(peers, chosen, strict=True))
        routes = [_route(peer, mischief, number) for number, (peer, mischief) in enumerate(pairs)]
        world = await closing.enter_async_context(
            a_world(run.folder, routes=routes, workers=workers, dispatch={"expires_after": "40s"})
        )
        for peer, mischief in pairs:
            for phase, words in mischief.rules:
                peer.on(phase, **words)
        few = asyncio.Semaphore(8)
        letters = await asyncio.gather(
            *(_submit(world, mischief, number, few) for number, mischief in enumerate(chosen))
        )
        await world.settled(within=180.0)
        for peer, mischief, each in zip(peers, chosen, letters, strict=True):
            await _row(run, world, peer, mischief, each)
        run.row("the logs", figures="", promise="9", wrong=world.bugs())


def _peer(mischief: Mischief) -> ScriptedPeer:
    return ScriptedPeer(**{"tls": True, "logins": dict([LOGIN]), **mischief.peer})


def _route(peer: ScriptedPeer, mischief: Mischief, number: int) -> dict[str, Any]:
    limits = {"connections": 1}
    timeouts = dict.fromkeys(_PHASES, f"{mischief.limit}s")
    if mischief.phase == "quit":
        limits["messages_per_connection"] = 1
    return secured(peer, name=f"lane{number}", limits=limits, timeouts=timeouts)


def _letters(mischief: Mischief, number: int) -> list[Letter]:
    soon = (datetime.now(UTC) + timedelta(seconds=12)).isoformat()
    changes: dict[str, Any] = {"expires_at": soon} if mischief.for_good else {}
    # More than one write, so that there is a middle.
    text = "Thank you very much.\n" * (20_000 if mischief.phase == "body" else 1)
    return [
        Letter(
            key=f"w{number}-{place}",
            route=f"lane{number}",
            recipients=2,
            on_uncertain="hold" if place % 2 else "resend",
            changes={"text": text, **changes},
        )
        for place in range(4)
    ]


async def _submit(world: World, mischief: Mischief, number: int, few: asyncio.Semaphore) -> list[Letter]:
    """Post the letters of a lane, of few lanes at a time, and return them."""
    async with few:
        letters = _letters(mischief, number)  # now, because some of them do not live long
        for letter in letters:
            await world.clients.submit(letter)
    return letters


async def _row(run: Run, world: World, peer: ScriptedPeer, mischief: Mischief, letters: list[Letter]) -> None:
    account = await count(world, [peer], keys=[letter.key for letter in letters])
    wrong = list(account.wrong)
    if mischief.for_good:
        if peer.transactions or peer.logins_tried:
            wrong.append("a login or a message left")
        wrong += [f"{line!r} left" for line in peer.commands if line.upper().startswith(("AUTH", "MAIL"))]
        if account.statuses.keys() != {"expired"}:
            wrong.append(f"the messages are {dict(account.statuses)}")
    faults = ", ".join(sorted(account.faults))
    figures = f"{account.figures()}; {faults or 'no faults'}"
    run.row(mischief.done, figures=figures, promise="7, 9" if mischief.for_good else "1, 2, 7", wrong=wrong)


@scenario("wire")
async def wire(run: Run) -> None:
    """Whatever a peer says, leaves out or breaks off, in any phase: the ledger is the wire, copies are explained."""
    everything = list(mischiefs())
    run.chance.shuffle(everything)
    for first in range(0, len(everything), _LANES):
        await misbehave(run, everything[first : first + _LANES])
