"""`postroom send` and `postroom report basic-auth`, as they are used in a shell."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.ledger import Ledger
from service.ledger.ids import new_id
from service.routes.choice import RouteBook
from service.routes.route import BasicLogin
from service.submission import basic_auth
from tests.builders import a_closing, a_submission, claim
from tests.house import ROOT, Processes, configuration, processes, smarthost
from tests.peer import ScriptedPeer
from tests.routes.builders import a_route, an_account

SEND = ("--from", "Contoso <noreply@contoso.com>", "--subject", "Grüße")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    status: int | None
    out: str
    err: str


async def postroom(*arguments: str, cwd: Path = ROOT, stdin: bytes = b"", **environment: str) -> Ran:
    """Run the command with these POSTROOM_ variables."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "service",
        *arguments,
        cwd=cwd,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", **environment},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await child.communicate(stdin)
    return Ran(status=child.returncode, out=out.decode(), err=err.decode())


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """API and worker as processes, before a scripted peer."""

    house: Processes
    peer: ScriptedPeer
    key: str

    async def send(self, *arguments: str, stdin: bytes = b"") -> Ran:
        url = f"http://127.0.0.1:{self.house.port}"
        return await postroom("send", *SEND, "--url", url, *arguments, stdin=stdin, POSTROOM_KEY=self.key)


@pytest.fixture
async def running(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Running]:
    """Everything a message needs to go out."""
    async with ScriptedPeer() as peer:
        given = configuration(database_url, redis_url, routes=[smarthost(peer)])
        with processes(tmp_path, given) as house:
            house.start_api()
            house.start_worker()
            async with house.door() as door:
                key = door.client.headers["Authorization"].removeprefix("Bearer ")
                yield Running(house=house, peer=peer, key=key)


async def test_a_message_is_sent_and_followed(running: Running, tmp_path: Path) -> None:
    """Each move is printed, then the ledger entry, then one line that says what it means; exit 0."""
    paper = tmp_path / "receipt.txt"
    paper.write_text("thank you")

    ran = await running.send(
        "--to", "ana@example.com", "--cc", "bo@example.com", "--bcc", "secret@example.com",
        "--text", "-", "--html", "<p>Hello</p>", "--attach", str(paper), "--header", "X-Order: 42",
        stdin=b"Hello from a pipe",
    )  # fmt: skip

    assert ran.status == 0, ran.err
    (taken,) = running.peer.taken
    assert taken.rcpts == ("ana@example.com", "bo@example.com", "secret@example.com")
    assert b"X-Order: 42" in taken.octets
    assert b"receipt.txt" in taken.octets
    assert "Accepted as msg_" in ran.out
    assert "ana@example.com  sending → sent" in ran.out
    assert "Attempt 1" in ran.out
    assert ran.out.strip().splitlines()[-1].startswith("Sent:")


async def test_a_refusal_ends_with_1(running: Running) -> None:
    """What the peer refused for good is said with its reply."""
    running.peer.on("rcpt", reply="550 5.1.1 No such user", when=lambda path: path.startswith("nobody@"))

    nobody = await running.send("--to", "nobody@example.com")
    partly = await running.send("--to", "nobody@example.com", "--to", "ana@example.com")

    assert (nobody.status, partly.status) == (1, 1)
    assert "550 5.1.1 No such user" in nobody.out
    assert "Not sent (failed)" in nobody.out
    assert "Partly sent: 1 of 2" in partly.out


async def test_what_still_waits_ends_with_3(running: Running) -> None:
    """It says why; Postroom goes on by itself."""
    running.peer.on("rcpt", reply="451 4.7.1 Come back later")

    ran = await running.send("--to", "ana@example.com", "--timeout", "1")

    assert ran.status == 3, ran.out
    last = ran.out.strip().splitlines()[-1]
    assert last.startswith("Still ")
    assert "after 1 s: " in last


async def test_json_alone_goes_to_stdout(running: Running) -> None:
    """The message's last state, for programs."""
    ran = await running.send("--to", "ana@example.com", "--json")

    assert ran.status == 0, ran.err
    assert json.loads(ran.out)["status"] == "sent"
    assert "Accepted as" in ran.err


async def test_what_the_api_refuses_is_said_by_field(running: Running) -> None:
    """A wrong field with its pointer, a route that does not exist, a key that is not one."""
    wrong = await running.send("--to", "nobody")
    nowhere = await running.send("--to", "ana@example.com", "--route", "nowhere")
    stranger = await running.send("--to", "ana@example.com", "--key", "pr_live_x")

    assert (wrong.status, nowhere.status, stranger.status) == (1, 1, 1)
    assert "/to" in wrong.err
    assert "/route" in nowhere.err
    assert "401" in stranger.err
    assert "postroom keys create" in stranger.err
    assert "Traceback" not in wrong.err + nowhere.err + stranger.err


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("--key", "k", "--url", "http://127.0.0.1:1"), 1, "does not answer at http://127.0.0.1:1"),
        (("--key", "k", "--url", "127.0.0.1:8025"), 2, "--url begins with http://"),
        (("--key", "k\nX: y"), 2, "API key"),
        (("--key", "k", "--attach", "/nowhere/file"), 2, "/nowhere/file"),
        (("--key", "k", "--header", "no colon"), 2, "Name: value"),
        ((), 2, "postroom keys create"),
    ],
)
async def test_wrong_use_is_said_in_a_line(
    arguments: tuple[str, ...], status: int, said: str, tmp_path: Path
) -> None:
    """Nothing is sent, nothing is shown of the program's inside."""
    ran = await postroom("send", *SEND, "--to", "ana@example.com", *arguments, cwd=tmp_path)

    assert ran.status == status, ran.err
    assert said in ran.err
    assert "Traceback" not in ran.err


async def test_the_key_of_dev_is_found(tmp_path: Path) -> None:
    """Without a key of one's own it is the one in the state folder."""
    (tmp_path / "api-key").write_text("pr_live_x\n")

    ran = await postroom(
        "send", *SEND, "--to", "a@b.example", "--url", "http://127.0.0.1:1", POSTROOM_STATE=str(tmp_path)
    )

    assert "does not answer" in ran.err


# -- report basic-auth ------------------------------------------------------------------------

BASIC = {"method": "basic", "password": "s3cret"}


def mailbox_route(login: dict[str, str]) -> dict[str, Any]:
    return {
        "name": "noreply",
        "kind": "client_submission",
        "mailboxes": [{"address": "noreply@contoso.com", "login": login}],
    }


async def reported(database_url: str, tmp_path: Path, route: dict[str, Any], *arguments: str) -> Ran:
    path = tmp_path / "postroom.yaml"
    given = configuration(database_url, "redis://127.0.0.1:1", routes=[route])
    path.write_text(yaml.safe_dump(given | {"entra": {"tenant_id": "t-1"}}))
    return await postroom("report", "basic-auth", "--config", str(path), *arguments)


async def test_a_password_that_remains_ends_with_1(database_url: str, tmp_path: Path) -> None:
    """The mailbox, how much went that way, the steps with its name, and the dates."""
    ledger = Ledger.open(database_url, name="test", connections=2)
    lane, session = "noreply/noreply@contoso.com", new_id("ses")
    await ledger.accept(a_submission(lane=lane, application="billing"))
    (claimed,) = (await claim(ledger, lane=lane)).claimed
    login = {"method": "login", "identity": "noreply@contoso.com"}
    facts = {"id": session, "host": "smtp.office365.com", "login": login, "transcript": []}
    closing = a_closing(claimed, route="noreply", session_id=session, session_message=1, session_facts=facts)
    await ledger.close(closing)
    await ledger.dispose()

    people = await reported(database_url, tmp_path, mailbox_route(BASIC))
    machine = await reported(database_url, tmp_path, mailbox_route(BASIC), "--json")

    assert (people.status, machine.status) == (1, 1), people.err
    assert "ACT  noreply/noreply@contoso.com" in people.out
    assert "billing: 1 messages, 1 recipients" in people.out
    assert "Add-MailboxPermission -Identity noreply@contoso.com" in people.out
    assert "1 login with a password remains" in people.out
    assert "s3cret" not in people.out + machine.out
    assert json.loads(machine.out)["remaining"] == 1


async def test_nothing_remains_ends_with_0(database_url: str, tmp_path: Path) -> None:
    """OAuth everywhere: nothing to do."""
    oauth = {"method": "oauth", "client_id": "app-1", "client_secret": "s3cret"}

    ran = await reported(database_url, tmp_path, mailbox_route(oauth))

    assert ran.status == 0, ran.err
    assert "Nothing remains" in ran.out


async def test_a_wrong_configuration_ends_with_2(database_url: str, tmp_path: Path) -> None:
    """As for every command."""
    ran = await reported(database_url, tmp_path, mailbox_route({"method": "basic"}))

    assert ran.status == 2
    assert "password" in ran.err


@pytest.mark.parametrize(
    ("day", "left", "verdict"),
    [(date(2026, 12, 1), 30, "stops working"), (date(2027, 1, 15), 0, "only where an administrator")],
)
def test_the_report_counts_the_days(day: date, left: int, verdict: str) -> None:
    """On both sides of the date; what remains, remains also after it."""
    route = a_route(accounts=(an_account(login=BasicLogin(username="noreply@contoso.com", password="x")),))
    now = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)

    found = basic_auth.report(RouteBook([route], order=()), [], now=now, application=None)

    assert (found["days_left"], found["remaining"]) == (left, 1)
    assert verdict in found["logins"][0]["verdict"]
    assert "never used" in "\n".join(basic_auth.readable(found))
