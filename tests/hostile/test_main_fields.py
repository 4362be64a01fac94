"""The whole corpora of what no mail may be made of, in the fields that become mail: refused, by a code and a pointer."""

import base64
import json
from typing import Any

import pytest

from service.mail.lines import LINE_OCTETS
from tests.hostile.asking import ask, judge, pointers
from tests.hostile.corpora import addresses, headers, whole
from tests.hostile.surface import BY_ID
from tests.hostile.world import World
from tests.house import a_message

pytestmark = pytest.mark.asyncio(loop_scope="module")

SEND = BY_ID["send_message"]

ADDRESSED = ("from", "to", "cc", "bcc", "reply_to")


def _file(**member: str) -> dict[str, Any]:
    return {"attachments": [{"content": "eA==", **member}]}


async def refused(world: World, application: str, cases: list[tuple[dict[str, Any], str]]) -> list[str]:
    """Send each; hold each against being refused with this pointer, and give the codes."""
    codes = []
    async with world.caller(application) as caller:
        for changes, pointer in cases:
            body = json.dumps(a_message(**changes))  # in ASCII, because halves of pairs cannot be encoded
            answer = await ask(
                caller.client, "POST", "/messages", content=body, headers={"Content-Type": "application/json"}
            )
            judge(SEND, answer, quiet=["evil", "canary"])
            assert answer.status_code == 422, (changes, answer.text)
            assert any(each.startswith(pointer) for each in pointers(answer)), (changes, answer.text)
            codes.append(str(answer.json()["code"]))
        listed = await caller.client.get("/messages")
        assert listed.json()["data"] == []
    return codes


@pytest.mark.parametrize("name", ADDRESSED)
async def test_what_is_no_address_is_refused(name: str, world: World) -> None:
    """In whatever field, alone, in a list or as an object; with the code that says why."""
    wanted = [(form, case.code) for case in addresses.REFUSED for form in (case.text, [case.text])]
    if name == "from":
        wanted = [(form, code) for form, code in wanted if isinstance(form, str)]

    codes = await refused(world, f"addresses in {name}", [({name: form}, f"/{name}") for form, _ in wanted])

    for (form, code), found in zip(wanted, codes, strict=True):
        # What is longer than any field is refused before it is read.
        assert found == code or (code == "too_long" and len(str(form)) > LINE_OCTETS), (form, code, found)


async def test_an_address_of_an_object_is_an_address_alone(world: World) -> None:
    """The member `email` has no name in it, nor anything else around the address."""
    texts = [case.text for case in addresses.REFUSED]
    texts += [case.text for case in addresses.ACCEPTED if not case.bare]

    await refused(world, "objects", [({"to": [{"email": text}]}, "/to") for text in texts])


async def test_no_header_is_set_that_is_not_the_callers(world: World) -> None:
    """Reserved names in any spelling, names that are none, values that end the line."""
    names = [*headers.RESERVED_NAMES, *headers.BROKEN_NAMES]

    await refused(world, "names", [({"headers": {name: "x"}}, "/headers") for name in names])
    await refused(
        world, "values", [({"headers": {"X-A": each}}, "/headers") for each in headers.BROKEN_VALUES]
    )
    await refused(world, "subjects", [({"subject": each}, "/subject") for each in headers.BROKEN_VALUES])
    await refused(
        world,
        "names of people",
        [
            ({name: {"email": "ana@contoso.com", "name": each}}, f"/{name}")
            for name in ADDRESSED
            for each in headers.BROKEN_VALUES
        ],
    )


async def test_no_file_leaves_its_part(world: World) -> None:
    """Paths, line ends, multiparts, and names that are none."""
    first = "/attachments/0"

    await refused(
        world,
        "filenames",
        [(_file(filename=each), f"{first}/filename") for each in headers.FILENAMES_REFUSED],
    )
    await refused(
        world,
        "content types",
        [(_file(content_type=each), f"{first}/content_type") for each in headers.CONTENT_TYPES_REFUSED],
    )
    await refused(
        world,
        "content ids",
        [(_file(content_id=each), f"{first}/content_id") for each in headers.CONTENT_IDS_REFUSED],
    )
    await refused(
        world,
        "base64",
        [
            (_file(content=each), f"{first}/content")
            for each in ("%", "a", "a===", "é", "eA==eA==", "e A==", "-_==")
        ],
    )


async def test_no_envelope_id_ends_the_command(world: World) -> None:
    """Only visible ASCII names an envelope."""
    await refused(
        world,
        "envelopes",
        [({"dsn": {"envid": each}}, "/dsn/envid") for each in headers.ENVELOPE_IDS_REFUSED],
    )


async def test_a_whole_message_is_read_one_way_or_not_at_all(world: World) -> None:
    """Line ends of smuggling, doubled and broken headers, authors in disguise: refused, in both ways to send it."""
    query = {"envelope_from": "noreply@contoso.com", "envelope_to": "ana@example.com"}
    async with world.caller("whole") as caller:
        for raw, code in whole.REFUSED:
            request = {"from": query["envelope_from"], "to": query["envelope_to"]}
            request["raw"] = base64.b64encode(raw).decode()
            in_json = await ask(caller.client, "POST", "/messages", json=request)
            alone = await ask(
                caller.client, "POST", "/messages", params=query, content=raw,
                headers={"Content-Type": "message/rfc822"},
            )  # fmt: skip
            for answer in (in_json, alone):
                judge(SEND, answer, quiet=["evil"])
                assert answer.status_code == 422, (raw[-80:], answer.text)
            if raw:
                assert (in_json.json()["code"], alone.json()["code"]) == (code, code), raw[-80:]


async def test_the_envelope_of_the_query_is_as_strict(world: World) -> None:
    """`envelope_from` and `envelope_to` are one address each, as in JSON."""
    raw = whole.ACCEPTED["plain"]
    kind = {"Content-Type": "message/rfc822"}
    async with world.caller("envelope") as caller:
        for case in addresses.REFUSED:
            if any("\ud800" <= char <= "\udfff" for char in case.text):
                continue  # no query can have it
            for name in ("envelope_from", "envelope_to"):
                query = {
                    "envelope_from": "noreply@contoso.com",
                    "envelope_to": "ana@example.com",
                    name: case.text,
                }
                answer = await ask(
                    caller.client, "POST", "/messages", params=query, content=raw, headers=kind
                )
                judge(SEND, answer, quiet=["evil"])
                assert answer.status_code == 422, (case, answer.text)
