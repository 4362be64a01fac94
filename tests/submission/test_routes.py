"""What the API says about routes, lanes and passwords: settings in force, never a secret."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.ledger.checks import NewNotice
from service.ledger.ids import new_id
from service.ledger.pace import LaneLimits
from service.ledger.states import Status
from tests.builders import a_closing, a_submission, claim
from tests.house import House, a_house

SECRET = "s3cret-never-shown"
OAUTH = {"method": "oauth", "client_id": "app-1", "client_secret": SECRET}
PASSWORD = {"method": "basic", "password": SECRET}

ROUTES: list[dict[str, Any]] = [
    {
        "name": "noreply",
        "kind": "client_submission",
        "mailboxes": [
            {"address": "noreply@contoso.com", "login": OAUTH, "send_as": ["billing@contoso.com"]},
            {"address": "Old@contoso.com", "login": PASSWORD},
        ],
        "limits": {"messages_per_minute": 20},
    },
    {"name": "own-domain", "kind": "direct_send", "mx_of": "contoso.com"},
    {"name": "volume", "kind": "high_volume_email", "accounts": [{"address": "hve@contoso.com", "login": PASSWORD}]},
    {
        "name": "azure",
        "kind": "azure_communication_services",
        "login": {**PASSWORD, "username": "res|app|tenant"},
        "enabled": False,
    },
    {"name": "relay", "kind": "smarthost", "host": "mail.contoso.com", "login": {**PASSWORD, "username": "postroom"}},
]  # fmt: skip

SETTINGS: dict[str, Any] = {
    "organization": {
        "accepted_domains": ["contoso.com"],
        "licences": 250,
        "egress": {"static_ips": ["203.0.113.10"], "hosting": "own_static_ip"},
    },
    "entra": {"tenant_id": "11111111-2222-3333-4444-555555555555"},
    "route_order": ["own-domain", "noreply"],
}


@pytest.fixture
async def house(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[House]:
    """A door without a worker, with a route of almost every kind."""
    async with a_house(
        database_url, redis_url, routes=ROUTES, folder=tmp_path, workers=0, settings_changes=SETTINGS
    ) as opened:
        yield opened


async def as_operator(house: House, path: str) -> Any:
    key = await house.ledger.create_key("operators", scopes=["routes.read", "operate"], senders=[])
    answer = await house.client.get(path, headers={"Authorization": f"Bearer {key.token}"})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def recommended(house: House, **given: Any) -> Any:
    answer = await house.client.post("/routes/recommend", json=given)
    assert answer.status_code == 200, answer.text
    return answer.json()


# -- routes -----------------------------------------------------------------------------------


async def test_routes_are_listed_in_the_order_of_the_configuration(house: House) -> None:
    """Every route once, with its place in route_order."""
    found = await house.get("/routes")

    assert [(route["name"], route["position"]) for route in found["data"]] == [
        ("noreply", 2),
        ("own-domain", 1),
        ("volume", None),
        ("azure", None),
        ("relay", None),
    ]
    assert (found["object"], found["has_more"]) == ("list", False)


async def test_a_route_shows_what_is_in_force(house: House) -> None:
    """Host, login and limits as they take effect, and where each limit comes from."""
    found = await house.get("/routes/noreply")

    assert (found["host"], found["port"], found["tls"]) == ("smtp.office365.com", 587, "required")
    assert found["limits"]["messages_per_minute"] == {"value": 20, "source": "configuration"}
    assert found["limits"]["recipients_per_day"]["value"] == 10_000
    assert "Microsoft" in found["limits"]["recipients_per_day"]["source"]
    assert found["mailboxes"][0] == {
        "address": "noreply@contoso.com",
        "login": {"method": "oauth", "identity": "app-1", "credential": "secret"},
        "send_as": ["billing@contoso.com"],
        "lane": "noreply/noreply@contoso.com",
    }
    assert found["mailboxes"][1]["login"] == {
        "method": "basic",
        "identity": "Old@contoso.com",
        "credential": "password",
    }
    assert (found["state"], found["resting"], found["last_check"]) == ("ready", None, None)


async def test_no_answer_has_a_secret(house: House) -> None:
    """Not the routes, not the report, not the recommendation."""
    paths = [
        "/routes",
        "/routes/compare",
        "/lanes",
        "/reports/basic-auth",
        *(f"/routes/{r['name']}" for r in ROUTES),
    ]
    answers = [(await house.client.get(path)).text for path in paths]
    answers.append((await house.client.post("/routes/recommend", json={})).text)

    assert not [answer for answer in answers if SECRET in answer]


async def test_a_disabled_route_says_so(house: House) -> None:
    """Its state and its lane's."""
    found = await house.get("/routes/azure")

    assert (found["state"], found["lanes"][0]["state"]) == ("disabled", "disabled")


async def test_an_unknown_route_is_a_404(house: House) -> None:
    """As every other thing that is not there."""
    answer = await house.client.get("/routes/nowhere")

    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    "path", ["/routes", "/routes/compare", "/routes/noreply", "/lanes", "/reports/basic-auth", "/v1/routes"]
)
async def test_the_scope_is_needed(house: House, path: str) -> None:
    """A key without routes.read gets a 403, no key a 401."""
    key = await house.ledger.create_key("narrow", scopes=["messages.send"], senders=[])

    forbidden = await house.client.get(path, headers={"Authorization": f"Bearer {key.token}"})
    unknown = await house.client.get(path, headers={"Authorization": ""})

    assert (forbidden.status_code, unknown.status_code) == (403, 401)


async def test_the_last_check_and_what_expires_are_shown(house: House) -> None:
    """The newest preflight with its steps, and the days that a certificate has left."""
    now = datetime.now(UTC)
    step = {"name": "dns", "result": "ok"}
    for result in ("fail", "ok"):
        await house.ledger.write_check(
            route="noreply", asked_by="cli", started_at=now, ended_at=now, result=result, steps=[step]
        )
    await house.ledger.announce(
        NewNotice(
            subject="app-1",
            expires_at=now + timedelta(days=13, hours=12),
            days=14,
            route="noreply",
            detail="It ends.",
        )
    )

    found = await house.get("/routes/noreply")

    assert (found["last_check"]["result"], found["last_check"]["steps"]) == ("ok", [step])
    assert [(notice["subject"], notice["days_left"]) for notice in found["notices"]] == [("app-1", 13)]
    assert (await house.get("/routes/relay"))["notices"] == []


async def rest_lane(house: House, lane: str, *, seconds: float) -> None:
    """Let a delivery of this lane meet trouble that rests all of it."""
    from service.ledger.closing import Trouble

    await house.ledger.accept(a_submission(lane=lane))
    (claimed,) = (await claim(house.ledger, lane=lane)).claimed
    error = {"code": "mailbox_off", "diagnosis": {"title": "SMTP AUTH is off"}}
    trouble = Trouble(scope="lane", error=error, first=seconds, factor=2.0, cap=seconds)
    await house.ledger.close(
        a_closing(claimed, Status.DEFERRED, due_in=seconds, error=error, trouble=trouble)
    )


async def test_a_route_rests_when_all_its_lanes_do(house: House) -> None:
    """One of two mailboxes is its own affair; both are the route's."""
    await rest_lane(house, "noreply/noreply@contoso.com", seconds=600.0)
    one = await house.get("/routes/noreply")
    await rest_lane(house, "noreply/old@contoso.com", seconds=900.0)
    both = await house.get("/routes/noreply")

    assert (one["state"], [lane["state"] for lane in one["lanes"]]) == ("ready", ["resting", "ready"])
    assert both["state"] == "resting"
    assert both["resting"]["reason"] == "SMTP AUTH is off"
    assert both["resting"]["until"] == both["lanes"][0]["resting"]["until"]
    assert both["resting"]["probe"]


# -- lanes ------------------------------------------------------------------------------------


async def test_a_lane_shows_its_budgets_and_its_backlog(house: House) -> None:
    """Limits, used and left, what waits by priority, and when all of it will have gone."""
    lane = "noreply/noreply@contoso.com"
    for number in range(3):
        await house.ledger.accept(a_submission(lane=lane, priority=number))
    (claimed,) = (await claim(house.ledger, lane=lane, more=1)).claimed
    await house.ledger.close(a_closing(claimed))

    found = await house.get("/lanes")
    mine = next(each for each in found["data"] if each["name"] == lane)

    minute = next(each for each in mine["budgets"] if each["name"] == "messages_per_minute")
    assert (minute["limit"], minute["used"], minute["left"]) == (20, 1, 19)
    assert minute["frees_at"] > mine["oldest_due_at"]
    assert mine["backlog"]["due"] == 2
    assert mine["backlog"]["by_priority"]["high"] == {"due": 0, "later": 0}
    assert mine["backlog"]["by_priority"]["low"] == {"due": 1, "later": 0}
    assert mine["backlog"]["by_application"] is None
    assert mine["connections"]["limit"] == 3
    assert mine["drains_at"]
    assert mine["drains_because"]
    assert len(found["data"]) == 6  # every lane, also those that never carried anything


async def test_operators_see_whose_backlog_it_is(house: House) -> None:
    """Applications are named to keys that may operate, and to no other."""
    await house.ledger.accept(a_submission(lane="relay", application="billing"))

    told = next(each for each in (await as_operator(house, "/lanes"))["data"] if each["name"] == "relay")
    plain = next(each for each in (await house.get("/lanes"))["data"] if each["name"] == "relay")

    assert told["backlog"]["by_application"] == [{"application": "billing", "due": 1, "later": 0}]
    assert (plain["backlog"]["due"], plain["backlog"]["by_application"]) == (1, None)
    assert plain["stopped"] is None


async def test_a_resting_lane_says_why_and_until_when(house: House) -> None:
    """The pause of the ledger, in words."""
    await rest_lane(house, "relay", seconds=600.0)

    found = next(each for each in (await house.get("/lanes"))["data"] if each["name"] == "relay")

    assert (found["state"], found["resting"]["reason"]) == ("resting", "SMTP AUTH is off")
    assert found["backlog"]["later"] == 1


async def test_the_tenants_budget_is_an_object_of_its_own(house: House) -> None:
    """One budget, whoever uses it, and the lanes that do."""
    found = (await house.get("/lanes"))["external_budget"]

    assert found["limit"] == round(500 * 250**0.7 + 9500)
    assert (found["used"], found["left"], found["frees_at"]) == (0, found["limit"], None)
    assert found["lanes"] == ["noreply/noreply@contoso.com", "noreply/old@contoso.com"]


async def test_what_went_out_is_taken_from_the_tenants_budget(house: House) -> None:
    """External recipients of every lane, and when the first of them counts no more."""
    for lane in ("noreply/noreply@contoso.com", "noreply/old@contoso.com"):
        await house.ledger.accept(a_submission(lane=lane, external=True))
        limits = LaneLimits(
            connections=1,
            messages_per_minute=None,
            messages_per_hour=None,
            recipients_per_day=None,
            external_per_day=100,
        )
        (claimed,) = (await claim(house.ledger, lane=lane, limits=limits)).claimed
        await house.ledger.close(a_closing(claimed))

    found = (await house.get("/lanes"))["external_budget"]

    assert (found["used"], found["left"]) == (2, found["limit"] - 2)
    assert found["frees_at"] is not None


# -- comparison and recommendation ------------------------------------------------------------


async def test_the_comparison_is_about_this_organisation(house: House) -> None:
    """Columns name the configured routes."""
    found = await house.get("/routes/compare")

    columns = {column["way"]: column for column in found["columns"]}
    assert columns["client_submission"]["configured"] == ["noreply"]
    assert columns["smtp_relay_ip"]["possible"] == "yes"
    assert columns["graph"]["kind"] is None
    assert all(set(row["cells"]) == set(columns) for row in found["rows"])


async def test_a_recommendation_is_complete(house: House) -> None:
    """Reasons, settings, SPF, commands with the real names, and what was assumed."""
    found = await recommended(house, **{"from": "noreply@contoso.com", "recipients": "mixed", "per_day": 500})

    assert (found["recommended"], found["kind"], found["rule"]) == (
        "client_submission_oauth",
        "client_submission",
        5,
    )
    assert found["configured"] == ["noreply"]
    assert "noreply@contoso.com" in found["configuration"]
    assert "11111111-2222" in found["configuration"]
    assert any("Set-CASMailbox -Identity noreply@contoso.com" in line for line in found["powershell"])
    assert found["spf"]["record"].startswith("v=spf1 ")
    assert found["admin_centre"]
    assert "per_minute" in found["assumed"]
    assert "hosting" not in found["assumed"]  # the configuration says it
    assert found["needs"]["hosting"] == "own_static_ip"
    assert len(found["alternatives"]) == 7


async def test_without_a_word_it_recommends_for_the_usual(house: House) -> None:
    """An empty body, or none, is answered with what was assumed."""
    nothing = await house.client.post("/routes/recommend")

    assert nothing.status_code == 200
    assert nothing.json()["recommended"] == (await recommended(house))["recommended"]


async def test_graph_is_said_to_be_no_route(house: House) -> None:
    """It may be the better way, and Postroom does not go it."""
    found = await recommended(house, smtp_auth_allowed=False)

    assert (found["recommended"], found["route_of_this_version"], found["configuration"]) == (
        "graph",
        False,
        None,
    )


async def test_an_own_server_has_its_own_recommendation(house: House) -> None:
    """The way from there to Microsoft 365 stands inside."""
    found = await recommended(house, own_mail_server=True, senders="many")

    assert (found["recommended"], found["microsoft"]["recommended"]) == ("own_mail_server", "smtp_relay_ip")


async def test_the_day_can_be_another(house: House) -> None:
    """After December 2026 a password is no way any more."""
    asked = {"oauth": False, "security_defaults": False, "port25_out": False}

    before = await recommended(house, **asked, today="2026-12-30")
    after = await recommended(house, **asked, today="2026-12-31")

    assert (before["recommended"], after["recommended"]) == ("client_submission_basic", None)


@pytest.mark.parametrize(
    ("given", "pointer"),
    [
        ({"recipients": "everybody"}, "/recipients"),
        ({"per_day": "many"}, "/per_day"),
        ({"per_day": -1}, "/per_day"),
        ({"per_day": 1.5}, "/per_day"),
        ({"per_day": True}, "/per_day"),
        ({"bulk": "yes"}, "/bulk"),
        ({"bulk": 1}, "/bulk"),
        ({"senders": 1}, "/senders"),
        ({"hosting": ["own_static_ip"]}, "/hosting"),
        ({"hosting": "a\x00b"}, "/hosting"),
        ({"port": 0}, "/port"),
        ({"max_message_mb": 10**7}, "/max_message_mb"),
        ({"from": "nobody"}, "/from"),
        ({"from": "a@b.example\r\nx"}, "/from"),
        ({"cloud": "moon"}, "/cloud"),
        ({"today": "2026-13-01"}, "/today"),
        ({"today": "tomorrow"}, "/today"),
        ({"external_per_day": 10, "per_day": 5}, "/external_per_day"),
        ({"external_per_day": 10, "recipients": "internal"}, "/external_per_day"),
        ({"per_hour": 3}, ""),
        ({"from_": "a@contoso.com"}, ""),
    ],
)
async def test_a_wrong_need_is_named(house: House, given: dict[str, Any], pointer: str) -> None:
    """422 with a pointer to the field, and nothing that the caller sent."""
    answer = await house.client.post("/routes/recommend", json=given)

    assert answer.status_code == 422, answer.text
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert "everybody" not in answer.text


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[]", 400),
        (b"\xff", 400),
        (b'{"per_day":NaN}', 422),
        (b'{"bulk":true,"bulk":false}', 422),
    ],
)
async def test_broken_json_is_refused(house: House, body: bytes, status: int) -> None:
    """As strictly as everywhere else."""
    answer = await house.client.post(
        "/routes/recommend", content=body, headers={"Content-Type": "application/json"}
    )

    assert answer.status_code == status


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.sampled_from(["from", "recipients", "per_day", "bulk", "port", "today", "hosting", "x"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
            max_leaves=3,
        ),
    )
)
async def test_no_needs_make_it_fail(house: House, given: dict[str, Any]) -> None:
    """Whatever is sent, the answer is 200, 400 or 422."""
    answer = await house.client.post(
        "/routes/recommend",
        content=json.dumps(given).encode(),
        headers={"Content-Type": "application/json"},
    )

    assert answer.status_code in {200, 400, 422}, answer.text


# -- passwords --------------------------------------------------------------------------------


async def used(house: House, lane: str, identity: str, *, application: str) -> None:
    """Let a message go out by a session that logged in with a password."""
    route = lane.partition("/")[0]
    await house.ledger.accept(a_submission(lane=lane, application=application))
    (claimed,) = (await claim(house.ledger, lane=lane)).claimed
    session = new_id("ses")
    facts = {
        "id": session,
        "host": "smtp.office365.com",
        "login": {"method": "login", "identity": identity},
        "transcript": [],
    }
    closing = a_closing(claimed, route=route, session_id=session, session_message=1, session_facts=facts)
    await house.ledger.close(closing)


async def test_the_report_says_who_has_to_act(house: House) -> None:
    """A mailbox with a password remains; High Volume Email, Azure and one's own server do not."""
    await used(house, "noreply/old@contoso.com", "Old@contoso.com", application="billing")

    found = await as_operator(house, "/reports/basic-auth")

    logins = {login["lane"]: login for login in found["logins"]}
    old = logins["noreply/old@contoso.com"]
    assert found["remaining"] == 1
    assert {lane for lane, login in logins.items() if login["remains"]} == {"noreply/old@contoso.com"}
    assert set(logins) == {"noreply/old@contoso.com", "volume/hve@contoso.com", "azure", "relay"}
    assert (old["messages"], old["recipients"], old["sessions"]) == (1, 1, 1)
    assert old["applications"] == [{"application": "billing", "messages": 1, "recipients": 1}]
    assert any("Add-MailboxPermission -Identity old@contoso.com" in step for step in old["what_to_do"])
    assert any("-AppId app-1" in step for step in old["what_to_do"])
    assert logins["volume/hve@contoso.com"]["last_used"] is None
    assert all(login["what_to_do"] for login in logins.values())
    assert found["logins"][0] == old


async def test_the_report_names_no_other_application(house: House) -> None:
    """A key that may not operate sees its own share, and the sums."""
    await used(house, "noreply/old@contoso.com", "Old@contoso.com", application="billing")
    await used(house, "noreply/old@contoso.com", "Old@contoso.com", application="tests")

    old = (await house.get("/reports/basic-auth"))["logins"][0]

    assert old["applications"] == [{"application": "tests", "messages": 1, "recipients": 1}]
    assert old["messages"] == 2


async def test_a_login_that_was_changed_remains_in_sight(house: House) -> None:
    """The ledger saw a password where the configuration has OAuth now, or nothing any more."""
    await used(house, "noreply/noreply@contoso.com", "noreply@contoso.com", application="tests")
    await used(house, "gone/x@contoso.com", "x@contoso.com", application="tests")

    found = await house.get("/reports/basic-auth")

    logins = {login["lane"]: login for login in found["logins"]}
    changed, gone = logins["noreply/noreply@contoso.com"], logins["gone/x@contoso.com"]
    assert (changed["configured"], changed["remains"], changed["kind"]) == (False, False, "client_submission")
    assert (gone["configured"], gone["remains"], gone["kind"]) == (False, False, None)
