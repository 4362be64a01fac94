"""What was accepted goes over the wire as it was asked, and nothing else does.

Each request has one naughty thing in one field. Whatever is not refused is sent through a real worker to a peer
that keeps every octet: one MAIL a message, the recipients that were asked for, no other header, part, command or
message, and a reader finds in it what the caller gave.
"""

import base64
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from email import message_from_bytes
from html import escape
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from service.mail.lines import LINE_OCTETS
from tests.hostile.asking import ask, judge
from tests.hostile.corpora import addresses, whole
from tests.hostile.corpora import headers as corpus
from tests.hostile.corpora.strings import NAUGHTY
from tests.hostile.letters import asked_for, seen
from tests.hostile.surface import BY_ID
from tests.hostile.world import World
from tests.house import a_message
from tests.peer import ScriptedPeer, Taken
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

SEND = BY_ID["send_message"]

ANA = "ana@example.com"


def _file(**member: str) -> dict[str, Any]:
    return {"attachments": [{"content": base64.b64encode(b"x\r\n.\r\ny").decode(), **member}]}


def a_request(**changes: Any) -> dict[str, Any]:
    """A message whose addresses are told apart from their names."""
    return a_message(**{"from": {"email": "noreply@contoso.com", "name": "Contoso"}} | changes)


FIELDS: dict[str, Callable[[str], dict[str, Any]]] = {
    "subject": lambda text: {"subject": text},
    "text": lambda text: {"text": text},
    "html": lambda text: {"text": None, "html": text},
    "name of the sender": lambda text: {"from": {"email": "noreply@contoso.com", "name": text}},
    "name of a recipient": lambda text: {"to": [{"email": ANA, "name": text}]},
    "name in cc": lambda text: {"cc": [{"email": "bea@example.com", "name": text}]},
    "name in bcc": lambda text: {"bcc": [{"email": "bea@example.com", "name": text}]},
    "name in reply_to": lambda text: {"reply_to": {"email": "bea@example.com", "name": text}},
    "header": lambda text: {"headers": {"X-Naughty": text}},
    "name of a header": lambda text: {"headers": {text: "x"}},
    "filename": lambda text: _file(filename=text),
    "content of a file": lambda text: _file(content=base64.b64encode(text.encode()).decode()),
    "content type": lambda text: _file(content_type=text),
    "content id": lambda text: _file(content_id=text),
    "tag": lambda text: {"tags": [text]},
    "metadata": lambda text: {"metadata": {"x": text}},
    "name in metadata": lambda text: {"metadata": {text: "x"}},
    "envelope id": lambda text: {"dsn": {"envid": text}},
    "stream": lambda text: {"stream": text},
}


@dataclass(slots=True)
class Posted:
    """What was accepted, by the Message-ID that it got."""

    client: httpx2.AsyncClient
    peer: ScriptedPeer
    asked: dict[str, dict[str, Any]] = field(default_factory=dict)

    async def post(self, request: dict[str, Any], **more: Any) -> httpx2.Response:
        """Post a message; note it where it is taken, and hold the refusal against what is true of all."""
        return self.note(request, await ask(self.client, "POST", "/messages", json=request, **more))

    def note(self, request: dict[str, Any], answer: httpx2.Response) -> httpx2.Response:
        judge(SEND, answer, quiet=())
        if answer.status_code == 202:
            self.asked[answer.json()["message_id"]] = request
        else:
            assert answer.status_code == 422, answer.text
            assert answer.json()["errors"], answer.text
        return answer

    async def taken(self, world: World) -> dict[str, Taken]:
        """Let a worker send it all, hold the dialogue against what was due, and give what came by Message-ID."""
        worker = await world.house.start_worker()
        await eventually(lambda: len(self.peer.taken) >= len(self.asked), within=120)
        world.house.workers.remove(worker)
        await worker.end()
        recipients = sum(len(paths_of(request)) for request in self.asked.values())
        only_commands(self.peer, messages=len(self.asked), recipients=recipients)
        found = by_message_id(self.peer)
        assert found.keys() == self.asked.keys()
        return found


@pytest_asyncio.fixture(loop_scope="module")
async def posted(world: World, request: pytest.FixtureRequest) -> AsyncIterator[Posted]:
    """An application of this test's own, before a peer that has forgotten the other tests."""
    for kept in (world.peer.taken, world.peer.transactions, world.peer.commands):
        kept.clear()
    async with world.caller(request.function.__name__) as caller:
        yield Posted(caller.client, world.peer)


def paths_of(request: Mapping[str, Any]) -> list[str]:
    """List the recipients of a request, each once."""
    found: dict[str, None] = {}
    for kind in ("to", "cc", "bcc"):
        given = request.get(kind) or []
        for each in given if isinstance(given, list) else [given]:
            found.setdefault(each["email"] if isinstance(each, dict) else each)
    return list(found)


def clean(octets: bytes) -> None:
    """Hold content against what every server reads the same way (RFC 5321 §2.3.8, RFC 5322 §2.1.1)."""
    assert octets.endswith(b"\r\n")
    assert octets.count(b"\r") == octets.count(b"\n") == octets.count(b"\r\n")
    assert b"\0" not in octets
    assert max(len(line) for line in octets.split(b"\r\n")) <= LINE_OCTETS


PATH = r'("([^"\\<>\x00-\x1f]|\\[\x20-\x7e])*"|[^<>"\\\x00-\x20]+)@[a-z0-9.-]+'
MAIL = re.compile(
    rf"MAIL FROM:<{PATH}>( SIZE=[0-9]+| BODY=(7BIT|8BITMIME)| SMTPUTF8| RET=(HDRS|FULL)| ENVID=[!-;?-~]+)*"
)
RCPT = re.compile(rf"RCPT TO:<{PATH}>( NOTIFY=[A-Z,]+| ORCPT=rfc822;[!-;?-~]+)*")


def only_commands(peer: ScriptedPeer, *, messages: int, recipients: int) -> None:
    """Every command is one that was due, written as its grammar has it, and as often as it was due."""
    verbs: dict[str, int] = {}
    for line in peer.commands:
        verb = line.partition(" ")[0]
        verbs[verb] = verbs.get(verb, 0) + 1
        assert verb in {"EHLO", "MAIL", "RCPT", "DATA", "RSET", "NOOP", "QUIT"}, ascii(line)
        assert verb != "MAIL" or MAIL.fullmatch(line), ascii(line)
        assert verb != "RCPT" or RCPT.fullmatch(line), ascii(line)
    assert (verbs["MAIL"], verbs["RCPT"], verbs["DATA"]) == (messages, recipients, messages)
    assert len(peer.taken) == len(peer.transactions) == messages
    assert {each.ended for each in peer.transactions} == {"dot"}


def by_message_id(peer: ScriptedPeer) -> dict[str, Taken]:
    found = {}
    for each in peer.taken:
        (name,) = re.findall(rb"(?im)^message-id: (<[^>\r]+>)\r?$", each.octets.partition(b"\r\n\r\n")[0])
        found[name.decode()] = each
    assert len(found) == len(peer.taken), "a message came twice"
    return found


def as_asked(request: Mapping[str, Any], taken: Taken) -> None:
    """Hold what came against what was asked: envelope, header, parts."""
    told = json.dumps(request)[:1000]
    clean(taken.octets)
    assert taken.mail == "noreply@contoso.com", told
    assert sorted(taken.rcpts) == sorted(paths_of(request)), told
    assert seen(taken.octets, own=request.get("headers") or {}) == asked_for(request), told


async def test_a_naughty_string_is_only_a_string(posted: Posted, world: World) -> None:
    """In whatever field it stands, it is refused with a pointer or sent as what it is."""
    for change in FIELDS.values():
        for text in NAUGHTY.values():
            await posted.post(a_request(**change(text)))
    assert len(posted.asked) > 1000

    for message_id, taken in (await posted.taken(world)).items():
        as_asked(posted.asked[message_id], taken)


async def test_headers_and_files_stay_in_their_place(posted: Posted, world: World) -> None:
    """The corpora of headers, file names, content types, content ids and envelope ids: what is good is sent as it is."""
    changes = [
        *({"headers": {name: value}} for name, value in corpus.GOOD.items()),
        {"headers": corpus.GOOD},
        *(_file(filename=name) for name in corpus.FILENAMES),
        *(_file(content_type=kind) for kind in corpus.CONTENT_TYPES),
        *(_file(content_id=name) for name in corpus.CONTENT_IDS),
        *({"dsn": {"envid": name, "notify": ["success"], "return": "full"}} for name in corpus.ENVELOPE_IDS),
    ]
    for change in changes:
        answer = await posted.post(a_request(**change))
        assert answer.status_code == 202, (change, answer.text)

    for message_id, taken in (await posted.taken(world)).items():
        as_asked(posted.asked[message_id], taken)
    wanted = sorted(corpus.ENVELOPE_IDS)
    assert wanted == sorted(
        envid for each in posted.peer.transactions if (envid := envelope_id(each.parameters)) is not None
    )


def envelope_id(parameters: str) -> str | None:
    """Read ENVID as the other side does (RFC 3461 §4)."""
    found = re.search(r"ENVID=(\S+)", parameters)
    return found and re.sub(r"\+([0-9A-F]{2})", lambda match: chr(int(match[1], 16)), found[1])


async def test_an_address_is_one_recipient(posted: Posted, world: World) -> None:
    """Every address that is accepted, as recipient and as sender, is one path on the wire, and that one."""
    paths: dict[str, tuple[str, addresses.Accepted]] = {}
    for case in addresses.ACCEPTED:
        for kind in ("to", "bcc", "from"):
            request = a_request(**{"cc": ["x@example.com"], kind: case.text})
            answer = await posted.post(request)
            assert answer.status_code == 202, (case, answer.text)
            paths[answer.json()["message_id"]] = (kind, case)
            shown = (
                answer.json()["from"]
                if kind == "from"
                else answer.json()["recipients"][-1 if kind == "bcc" else 0]
            )
            assert (shown["email"], shown["name"]) == (case.path, case.name)
            posted.asked[answer.json()["message_id"]] = {**request, kind: [case.path]}

    for message_id, taken in (await posted.taken(world)).items():
        kind, case = paths[message_id]
        clean(taken.octets)
        assert taken.mail == (case.path if kind == "from" else "noreply@contoso.com")
        others = {"to": [], "bcc": [ANA], "from": [ANA]}[kind]
        assert sorted(taken.rcpts) == sorted(
            ["x@example.com", *others, *([] if kind == "from" else [case.path])]
        ), case
        assert kind != "bcc" or case.path.encode() not in taken.octets.partition(b"\r\n\r\n")[0]


async def test_a_whole_message_goes_octet_by_octet(posted: Posted, world: World) -> None:
    """Taken as it is, but for Bcc and Return-Path; its body cannot end itself, nor begin another message."""
    envelope = {"envelope_from": "noreply@contoso.com", "envelope_to": ANA}
    for raw in whole.ACCEPTED.values():
        request = {"from": "noreply@contoso.com", "to": [ANA], "raw": base64.b64encode(raw).decode()}
        await posted.post(request)
        answer = await ask(
            posted.client,
            "POST",
            "/messages",
            params=envelope,
            content=raw,
            headers={"Content-Type": "message/rfc822"},
        )
        posted.note(request, answer)
    assert len(posted.asked) == 2 * len(whole.ACCEPTED)

    for message_id, taken in (await posted.taken(world)).items():
        raw = base64.b64decode(posted.asked[message_id]["raw"])
        raw = raw if b"\r" in raw else raw.replace(b"\n", b"\r\n")
        header, _, body = raw.partition(b"\r\n\r\n")
        clean(taken.octets)
        assert (taken.mail, taken.rcpts) == ("noreply@contoso.com", (ANA,))
        assert taken.octets.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") == body.removesuffix(b"\r\n")
        kept = [name for name in header_names(header) if name not in {b"bcc", b"return-path"}]
        assert sorted(header_names(taken.octets)) == sorted([*kept, b"date", b"message-id"])


async def test_a_message_in_a_message_stays_in_it(posted: Posted, world: World) -> None:
    """A part that may not be encoded is so where it cannot go out as it is; nothing in it is the message's own."""
    raws = [*(raw for raw, _ in whole.REFUSED), *whole.ACCEPTED.values()]
    for raw in raws:
        file = _file(content=base64.b64encode(raw).decode(), content_type="message/rfc822", filename="a.eml")
        answer = await posted.post(a_request(**file))
        assert answer.status_code == 202, answer.text

    for message_id, taken in (await posted.taken(world)).items():
        raw = base64.b64decode(posted.asked[message_id]["attachments"][0]["content"])
        clean(taken.octets)
        top = message_from_bytes(taken.octets)
        assert set(header_names(taken.octets)) == {
            b"from", b"to", b"subject", b"date", b"message-id", b"mime-version", b"content-type"
        }  # fmt: skip
        _, text, file_part, end = taken.octets.split(b"--" + str(top.get_boundary()).encode())
        assert (text.count(b"Thank you."), end) == (1, b"--\r\n")
        kind = list(top.walk())[2].get_content_type()
        content = file_part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
        if kind == "message/rfc822":
            assert content == re.sub(rb"(?<!\r)\n", b"\r\n", raw)
        else:
            assert (kind, base64.b64decode(content)) == ("application/octet-stream", raw)


def header_names(octets: bytes) -> list[bytes]:
    lines = octets.partition(b"\r\n\r\n")[0].removesuffix(b"\r\n").split(b"\r\n")
    return [line.partition(b":")[0].lower() for line in lines if not line.startswith((b" ", b"\t"))]


async def test_a_variable_is_only_a_variable(posted: Posted, world: World) -> None:
    """What is put into a template is no template, no markup and no header; each copy of a merge has its own."""
    texts = [text for text in NAUGHTY.values() if len(text) < 10_000 and "\0" not in text]
    base = {"from": "noreply@contoso.com"}
    items = [
        {**base, "to": [f"a{n}@example.com"], "template": {"id": "receipt", "variables": {"name": text}}}
        for n, text in enumerate(texts)
    ]
    answer = await ask(
        posted.client, "POST", "/messages/batch", params={"validation": "permissive"}, json=items
    )
    assert answer.status_code == 202, answer.text
    good = [text for text, each in zip(texts, answer.json()["data"], strict=True) if "message_id" in each]
    assert good == [text for text in texts if not BREAKS.search(text) and len(f"For {text}") <= LINE_OCTETS]
    entries = [{"to": [f"b{n}@example.com"], "variables": {"name": text}} for n, text in enumerate(good)]
    merged = await ask(
        posted.client, "POST", "/messages", json={**base, "template": {"id": "receipt"}, "merge": entries}
    )
    assert merged.status_code == 202, merged.text
    shown = [each for each in answer.json()["data"] if "message_id" in each] + merged.json()["data"]
    for each, text in zip(shown, good * 2, strict=True):
        posted.asked[each["message_id"]] = {
            **base, "to": [each["recipients"][0]["email"]], "subject": f"For {text}", "text": f"Hello {text}",
            "html": f"<p title='{escaped(text)}'>Hello {escaped(text)}</p>",
        }  # fmt: skip

    for message_id, taken in (await posted.taken(world)).items():
        as_asked(posted.asked[message_id], taken)


#: What no subject may hold.
BREAKS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")


def escaped(text: str) -> str:
    """Escape as Jinja does, which writes quotes by their numbers."""
    return escape(text).replace("&quot;", "&#34;").replace("&#x27;", "&#39;")


async def test_one_key_is_one_message(posted: Posted, world: World) -> None:
    """An idempotency key may look like anything visible; it is compared as it is, and never written anywhere."""
    for key in corpus.IDEMPOTENCY_KEYS:
        for _ in range(2):
            await posted.post(a_request(tags=[key[:256]]), headers={"Idempotency-Key": key})
    for octets in corpus.IDEMPOTENCY_KEYS_REFUSED:
        answer = await ask(
            posted.client, "POST", "/messages", json=a_request(), headers={b"Idempotency-Key": octets}
        )
        judge(SEND, answer)
        assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_invalid")
    assert len(posted.asked) == len(corpus.IDEMPOTENCY_KEYS)

    for message_id, taken in (await posted.taken(world)).items():
        as_asked(posted.asked[message_id], taken)
