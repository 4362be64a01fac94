"""Reading back, and the switches, over HTTP."""

import hashlib

import pytest

from service.sandbox import HELP, Sandbox
from tests.sandbox.client import MAILBOX, logged_in, message
from tests.sandbox.entra import readback


async def test_messages_are_listed_newest_first(sandbox: Sandbox) -> None:
    """The list has what was taken, in pages, and each message has its octets."""
    async with logged_in(sandbox) as client:
        for number in range(3):
            await client.send(f"r{number}@fabrikam.com", octets=message(number))

    async with readback(sandbox) as http:
        page = (await http.get("/messages", params={"limit": 2})).json()
        rest = (await http.get("/messages", params={"limit": 2, "after": page["next"]})).json()
        one = page["data"][0]
        same = (await http.get(f"/messages/{one['id']}")).json()
        content = await http.get(f"/messages/{one['id']}/content")

    assert [entry["message_id"] for entry in page["data"]] == ["<2@contoso.com>", "<1@contoso.com>"]
    assert [entry["message_id"] for entry in rest["data"]] == ["<0@contoso.com>"]
    assert (page["object"], page["has_more"], rest["has_more"], rest["next"]) == ("list", True, False, None)
    assert same == one
    assert one["at"].endswith("Z")
    assert content.headers["content-type"] == "message/rfc822"
    assert content.content == message(2)
    assert hashlib.sha256(content.content).hexdigest() == one["sha256"]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"to": "ANA@fabrikam.com"}, 1),
        ({"to": "bo@fabrikam.com"}, 0),
        ({"message_id": "<1@contoso.com>"}, 1),
        ({"message_id": "1@contoso.com"}, 1),
        ({"message_id": "2@contoso.com"}, 0),
        ({"mailbox": MAILBOX}, 1),
        ({"mailbox": "other@contoso.com"}, 0),
    ],
)
async def test_messages_are_found_by_recipient_and_message_id(
    sandbox: Sandbox, query: dict[str, str], found: int
) -> None:
    """Filters compare addresses without their case, and a Message-ID with or without brackets."""
    async with logged_in(sandbox) as client:
        await client.send("ana@fabrikam.com")

    async with readback(sandbox) as http:
        assert len((await http.get("/messages", params=query)).json()["data"]) == found


async def test_messages_can_be_forgotten(sandbox: Sandbox) -> None:
    """After DELETE nothing is left, and the same message is no duplicate any more."""
    async with logged_in(sandbox) as client, readback(sandbox) as http:
        await client.send("ana@fabrikam.com")
        name = sandbox.taken[0].id
        assert (await http.delete("/messages")).status_code == 204
        assert (await http.get(f"/messages/{name}")).status_code == 404
        assert (await http.get(f"/messages/{name}/content")).status_code == 404
        await client.send("ana@fabrikam.com")

    assert [taken.duplicate_of for taken in sandbox.taken] == [None]


async def test_transactions_tell_every_reply(sandbox: Sandbox) -> None:
    """What each recipient and the message were told, as it was said, with what was taken of it."""
    async with logged_in(sandbox) as client, readback(sandbox) as http:
        await client.send("ana@fabrikam.com", "bounced@fabrikam.com")
        await client.send("rejected@fabrikam.com")
        await client.say(f"MAIL FROM:<{MAILBOX}>")
        await client.say("RSET")
        given_up, refused, taken = (await http.get("/transactions")).json()["data"]

    assert [entry["reply"][:9] for entry in taken["recipients"]] == ["250 2.1.5", "550 5.1.1"]
    assert taken["final"].startswith("250 2.0.0 OK <1@contoso.com>")
    assert taken["taken"] == sandbox.taken[0].id
    assert refused["final"].startswith("550 5.7.1 TRANSPORT.RULES.RejectMessage")
    assert (refused["taken"], given_up["final"], given_up["recipients"]) == (None, None, [])


async def test_a_lost_reply_stands_in_the_transactions_as_none(sandbox: Sandbox) -> None:
    """A transaction that ended in silence has no final reply, but shows what was taken."""
    async with logged_in(sandbox) as client, readback(sandbox) as http:
        await client.envelope("drop-after-dot@fabrikam.com")
        await client.raw(message() + b".\r\n")
        assert await client.closed()
        (entry,) = (await http.get("/transactions")).json()["data"]

    assert (entry["final"], entry["taken"]) == (None, sandbox.taken[0].id)


async def test_switches_are_read_and_changed(sandbox: Sandbox) -> None:
    """PUT changes what it names and leaves the rest."""
    async with readback(sandbox) as http:
        before = (await http.get("/switches")).json()
        changed = (
            await http.put("/switches", json={"connections": 7, "smtp_auth_mailboxes": {MAILBOX: None}})
        ).json()

    assert changed == before | {"connections": 7, "smtp_auth_mailboxes": {MAILBOX: None}}
    assert sandbox.switches.connections == 7


@pytest.mark.parametrize(
    ("body", "title"),
    [
        (b'{"connectoins": 7}', "there is no such switch"),
        (b'{"connections": -1}', "connections: Input should be greater than or equal to 0"),
        (b'{"connections": "many-secrets"}', "connections: Input should be a valid integer"),
        (b'{"connections": 1e400}', "connections: Input should be a valid integer"),
        (b'{"idle_seconds": NaN}', "idle_seconds: "),
        (b'{"wording": "secret"}', "wording: Input should be 'new' or 'old'"),
        (b'{"\\ud800": 1}', "there is no such switch"),
        (b'{"wording": "\\ud800"}', "wording: "),
        (b'{"token_faults": {"secret": {"kind": "odd"}}}', "token_faults: "),
        (b"[]", "The body is not a JSON object."),
        (b"{", "The body is not JSON."),
        (b"\xff", "The body is not JSON."),
        (b"[" * 100_000, "The body is not JSON."),
        (b'{"connections": ' + b"9" * 5000 + b"}", ""),
    ],
)
async def test_a_wrong_switch_is_refused_and_changes_nothing(
    sandbox: Sandbox, body: bytes, title: str
) -> None:
    """Each mistake is named with its switch, and nothing of the request is repeated."""
    async with readback(sandbox) as http:
        before = (await http.get("/switches")).json()
        response = await http.put("/switches", content=body)
        after = (await http.get("/switches")).json()

    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["title"].startswith(title)
    assert "secret" not in response.text
    assert after == before


async def test_a_huge_body_is_refused(sandbox: Sandbox) -> None:
    """A quarter of a megabyte is more than all switches need."""
    async with readback(sandbox) as http:
        assert (await http.put("/switches", content=b" " * 300_000)).status_code == 413


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "limit=1001", "after=sbx_none", "to=" + "x" * 2000])
async def test_a_wrong_query_is_refused(sandbox: Sandbox, query: str) -> None:
    """The parameter is named."""
    async with readback(sandbox) as http:
        response = await http.get(f"/messages?{query}")

    assert response.status_code == 422
    assert query.partition("=")[0] in response.json()["title"]


async def test_help_and_certificate_authority_are_there(sandbox: Sandbox) -> None:
    """A newcomer finds the list of local parts, and what to trust."""
    async with readback(sandbox) as http:
        assert (await http.get("/")).text == (await http.get("/help")).text == HELP
        assert (await http.get("/ca.pem")).content == sandbox.ca_file.read_bytes()
        assert (await http.get("/nothing")).status_code == 404
