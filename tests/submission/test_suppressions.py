"""Suppressions at the door: what is taken and refused, who sees and changes what, and what it does to a message."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.ledger.ids import new_id
from service.ledger.keys import DEFAULT_SCOPES
from tests.house import House, a_house, a_message, smarthost
from tests.peer import ScriptedPeer


@pytest.fixture
async def house(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[House]:
    """A door without a worker: what it accepts stays queued."""
    async with (
        ScriptedPeer() as peer,
        a_house(database_url, redis_url, routes=[smarthost(peer)], folder=tmp_path, workers=0) as opened,
    ):
        yield opened


async def key_of(house: House, application: str, *scopes: str) -> dict[str, str]:
    """Headers of another application's key."""
    key = await house.ledger.create_key(application, scopes=[*DEFAULT_SCOPES, *scopes], senders=[])
    return {"Authorization": f"Bearer {key.token}"}


async def suppress(house: House, headers: dict[str, str] | None = None, **body: Any) -> Any:
    given_body = {"address": "ana@example.com", "reason": "unsubscribed", **body}
    return await house.client.post("/suppressions", json=given_body, headers=headers)


async def addresses(house: House, query: str = "", headers: dict[str, str] | None = None) -> list[str]:
    answer = await house.client.get(f"/suppressions{query}", headers=headers)
    assert answer.status_code == 200, answer.text
    return [entry["address"] for entry in answer.json()["data"]]


def problem(answer: Any) -> tuple[int, str, str | None]:
    errors = answer.json()["errors"]
    return answer.status_code, answer.json()["code"], errors[0]["pointer"] if errors else None


# -- entries ----------------------------------------------------------------------------------


async def test_an_entry_is_made_found_and_lifted(house: House) -> None:
    """201 with a Location, the same under it and in the list; after DELETE it is a 404."""
    made = await suppress(house, address="Ana@Example.COM")
    where = made.headers["location"]

    seen = await house.client.get(where)
    found = await addresses(house)
    lifted = await house.client.delete(where)
    gone = await house.client.get(where)

    assert made.status_code == 201
    assert made.json() == {**seen.json(), "stopped": 0}
    assert {name: seen.json()[name] for name in ("application", "address", "reason", "source", "active")} == {
        "application": "tests",
        "address": "ana@example.com",
        "reason": "unsubscribed",
        "source": "manual",
        "active": True,
    }
    assert found == ["ana@example.com"]
    assert (lifted.status_code, lifted.json()["deleted"], gone.status_code) == (200, True, 404)
    assert (await house.client.delete(where)).status_code == 404


async def test_the_same_address_again_is_a_200_and_changes_it(house: House) -> None:
    """There is one entry for an address; its id stays, reason and end are the new ones."""
    first = await suppress(house)
    until = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    second = await suppress(house, address="ANA@example.com", reason="complained", expires_at=until)

    assert (first.status_code, second.status_code) == (201, 200)
    assert second.json()["id"] == first.json()["id"]
    assert second.json()["reason"] == "complained"
    assert second.json()["expires_at"] is not None


async def test_many_at_once(house: House) -> None:
    """A list is answered by a list in its order, each address once; 200 where none of them is new."""
    given_addresses = ["zoe@example.com", "@Example.org", "ana@example.com", "ZOE@example.com"]
    body = {"addresses": given_addresses, "reason": "imported"}

    first = await house.client.post("/suppressions", json=body)
    second = await house.client.post("/suppressions", json=body)

    assert (first.status_code, second.status_code) == (201, 200)
    assert [each["address"] for each in first.json()["data"]] == [
        "zoe@example.com",
        "@example.org",
        "ana@example.com",
    ]


async def test_a_thousand_at_once_are_quick_enough(house: House) -> None:
    """The largest list is one request, and the next one more is refused."""
    most = [f"a{n}@example.com" for n in range(1000)]

    taken = await house.client.post("/suppressions", json={"addresses": most})
    refused = await house.client.post("/suppressions", json={"addresses": [*most, "b@example.com"]})

    assert (taken.status_code, len(taken.json()["data"])) == (201, 1000)
    assert problem(refused) == (422, "too_long", "/addresses")


WRONG_ENTRIES: list[tuple[dict[str, Any], str, str]] = [
    ({}, "required", "/address"),
    ({"address": "a@b.example", "addresses": ["c@d.example"]}, "exclusive", "/addresses"),
    ({"addresses": []}, "too_short", "/addresses"),
    ({"addresses": ["a@b.example", "nobody"]}, "no_at", "/addresses/1"),
    ({"address": "nobody"}, "no_at", "/address"),
    ({"address": "@"}, "domain_empty", "/address"),
    ({"address": "@a b"}, "domain_syntax", "/address"),
    ({"address": "Ana <ana@example.com>"}, "angle_brackets", "/address"),
    ({"address": "ana@example.com\r\nx"}, "control_character", "/address"),
    ({"address": "a@b.example", "reason": ""}, "string_too_short", "/reason"),
    ({"address": "a@b.example", "reason": "x" * 501}, "string_too_long", "/reason"),
    ({"address": "a@b.example", "expires_at": "tomorrow"}, "not_a_time", "/expires_at"),
    ({"address": "a@b.example", "expires_at": "2001-01-01T00:00:00Z"}, "in_the_past", "/expires_at"),
    ({"address": "a@b.example", "source": "rule"}, "unknown_field", ""),
    ({"address": 7}, "string_type", "/address"),
]


async def test_what_is_wrong_is_named(house: House) -> None:
    """Each field that is wrong has its own code and pointer."""
    for body, code, pointer in WRONG_ENTRIES:
        assert problem(await house.client.post("/suppressions", json=body)) == (422, code, pointer), body


async def test_the_list_is_filtered_and_paged(house: House) -> None:
    """By address, by domain with its addresses, by source; newest first, and a page goes on behind the last one."""
    for each in ("ana@example.com", "bo@example.com", "@example.com", "cy@example.org"):
        await suppress(house, address=each)

    first = (await house.client.get("/suppressions?limit=3")).json()
    rest = (await house.client.get(f"/suppressions?limit=3&after={first['next']}")).json()
    back = (await house.client.get(f"/suppressions?limit=3&before={rest['data'][0]['id']}")).json()

    assert await addresses(house, "?address=ANA@example.com") == ["ana@example.com"]
    assert await addresses(house, "?address=@example.com") == ["@example.com"]
    assert await addresses(house, "?domain=example.com") == [
        "@example.com",
        "bo@example.com",
        "ana@example.com",
    ]
    assert await addresses(house, "?source=rule") == []
    assert [each["address"] for each in first["data"] + rest["data"]] == [
        "cy@example.org",
        "@example.com",
        "bo@example.com",
        "ana@example.com",
    ]
    assert (first["has_more"], rest["has_more"], back["data"]) == (True, False, first["data"])


WRONG_FILTERS = [
    ("?address=nobody", "no_at", "?address"),
    ("?domain=a%20b", "domain_syntax", "?domain"),
    ("?source=both", "literal_error", "?source"),
    ("?reason=x", "unknown_parameter", ""),
    ("?after=sru_01JDB6Z0Q5V8W6K3T1E9F4H2RC", "not_an_id", "?after"),
]


async def test_a_wrong_filter_is_refused(house: House) -> None:
    """A filter with a slip of the pen would otherwise show everything."""
    for query, code, pointer in WRONG_FILTERS:
        assert problem(await house.client.get(f"/suppressions{query}")) == (422, code, pointer), query


# -- whose ------------------------------------------------------------------------------------


async def test_another_applications_entries_are_not_there(house: House) -> None:
    """Not in the list by whatever filter, not under their id, not to be lifted; and they stop nothing."""
    others = await key_of(house, "others")
    where = (await suppress(house)).headers["location"]

    answers = [await house.client.request(method, where, headers=others) for method in ("GET", "DELETE")]
    lists = [
        await addresses(house, query, others) for query in ("", "?application=tests", "?domain=example.com")
    ]
    accepted = await house.client.post("/messages", json=a_message(), headers=others)

    assert [answer.status_code for answer in answers] == [404, 404]
    assert lists == [[], [], []]
    assert accepted.json()["recipients"][0]["status"] == "queued"
    assert (await house.client.get(where)).status_code == 200


async def test_entries_for_everybody_are_an_operators(house: House) -> None:
    """Others may not make or lift them; they see them, because their mail is stopped too."""
    operator, others = await key_of(house, "postmasters", "operate"), await key_of(house, "others")

    refused = await suppress(house, application="*")
    made = await suppress(house, operator, application="*")
    where = made.headers["location"]
    seen = await house.client.get(where, headers=others)
    not_lifted = await house.client.delete(where, headers=others)
    accepted = await house.client.post("/messages", json=a_message(), headers=others)
    lifted = await house.client.delete(where, headers=operator)

    assert problem(refused) == (403, "insufficient_scope", "/application")
    assert (made.status_code, made.json()["application"]) == (201, "*")
    assert (seen.status_code, not_lifted.status_code, lifted.status_code) == (200, 403, 200)
    assert accepted.json()["recipients"][0]["reason"] == "suppressed_manual"


async def test_an_operator_acts_for_an_application(house: House) -> None:
    """With `application` an operator writes another one's entry, and filters by it."""
    operator = await key_of(house, "postmasters", "operate")

    made = await suppress(house, operator, application="tests")

    assert made.json()["application"] == "tests"
    assert await addresses(house) == ["ana@example.com"]
    assert await addresses(house, "?application=tests", operator) == ["ana@example.com"]
    assert await addresses(house, "?application=postmasters", operator) == []
    assert (await suppress(house, application="others")).status_code == 403


ENDPOINTS = [
    ("GET", "/suppressions", "suppressions.read"),
    ("POST", "/suppressions", "suppressions.write"),
    ("GET", "/suppressions/rules", "suppressions.read"),
    ("POST", "/suppressions/rules", "suppressions.write"),
    ("GET", f"/suppressions/{new_id('sup')}", "suppressions.read"),
    ("DELETE", f"/suppressions/{new_id('sup')}", "suppressions.write"),
    ("GET", f"/suppressions/rules/{new_id('sru')}", "suppressions.read"),
    ("DELETE", f"/suppressions/rules/{new_id('sru')}", "suppressions.write"),
]


async def test_each_endpoint_demands_its_scope(house: House) -> None:
    """Without the scope it is a 403 that names it."""
    for method, path, scope in ENDPOINTS:
        scopes = [each for each in DEFAULT_SCOPES if each != scope]
        key = await house.ledger.create_key("tests", scopes=scopes, senders=[])
        headers = {"Authorization": f"Bearer {key.token}"}

        answer = await house.client.request(
            method, path, json={} if method == "POST" else None, headers=headers
        )

        assert problem(answer)[:2] == (403, "insufficient_scope"), path
        assert scope in answer.json()["detail"]


# -- what it does -----------------------------------------------------------------------------


async def test_a_suppressed_recipient_is_told_with_its_remedy(house: House) -> None:
    """The other recipient is queued; the suppressed one has state, reason, and how to lift it."""
    entry = (await suppress(house)).json()

    answer = await house.client.post("/messages", json=a_message(to=["Ana@example.com", "bo@example.com"]))
    shown = await house.message(answer.json()["id"])

    ana, bo = shown["recipients"]
    assert answer.status_code == 202
    assert (ana["status"], ana["reason"], bo["status"]) == ("suppressed", "suppressed_manual", "queued")
    assert ana["last_error"]["code"] == "suppressed_manual"
    assert ana["last_error"]["detail"] == "ana@example.com is suppressed: unsubscribed"
    assert f"DELETE /suppressions/{entry['id']}" in " ".join(ana["last_error"]["diagnosis"]["remedy"])
    assert answer.json()["recipients"][0] == ana


async def test_an_own_entry_counts_at_once(house: House) -> None:
    """What was remembered of an application is forgotten by the very request that adds or lifts an entry."""
    before = await house.client.post("/messages", json=a_message())
    entry = await suppress(house)
    during = await house.client.post("/messages", json=a_message())
    await house.client.delete(entry.headers["location"])
    after = await house.client.post("/messages", json=a_message())

    states = [each.json()["recipients"][0]["status"] for each in (before, during, after)]
    assert states == ["queued", "suppressed", "queued"]


async def test_what_waits_is_stopped_and_counted(house: House) -> None:
    """The answer says how many recipients were stopped; the queued message has its end."""
    message_id = await house.submit(to=["ana@example.com"])

    answer = await suppress(house)

    shown = await house.message(message_id)
    events = await house.get(f"/messages/{message_id}/events")
    assert answer.json()["stopped"] == 1
    assert (shown["status"], shown["recipients"][0]["reason"]) == ("suppressed", "suppressed_manual")
    assert events["data"][-1]["actor"].startswith("key_")


# -- rules ------------------------------------------------------------------------------------


async def test_a_rule_is_made_found_and_taken_away(house: House) -> None:
    """201 with a Location, shown as it was written; after DELETE it is a 404."""
    body = {"enhanced": ["5.1.1", "5.1.10"], "failures": 2, "within": "720h", "lasts": "90d"}
    made = await house.client.post("/suppressions/rules", json=body)
    where = made.headers["location"]

    seen = await house.client.get(where)
    listed = await house.client.get("/suppressions/rules")
    gone = await house.client.delete(where)

    assert made.status_code == 201
    assert seen.json() == made.json() == listed.json()["data"][0]
    assert {**body, "within": "30d", "diagnoses": [], "application": "tests"}.items() <= made.json().items()
    assert gone.json() == {"object": "suppression_rule", "id": made.json()["id"], "deleted": True}
    assert (await house.client.get(where)).status_code == 404


WRONG_RULES: list[tuple[dict[str, Any], str, str]] = [
    ({}, "required", "/enhanced"),
    ({"enhanced": ["550"]}, "string_pattern_mismatch", "/enhanced/0"),
    ({"enhanced": ["2.0.0"]}, "string_pattern_mismatch", "/enhanced/0"),
    ({"enhanced": ["5.1.1\n"]}, "string_pattern_mismatch", "/enhanced/0"),
    ({"diagnoses": ["exo.no_such"]}, "unknown_diagnosis", "/diagnoses/0"),
    ({"enhanced": ["5.1.1"], "failures": 0}, "greater_than_equal", "/failures"),
    ({"enhanced": ["5.1.1"], "failures": True}, "int_type", "/failures"),
    ({"enhanced": ["5.1.1"], "within": "a month"}, "string_pattern_mismatch", "/within"),
    ({"enhanced": ["5.1.1"], "within": "1w"}, "string_pattern_mismatch", "/within"),
    ({"enhanced": ["5.1.1"], "within": "0s"}, "out_of_range", "/within"),
    ({"enhanced": ["5.1.1"], "within": "366d"}, "out_of_range", "/within"),
    ({"enhanced": ["5.1.1"], "lasts": "999999d"}, "out_of_range", "/lasts"),
]


async def test_a_wrong_rule_is_named(house: House) -> None:
    """Diagnoses are those of the catalogue, durations have a unit and a bound."""
    for body, code, pointer in WRONG_RULES:
        answer = await house.client.post("/suppressions/rules", json=body)

        assert answer.status_code == 422, body
        assert {(each["code"], each["pointer"]) for each in answer.json()["errors"]} == {(code, pointer)}


async def test_rules_are_their_applications_own(house: House) -> None:
    """Another application sees none of them; those for everybody are an operator's, and everybody sees them."""
    operator, others = await key_of(house, "postmasters", "operate"), await key_of(house, "others")
    own = await house.client.post("/suppressions/rules", json={"enhanced": ["5.1.1"]})
    refused = await house.client.post("/suppressions/rules", json={"enhanced": ["5.1.1"], "application": "*"})
    everybodys = await house.client.post(
        "/suppressions/rules", json={"enhanced": ["5.1.1"], "application": "*"}, headers=operator
    )

    hidden = [
        await house.client.request(method, own.headers["location"], headers=others)
        for method in ("GET", "DELETE")
    ]
    seen = await house.client.get("/suppressions/rules", headers=others)
    kept = await house.client.delete(everybodys.headers["location"], headers=others)

    assert problem(refused) == (403, "insufficient_scope", "/application")
    assert [answer.status_code for answer in hidden] == [404, 404]
    assert [each["application"] for each in seen.json()["data"]] == ["*"]
    assert kept.status_code == 403


# -- whatever comes ---------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(["address", "addresses", "reason", "expires_at", "application", "enhanced", "diagnoses", "failures", "within", "lasts", "x"])  # fmt: skip


@given(
    path=st.sampled_from(["/suppressions", "/suppressions/rules"]),
    body=st.dictionaries(FIELDS, JSON, max_size=5),
)
@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
async def test_no_value_gets_a_500(house: House, path: str, body: dict[str, Any]) -> None:
    """Whatever stands in a field, the answer is 200, 201 or a 4xx problem."""
    answer = await house.client.post(
        path, content=json.dumps(body), headers={"Content-Type": "application/json"}
    )

    assert answer.status_code in {200, 201} or 400 <= answer.status_code < 500, answer.text
