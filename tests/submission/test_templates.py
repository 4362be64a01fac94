"""Templates at the door: versions, what is published, and what is refused."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.ledger.keys import DEFAULT_SCOPES
from service.local.servers import LocalPostgres
from tests.house import House, a_house, smarthost
from tests.peer import ScriptedPeer
from tests.waiting import eventually

CANARY = "zq-canary-7431"

RECEIPT: dict[str, Any] = {
    "name": "receipt",
    "subject": "Order {{ number }}",
    "text": "Hello {{ name }}",
    "html": "<p>Hello {{ name }}</p>",
}


@pytest.fixture
async def house(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[House]:
    async with (
        ScriptedPeer() as peer,
        a_house(database_url, redis_url, routes=[smarthost(peer)], folder=tmp_path, workers=0) as opened,
    ):
        yield opened


async def call(house: House, method: str, path: str, body: Any = None, *, token: str = "") -> httpx2.Response:
    """One request, again where every press was taken: other tests may keep the machine busy."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}

    async def answered() -> httpx2.Response | None:
        answer = await house.client.request(
            method, path, headers=headers, **({} if body is None else {"json": body})
        )
        busy = answer.status_code == 503 and answer.json()["code"] == "rendering_busy"
        return None if busy else answer

    return await eventually(answered)


async def made(house: House, **changes: Any) -> str:
    """A template with one version; returns its id."""
    answer = await call(house, "POST", "/templates", RECEIPT | changes)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def faults(answer: httpx2.Response) -> list[tuple[Any, ...]]:
    return [
        (each["pointer"], each["code"], each.get("line"), each.get("variable"))
        for each in answer.json()["errors"]
    ]


async def test_a_template_is_made_with_its_first_version(house: House) -> None:
    """201 with a Location that shows the same; the version knows which variables it uses."""
    answer = await call(house, "POST", "/templates", RECEIPT | {"publish": True})
    shown = await call(house, "GET", answer.headers["location"])
    version = await call(house, "GET", f"{answer.headers['location']}/versions/1")

    assert answer.status_code == 201
    assert answer.json() == shown.json()
    assert (shown.json()["name"], shown.json()["published"], shown.json()["latest"]) == ("receipt", 1, 1)
    assert version.json()["variables"] == ["name", "number"]
    assert {part: RECEIPT[part] for part in ("subject", "text", "html")}.items() <= version.json().items()


async def test_a_version_never_changes_and_numbers_count_up(house: House) -> None:
    """A further version has the next number, also when several are added at once, and leaves the first alone."""
    template = await made(house)
    path = f"/templates/{template}/versions"

    added = await asyncio.gather(
        *(call(house, "POST", path, {"subject": f"s{each}", "text": "t"}) for each in range(6))
    )
    first = await house.get(f"{path}/1")
    page = await house.get(f"{path}?limit=2")
    following = await house.get(f"{path}?limit=2&after={page['next']}")
    back = await house.get(f"{path}?limit=2&before={following['data'][0]['version']}")

    assert sorted(each.json()["version"] for each in added) == [2, 3, 4, 5, 6, 7]
    assert first["subject"] == "Order {{ number }}"
    assert [each["version"] for each in page["data"]] == [7, 6]
    assert [each["version"] for each in following["data"]] == [5, 4]
    assert back["data"] == page["data"]
    assert "html" not in page["data"][0]


async def test_what_is_published_is_what_is_rendered(house: House) -> None:
    """Nothing before the first publication; then the published version, also after a roll back; a version by number."""
    template = await made(house)
    await call(house, "POST", f"/templates/{template}/versions", {"subject": "second", "text": "t"})
    path = f"/templates/{template}"

    async def rendered(**body: Any) -> tuple[int, Any]:
        answer = await call(
            house, "POST", f"{path}/render", {"variables": {"name": "<b>", "number": 7}, **body}
        )
        return answer.status_code, answer.json().get("subject") or answer.json()["code"]

    before = await rendered()
    await call(house, "POST", f"{path}/publish", {"version": 2})
    second = await rendered()
    named = await rendered(version=1)
    await call(house, "POST", f"{path}/publish", {"version": 1})
    back = await rendered()
    unknown = await call(house, "POST", f"{path}/publish", {"version": 3})
    await call(house, "POST", f"{path}/unpublish")
    after = await rendered()

    assert before == after == (422, "template_not_published")
    assert (second, named, back) == ((200, "second"), (200, "Order 7"), (200, "Order 7"))
    assert (unknown.status_code, faults(unknown)) == (
        422,
        [("/version", "template_version_not_found", None, None)],
    )


async def test_a_rendering_shows_every_part(house: House) -> None:
    """Variables are escaped in the HTML and only there, and nothing is sent."""
    template = await made(house, publish=True)

    answer = await call(
        house, "POST", f"/templates/{template}/render", {"variables": {"name": "<b>", "number": 7}}
    )

    assert answer.json() == {
        "object": "rendering",
        "template": template,
        "version": 1,
        "subject": "Order 7",
        "text": "Hello <b>",
        "html": "<p>Hello &lt;b&gt;</p>",
        "variables": ["name", "number"],
    }
    assert (await house.get("/messages"))["data"] == []


async def test_a_missing_variable_is_named(house: House) -> None:
    """422 with the line and the template's own name of the variable."""
    template = await made(house, html="<p>\n{{ customer.city }}</p>", publish=True)

    answer = await call(
        house,
        "POST",
        f"/templates/{template}/render",
        {"variables": {"name": "a", "number": 1, "customer": {CANARY: CANARY}}},
    )

    assert (answer.status_code, answer.json()["code"]) == (422, "template_variable_missing")
    assert faults(answer) == [("/variables", "template_variable_missing", 2, "customer.city")]
    assert answer.json()["detail"] == "html, line 2: The template needs customer.city, which was not given."
    assert CANARY not in answer.text


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"html": "<p>\n{{ name</p>"}, [("/html", "template_syntax", 2, None)]),
        ({"text": f"{{% {CANARY} %}}"}, [("/text", "template_syntax", 1, None)]),
        ({"text": f"{{{{ a|{CANARY.replace('-', '_')} }}}}"}, [("/text", "template_syntax", 1, None)]),
        (
            {"subject": "{{ }", "html": "a\nb\n{% if %}"},
            [("/subject", "template_syntax", 1, None), ("/html", "template_syntax", 3, None)],
        ),
        ({"html": "\n{% include 'x' %}"}, [("/html", "template_forbidden", 2, None)]),
        ({"html": "{{ 10 ** (10 ** 7) }}"}, [("/html", "template_limit_exceeded", None, None)]),
        ({"subject": None}, [("/subject", "required", None, None)]),
        ({"text": None, "html": None}, [("/text", "required", None, None)]),
        ({"name": "tpl_01JDB6Z0Q5V8W6K3T1E9F4H2RC"}, [("/name", "name_invalid", None, None)]),
        ({"name": " receipt"}, [("/name", "name_invalid", None, None)]),
        ({"name": "a\nb"}, [("/name", "name_invalid", None, None)]),
        ({"name": ""}, [("/name", "string_too_short", None, None)]),
        ({"html": "x" * 500_001}, [("/html", "string_too_long", None, None)]),
        ({CANARY: 1}, [("", "unknown_field", None, None)]),
    ],
)
async def test_a_broken_template_is_not_kept(
    house: House, changes: dict[str, Any], expected: list[tuple[Any, ...]]
) -> None:
    """422 that points at the part and the line, without repeating any of it, and nothing is made."""
    answer = await call(house, "POST", "/templates", RECEIPT | changes)

    assert (answer.status_code, faults(answer)) == (422, expected)
    assert CANARY not in answer.text
    assert CANARY.replace("-", "_") not in answer.text
    assert (await house.get("/templates"))["data"] == []


async def test_a_name_is_taken_once(house: House) -> None:
    """Of equal names at the same time one is made and the others are 409; so is renaming to a taken one."""
    answers = await asyncio.gather(
        *(call(house, "POST", "/templates", {"name": "welcome"}) for _ in range(5))
    )
    other = await made(house)

    renamed = await call(house, "PATCH", f"/templates/{other}", {"name": "welcome"})
    same = await call(house, "PATCH", f"/templates/{other}", {"name": "receipt", "description": "Thanks"})

    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409]
    assert (renamed.status_code, faults(renamed)) == (409, [("/name", "name_taken", None, None)])
    assert (same.status_code, same.json()["description"]) == (200, "Thanks")


async def test_templates_are_listed_and_deleted(house: House) -> None:
    """Pages, newest first; one by its name; a deleted template is gone with its versions, and its name is free."""
    names = [f"t{number}" for number in range(5)]
    ids = [await made(house, name=name) for name in names]

    page = await house.get("/templates?limit=3")
    rest = await house.get(f"/templates?limit=3&after={page['next']}")
    named = await house.get("/templates?name=t1")
    gone = await call(house, "DELETE", f"/templates/{ids[1]}")
    again = await call(house, "DELETE", f"/templates/{ids[1]}")
    version = await call(house, "GET", f"/templates/{ids[1]}/versions/1")

    assert [each["name"] for each in [*page["data"], *rest["data"]]] == names[::-1]
    assert (page["has_more"], rest["has_more"], rest["next"]) == (True, False, None)
    assert [each["id"] for each in named["data"]] == [ids[1]]
    assert (gone.status_code, gone.content, again.status_code, version.status_code) == (204, b"", 404, 404)
    assert await made(house, name="t1") != ids[1]


def requests(template: str) -> list[tuple[str, str, Any]]:
    """Every request on one template."""
    path = f"/templates/{template}"
    return [
        ("GET", path, None),
        ("PATCH", path, {"description": "x"}),
        ("GET", f"{path}/versions", None),
        ("GET", f"{path}/versions/1", None),
        ("POST", f"{path}/versions", {"subject": "s", "text": "t"}),
        ("POST", f"{path}/publish", {"version": 1}),
        ("POST", f"{path}/render", {"version": 1}),
        ("POST", f"{path}/unpublish", None),
        ("DELETE", path, None),
    ]


async def test_applications_see_nothing_of_each_other(house: House) -> None:
    """Another application's template is the same 404 as an unknown one, and its name is free; an operator sees it."""
    template = await made(house, publish=True)
    other = await house.ledger.create_key("other", scopes=DEFAULT_SCOPES, senders=[])
    operator = await house.ledger.create_key("desk", scopes=["templates.read", "operate"], senders=[])

    for known, unknown in zip(requests(template), requests("tpl_01JDB6Z0Q5V8W6K3T1E9F4H2RC"), strict=True):
        foreign = await call(house, *known, token=other.token)
        nothing = await call(house, *unknown, token=other.token)
        assert foreign.status_code == nothing.status_code == 404, known
        assert {**foreign.json(), "request_id": ""} == {**nothing.json(), "request_id": ""}
    listed = await call(house, "GET", "/templates", token=other.token)
    named = await call(house, "POST", "/templates", RECEIPT, token=other.token)
    seen = await call(house, "GET", f"/templates/{template}", token=operator.token)
    mine = await house.get(f"/templates/{template}")

    assert listed.json()["data"] == []
    assert named.status_code == 201
    assert seen.json() == mine
    assert (mine["published"], mine["latest"]) == (1, 1)


async def test_scopes_part_readers_from_writers(house: House) -> None:
    """A key with templates.read changes nothing, one without either sees nothing."""
    template = await made(house, publish=True)
    reader = await house.ledger.create_key("tests", scopes=["templates.read"], senders=[])
    sender = await house.ledger.create_key("tests", scopes=["messages.send"], senders=[])

    by_reader = [(await call(house, *each, token=reader.token)).status_code for each in requests(template)]
    by_sender = [(await call(house, *each, token=sender.token)).status_code for each in requests(template)]

    assert by_reader == [200, 403, 200, 200, 403, 403, 422, 403, 403]  # 422: the variables are missing
    assert set(by_sender) == {403}


async def test_every_act_is_audited(house: House, shared_postgres: LocalPostgres, database_url: str) -> None:
    """Who did what to which template, in the order in which it was done; no content."""
    template = await made(house, publish=True)
    for method, path, body in requests(template):
        await call(house, method, path, body)
    await call(house, "DELETE", f"/templates/{template}")  # is gone already: no act

    rows = shared_postgres.execute(
        f"SELECT action, actor, details FROM audit WHERE target = '{template}' ORDER BY id",  # noqa: S608
        database=database_url.rsplit("/", 1)[1],
    )

    assert [row["action"].removeprefix("template.") for row in rows] == [
        *("create", "version", "publish", "update", "version", "publish", "unpublish", "delete")
    ]
    assert all(row["actor"].startswith("key_") for row in rows)
    assert "Hello" not in str(rows)


async def test_a_message_may_name_a_template(house: House) -> None:
    """By id or by name, the published version or another one; the message has what was rendered."""
    template = await made(house, publish=True)
    body = {"from": "noreply@contoso.com", "to": "ana@example.com"}

    async def sent(**use: Any) -> httpx2.Response:
        return await call(house, "POST", "/messages", body | {"template": use})

    by_id = await sent(id=template, variables={"name": "Ana", "number": 1})
    by_name = await sent(id="receipt", version=1, variables={"name": "Ana", "number": 2})
    missing = await sent(id="receipt", variables={"name": "Ana"})
    injected = await sent(id="receipt", variables={"name": "Ana", "number": "1\r\nBcc: eve@example.com"})

    assert (by_id.status_code, by_id.json()["subject"]) == (202, "Order 1")
    assert (by_name.status_code, by_name.json()["subject"]) == (202, "Order 2")
    assert (missing.status_code, faults(missing)) == (
        422,
        [("/template/variables", "template_variable_missing", 1, "number")],
    )
    assert (injected.status_code, injected.json()["code"]) == (422, "template_subject_not_one_line")


async def test_the_door_answers_while_bombs_go_off(house: House) -> None:
    """With more bombs than presses on their way, /livez answers before they do, and each bomb gets its answer."""
    template = await made(house, name="bomb", subject="s", text="{% for i in r %}{% for j in r %}{% for k in r %}{% endfor %}{% endfor %}{% endfor %}", html=None)  # fmt: skip
    body = {"version": 1, "variables": {"r": [0] * 5000}}
    bombs = [
        asyncio.create_task(house.client.post(f"/templates/{template}/render", json=body)) for _ in range(8)
    ]

    await asyncio.sleep(0)
    alive = await house.client.get("/livez")
    pending = [bomb for bomb in bombs if not bomb.done()]
    answers = await asyncio.gather(*bombs)

    assert (alive.status_code, len(pending)) == (200, 8)
    assert {(answer.status_code, answer.json()["code"]) for answer in answers} <= {
        (422, "template_limit_exceeded"),
        (503, "rendering_busy"),
    }
    assert all(answer.headers["retry-after"] for answer in answers if answer.status_code == 503)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
JINJA = st.lists(
    st.sampled_from(["{{", "}}", "{%", "%}", "{#", "#}", "name", "for", "in", "if", "endif", "endfor", "|", ".", "'", "\\", "(", ")", "[", "]", "\n", "\ud800", "\x00", "9" * 5000, "__class__", " "]),
    max_size=12,
).map("".join)  # fmt: skip


@pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning")
@given(
    changes=st.dictionaries(
        st.sampled_from(
            ["name", "description", "subject", "text", "html", "publish", "variables", "version"]
        ),
        JSON | JINJA,
        max_size=4,
    )
)
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
async def test_no_value_gets_a_500(house: House, changes: dict[str, Any]) -> None:
    """Whatever stands in a field of a template or a rendering, the answer is a 2xx or a 4xx problem."""
    found = await house.get("/templates?name=receipt")
    template = found["data"][0]["id"] if found["data"] else await made(house, publish=True)

    for method, path, base in (
        ("POST", "/templates", RECEIPT),
        ("POST", f"/templates/{template}/versions", {"subject": "s", "text": "t"}),
        ("POST", f"/templates/{template}/render", {}),
        ("PATCH", f"/templates/{template}", {"name": "receipt"}),
    ):
        answer = await house.client.request(
            method,
            path,
            content=json.dumps(base | changes).encode(),
            headers={"Content-Type": "application/json"},
        )
        assert answer.status_code < 500 or answer.json()["code"] == "rendering_busy", answer.text
