"""Keys over HTTP and on the command line: made, restricted, rotated, revoked, and by whom."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from service.ledger.audit import Entry, of_target
from service.ledger.engine import open_engine
from service.ledger.keys import SCOPES
from service.local import keys as command_line
from tests.house import House, a_house, a_message, configuration, processes, smarthost
from tests.peer import ScriptedPeer
from tests.waiting import eventually

RESTRICTIONS = {
    "routes": ["peer"],
    "recipient_domains": ["example.com"],
    "networks": ["127.0.0.0/8"],
    "messages_per_minute": 10,
    "messages_per_day": 100,
}


@pytest.fixture
async def house(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[House]:
    """A door behind a proxy on 127.0.0.1, without a worker."""
    async with (
        ScriptedPeer() as peer,
        a_house(
            database_url,
            redis_url,
            routes=[smarthost(peer)],
            folder=tmp_path,
            workers=0,
            settings_changes={"api": {"trusted_proxies": ["127.0.0.1/32"]}},
        ) as opened,
    ):
        yield opened


def bearer(token: str, address: str | None = None) -> dict[str, str]:
    """The headers of a caller; `address` is where the proxy says that it comes from."""
    return {"Authorization": f"Bearer {token}"} | ({"X-Forwarded-For": address} if address else {})


async def an_admin(house: House, **more: Any) -> dict[str, str]:
    key = await house.ledger.create_key("administrators", scopes=["admin"], senders=[], **more)
    return bearer(key.token)


async def made(house: House, admin: dict[str, str], **wanted: Any) -> dict[str, Any]:
    """Make a key over HTTP."""
    answer = await house.client.post("/keys", json={"application": "billing", **wanted}, headers=admin)
    assert answer.status_code == 201, answer.text
    shown: dict[str, Any] = answer.json()
    return shown


async def audited(database_url: str, target: str) -> list[Entry]:
    engine = open_engine(database_url, name="test-audit", size=1)
    try:
        async with engine.connect() as db:
            return await of_target(db, target)
    finally:
        await engine.dispose()


async def test_a_key_is_shown_once_and_knows_its_restrictions(house: House) -> None:
    """201 has the key; it opens the door, and `GET /me` shows its rights in their form, without the key."""
    admin = await an_admin(house)
    key = await made(
        house,
        admin,
        name="Receipts",
        scopes=["messages.send"],
        senders=["NoReply@Contoso.com", "@FABRIKAM.com"],
        expires_at="2030-01-01T00:00:00+01:00",
        **{**RESTRICTIONS, "recipient_domains": ["Example.COM", "bücher.example"]},
    )

    me = await house.client.get("/me", headers=bearer(key["key"]))
    shown = (await house.client.get(f"/keys/{key['id']}", headers=admin)).json()

    assert me.status_code == 200
    assert me.json()["application"] == "billing"
    assert me.json()["senders"] == ["NoReply@contoso.com", "@fabrikam.com"]
    assert me.json()["recipient_domains"] == ["example.com", "xn--bcher-kva.example"]
    assert me.json()["expires_at"] == "2029-12-31T23:00:00.000Z"
    assert {name: me.json()[name] for name in ("routes", "networks", "messages_per_minute")} == {
        "routes": ["peer"], "networks": ["127.0.0.0/8"], "messages_per_minute": 10,
    }  # fmt: skip
    assert key["key"].startswith("pr_live_")
    assert "key" not in me.json()
    assert "key" not in shown


#: What is wrong about a wish for a key, and how it is named.
WRONG_RIGHTS: tuple[tuple[dict[str, Any], str, str], ...] = (
    ({"scopes": ["messages.send", "everything"]}, "/scopes/1", "unknown_scope"),
    ({"scopes": []}, "/scopes", "too_short"),
    ({"senders": ["nobody"]}, "/senders/0", "not_a_sender"),
    ({"routes": ["peer", "nowhere"]}, "/routes/1", "unknown_route"),
    ({"routes": []}, "/routes", "too_short"),
    ({"recipient_domains": ["a b"]}, "/recipient_domains/0", "not_a_domain"),
    ({"networks": ["10.0.0.1/8"]}, "/networks/0", "not_a_network"),
    ({"networks": ["canary"]}, "/networks/0", "not_a_network"),
    ({"messages_per_minute": 0}, "/messages_per_minute", "greater_than_equal"),
    ({"messages_per_day": "7"}, "/messages_per_day", "int_type"),
    ({"expires_at": "2020-01-01T00:00:00Z"}, "/expires_at", "in_the_past"),
    ({"expires_at": "soon"}, "/expires_at", "not_a_time"),
    ({"application": "a\nb"}, "/application", "not_printable"),
    ({"name": " "}, "/name", "not_printable"),
    ({"restrictions": {}}, "", "unknown_field"),
)


async def test_a_wrong_right_is_named(house: House) -> None:
    """422 with the entry that is wrong, and nothing of the input; no key is made."""
    admin = await an_admin(house)

    for changes, pointer, code in WRONG_RIGHTS:
        answer = await house.client.post("/keys", json={"application": "billing", **changes}, headers=admin)
        assert answer.status_code == 422, answer.text
        assert [(each["pointer"], each["code"]) for each in answer.json()["errors"]] == [(pointer, code)]
        assert "canary" not in answer.text
    assert "billing" not in {each.application for each in await house.ledger.list_keys()}


async def test_only_an_administrator_has_a_say_about_keys(house: House) -> None:
    """Every other scope together opens none of the endpoints; `operate` does not either."""
    everything_else = [scope for scope in SCOPES if scope != "admin"]
    other = await house.ledger.create_key("other", scopes=everything_else, senders=[])
    headers, path = bearer(other.token), f"/keys/{other.id}"

    answers = [
        await house.client.post("/keys", json={"application": "other", "scopes": ["admin"]}, headers=headers),
        await house.client.get("/keys", headers=headers),
        await house.client.get(path, headers=headers),
        await house.client.patch(path, json={"scopes": ["admin"]}, headers=headers),
        await house.client.delete(path, headers=headers),
        await house.client.post(f"{path}/rotate", headers=headers),
    ]

    assert [(each.status_code, each.json()["code"]) for each in answers] == [(403, "insufficient_scope")] * 6
    assert (await house.client.get("/me", headers=headers)).json()["scopes"] == everything_else


async def test_a_test_key_makes_test_keys_only(house: House) -> None:
    """An administrator whose own mail never reaches Microsoft cannot make, change or rotate a live key."""
    admin = await an_admin(house, test=True)
    live = await house.ledger.create_key("billing", scopes=["messages.send"], senders=[])

    refused = [
        await house.client.post("/keys", json={"application": "billing"}, headers=admin),
        await house.client.patch(f"/keys/{live.id}", json={"scopes": ["admin"]}, headers=admin),
        await house.client.post(f"/keys/{live.id}/rotate", headers=admin),
    ]
    key = await made(house, admin, test=True)

    assert [each.json()["code"] for each in refused] == ["test_key"] * 3
    assert key["key"].startswith("pr_test_")


async def test_a_key_is_changed_at_once_and_null_lifts_a_restriction(house: House) -> None:
    """PATCH changes what it names and nothing else, from the next request on."""
    admin = await an_admin(house)
    key = await made(house, admin, scopes=["messages.send"], senders=["@contoso.com"], **RESTRICTIONS)
    headers = bearer(key["key"], "127.0.0.1")
    before = (await house.client.get("/me", headers=headers)).json()

    changed = await house.client.patch(
        f"/keys/{key['id']}",
        json={"name": "Receipts", "routes": None, "messages_per_day": None, "senders": None},
        headers=admin,
    )
    after = (await house.client.get("/me", headers=headers)).json()

    assert changed.status_code == 200, changed.text
    assert before["name"] is None
    assert after == {**before, "name": "Receipts", "routes": None, "messages_per_day": None, "senders": [],
                     "last_used_at": after["last_used_at"]}  # fmt: skip
    assert after["recipient_domains"] == ["example.com"]


async def test_a_revoked_key_is_shut_out_at_once(house: House) -> None:
    """The process that revoked it refuses the very next request, although it had remembered the key."""
    admin = await an_admin(house)
    key = await made(house, admin)
    assert (await house.client.get("/me", headers=bearer(key["key"]))).status_code == 200

    revoked = await house.client.delete(f"/keys/{key['id']}", headers=admin)
    refused = await house.client.get("/me", headers=bearer(key["key"]))
    again = await house.client.delete(f"/keys/{key['id']}", headers=admin)
    changed = await house.client.patch(f"/keys/{key['id']}", json={"name": "x"}, headers=admin)
    rotated = await house.client.post(f"/keys/{key['id']}/rotate", headers=admin)

    assert revoked.json()["revoked_at"] == again.json()["revoked_at"] is not None
    assert (refused.status_code, refused.json()["code"]) == (401, "key_closed")
    assert [(each.status_code, each.json()["code"]) for each in (changed, rotated)] == [
        (409, "key_closed")
    ] * 2


async def test_an_expired_key_is_shut_out(house: House) -> None:
    """A key works until its end, and not a request longer."""
    key = await house.ledger.create_key(
        "brief", scopes=["messages.read"], senders=[], expires_at=datetime.now(UTC) + timedelta(seconds=1.5)
    )
    assert (await house.client.get("/me", headers=bearer(key.token))).status_code == 200

    async def refused() -> bool:
        answer = await house.client.get("/me", headers=bearer(key.token))
        return answer.status_code == 401 and answer.json()["code"] == "key_closed"

    assert await eventually(refused, within=10.0)


async def test_two_keys_live_while_one_is_rotated(house: House) -> None:
    """The new key has the rights of the old one; both open the door; a third one is refused until one is revoked."""
    admin = await an_admin(house)
    old = await made(house, admin, name="Receipts", senders=["@contoso.com"], **RESTRICTIONS)

    answer = await house.client.post(f"/keys/{old['id']}/rotate", json={"overlap": "2h"}, headers=admin)
    new = answer.json()
    third = await house.client.post(f"/keys/{old['id']}/rotate", headers=admin)
    rights = [
        (await house.client.get("/me", headers=bearer(each["key"], "127.0.0.9"))).json()
        for each in (old, new)
    ]
    await house.client.delete(f"/keys/{new['id']}", headers=admin)
    another = await house.client.post(f"/keys/{old['id']}/rotate", headers=admin)

    assert answer.status_code == 201, answer.text
    assert new["replaces"] == old["id"] == new["replaced"]["id"]
    left = datetime.fromisoformat(new["replaced"]["expires_at"]) - datetime.now(UTC)
    assert timedelta(hours=1, minutes=58) < left <= timedelta(hours=2)
    own = {"id", "created_at", "expires_at", "replaces", "last_used_at"}
    assert {n: v for n, v in rights[0].items() if n not in own} == {
        n: v for n, v in rights[1].items() if n not in own
    }
    assert new["expires_at"] is None
    assert (third.status_code, third.json()["code"]) == (409, "key_replaced")
    assert another.status_code == 201


async def test_an_overlap_of_nothing_ends_the_old_key_at_once(house: House) -> None:
    """With 0s the old key is refused by the next request, with 31d nothing is done."""
    admin = await an_admin(house)
    old = await made(house, admin)
    assert (await house.client.get("/me", headers=bearer(old["key"]))).status_code == 200

    too_long = await house.client.post(f"/keys/{old['id']}/rotate", json={"overlap": "31d"}, headers=admin)
    await house.client.post(f"/keys/{old['id']}/rotate", json={"overlap": "0s"}, headers=admin)
    refused = await house.client.get("/me", headers=bearer(old["key"]))

    assert too_long.json()["errors"][0]["pointer"] == "/overlap"
    assert refused.status_code == 401


async def test_a_key_rotates_itself_only_where_it_may_and_gains_nothing(house: House) -> None:
    """`keys.rotate` puts a key with the same end in its own place, once; without the scope it is 403."""
    plain = await house.ledger.create_key("billing", scopes=["messages.send"], senders=[])
    end = datetime.now(UTC) + timedelta(days=3)
    own = await house.ledger.create_key(
        "billing", scopes=["messages.send", "keys.rotate"], senders=["@contoso.com"], expires_at=end
    )

    refused = await house.client.post("/me/rotate", headers=bearer(plain.token))
    rotated = await house.client.post("/me/rotate", json={"overlap": "7d"}, headers=bearer(own.token))
    again = await house.client.post("/me/rotate", headers=bearer(own.token))

    assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scope")
    assert rotated.status_code == 201, rotated.text
    assert datetime.fromisoformat(rotated.json()["expires_at"]) - end < timedelta(seconds=1)
    assert rotated.json()["replaced"]["expires_at"] == rotated.json()["expires_at"]
    assert rotated.json()["scopes"] == ["messages.send", "keys.rotate"]
    assert (again.status_code, again.json()["code"]) == (409, "key_replaced")


async def test_keys_are_listed_in_pages(house: House) -> None:
    """Newest first, with cursors in both directions, of one application or of all."""
    admin = await an_admin(house)
    ids = [(await made(house, admin, application="paged"))["id"] for _ in range(5)][::-1]

    first = (await house.client.get("/keys?application=paged&limit=2", headers=admin)).json()
    second = (
        await house.client.get(f"/keys?application=paged&limit=2&after={first['next']}", headers=admin)
    ).json()
    back = (await house.client.get(f"/keys?application=paged&limit=5&before={ids[2]}", headers=admin)).json()
    everybody = (await house.client.get("/keys", headers=admin)).json()
    wrong = await house.client.get("/keys?aplication=paged", headers=admin)

    assert [each["id"] for each in first["data"] + second["data"]] == ids[:4]
    assert first["has_more"]
    assert [each["id"] for each in back["data"]] == ids[:2]
    assert {each["application"] for each in everybody["data"]} == {"tests", "administrators", "paged"}
    assert wrong.status_code == 422


async def test_an_unknown_key_is_a_404(house: House) -> None:
    """So is what has not the form of an id."""
    admin = await an_admin(house)
    for path in ("/keys/key_01JDB6Z0Q5V8W6K3T1E9F4H2RC", "/keys/x"):
        answers = [
            await house.client.get(path, headers=admin),
            await house.client.delete(path, headers=admin),
            await house.client.patch(path, json={}, headers=admin),
            await house.client.post(f"{path}/rotate", headers=admin),
        ]
        assert [each.status_code for each in answers] == [404] * 4


async def test_every_act_on_a_key_is_audited(house: House, database_url: str) -> None:
    """Who did what, from where; never the key itself."""
    admin = {**await an_admin(house), "X-Forwarded-For": "192.0.2.7"}
    key = await made(house, admin, scopes=["messages.send"])
    await house.client.patch(f"/keys/{key['id']}", json={"messages_per_day": 5}, headers=admin)
    await house.client.post(f"/keys/{key['id']}/rotate", headers=admin)
    await house.client.delete(f"/keys/{key['id']}", headers=admin)

    entries = await audited(database_url, key["id"])

    assert [each.action for each in entries] == ["key.create", "key.change", "key.rotate", "key.revoke"]
    assert {each.address for each in entries} == {"192.0.2.7"}
    assert entries[1].details["messages_per_day"] == 5
    assert key["key"].split("_", 3)[3] not in repr(entries)


async def test_a_key_notes_when_it_was_used(house: House) -> None:
    """`last_used_at` comes with the first use."""
    admin = await an_admin(house)
    key = await made(house, admin)
    assert (await house.client.get(f"/keys/{key['id']}", headers=admin)).json()["last_used_at"] is None

    await house.client.get("/me", headers=bearer(key["key"]))

    async def noted() -> str | None:
        shown = (await house.client.get(f"/keys/{key['id']}", headers=admin)).json()
        return str(shown["last_used_at"]) if shown["last_used_at"] else None

    assert await eventually(noted)


async def test_the_command_line_makes_restricts_rotates_and_revokes(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """The same rights by options; the acts are audited."""
    async with ScriptedPeer() as peer:
        given = configuration(database_url, redis_url, routes=[smarthost(peer)])
        with processes(tmp_path, given) as house:
            made = json.loads(
                await house.run(
                    "keys", "create", "billing", "--label", "Receipts", "--scopes", "messages.send,messages.read",
                    "--senders", "@Contoso.com", "--routes", "peer", "--recipient-domains", "a.example, b.example",
                    "--networks", "10.0.0.0/8,192.0.2.1", "--messages-per-minute", "5", "--messages-per-day", "50",
                    "--expires", "90d", "--json",
                )
            )  # fmt: skip
            rotated = json.loads(await house.run("keys", "rotate", made["id"], "--overlap", "1h", "--json"))
            await house.run("keys", "revoke", made["id"])
            listed = {each["id"]: each for each in json.loads(await house.run("keys", "list", "--json"))}

    old, new = listed[made["id"]], listed[rotated["id"]]
    assert set(made) == {"id", "key"}
    assert new["replaces"] == old["id"]
    assert old["revoked_at"] is not None
    assert new["networks"] == old["networks"] == ["10.0.0.0/8", "192.0.2.1/32"]
    assert new["recipient_domains"] == ["a.example", "b.example"]
    assert (new["messages_per_minute"], new["messages_per_day"], new["name"]) == (5, 50, "Receipts")
    assert (
        timedelta(days=89)
        < datetime.fromisoformat(new["expires_at"]) - datetime.now(UTC)
        < timedelta(days=90)
    )
    assert [each.action for each in await audited(database_url, made["id"])] == [
        "key.create", "key.rotate", "key.revoke",
    ]  # fmt: skip


async def test_a_message_may_not_leave_what_its_key_allows(house: House) -> None:
    """A key for one domain sends there, and gets a 403 for another one."""
    admin = await an_admin(house)
    key = await made(house, admin, scopes=["messages.send"], recipient_domains=["example.com"])

    inside = await house.client.post("/messages", json=a_message(), headers=bearer(key["key"]))
    outside = await house.client.post(
        "/messages", json=a_message(to="ana@example.org"), headers=bearer(key["key"])
    )

    assert inside.status_code == 202
    assert outside.status_code == 403


def test_the_command_line_names_the_option_that_is_wrong() -> None:
    """Every wrong entry in a line of its own, with its option."""
    given: dict[str, Any] = {
        "scopes": None, "senders": ["a@b.example,nobody"], "routes": ["nowhere"], "recipient_domains": None,
        "networks": ["10.0.0.1/8"], "messages_per_minute": 0, "messages_per_day": None,
    }  # fmt: skip

    with pytest.raises(command_line.WrongUse) as wrong:
        command_line.wanted("billing", label=None, given=given, test=False, expires=None, routes=["peer"])

    options = ["--senders 'nobody'", "--routes 'nowhere'", "--networks '10.0.0.1/8'", "--messages-per-minute"]
    assert [line.split(":")[0] for line in str(wrong.value).splitlines()] == options


@pytest.mark.parametrize(
    "written", ["2020-01-01T00:00:00Z", "2030-01-01", "2030-01-01T00:00:00", "soon", "0s", ""]
)
def test_a_key_ends_at_a_time_to_come(written: str) -> None:
    """A time that has passed, has no offset or is none is refused."""
    with pytest.raises(command_line.WrongUse, match="--expires"):
        command_line.end(written, now=datetime.now(UTC))
