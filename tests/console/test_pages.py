"""The pages over HTTP: what they show, what they let through, and what they keep to themselves."""

import asyncio
import io
import json
import zipfile
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import httpx2
import pytest
from starlette.applications import Starlette

from service.console.app import ConsoleRules, create_console, mount
from service.ledger import Ledger
from service.ledger.audit import Wanted
from service.ledger.keys import DEFAULT_SCOPES, SCOPES
from tests.console.visitor import Page, a_stranger, signed_in
from tests.house import House, a_house, smarthost
from tests.peer import ScriptedPeer

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{7*7}}"

PAGES = ("", "/lanes", "/routes", "/reports", "/explain", "/audit")

#: What a page may weigh, with its style and script, before anything is kept or packed.
HEAVIEST = 50_000


@pytest.fixture
async def peer() -> AsyncIterator[ScriptedPeer]:
    """A peer that refuses eve@."""
    async with ScriptedPeer() as running:
        running.on(
            "rcpt", reply=f"550 5.7.54 Unable to relay {HOSTILE}", when=lambda path: path.startswith("eve")
        )
        yield running


@pytest.fixture
async def house(
    database_url: str, redis_url: str, tmp_path: Path, peer: ScriptedPeer
) -> AsyncIterator[House]:
    """A house with a worker."""
    route = smarthost(peer, limits={"messages_per_minute": 600})
    async with a_house(database_url, redis_url, routes=[route], folder=tmp_path) as running:
        yield running


@pytest.fixture
async def still(
    database_url: str, redis_url: str, tmp_path: Path, peer: ScriptedPeer
) -> AsyncIterator[House]:
    """A house in which nothing is sent."""
    async with a_house(
        database_url, redis_url, routes=[smarthost(peer)], folder=tmp_path, workers=0
    ) as running:
        yield running


async def test_who_is_not_signed_in_is_led_to_the_door(still: House) -> None:
    """Without a sign-in every page leads to the page for it, which leads back to a page of ours and nowhere else."""
    stranger = a_stranger(still)
    key = await still.ledger.create_key("operators", scopes=SCOPES, senders=[])

    for page in PAGES:
        answer = await stranger.client.get(f"/console{page}?x=1")
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/console/sign-in?next=%2Fconsole")
    for wanted, target in (
        ("/console/lanes?x=1", "/console/lanes?x=1"),
        ("//evil.example", "/console"),
        ("https://evil.example/console", "/console"),
        ("/console\\@evil.example", "/console"),
        ("/consoles", "/console"),
    ):
        answer = await stranger.sign_in(key.token, next=wanted)
        assert (answer.status_code, answer.headers["location"]) == (303, target)


async def test_a_key_is_exchanged_for_a_cookie(still: House) -> None:
    """The cookie is out of reach for scripts and other sites, and for plain HTTP where the browser came by https."""
    key = await still.ledger.create_key("operators", scopes=SCOPES, senders=[])
    visitor = a_stranger(still)

    plain = (await visitor.sign_in(key.token)).headers["set-cookie"]
    visitor.client.headers["x-forwarded-proto"] = "https"
    secure = (await visitor.sign_in(key.token)).headers["set-cookie"]

    assert plain.startswith("postroom=")
    assert secure.startswith("__Host-postroom=")
    for cookie in (plain, secure):
        assert "HttpOnly" in cookie
        assert "SameSite=lax" in cookie
        assert "Path=/" in cookie
        assert key.token not in cookie
    assert "Secure" in secure
    assert "Secure" not in plain


async def test_wrong_keys_are_refused_and_slowed(still: House) -> None:
    """A wrong key opens nothing and is not repeated; who goes on trying is held off as at the API."""
    visitor = a_stranger(still)
    wrong = f"pr_live_{'0' * 26}_{'x' * 43}"

    answer = await visitor.sign_in(wrong)
    assert answer.status_code == 401
    assert wrong not in answer.text
    for scribble in ("", "nonsense", "a" * 5000, "ä", "pr_live_\0"):
        assert (await visitor.sign_in(scribble)).status_code == 401
    answers = await asyncio.gather(
        *(visitor.sign_in(f"pr_live_{number:026}_{'x' * 43}") for number in range(25))
    )

    assert {answer.status_code for answer in answers} == {401, 429}
    assert (await visitor.sign_in(wrong[:-1] + "y")).status_code == 429


async def test_signing_out_ends_the_sign_in_everywhere(still: House) -> None:
    """After the sign-out the cookie opens nothing, and both acts stand in the audit."""
    visitor = await signed_in(still)
    kept = dict(visitor.client.cookies)

    answer = await visitor.send(await visitor.open("/console"), "/console/sign-out")
    copy = a_stranger(still)
    copy.client.cookies.update(kept)

    assert answer.headers["location"] == "/console/sign-in"
    assert (await copy.client.get("/console")).status_code == 303
    acts = [entry.action for entry in await still.ledger.audit.page(Wanted(), most=10)]
    assert acts == ["console.sign_out", "console.sign_in"]


async def test_only_our_own_forms_act(still: House) -> None:
    """A form of another site, one without the guard, and one of another sign-in change nothing."""
    message_id = await still.submit()
    visitor, other = await signed_in(still), await signed_in(still)
    act = f"/console/messages/{message_id}/act"
    page = await visitor.open(f"/console/messages/{message_id}")
    fields = {**page.form(act)["fields"], "deed": "cancel"}

    for headers in (
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "http://evil"},
    ):
        answer = await visitor.client.post(act, data=fields, headers=headers)
        assert answer.status_code == 403
    assert (await visitor.client.post(act, data={"deed": "cancel"})).status_code == 403
    assert (await other.client.post(act, data=fields)).status_code == 403
    assert (await a_stranger(still).client.post(act, data=fields)).status_code == 303
    assert (await still.message(message_id))["status"] == "queued"

    answer = await visitor.client.post(act, data=fields, headers={"sec-fetch-site": "same-origin"})
    assert answer.status_code == 303
    assert (await still.message(message_id))["status"] == "canceled"


async def test_a_message_is_found_and_its_story_told(house: House) -> None:
    """The search answers in words how a message stands, and its page shows the way from acceptance to the 250."""
    message_id = await house.submit(subject="Invoice 4711", to=["ana@example.com"])
    message = await house.in_state(message_id, "sent")
    visitor = await signed_in(house)

    for text, meaning in (
        ("ana@example.com", "1 message to ana@example.com: sent."),
        ("noreply@contoso.com", "1 message from noreply@contoso.com: sent."),
        (message["message_id"], "with the Message-ID"),
        (message["message_id"].strip("<>"), "with the Message-ID"),
        ("@example.com", "1 message to somebody at example.com: sent."),
        ("invoice 47", "in the subject: sent."),
        ("status:sent to:ana@example.com", ": sent."),
    ):
        found = await visitor.open(str(httpx2.URL("/console", params={"q": text})))
        assert meaning in found.words
        assert "The other side took it" in found.words
        assert f"/console/messages/{message_id}" in found.links
    assert (
        (await visitor.client.get("/console", params={"q": message_id}))
        .headers["location"]
        .endswith(message_id)
    )
    nothing = await visitor.open("/console?q=nobody@example.com&within=24h")
    assert "No message to nobody@example.com in the last 24 hours." in nothing.words

    page = await visitor.open(f"/console/messages/{message_id}")
    for word in ("Invoice 4711", "accepted", "Attempt 1", "250", "tests", "C: DATA"):
        assert word in page.words
    assert page.form("/console/sign-out")
    assert not [form for form in page.forms if form["deeds"]]


async def test_an_attempt_over_tls_shows_its_session(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """Version, cipher, certificate, login and the peer's own names of a transaction stand on the page."""
    text = "250 2.6.0 <1> [InternalId=1] Queued [AM0PR01CA0001.eurprd01.prod.exchangelabs.com 2026-11-26T01:02:03.456Z 08DE0123456789AB]"
    async with ScriptedPeer(tls=True, logins={"noreply@contoso.com": "secret"}) as peer:
        peer.on("dot", reply=text)
        login = {"method": "basic", "username": "noreply@contoso.com", "password": "secret"}
        route = smarthost(
            peer, host=peer.as_peer().host, tls="required", ca_file=str(peer.ca_file), login=login
        )
        async with a_house(database_url, redis_url, routes=[route], folder=tmp_path) as house:
            message_id = await house.submit()
            await house.in_state(message_id, "sent")

            page = await (await signed_in(house)).open(f"/console/messages/{message_id}")

    for word in ("TLSv1.3", "verified", "not after", "login noreply@contoso.com", "08DE0123456789AB"):
        assert word in page.words
    assert "secret" not in page.words


async def test_acts_are_offered_where_they_are_possible(house: House, peer: ScriptedPeer) -> None:
    """A failed message offers the retry with its remedy; what the API refuses is told on the page."""
    message_id = await house.submit(to=["eve@example.com"])
    await house.in_state(message_id, "failed")
    visitor = await signed_in(house)
    act, address = f"/console/messages/{message_id}/act", f"/console/messages/{message_id}"

    page = await visitor.open(address)
    assert page.form(act)["deeds"] == ["retry"]
    assert "Who must act: the operator of Postroom." in page.words
    refused = await visitor.send(page, act, deed="hold")
    assert refused.status_code == 409
    assert "Nothing" in Page(refused).words
    assert (await visitor.send(page, act, deed="explode")).status_code == 422

    peer.behave()
    done = await visitor.send(page, act, deed="retry", reason="the relay was opened")
    assert done.headers["location"] == f"{address}?done=retry"
    await house.in_state(message_id, "sent")
    assert "the relay was opened" in (await visitor.open(f"/console/audit?target={message_id}")).words


async def test_hold_and_release(still: House) -> None:
    """What waits is held and released by buttons, which change with its state."""
    message_id = await still.submit()
    visitor = await signed_in(still)
    act, address = f"/console/messages/{message_id}/act", f"/console/messages/{message_id}"

    await visitor.send(await visitor.open(address), act, deed="hold")
    held = await visitor.open(f"{address}?done=hold")
    assert "It is held until somebody releases it." in held.words
    assert held.form(act)["deeds"] == ["release", "cancel"]
    await visitor.send(held, act, deed="release")

    assert (await still.message(message_id))["status"] == "queued"


async def test_roles_are_scopes(still: House) -> None:
    """A page shows what the API would show to the same key, and offers nothing that the API would refuse."""
    mine = await still.submit(subject="mine")
    reader = await signed_in(still, scopes=("messages.read",), application="tests")
    other = await signed_in(still, scopes=DEFAULT_SCOPES, application="another")

    page = await reader.open(f"/console/messages/{mine}")
    assert not [form for form in page.forms if form["deeds"]]
    assert not [link for link in page.links if "content" in link or "audit" in link or link[-6:] == "/lanes"]
    for path in (
        "/lanes",
        "/routes",
        "/audit",
        f"/messages/{mine}/content",
        f"/messages/{mine}/content/html",
    ):
        await reader.open(f"/console{path}", status=403)
    fields = {"guard": page.form("/console/sign-out")["fields"]["guard"], "deed": "cancel"}
    assert (await reader.client.post(f"/console/messages/{mine}/act", data=fields)).status_code == 403

    assert "mine" not in (await other.open("/console")).words
    for path in ("", "/live", "/content", "/support.zip"):
        await other.open(f"/console/messages/{mine}{path}", status=404)
    await other.open("/console/messages/nonsense", status=404)


async def test_every_page_is_strict_and_light(still: House) -> None:
    """No page has a script, a style or a handler of its own, loads from elsewhere, or weighs much; assets are kept."""
    for number in range(27):
        await still.submit(subject=f"{HOSTILE} {number}", to=[{"email": "ana@example.com", "name": HOSTILE}])
    message_id = await still.submit(subject=HOSTILE, tags=[HOSTILE[:40]], metadata={"note": HOSTILE})
    visitor = await signed_in(still)

    for path in (*PAGES, f"/messages/{message_id}", f"/messages/{message_id}/content"):
        page = await visitor.open(f"/console{path}")
        policy = page.answer.headers["content-security-policy"]
        assert "unsafe" not in policy
        assert "default-src 'none'" in policy
        assert page.answer.headers["cache-control"] == "no-store"
        assets = [
            tag[1].get("src") or tag[1].get("href")
            for tag in page.tags
            if tag[0] in {"script", "link", "img"}
        ]
        assert assets
        assert all(str(each).startswith("/console/assets/") for each in assets)
        for tag, given in page.tags:
            assert tag != "style"
            assert "style" not in given
            assert not [name for name in given if name.startswith("on")], (path, tag, given)
        files = [await visitor.client.get(str(each)) for each in sorted(set(map(str, assets)))]
        assert {each.headers["cache-control"] for each in files} == {"public, max-age=31536000, immutable"}
        weight = len(page.answer.content) + sum(len(each.content) for each in files)
        assert weight < HEAVIEST, (path, weight)
    assert HOSTILE in (await visitor.open(f"/console/messages/{message_id}")).words
    many = await still.submit(to=[f"reader{number}@example.com" for number in range(300)])
    page, whole = [await visitor.open(f"/console/messages/{many}{more}") for more in ("", "?everything")]
    assert len(page.answer.content) < HEAVIEST / 2
    assert "reader299@example.com" not in page.words
    assert "300 recipients" in page.words
    assert "reader299@example.com" in whole.words
    assert (await visitor.client.get("/console/assets/console.0000.css")).status_code == 404


async def test_who_reads_a_content_is_written_down(still: House) -> None:
    """Text, HTML and files are for those who may read them; the frame's policy allows nothing, and the audit has it."""
    html = "<link rel=preconnect href=//evil.example><p>Hello</p><script>alert(1)</script>"
    file = {"filename": "evil.html", "content": "PGI+", "content_type": "text/html"}
    message_id = await still.submit(html=html, attachments=[file])
    visitor = await signed_in(still)
    address = f"/console/messages/{message_id}/content"

    page = await visitor.open(address)
    frame = await visitor.open(f"{address}/html")
    saved = await visitor.client.get(f"{address}/files/0")
    whole = await visitor.client.get(f"{address}/message.eml")

    assert "Thank you." in page.words
    (inner,) = [given for tag, given in page.tags if tag == "iframe"]
    assert inner["sandbox"] in {None, ""}
    assert inner["src"] == f"{address}/html"
    policy = frame.answer.headers["content-security-policy"]
    assert policy.startswith("sandbox; default-src 'none'")
    assert "script-src" not in policy
    assert "link" not in [tag for tag, _ in frame.tags]
    assert saved.content == b"<b>"
    assert saved.headers["content-disposition"].startswith("attachment;")
    assert whole.headers["content-type"] == "message/rfc822"
    assert b"Thank you." in whole.content
    entries = await still.ledger.audit.page(Wanted(action="content.read", target=message_id), most=10)
    assert [entry.details["form"] for entry in entries] == ["octets", "attachment", "parts", "parts"]
    assert {"192.0.2.7"} == {entry.address for entry in entries}


async def test_a_support_bundle_says_what_happened_and_not_what_was_said(house: House) -> None:
    """The bundle has timeline, replies and dialogue, and neither subject nor content nor what the application added."""
    message_id = await house.submit(
        subject="Secret plan", to=[{"email": "eve@example.com", "name": "Eve Secret"}], tags=["secret-tag"]
    )
    await house.in_state(message_id, "failed")
    visitor = await signed_in(house)

    answer = await visitor.client.get(f"/console/messages/{message_id}/support.zip")

    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        files = {name.partition("/")[2]: archive.read(name).decode() for name in archive.namelist()}
    assert "550 5.7.54 Unable to relay" in files["summary.txt"]
    assert message_id in files["summary.txt"]
    assert json.loads(files["message.json"])["recipients"][0]["email"] == "eve@example.com"
    (dialogue,) = [text for name, text in files.items() if name.startswith("dialogues/")]
    assert "RCPT TO:<eve@example.com>" in dialogue
    assert not [text for text in files.values() if "ecret" in text]


async def test_lanes_routes_and_reports_show_what_is_there(house: House) -> None:
    """Budgets, checks and figures of a house that has sent and failed are on their pages."""
    failed = await house.submit(to=["eve@example.com"])
    sent = await house.submit(to=["ana@example.com"])
    await house.in_state(failed, "failed")
    await house.in_state(sent, "sent")
    visitor = await signed_in(house)

    lanes = await visitor.open("/console/lanes")
    assert "of 600" in lanes.words
    assert "2 attempts, at most" in lanes.words
    routes = await visitor.open("/console/routes")
    assert "Never checked." in routes.words
    checked = await visitor.send(routes, "/console/routes/peer/check")
    assert checked.headers["location"] == "/console/routes?checked=peer#peer"
    assert "for operators" in (await visitor.open("/console/routes?checked=peer")).words
    paused = await visitor.send(
        routes, "/console/routes/peer/pause", **{"for": "4h", "reason": "work on the relay"}
    )
    assert paused.status_code == 303
    resting = await visitor.open("/console/routes")
    assert "Paused by an operator." in resting.words
    assert (await visitor.send(resting, "/console/routes/peer/resume")).status_code == 303
    assert (await house.get("/routes/peer"))["state"] == "ready"
    reports = await visitor.open("/console/reports?span=7d")
    assert "smtp.relay_refused" in reports.words
    (row,) = [line for line in reports.answer.text.splitlines() if "application=tests" in line]
    figures = [
        part.partition("<")[0]
        for part in row.replace('status=failed">', 'class="n">').split('class="n">')[1:]
    ]
    assert figures == ["2", "1", "", "1", "0", "0"]


async def test_a_pasted_reply_is_explained(still: House) -> None:
    """What a reply means, who must act and how stand on the page; what is no reply is called so."""
    visitor = await signed_in(still)
    page = await visitor.open("/console/explain")

    found = Page(
        await visitor.send(page, "/console/explain", reply="535 5.7.139 Authentication unsuccessful")
    )
    nothing = Page(await visitor.send(page, "/console/explain", reply="good morning", route="peer"))
    unknown = Page(await visitor.send(page, "/console/explain", reply="550 5.1.1 no", route=HOSTILE))

    assert "Who must act" in found.words
    assert "There is no reply of a mail server in this text." in nothing.words
    assert "There is no such route" in unknown.words


async def test_nothing_that_is_asked_breaks_a_page(still: House) -> None:
    """Whatever stands in a box or an address is answered with a page, never with a failure."""
    visitor = await signed_in(still)
    hostile = (
        "\0",
        "a" * 3000,
        "<",
        "@",
        "<>",
        "to:",
        "to:x",
        "%",
        "é@",
        "status:x",
        "💥",
        "'; --",
        b"\xff\xed\xa0\x80",
    )

    for text in hostile:
        for name in ("q", "to", "subject", "since", "after"):
            answer = await visitor.client.get("/console", params={name: text})
            assert answer.status_code in {200, 422}, (name, text, answer.text[:1000])
        for name in ("action", "before"):
            answer = await visitor.client.get("/console/audit", params={name: text})
            assert answer.status_code == 200, (name, text, answer.text[:1000])
    for path in (
        "/messages/%00",
        "/attempts/%00",
        "/messages/%2e%2e%2fkeys",
        "/nothing",
        "/assets/..%2fapp.py",
    ):
        assert (await visitor.client.get(f"/console{path}")).status_code == 404


async def test_a_ledger_that_does_not_answer_has_a_page() -> None:
    """While PostgreSQL cannot be used, the console says so, and when to come again."""
    ledger = Ledger.open("postgresql://nobody@127.0.0.1:1/nothing", name="test", connections=1)
    app = Starlette()
    console = create_console(
        api=app,
        ledger=ledger,
        rules=ConsoleRules(lasts=timedelta(hours=1), url=None),
        client_of=lambda _: None,
        closing=asyncio.Event(),
    )
    mount(app, console)
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://postroom") as client:
        client.cookies.set("postroom", "something")
        answer = await client.get("/console")

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert "PostgreSQL cannot be used at the moment" in Page(answer).words
    await ledger.dispose()
