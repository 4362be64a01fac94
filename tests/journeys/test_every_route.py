"""Each way into Microsoft 365, from POST to what the other side took."""

import contextlib
import getpass
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service.sandbox import Sandbox, SandboxConnector, contoso
from tests import tenant
from tests.house import a_house
from tests.tools.debian import program
from tests.waiting import eventually

INSIDE, OUTSIDE = "ana@contoso.com", "ana@example.com"

Route = Callable[[Sandbox], dict[str, Any]]


def by_password(sandbox: Sandbox) -> dict[str, Any]:
    return tenant.submission(sandbox, login=tenant.basic())


def high_volume_by_token(sandbox: Sandbox) -> dict[str, Any]:
    return tenant.high_volume(sandbox, login=tenant.oauth())


#: route, sender, recipient, the sandbox's door, how we were known there
WAYS: list[tuple[Route, str, str, str, str]] = [
    (tenant.submission, "noreply@contoso.com", OUTSIDE, "submission", "xoauth2"),
    (by_password, "billing@contoso.com", OUTSIDE, "submission", "login"),
    (tenant.direct_send, "printer@contoso.com", INSIDE, "mx", "anonymous"),
    (tenant.relay_by_certificate, "anybody@contoso.com", OUTSIDE, "mx", "certificate"),
    (tenant.relay_by_ip, "anybody@contoso.com", OUTSIDE, "mx", "ip"),
    (tenant.high_volume, "hve@contoso.com", INSIDE, "hve", "login"),
    (high_volume_by_token, "hve@contoso.com", INSIDE, "hve", "xoauth2"),
    (tenant.communication_services, "donotreply@contoso.com", OUTSIDE, "acs", "login"),
]


def a_tenant(folder: Path, **changes: Any) -> Sandbox:
    """Contoso with a connector by certificate and one by our address."""
    connectors = (
        SandboxConnector(name="By certificate", certificate="*.contoso.com"),
        SandboxConnector(name="By IP", addresses=(f"{tenant.PUBLIC_ADDRESS}/32",)),
    )
    return Sandbox(contoso(folder / "sandbox", **({"connectors": connectors} | changes)))


@pytest.mark.parametrize(
    ("route", "sender", "recipient", "door", "method"), WAYS, ids=lambda each: getattr(each, "__name__", None)
)
async def test_a_message_goes_this_way(
    database_url: str,
    redis_url: str,
    tmp_path: Path,
    route: Route,
    sender: str,
    recipient: str,
    door: str,
    method: str,
) -> None:
    """From POST to the other side's own record, with the ledger telling the same."""
    async with a_tenant(tmp_path) as sandbox:
        if method == "anonymous":  # direct send must match no connector
            sandbox.switch(connectors=[])
        async with a_house(
            database_url,
            redis_url,
            routes=[route(sandbox)],
            folder=tmp_path,
            settings_changes=tenant.settings(sandbox),
        ) as house:
            message_id = await house.submit(**{"from": sender, "to": [recipient]})
            message = await house.in_state(message_id)
            (attempt,) = await house.attempts(message_id)
            transcript = (await house.client.get(f"/attempts/{attempt['id']}/transcript")).text
        (taken,) = sandbox.taken

    assert message["status"] == "sent", message["last_error"]
    assert (taken.door, taken.method) == (door, method)
    assert list(taken.recipients) == [recipient]
    assert attempt["session"]["tls"]["version"] in {"TLSv1.2", "TLSv1.3"}
    assert attempt["reply"]["code"] == 250
    for secret in ("sandbox-password", "sandbox-client-secret", "sandbox-hve-password", "eyJ"):
        assert secret not in transcript


async def test_a_client_certificate_is_really_shown_and_really_checked(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """The connector knows the certificate; the same mail without that connector is refused as relaying."""
    async with a_tenant(tmp_path) as sandbox:
        async with a_house(
            database_url,
            redis_url,
            routes=[tenant.relay_by_certificate(sandbox)],
            folder=tmp_path,
            settings_changes=tenant.settings(sandbox),
        ) as house:
            first = await house.submit(to=[OUTSIDE])
            await house.in_state(first, "sent")
            sandbox.switch(connectors=[], seen_as="198.51.100.7")
            second = await house.submit(to=["bea@example.com"])
            refused = await house.in_state(second, "deferred")

        (taken,) = sandbox.taken

    assert taken.client_certificate is not None
    assert "relay.contoso.com" in taken.client_certificate
    assert taken.connector == "By certificate"
    assert refused["last_error"]["reply"]["enhanced"] == "5.7.64"
    assert refused["last_error"]["diagnosis"]["who"] == "exchange_admin"


async def test_internal_and_external_recipients_part_where_no_route_takes_both(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """Direct send takes the internal ones, the connector the others; each recipient says its own way."""
    async with a_tenant(tmp_path) as sandbox:
        outward: dict[str, Any] = {
            "name": "outward",
            "kind": "smarthost",
            "host": "out.contoso.com",
            "tls": "none",
        }
        outward |= {"connect_to": f"127.0.0.1:{sandbox.mx_port}", "recipient_domains": ["example.com"]}
        async with a_house(
            database_url,
            redis_url,
            routes=[tenant.direct_send(sandbox), outward],
            folder=tmp_path,
            settings_changes={**tenant.settings(sandbox), "route_order": ["inside", "outward"]},
        ) as house:
            message_id = await house.submit(to=[INSIDE, OUTSIDE])
            message = await house.in_state(message_id, "sent")

    assert [(each["email"], each["route"]) for each in message["recipients"]] == [
        (INSIDE, "inside"),
        (OUTSIDE, "outward"),
    ]


async def test_recipients_are_parted_by_domain_at_the_mx(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """One transaction a recipient domain, at most a hundred recipients in it."""
    everybody = [f"user{n}@contoso.com" for n in range(130)] + ["ana@contoso.onmicrosoft.com"]
    async with a_tenant(tmp_path) as sandbox:
        async with a_house(
            database_url,
            redis_url,
            routes=[tenant.relay_by_certificate(sandbox)],
            folder=tmp_path,
            settings_changes=tenant.settings(sandbox),
        ) as house:
            message_id = await house.submit(to=everybody)
            await house.in_state(message_id, "sent", within=60)
        taken = sandbox.taken

    assert sorted(len(each.recipients) for each in taken) == [1, 30, 100]
    assert sorted(to for each in taken for to in each.recipients) == sorted(everybody)


async def test_a_route_that_rests_is_passed_over(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """While the first route's login is refused, new mail takes the next one that fits, and says why."""
    async with a_tenant(tmp_path) as sandbox:
        sandbox.switch(smtp_auth_org=False)
        async with a_house(
            database_url,
            redis_url,
            routes=[tenant.submission(sandbox), tenant.relay_by_certificate(sandbox)],
            folder=tmp_path,
            dispatch={"retry": {"first": "30s", "cap": "15m"}},
            settings_changes={**tenant.settings(sandbox), "route_order": ["noreply", "connector"]},
        ) as house:
            first = await house.submit()
            await house.in_state(first, "deferred")

            async def another_way() -> dict[str, Any] | None:
                message = await house.in_state(await house.submit(), "sent", "deferred", "queued")
                return message if message["route"] == "connector" else None

            taken = await eventually(another_way)
            await house.in_state(taken["id"], "sent")

    (reason,) = [no for no in taken["plan"]["why_not"] if no["route"] == "noreply"]
    assert reason["code"] == "resting"
    assert "SMTP AUTH is switched off" in reason["detail"]


# -- Postfix as a smarthost ------------------------------------------------------------------


@pytest.mark.debian
async def test_postfix_is_a_smarthost(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """A real Postfix takes a message and delivers it to the server behind it."""
    postfix = program("postfix", package="postfix")
    sink = program("smtp-sink", package="postfix")
    if os.geteuid() != 0:
        pytest.skip("Postfix's master runs as root only")
    with _postfix(postfix, sink, tmp_path) as (port, mail):
        route = {
            "name": "office",
            "kind": "smarthost",
            "host": "mail.contoso.com",
            "connect_to": f"127.0.0.1:{port}",
            "tls": "none",
            "ehlo_name": tenant.EHLO_NAME,
        }
        async with a_house(database_url, redis_url, routes=[route], folder=tmp_path) as house:
            message_id = await house.submit(text="by way of Postfix\n")
            message = await house.in_state(message_id, "sent")
        taken = await eventually(lambda: next(iter(mail.glob("*")), None), within=30)

    assert "queued as" in message["recipients"][0]["reply"]["text"]
    assert b"by way of Postfix" in taken.read_bytes()


@contextlib.contextmanager
def _postfix(program_path: str, sink: str, folder: Path) -> Iterator[tuple[int, Path]]:
    """A Postfix of our own: queue, configuration and log in the test's folder, relaying to smtp-sink."""
    port, behind = _free_port(), _free_port()
    mail, config, queue, data = (folder / name for name in ("taken", "postfix", "queue", "data"))
    for each in (mail, config, queue, data):
        each.mkdir()
    mail.chmod(0o777)
    _let_through(folder)
    subprocess.run(["chown", "postfix", str(data)], check=True)
    (config / "main.cf").write_text(
        f"compatibility_level = 3.6\nqueue_directory = {queue}\ndata_directory = {data}\n"
        "inet_interfaces = 127.0.0.1\ninet_protocols = ipv4\nmyhostname = mail.contoso.com\n"
        f"mydestination =\nmynetworks = 127.0.0.0/8\nrelayhost = [127.0.0.1]:{behind}\n"
        "smtp_tls_security_level = none\nsmtpd_tls_security_level = none\nalias_maps =\n"
        "maillog_file_prefixes = /\n"
        f"maillog_file = {folder}/postfix.log\n"
    )
    master = Path("/usr/share/postfix/master.cf.dist")
    lines = master.read_text().replace("\nsmtp      inet  n", f"\n127.0.0.1:{port} inet  n")
    (config / "master.cf").write_text(
        lines + "\npostlog   unix-dgram n  -       n       -       1       postlogd\n"
    )
    taker = subprocess.Popen(
        [sink, "-u", "nobody", "-d", f"{mail}/%s.", f"127.0.0.1:{behind}", "16"], stderr=subprocess.DEVNULL
    )
    try:
        subprocess.run(
            [program_path, "-c", str(config), "start"], check=True, capture_output=True, timeout=60
        )
        yield port, mail
    finally:
        subprocess.run(
            [program_path, "-c", str(config), "stop"], check=False, capture_output=True, timeout=60
        )
        taker.terminate()
        taker.wait(timeout=10)


def _let_through(folder: Path) -> None:
    """Postfix's own users must reach the folder from the root down."""
    for parent in (folder, *folder.parents):
        if parent.owner() == getpass.getuser() and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
