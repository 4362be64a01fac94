"""Resend's SDKs for Python and Node, as they come from the registries, with nothing changed but the base URL.

`postroom api` and a worker run as in production before a peer that takes the mail; each SDK is in a process of
its own (`resend_sdks`), which does what an application would. Each test is done with both.
"""

import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from itertools import count
from typing import Any

import asyncpg
import httpx2
import pytest
import pytest_asyncio

from service import wiring
from service.ledger import Ledger
from service.ledger.keys import DEFAULT_SCOPES
from service.local.servers import LocalPostgres, LocalRedis
from service.settings import Settings
from tests.conftest import TEMPLATE, _database, _make_template
from tests.house import configuration, processes, smarthost
from tests.journeys.resend_sdks.sdk import LANGUAGES, Sdk, an_sdk
from tests.peer import ScriptedPeer, Taken
from tests.tools import node
from tests.tools.cache import Unobtainable, skip_or_fail
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

PDF = b"%PDF-1.7\n" + bytes(range(256)) * 40
LOGO = b"\x89PNG\r\n" + bytes(range(128))

_number = count(1)


@dataclass(slots=True)
class Office:
    """Everything at work, as one application with its SDK sees it."""

    postroom: "Postroom"
    sdk: Sdk
    application: str
    key: str

    @property
    def ana(self) -> str:
        return self.at("ana")

    def at(self, local: str) -> str:
        """Give an address that this application alone writes to."""
        return f"{local}@{self.application}.example.com"

    def taken(self) -> list[Taken]:
        """What the peer took for this application's recipients."""
        return [
            each
            for each in self.postroom.peer.taken
            if each.rcpts[0].endswith(f"@{self.application}.example.com")
        ]

    def an_email(self, **changes: Any) -> dict[str, Any]:
        return {
            "from": "Contoso <noreply@contoso.com>",
            "to": [self.ana],
            "subject": "Your receipt",
            "html": "<p>Thank you.</p>",
            **changes,
        }

    async def done(self, name: str, given: Any = None, *, key: str | None = None, **options: str) -> Any:
        return await self.sdk.done(name, given, key=key or self.key, **options)

    async def refused(
        self, name: str, given: Any = None, *, key: str | None = None, **options: str
    ) -> tuple[Any, str]:
        """Make a call that is refused; return status and name, as the SDK tells them."""
        error = await self.sdk.refused(name, given, key=key or self.key, **options)
        assert error["message"]
        return error["status"], error["name"]

    async def new_key(self, **changes: Any) -> str:
        values: dict[str, Any] = {"scopes": DEFAULT_SCOPES, "senders": [], **changes}
        return (await self.postroom.ledger.create_key(self.application, **values)).token

    async def last_event(self, email_id: str, expected: str) -> Any:
        """Wait until an email has come so far."""

        async def there() -> Any:
            found = await self.done("get", email_id)
            return found if found["last_event"] == expected else None

        return await eventually(there, within=40.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Postroom:
    """The processes, which take longer to start than all of these tests."""

    peer: ScriptedPeer
    ledger: Ledger
    sdks: list[Sdk]
    database_url: str


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def postroom(
    shared_postgres: LocalPostgres, shared_redis: LocalRedis, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Postroom]:
    """An API and a worker as in production, before a peer that takes the mail."""
    _make_template(shared_postgres)
    shared_redis.flush()
    for database_url in _database(shared_postgres, template=TEMPLATE):
        async with AsyncExitStack() as opened:
            peer = await opened.enter_async_context(ScriptedPeer())
            given = configuration(database_url, shared_redis.url, routes=[smarthost(peer)])
            house = opened.enter_context(processes(tmp_path_factory.mktemp("resend"), given))
            house.start_api()
            house.start_worker()
            ledger = wiring.open_ledger(Settings.load(house.config, env={}), name="test", connections=2)
            opened.push_async_callback(ledger.dispose)
            url = f"http://127.0.0.1:{house.port}"
            async with httpx2.AsyncClient(base_url=url) as client:
                await eventually(lambda: _ready(client), within=60.0)
            sdks: list[Sdk] = []
            for language in LANGUAGES:
                with suppress(Unobtainable):  # `test_both_sdks_are_here` tells
                    sdks.append(await opened.enter_async_context(an_sdk(language, url)))
            yield Postroom(peer=peer, ledger=ledger, sdks=sdks, database_url=database_url)


@pytest_asyncio.fixture(loop_scope="module")
async def offices(postroom: Postroom) -> list[Office]:
    """An application for each SDK, with nothing behind it and addresses of its own."""
    made = []
    for sdk in postroom.sdks:
        application = f"{sdk.language}-{next(_number)}"
        key = await postroom.ledger.create_key(application, scopes=DEFAULT_SCOPES, senders=[])
        made.append(Office(postroom=postroom, sdk=sdk, application=application, key=key.token))
    return made


async def _ready(client: httpx2.AsyncClient) -> bool:
    try:
        return (await client.get("/readyz")).status_code == 200
    except httpx2.HTTPError:
        return False


def with_both(check: Callable[[Office], Awaitable[None]]) -> Callable[[list[Office]], Awaitable[None]]:
    """Make a test that does the same with one SDK and then with the other."""

    async def test(offices: list[Office]) -> None:
        for office in offices:
            await check(office)

    test.__name__, test.__doc__ = check.__name__, check.__doc__
    return test


def a_file(content: bytes, **changes: str) -> dict[str, str]:
    return {"content": base64.b64encode(content).decode(), **changes}


async def test_both_sdks_are_here() -> None:
    """The other tests leave nothing out: Node and its package are there (in CI they have to be)."""
    try:
        found = node.obtain()
    except Unobtainable as why:
        skip_or_fail(f"Resend's SDK for Node is left out: {why}")

    assert (found.folder / "node_modules" / "resend" / "package.json").is_file()


@with_both
async def test_an_email_with_everything_arrives(office: Office) -> None:
    """Addresses, texts, headers, tags, a file and a picture arrive as the application gave them to its SDK."""
    sent = await office.done(
        "send",
        office.an_email(
            to=f"Ana Müller <{office.ana}>",
            cc=["c@example.com"],
            bcc=["b@example.com"],
            reply_to="help@contoso.com",
            subject="Grüße ✉",
            html='<p>Danke <img src="cid:logo"></p>',
            text="Danke",
            headers={"X-Entity-Ref-ID": "42"},
            tags=[{"name": "order", "value": "42"}, {"name": "category", "value": "receipt"}],
            attachments=[
                a_file(PDF, filename="Übersicht.pdf"),
                a_file(LOGO, filename="logo.png", content_type="image/png", content_id="logo"),
            ],
        ),
    )

    email = await office.last_event(sent["id"], "sent")

    (taken,) = office.taken()
    mail = message_from_bytes(taken.octets, policy=policy.default)
    parts = {part.get_content_type(): part for part in mail.walk()}
    assert taken.rcpts == (office.ana, "c@example.com", "b@example.com")
    assert (mail["Subject"], mail["X-Entity-Ref-ID"], mail["Reply-To"]) == (
        "Grüße ✉",
        "42",
        "help@contoso.com",
    )
    assert mail["Bcc"] is None
    assert parts["application/pdf"].get_payload(decode=True) == PDF
    assert parts["application/pdf"].get_filename() == "Übersicht.pdf"
    assert parts["image/png"].get_payload(decode=True) == LOGO
    assert parts["image/png"]["Content-ID"] == "<logo>"
    assert email["message_id"] == mail["Message-ID"]
    assert (email["object"], email["from"]) == ("email", "Contoso <noreply@contoso.com>")
    assert (email["to"], email["cc"], email["bcc"]) == (
        [f"Ana Müller <{office.ana}>"],
        ["c@example.com"],
        ["b@example.com"],
    )
    assert (email["html"], email["text"]) == ('<p>Danke <img src="cid:logo"></p>', "Danke")
    assert email["tags"] == [{"name": "order", "value": "42"}, {"name": "category", "value": "receipt"}]
    assert datetime.fromisoformat(email["created_at"]) <= datetime.now(UTC)


@with_both
async def test_a_scheduled_email_is_moved_cancelled_and_sent(office: Office) -> None:
    """One is moved and cancelled and never goes; one that is moved to the next seconds goes then."""
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).replace(microsecond=0)
    kept = await office.done("send", office.an_email(to=office.at("kept"), scheduled_at="tomorrow at 9am"))
    gone = await office.done("send", office.an_email(scheduled_at=tomorrow.isoformat()))

    moved = await office.done("update", {"id": kept["id"], "scheduled_at": tomorrow.isoformat()})
    shown = await office.done("get", kept["id"])
    cancelled = await office.done("cancel", kept["id"])
    soon = (datetime.now(UTC) + timedelta(seconds=2)).isoformat()
    await office.done("update", {"id": gone["id"], "scheduled_at": soon})
    await office.last_event(gone["id"], "sent")

    assert (moved["object"], moved["id"]) == (cancelled["object"], cancelled["id"]) == ("email", kept["id"])
    assert shown["last_event"] == "scheduled"
    assert datetime.fromisoformat(shown["scheduled_at"]) == tomorrow
    assert (await office.done("get", kept["id"]))["last_event"] == "canceled"
    assert [taken.rcpts for taken in office.taken()] == [(office.ana,)]
    assert await office.refused("cancel", gone["id"]) == (422, "validation_error")
    assert await office.refused("update", {"id": kept["id"], "scheduled_at": soon}) == (
        422,
        "validation_error",
    )


@with_both
async def test_a_batch_is_strict_or_permissive(office: Office) -> None:
    """Strict is all or none, permissive sends the good ones and lists the others by their index."""
    good = await office.done(
        "batch", [office.an_email(to=office.at("one")), office.an_email(to=office.at("two"))]
    )
    strict = await office.refused("batch", [office.an_email(), office.an_email(to="nobody")])
    mixed = [
        office.an_email(to="nobody"),
        office.an_email(to=office.at("three")),
        office.an_email(attachments=[a_file(PDF)]),
    ]
    permissive = await office.done("batch", mixed, batch_validation="permissive")

    for each in [*good["data"], *permissive["data"]]:
        await office.last_event(each["id"], "sent")

    recipients = {taken.rcpts[0] for taken in office.taken()}
    assert len(good["data"]) == 2
    assert "errors" not in good
    assert strict == (422, "validation_error")
    assert len(permissive["data"]) == 2
    assert [each["index"] for each in permissive["errors"]] == [0]
    assert "`to`" in permissive["errors"][0]["message"]
    assert recipients == {office.ana, office.at("one"), office.at("two"), office.at("three")}


@with_both
async def test_one_key_is_one_email(office: Office) -> None:
    """A repetition gets the first id; another email under the key, and one at the same time, are refused."""
    first = await office.done("send", office.an_email(), idempotency_key="order-42")
    again = await office.done("send", office.an_email(), idempotency_key="order-42")
    batch = await office.done("batch", [office.an_email()], idempotency_key="order-42")
    batch_again = await office.done("batch", [office.an_email()], idempotency_key="order-42")
    other = await office.refused("send", office.an_email(subject="Other"), idempotency_key="order-42")
    too_long = await office.refused("send", office.an_email(), idempotency_key="x" * 257)
    still_running = await asyncpg.connect(office.postroom.database_url)
    try:
        async with still_running.transaction():
            await still_running.execute(
                "INSERT INTO idempotency (application, path, key, sha256, answer)"
                " VALUES ($1, '/emails', 'order-43', 'x', '{}')",
                office.application,
            )
            concurrent = await office.refused("send", office.an_email(), idempotency_key="order-43")
    finally:
        await still_running.close()

    assert first["id"] == again["id"]
    assert batch["data"] == batch_again["data"]
    assert other == (409, "invalid_idempotent_request")
    assert too_long == (400, "invalid_idempotency_key")
    assert concurrent == (409, "concurrent_idempotent_requests")
    assert len((await office.done("list", {}))["data"]) == 2


@with_both
async def test_emails_are_listed_in_pages(office: Office) -> None:
    """Newest first, page by page forwards and back, with what has become of each."""
    sent = [(await office.done("send", office.an_email(subject=str(number))))["id"] for number in range(5)]
    newest_first = sent[::-1]

    first = await office.done("list", {"limit": 2})
    second = await office.done("list", {"limit": 2, "after": first["data"][-1]["id"]})
    last = await office.done("list", {"limit": 2, "after": second["data"][-1]["id"]})
    back = await office.done("list", {"limit": 2, "before": second["data"][0]["id"]})

    pages = [[each["id"] for each in page["data"]] for page in (first, second, last, back)]
    assert pages == [newest_first[:2], newest_first[2:4], newest_first[4:], newest_first[:2]]
    assert [page["has_more"] for page in (first, second, last)] == [True, True, False]
    assert first["object"] == "list"
    assert first["data"][0]["subject"] == "4"
    assert first["data"][0]["last_event"] in {"queued", "sent"}


@with_both
async def test_what_the_peer_refuses_is_told(office: Office) -> None:
    """A recipient that the other side refuses is `bounced`, one that has to wait `delivery_delayed`."""
    office.postroom.peer.on(
        "rcpt", reply="550 5.1.1 No such user", when=lambda path: path.startswith("nobody@"), times=1
    )
    office.postroom.peer.on(
        "rcpt", reply="451 4.7.1 Come back later", when=lambda path: path.startswith("later@"), times=2
    )

    refused = await office.done("send", office.an_email(to=office.at("nobody")))
    delayed = await office.done("send", office.an_email(to=office.at("later")))

    await office.last_event(refused["id"], "bounced")
    await office.last_event(delayed["id"], "delivery_delayed")


@with_both
async def test_every_error_has_its_name_in_the_sdk(office: Office) -> None:
    """What is refused comes to the application as the error that its SDK has for it."""
    other = await office.postroom.ledger.create_key(
        f"not-{office.application}", scopes=DEFAULT_SCOPES, senders=[]
    )
    sending = await office.new_key(scopes=["messages.send"])
    one_sender = await office.new_key(senders=["a@contoso.com"])
    a_minute = await office.new_key(restrictions={"messages_per_minute": 1})
    a_day = await office.new_key(restrictions={"messages_per_day": 1})
    email = await office.done("send", office.an_email())
    for key in (a_minute, a_day):
        await office.done("send", office.an_email(), key=key)

    told = {
        "no key": await office.refused("send", office.an_email(), key=" "),
        "an unknown key": await office.refused("send", office.an_email(), key="re_123456789"),
        "a key that only sends": await office.refused("get", email["id"], key=sending),
        "another sender": await office.refused("send", office.an_email(), key=one_sender),
        "another's email": await office.refused("get", email["id"], key=other.token),
        "no such email": await office.refused("get", "4ef9a417-02e9-4d39-ad75-9611e0fcc33c"),
        "no such method": await office.refused("put"),
        "no recipient": await office.refused("send", {"from": "a@contoso.com", "subject": "Hi", "text": "Hi"}),
        "no content": await office.refused("send", {**office.an_email(), "html": None}),
        "a wrong sender": await office.refused("send", office.an_email(**{"from": "Contoso"})),
        "a wrong recipient": await office.refused("send", office.an_email(to=["nobody"])),
        "a wrong time": await office.refused("send", office.an_email(scheduled_at="soon")),
        "a remote file": await office.refused("send", office.an_email(attachments=[a_file(b"", path="https://a.example/b")])),
        "a wrong cursor": await office.refused("list", {"after": "4ef9a417-02e9-4d39-ad75-9611e0fcc33c"}),
        "too many a minute": await office.refused("send", office.an_email(), key=a_minute),
        "too many a day": await office.refused("send", office.an_email(), key=a_day),
    }  # fmt: skip

    assert told == {
        "no key": (401, "missing_api_key"),
        "an unknown key": (403, "invalid_api_key"),
        "a key that only sends": (401, "restricted_api_key"),
        "another sender": (403, "validation_error"),
        "another's email": (404, "not_found"),
        "no such email": (404, "not_found"),
        "no such method": (405, "method_not_allowed"),
        "no recipient": (422, "missing_required_field"),
        "no content": (422, "validation_error"),
        "a wrong sender": (422, "invalid_from_address"),
        "a wrong recipient": (422, "validation_error"),
        "a wrong time": (422, "validation_error"),
        "a remote file": (422, "invalid_attachment"),
        "a wrong cursor": (422, "invalid_parameter"),
        "too many a minute": (429, "rate_limit_exceeded"),
        "too many a day": (429, "daily_quota_exceeded"),
    }


@with_both
async def test_python_raises_the_exception_of_each_error(office: Office) -> None:
    """In Python each error is the class that the SDK has for it; Node has no classes."""
    limited = await office.new_key(restrictions={"messages_per_day": 1})
    await office.done("send", office.an_email(), key=limited)

    errors = [
        await office.sdk.refused("send", office.an_email(), key=" "),
        await office.sdk.refused("send", office.an_email(), key="re_123456789"),
        await office.sdk.refused("send", {"from": "a@contoso.com"}, key=office.key),
        await office.sdk.refused("send", office.an_email(to="nobody"), key=office.key),
        await office.sdk.refused("send", office.an_email(), key=limited),
    ]

    classes = [
        "MissingApiKeyError",
        "InvalidApiKeyError",
        "MissingRequiredFieldsError",
        "ValidationError",
        "RateLimitError",
    ]
    assert [error.get("class") for error in errors] == (
        classes if office.sdk.language == "python" else [None] * 5
    )
    assert int(errors[-1]["retry_after"]) > 60
