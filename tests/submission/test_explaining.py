"""`GET /explain` and `postroom explain`: any pasted text, its meaning and the remedy."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from service import wiring
from service.routes.diagnoses.explain import LONGEST
from service.submission.ways.explaining import ExplanationOut
from tests.house import ROOT, House, a_house

CANARY = "canary-7f3a"
DISABLED = (
    "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant. "
    "[SB0P365CA0001.PROD.OUTLOOK.COM 2026-10-08T20:36:23.875Z 08DF254F56560914]"
)
OAUTH = {"method": "oauth", "client_id": "app-1", "client_secret": "s3cret-never-shown"}
TENANT = "11111111-2222-3333-4444-555555555555"

ROUTES: list[dict[str, Any]] = [
    {
        "name": "noreply",
        "kind": "client_submission",
        "mailboxes": [{"address": "noreply@contoso.com", "login": OAUTH}],
    },
    {
        "name": "two",
        "kind": "client_submission",
        "mailboxes": [
            {"address": "a@contoso.com", "login": OAUTH},
            {"address": "b@contoso.com", "login": {**OAUTH, "client_id": "app-2"}},
        ],
    },
    {"name": "own-domain", "kind": "direct_send", "mx_of": "contoso.com"},
    {
        "name": "relay",
        "kind": "smarthost",
        "host": "mail.contoso.com",
        "login": {"method": "basic", "username": "postroom", "password": "s3cret-never-shown"},
    },
]
SETTINGS: dict[str, Any] = {
    "organization": {"accepted_domains": ["contoso.com"], "egress": {"static_ips": ["203.0.113.10"]}},
    "entra": {"tenant_id": TENANT},
}


@pytest.fixture
async def house(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[House]:
    """A door without a worker."""
    async with a_house(
        database_url, redis_url, routes=ROUTES, folder=tmp_path, workers=0, settings_changes=SETTINGS
    ) as opened:
        yield opened


async def asked(house: House, **query: str) -> Any:
    answer = await house.client.get("/explain", params=query)
    assert answer.status_code == 200, answer.text
    ExplanationOut.model_validate(answer.json())
    return answer.json()


# -- over HTTP -------------------------------------------------------------------------------


async def test_a_reply_is_explained(house: House) -> None:
    """All that is documented: what was recognised, the trailer, the diagnosis, the class, what Postroom does."""
    found = await asked(house, reply=f"Error: Invalid login: {DISABLED}")

    assert found["object"] == "explanation"
    assert found["recognized"]["code"] == 535
    assert found["recognized"]["enhanced"] == "5.7.139"
    assert found["recognized"]["text"].startswith("Authentication unsuccessful, SmtpClientAuthentication is")
    assert found["recognized"]["phase"] == "auth"
    assert found["trailer"] == {
        "host": "SB0P365CA0001.PROD.OUTLOOK.COM",
        "time": "2026-10-08T20:36:23.875Z",
        "session": "08DF254F56560914",
    }
    assert found["diagnosis"]["id"] == "exo.smtp_auth_disabled_for_tenant"
    assert found["diagnosis"]["who"] == "exchange_admin"
    assert (found["class"], found["retryable"]) == ("A", True)
    assert "rest" in found["then"]


async def test_the_route_gives_the_names(house: House) -> None:
    """The remedy is ready to be pasted."""
    found = await asked(house, reply=DISABLED, route="noreply")

    assert found["diagnosis"]["remedy"][0] == (
        "Set-CASMailbox -Identity noreply@contoso.com -SmtpClientAuthenticationDisabled $false"
    )


async def test_the_application_is_named(house: House) -> None:
    found = await asked(house, reply="535 5.7.3 Authentication unsuccessful", route="noreply")

    assert "-AppId app-1 " in " ".join(found["diagnosis"]["remedy"])


async def test_of_several_mailboxes_the_text_chooses(house: House) -> None:
    """A name that is not certain is left open."""
    unclear = await asked(house, reply="535 5.7.3 Authentication unsuccessful", route="two")
    clear = await asked(house, reply="user b@contoso.com: 535 5.7.3 Authentication unsuccessful", route="two")

    assert "<mailbox>" in " ".join(unclear["diagnosis"]["remedy"])
    assert "-AppId app-2 " in " ".join(clear["diagnosis"]["remedy"])
    assert "b@contoso.com" in " ".join(clear["diagnosis"]["remedy"])


async def test_the_route_decides_what_is_meant(house: House) -> None:
    """Direct send cannot lead outside; the same words blame the connector elsewhere."""
    reply = "550 5.7.64 TenantAttribution; Relay Access Denied"

    assert (await asked(house, reply=reply))["diagnosis"]["id"] == "exo.relay_denied"
    assert (await asked(house, reply=reply, route="own-domain"))["class"] == "PR"
    assert (await asked(house, reply=reply, kind="direct_send"))["class"] == "PR"


async def test_our_own_address_is_named(house: House) -> None:
    """Where the organisation has one static address, it is the one to allow."""
    found = await asked(house, reply="451 4.7.500 Server busy. Please try again later.", route="own-domain")

    assert "-SenderIPAddresses 203.0.113.10" in " ".join(found["diagnosis"]["remedy"])


async def test_a_smarthost_is_named(house: House) -> None:
    found = await asked(house, reply="550 5.7.1 Denied after RCPT", route="relay")

    assert "mail.contoso.com" in found["diagnosis"]["title"]
    assert "s3cret" not in json.dumps(found)


async def test_nothing_is_made_up(house: House) -> None:
    """Ordinary text is answered with nulls, not with an error."""
    found = await asked(house, reply="order 550 from 2024-05-05")

    assert [found[name] for name in ("recognized", "trailer", "diagnosis", "class")] == [None] * 4
    assert found["retryable"] is False
    assert "Nothing" in found["then"]


async def test_an_acceptance_is_recognised(house: House) -> None:
    found = await asked(house, reply="250 2.0.0 OK [Hostname=SYBP282MB2635.AUSP282.PROD.OUTLOOK.COM]")

    assert (found["recognized"]["code"], found["diagnosis"], found["class"]) == (250, None, None)


async def test_long_texts_are_taken(house: House) -> None:
    """What fits into a URL of a usual client: almost 64 kB."""
    found = await asked(house, reply=DISABLED.ljust(60_000, "."))

    assert found["diagnosis"]["id"] == "exo.smtp_auth_disabled_for_tenant"


@pytest.mark.parametrize(("characters", "status"), [(LONGEST, 200), (LONGEST + 1, 422)])
async def test_the_limit_is_exact(house: House, characters: int, status: int) -> None:
    """Counted in characters, not in the octets of the URL; no client sends that much, so it is asked by hand."""
    token = house.client.headers["authorization"]
    query = "reply=" + "%C3%A9" * characters
    async with wiring.api_app(house.settings) as app:
        answer = await by_hand(app, query.encode(), token)

    assert answer[0]["status"] == status
    if status == 422:
        problem = json.loads(answer[1]["body"])
        assert (problem["code"], problem["errors"][0]["pointer"]) == ("reply_too_long", "/reply")


async def by_hand(app: Any, query: bytes, authorization: str) -> list[Any]:
    """Ask `/explain` by the application's own interface (ASGI)."""
    sent: list[Any] = []
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/explain",
        "raw_path": b"/explain",
        "query_string": query,
        "root_path": "",
        "headers": [(b"authorization", authorization.encode())],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


@pytest.mark.parametrize(
    ("query", "code", "pointer"),
    [
        ({}, "reply_missing", "/reply"),
        ({"reply": ""}, "reply_missing", "/reply"),
        ({"reply": " \n"}, "reply_missing", "/reply"),
        ({"reply": DISABLED, "route": CANARY}, "unknown_route", "/route"),
        ({"reply": DISABLED, "route": ""}, "unknown_route", "/route"),
        ({"reply": DISABLED, "kind": CANARY}, "unknown_kind", "/kind"),
        ({"reply": DISABLED, "kind": ""}, "unknown_kind", "/kind"),
        ({"reply": DISABLED, "route": "noreply", "kind": "smarthost"}, "route_and_kind", "/kind"),
    ],
)
async def test_what_is_wrong_is_named_and_not_repeated(
    house: House, query: dict[str, str], code: str, pointer: str
) -> None:
    """A problem with the parameter's name; nothing of its value."""
    answer = await house.client.get("/explain", params=query)

    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert CANARY not in answer.text


@pytest.mark.parametrize("path", ["/explain", "/v1/explain"])
async def test_a_key_with_the_scope_is_needed(house: House, path: str) -> None:
    """Without a key 401, without messages.read 403, whatever is asked."""
    narrow = await house.ledger.create_key("narrow", scopes=["messages.send"], senders=[])

    unknown = await house.client.get(path, params={"reply": "550"}, headers={"Authorization": ""})
    forbidden = await house.client.get(
        path, params={"reply": "550"}, headers={"Authorization": f"Bearer {narrow.token}"}
    )

    assert (unknown.status_code, forbidden.status_code) == (401, 403)


async def test_the_document_describes_it(house: House) -> None:
    """The parameters and the answer's shape."""
    document = (await house.client.get("/openapi.json")).json()
    operation = document["paths"]["/explain"]["get"]

    assert [each["name"] for each in operation["parameters"]] == ["reply", "route", "kind"]
    assert operation["responses"]["200"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/ExplanationOut"
    }


# -- in a shell ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    status: int | None
    out: str
    err: str


async def postroom(*arguments: str, cwd: Path, stdin: bytes = b"") -> Ran:
    """Run the command where there is no configuration at all."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "service",
        "explain",
        *arguments,
        cwd=cwd,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await child.communicate(stdin)
    return Ran(status=child.returncode, out=out.decode(), err=err.decode())


async def test_the_command_is_readable(tmp_path: Path) -> None:
    """Title, explanation, who must act, each step on its own line, what Postroom does."""
    ran = await postroom(DISABLED, cwd=tmp_path)

    assert (ran.status, ran.err) == (0, "")
    assert "Recognised" in ran.out
    assert "535 5.7.139" in ran.out
    assert "SMTP AUTH is switched off for the organisation" in ran.out
    assert "Who must act: the Exchange administrator" in ran.out
    assert "  - Set-CASMailbox -Identity <mailbox> -SmtpClientAuthenticationDisabled $false\n" in ran.out
    assert "What Postroom does: " in ran.out
    assert "08DF254F56560914" in ran.out


async def test_the_command_reads_stdin(tmp_path: Path) -> None:
    """A log is piped in, octets that are no UTF-8 included."""
    ran = await postroom("-", "--json", cwd=tmp_path, stdin=b"caf\xe9 said: " + DISABLED.encode() + b"\n")

    found = json.loads(ran.out)
    ExplanationOut.model_validate(found)
    assert ran.status == 0
    assert found["diagnosis"]["id"] == "exo.smtp_auth_disabled_for_tenant"


async def test_the_command_takes_a_kind(tmp_path: Path) -> None:
    text = "550 5.7.64 TenantAttribution; Relay Access Denied"
    ran = await postroom(text, "--kind", "direct_send", "--json", cwd=tmp_path)

    assert json.loads(ran.out)["diagnosis"]["id"] == "exo.relay_denied_direct_send"


async def test_nothing_recognised_is_status_1(tmp_path: Path) -> None:
    ran = await postroom("order 550 from 2024-05-05", cwd=tmp_path)

    assert ran.status == 1
    assert "Nothing in this text" in ran.out


@pytest.mark.parametrize(
    "arguments", [(), ("",), ("-",), (DISABLED, "--kind", "pigeon"), (DISABLED, "--what")]
)
async def test_wrong_use_is_status_2(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """Nothing on stdout, the reason on stderr."""
    ran = await postroom(*arguments, cwd=tmp_path)

    assert (ran.status, ran.out) == (2, "")
    assert ran.err
