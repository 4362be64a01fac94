"""`postroom send` and `postroom report basic-auth`, as they are used in a shell."""

import asyncio
import contextlib
import json
import os
import pty
import re
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from service.ledger import Ledger
from service.ledger.ids import new_id
from service.local.progress import where
from service.routes.choice import RouteBook
from service.routes.route import BasicLogin
from service.submission.ways import basic_auth
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


async def test_a_line_on_a_terminal_says_where_it_is(running: Running) -> None:
    """It is written over in place while the message waits, and is gone at the end."""
    running.peer.on("rcpt", reply="451 4.7.1 Come back later", times=2)
    ours, theirs = pty.openpty()
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "service", "send", *SEND, "--to", "ana@example.com",
        "--url", f"http://127.0.0.1:{running.house.port}",
        cwd=ROOT, env={"PATH": "/usr/bin:/bin", "TERM": "xterm", "COLUMNS": "100", "POSTROOM_KEY": running.key},
        stdin=asyncio.subprocess.DEVNULL, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    screen = await asyncio.to_thread(everything, ours)

    assert await child.wait() == 0, screen
    drawn = re.findall(r"\r([^\r\n]+)\x1b\[K", screen)
    assert any(line.startswith("deferred · ") for line in drawn), screen
    assert any("next attempt" in line for line in drawn), drawn
    assert max(map(len, drawn)) < 100
    assert screen.rpartition("\x1b[K")[2].strip().splitlines()[-1].startswith("Sent:")


def everything(terminal: int) -> str:
    """Read a terminal until the program behind it has ended."""
    read = bytearray()
    with contextlib.suppress(OSError):  # the end, as Linux tells it
        while piece := os.read(terminal, 4096):
            read += piece
    os.close(terminal)
    return read.decode()


async def test_in_a_pipe_a_line_is_added_where_something_changes(running: Running) -> None:
    """Nothing is written over: state, reason and the next attempt in lines of their own."""
    running.peer.on("rcpt", reply="451 4.7.1 Come back later", times=1)

    ran = await running.send("--to", "ana@example.com")

    assert ran.status == 0, ran.err
    assert "\r" not in ran.out
    assert "  deferred · " in ran.out


async def test_what_is_scheduled_for_later_is_not_waited_for(running: Running) -> None:
    """Accepted for tomorrow: the command ends at once, with 3 and the time; soon is waited for."""
    tomorrow = await running.send("--to", "ana@example.com", "--schedule", "1d")
    soon = await running.send("--to", "bo@example.com", "--schedule", "1s")

    assert tomorrow.status == 3, tomorrow.err
    assert "Scheduled: it goes at " in tomorrow.out.strip().splitlines()[-1]
    assert soon.status == 0, soon.out
    assert [taken.rcpts for taken in running.peer.taken] == [("bo@example.com",)]


async def test_a_template_and_what_it_is_found_by(running: Running) -> None:
    """Template with variables, priority, stream and tags are those of the API."""
    url = f"http://127.0.0.1:{running.house.port}"
    headers = {"Authorization": f"Bearer {running.key}"}
    async with httpx2.AsyncClient(base_url=url, headers=headers) as client:
        template = {"name": "receipt", "subject": "For {{ name }}", "text": "Hello {{ name }}"}
        made = await client.post("/templates", json=template)
        assert made.status_code == 201, made.text
        published = await client.post(f"/templates/{made.json()['id']}/publish", json={"version": 1})
        assert published.status_code == 200, published.text
    found = ("--priority", "high", "--stream", "news", "--tag", "a", "--tag", "b")

    ran = await postroom(
        "send", "--from", "noreply@contoso.com", "--to", "ana@example.com", "--template", "receipt",
        "--variables", '{"name": "Ana"}', *found, "--json", "--url", url, POSTROOM_KEY=running.key,
    )  # fmt: skip

    assert ran.status == 0, ran.err
    shown = json.loads(ran.out)
    assert shown["subject"] == "For Ana"
    assert (shown["priority"], shown["stream"], shown["tags"]) == ("high", "news", ["a", "b"])


NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def a_shown(**changes: Any) -> dict[str, Any]:
    recipients = [{"status": "queued"}]
    return {"status": "queued", "recipients": recipients, "expected_because": [], **changes}


@pytest.mark.parametrize(
    ("shown", "line"),
    [
        (a_shown(expected_because=["36 messages ahead in this lane"], expected_at="2026-11-23T12:00:52Z"), "queued · 36 messages ahead in this lane · expected {12:00:52} (in 52 s)"),
        (a_shown(status="sending"), "sending"),
        (a_shown(status="deferred", next_attempt_at="2026-11-23T12:30:00Z"), "deferred · next attempt {12:30:00} (in 30 min)"),
        (a_shown(status="deferred", next_attempt_at="2026-11-23T11:59:00Z"), "deferred · next attempt now"),
        (a_shown(status="scheduled", scheduled_at="2026-11-23T15:00:00Z"), "scheduled · goes {15:00:00} (in 3 h)"),
        (a_shown(recipients=[{"status": "sent"}, {"status": "queued"}]), "queued, 1 of 2 sent"),
        (a_shown(expected_because=["\x1b[2J", "a\nb."]), "queued · ·[2J; a / b"),
    ],
)  # fmt: skip
def test_a_line_says_where_a_message_is(shown: dict[str, Any], line: str) -> None:
    """State, reason and time, by the clock of this machine, without what a terminal would act upon."""

    def here(clock: re.Match[str]) -> str:
        return f"{datetime.fromisoformat(f'2026-11-23T{clock[1]}Z').astimezone():%H:%M:%S}"

    assert where(shown, now=NOON) == re.sub(r"\{([0-9:]+)\}", here, line)


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
        (("--key", "k", "--schedule", "tomorrow"), 2, "--schedule takes a time"),
        (("--key", "k", "--variables", "{}"), 2, "--variables are for a --template"),
        (("--key", "k", "--template", "t", "--variables", "[1]"), 2, "takes a JSON object"),
        (("--key", "k", "--template", "t", "--variables", "@/nowhere"), 2, "/nowhere"),
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
