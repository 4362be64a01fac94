"""One journey with a secret of its own in every place that has one, at debug level, through success and failure.

Then every place is searched in which no secret belongs: the logs of all processes, every row of the database,
Redis, transcripts, answers, metrics, the command lines of all processes, and what the commands print.
"""

import asyncio
import base64
import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg
import httpx2
import pytest

from service.delivery.bell import open_redis
from service.ledger.keys import SCOPES
from service.local.servers import LocalPostgres
from service.smtp.transcript import Strikeout
from tests.delivery.receiver import Receiver
from tests.hostile.surface import OPERATIONS
from tests.house import Door, Processes, a_message, configuration, processes
from tests.peer import ScriptedPeer, authority
from tests.routes.entra import TENANT, Answer, FakeEntra
from tests.security.canaries import canary, forms, found
from tests.submission.processes import children_of

MX = "contoso-com.mail.protection.outlook.com"


@pytest.mark.parametrize("form", range(len(list(forms("x" * 30)))))
def test_a_canary_is_found_in_every_form(form: int) -> None:
    """The search can fail: each form is found behind 0, 1 and 2 octets, and another secret is not."""
    secret, other = canary("secret"), canary("other")
    written = list(forms(secret))[form]

    assert found(b"before " + written + b" behind", {"secret": secret, "other": other}) == {"secret"}


@pytest.mark.parametrize("before", ["", "x", "xy", "\0user\0"])
def test_a_canary_is_found_inside_base64(before: str) -> None:
    """As AUTH PLAIN and XOAUTH2 have it: with something before and behind."""
    secret = canary("secret")
    written = base64.b64encode(f"{before}{secret}\1\1".encode())

    assert found(written, {"secret": secret}) == {"secret"}


@pytest.mark.parametrize("form", range(len(list(forms("x" * 30)))))
@pytest.mark.parametrize("before", ["", "x", "xy"])
def test_what_a_peer_repeats_is_struck_out_in_every_form(form: int, before: str) -> None:
    """As it is, as URLs have it, in base64 with something before it: whatever the canaries are looked for in."""
    secret = canary("secret")
    strike_out = Strikeout()
    strike_out.add(secret)

    told = strike_out(f"535 5.7.3 no: {before}{list(forms(secret))[form].decode()}")

    assert found(told.encode(), {"secret": secret}) == set()
    assert told.startswith("535 5.7.3 no: ")


class Journey:
    """The secrets, and what was said on the way."""

    def __init__(self) -> None:
        names = ("database", "password", "client secret", "token", "guess")
        self.secrets = {name: canary(name.replace(" ", "")) for name in names}
        #: Content belongs into the ledger and its application's answers, and nowhere else.
        self.contents = {name: canary(name) for name in ("subject", "text", "hook")}
        self.secrets["client secret of the console"] = canary("console")
        self.secrets["encryption key"] = base64.b64encode(secrets.token_bytes(32)).decode()
        self.said: dict[str, bytes] = {}

    def hears(self, answer: httpx2.Response) -> None:
        """Keep an answer."""
        place = f"{answer.status_code} {answer.request.method} {answer.request.url.path} {len(self.said)}"
        self.said[place] = answer.content + repr(answer.headers.multi_items()).encode()

    def leaks(self, wanted: Mapping[str, str], *, of: Mapping[str, bytes]) -> dict[str, set[str]]:
        """Say in which places which secrets are."""
        return {place: names for place, told in of.items() if (names := found(told, wanted))}


def settings(
    journey: Journey,
    folder: Path,
    urls: tuple[str, str],
    peer: ScriptedPeer,
    mx: ScriptedPeer,
    entra: FakeEntra,
) -> dict[str, Any]:
    """Every place of the configuration that takes a secret has one."""
    certificate, key = authority().client_files("relay.contoso.com")
    # Its lines, but for the first one, which tells the kind of key.
    journey.secrets |= {
        f"key {number}": line for number, line in enumerate(key.read_text().split("\n")[2:-2])
    }
    (folder / "password").write_text(journey.secrets["password"])
    at = {
        "connect_to": f"127.0.0.1:{peer.port}",
        "ca_file": str(peer.ca_file),
        "ehlo_name": "postroom.contoso.com",
    }
    routes: list[dict[str, Any]] = [
        {
            "name": "office", "kind": "smarthost", "host": "smtp.contoso.com", "tls": "required", **at,
            "login": {"method": "basic", "username": "office", "password_file": str(folder / "password")},
        },
        {
            "name": "noreply", "kind": "client_submission", **at,
            "mailboxes": [{
                "address": "noreply@contoso.com",
                "login": {"method": "oauth", "client_id": "app-1", "client_secret": journey.secrets["client secret"]},
            }],
        },
        {
            "name": "connector", "kind": "smtp_relay", "host": MX, "authenticate_by": "certificate", **at,
            "connect_to": f"127.0.0.1:{mx.port}",
            "client_certificate": {"certificate_file": str(certificate), "private_key_file": str(key)},
        },
    ]  # fmt: skip
    return configuration(*urls, routes=routes) | {
        "entra": {"tenant_id": TENANT, "authority": entra.authority, "ca_file": str(entra.ca_file)},
        "webhooks": {"allow_private": True, "allow_http": True},
        "encryption_key": journey.secrets["encryption key"],
        "console": {
            "url": "https://postroom.contoso.com",
            "entra": {"client_id": TENANT, "client_secret": journey.secrets["client secret of the console"]},
        },
        "log_level": "debug",
        "log_format": "console",
    }


def echo(secret: str) -> str:
    """What a hostile server says: the secret, as it is and in base64."""
    return f"{secret} {base64.b64encode(secret.encode()).decode()}"


async def test_no_secret_is_anywhere_it_does_not_belong(
    shared_postgres: LocalPostgres, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """Not in clear, not in base64, not as in a URL; wherever it is kept for use, it is sealed or hashed."""
    journey = Journey()
    hidden = journey.secrets
    name = database_url.rpartition("/")[2]
    shared_postgres.execute(f"CREATE ROLE canary LOGIN SUPERUSER PASSWORD '{hidden['database']}'")
    hidden["redis"] = redis_url.partition("//:")[2].partition("@")[0]
    own = f"postgresql://canary:{quote(hidden['database'], safe='')}@127.0.0.1:{shared_postgres.port}/{name}"
    logins = {"office": hidden["password"], "noreply@contoso.com": hidden["token"]}
    names = ("localhost", "smtp.contoso.com", "smtp.office365.com")
    try:
        async with (
            ScriptedPeer(tls=True, logins=logins, certificate_names=names) as peer,
            ScriptedPeer(tls=True, certificate_names=[MX], ask_client_certificate=True) as mx,
            FakeEntra(tmp_path) as entra,
            Receiver() as receiver,
        ):
            with processes(tmp_path, settings(journey, tmp_path, (own, redis_url), peer, mx, entra)) as house:
                house.start_api()
                house.start_worker()
                async with house.door() as door:
                    hidden["key"] = door.client.headers["Authorization"].removeprefix("Bearer ")
                    made = await house.run("keys", "create", "admin", "--scopes", ",".join(SCOPES), "--json")
                    hidden["admin key"] = json.loads(made)["key"]
                    await travel(journey, door, (peer, mx), entra, receiver)
                    await guess(journey, door)
                    await break_the_ledger(journey, door, database_url)
                for pid in [pid for child in house.children for pid in (child.pid, *children_of(child.pid))]:
                    journey.said[f"command line {pid}"] = Path(f"/proc/{pid}/cmdline").read_bytes()
                await ask_commands(journey, house)
    finally:
        shared_postgres.execute("DROP ROLE canary")
    journey.said |= {log.name: log.read_bytes() for log in tmp_path.glob("*.log")}
    tables = await rows(database_url)
    journey.said |= {"redis": await keys(redis_url)} | tables

    assert journey.leaks(hidden, of=journey.said) == {}
    assert journey.leaks(journey.contents, of={
        place: told for place, told in journey.said.items() if place.endswith((".log", "/metrics")) or "command" in place
    }) == {}  # fmt: skip
    # All of it was there to be seen.
    assert journey.leaks(journey.contents, of=tables)
    assert len(hidden) >= 13
    assert b"CheckViolation" in journey.said["api-0.log"]
    assert {"LOGIN", "XOAUTH2"} <= {mechanism for mechanism, _, _ in peer.logins_tried}
    assert mx.client_certificates


async def travel(
    journey: Journey,
    door: Door,
    peers: tuple[ScriptedPeer, ScriptedPeer],
    entra: FakeEntra,
    receiver: Receiver,
) -> None:
    """Send by every route, first against refusals that repeat the secrets, and read all that came of it."""
    hidden, peer = journey.secrets, peers[0]
    admin = {"Authorization": f"Bearer {hidden['admin key']}"}
    description = f"AADSTS7000215: Invalid client secret {echo(hidden['client secret'])}"
    entra.answers.append(
        Answer(status=401, body={"error": "invalid_client", "error_description": description})
    )
    journey.hears(await door.client.post("/routes/noreply/check", headers=admin, timeout=60))
    token = {"token_type": "Bearer", "expires_in": 3600, "access_token": hidden["token"]}
    entra.answers += [Answer(body=token)] * 9
    for mechanism, secret in (("LOGIN", hidden["password"]), ("XOAUTH2", hidden["token"])):
        peer.on("auth", reply=f"535 5.7.3 {echo(secret)}", when=mechanism.__eq__, times=1)
    # Each as the one who was told it: a peer knows no other secrets.
    for route, secret in (("office", hidden["password"]), ("noreply", hidden["token"])):
        peer.on("rcpt", reply=f"550 5.1.1 {echo(secret)}", when=f"refused@{route}.example".__eq__)
    peers[1].on("rcpt", reply="550 5.1.1 no", when="refused@connector.example".__eq__)
    receiver.answers(500)
    made = await door.client.post(
        "/webhooks", json={"url": f"{receiver.url}{quote(journey.contents['hook'])}"}
    )
    assert made.status_code == 201, made.text
    hidden["webhook"] = made.json()["secret"].removeprefix("whsec_")
    content = {"subject": journey.contents["subject"], "text": journey.contents["text"]}
    messages = [
        await door.submit(to=[f"{who}@{route}.example"], route=route, **content)
        for route in ("office", "noreply", "connector")
        for who in ("ana", "refused")
    ]
    for message in messages:
        await door.in_state(message, "sent", "failed", within=120)
    await receiver.has(3, within=60)
    paths = [each.path for each in OPERATIONS if each.method == "GET" and not each.named("path")]
    paths += [
        "/openapi.json",
        "/metrics",
        "/console",
        *(f"/routes/{route}" for route in ("office", "noreply", "connector")),
    ]
    for message in messages:
        paths += [
            f"/messages/{message}{more}" for more in ("", "/attempts", "/events", "/explain", "/content")
        ]
        for attempt in await door.attempts(message):
            paths += [f"/attempts/{attempt['id']}", f"/attempts/{attempt['id']}/transcript"]
    for path in paths:
        journey.hears(await door.client.get(path, headers=admin))
    for route in ("office", "connector"):
        journey.hears(await door.client.post(f"/routes/{route}/check", headers=admin, timeout=60))


async def ask_commands(journey: Journey, house: Processes) -> None:
    """Keep all that the commands print, whatever they end in."""
    for words in (["config", "show"], ["check"]):
        child = house.start(*words)
        await asyncio.to_thread(child.wait)


async def guess(journey: Journey, door: Door) -> None:
    """Secrets where they do not belong: in bodies, names, queries, paths and headers of requests."""
    secret = journey.secrets["guess"]
    for asked in (
        {"json": {secret: secret}}, {"json": {"from": secret, "to": [secret], "headers": {secret: secret}}},
        {"content": secret.encode(), "headers": {"Content-Type": "application/json"}},
        {"json": {}, "headers": {"Authorization": f"Bearer {secret}"}},
        {"json": {}, "headers": {"Authorization": f"Bearer {journey.secrets['key'][:-6]}zzzzzz"}},
        {"json": {}, "headers": {"Idempotency-Key": f"{secret} {secret}"}}, {"json": {}, "headers": {"Prefer": secret}},
        {"json": {}, "params": {secret: secret, "status": secret}},
    ):  # fmt: skip
        for path in ("/messages", "/emails", "/webhooks", "/templates", "/keys"):
            given: Mapping[str, Any] = asked
            journey.hears(await door.client.post(path, **given))
    journey.hears(await door.client.get(f"/messages/{quote(secret, safe='')}"))
    journey.hears(await door.client.get("/messages", params={"after": secret}))


async def break_the_ledger(journey: Journey, door: Door, database_url: str) -> None:
    """A row that PostgreSQL refuses is a bug with a traceback: neither parameters nor the row are in it."""
    connection = await asyncpg.connect(database_url)
    url = f"https://example.com/{quote(journey.contents['hook'])}"
    try:
        for path, table, body in (
            ("/webhooks", "webhooks", {"url": url}),
            (
                "/messages",
                "messages",
                a_message(subject=journey.contents["subject"], text=journey.contents["text"]),
            ),
        ):
            await connection.execute(f"ALTER TABLE {table} ADD CONSTRAINT broken CHECK (false) NOT VALID")
            answer = await door.client.post(path, json=body)
            assert answer.status_code == 500, answer.text
            journey.hears(answer)
            await connection.execute(f"ALTER TABLE {table} DROP CONSTRAINT broken")
    finally:
        await connection.close()


async def rows(database_url: str) -> dict[str, bytes]:
    """Dump every table; what is binary as it is."""
    connection = await asyncpg.connect(database_url)
    try:
        tables = await connection.fetch(
            "SELECT format('%I.%I', table_schema, table_name) FROM information_schema.tables"
            " WHERE table_schema NOT IN ('pg_catalog', 'information_schema')"
        )
        dumped = {}
        for (table,) in tables:
            found = await connection.fetch(f"SELECT * FROM {table}")  # noqa: S608  # the schema's own
            values = [value for row in found for value in row.values()]
            dumped[f"table {table}"] = b"\n".join(
                value if isinstance(value, bytes) else str(value).encode() for value in values
            )
    finally:
        await connection.close()
    return dumped


async def keys(url: str) -> bytes:
    """Dump Redis: every key with its value."""
    client = open_redis(url)
    try:
        names = [name async for name in client.scan_iter()]
        return b"\n".join([*names, *[await client.dump(name) or b"" for name in names]])
    finally:
        await client.aclose(close_connection_pool=True)
