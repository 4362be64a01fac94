"""Servers that are not ours: Postfix's smtp-sink, aiosmtpd, and the sandbox as a tenant."""

import asyncio
import base64
import contextlib
import os
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

from service.sandbox import Sandbox, contoso
from tests.house import House, a_house
from tests.tools.debian import program
from tests.waiting import eventually

PASSWORD = "correct horse battery staple"


def transcript_of(house: House, attempt: dict[str, Any]) -> Any:
    return house.client.get(f"/attempts/{attempt['id']}/transcript")


@pytest.mark.debian
async def test_postfix_takes_it(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """Postfix's own test server takes a message, dots at line starts included."""
    sink = program("smtp-sink", package="postfix")
    with _smtp_sink(sink, tmp_path) as port:
        route = {"name": "sink", "kind": "smarthost", "host": "sink.contoso.com", "tls": "none"}
        route["connect_to"] = f"127.0.0.1:{port}"
        await eventually(lambda: _listens(port))
        async with a_house(database_url, redis_url, routes=[route], folder=tmp_path) as house:
            message_id = await house.submit(text=".\n..\n.hidden\n")
            await house.in_state(message_id, "sent")

        taken = await eventually(lambda: next(iter((tmp_path / "mail").glob("*")), None))
        text = taken.read_bytes().replace(b"\r\n", b"\n")
        assert b"\n.\n..\n.hidden\n" in text


@contextlib.contextmanager
def _smtp_sink(sink: str, folder: Path) -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    mail = folder / "mail"
    mail.mkdir()
    mail.chmod(0o777)
    # As root it wants a user to become, and that user must reach the folder from the root down.
    for parent in mail.parents:
        if parent.stat().st_uid == os.geteuid() and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)
    user = ["-u", "nobody"] if _is_root() else []
    child = subprocess.Popen(
        [sink, *user, "-d", f"{mail}/%s.", f"inet:127.0.0.1:{port}", "16"], stderr=subprocess.DEVNULL
    )
    try:
        yield port
    finally:
        child.terminate()
        child.wait(timeout=10)


def _is_root() -> bool:
    return os.geteuid() == 0


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


class _Mailbox:
    def __init__(self) -> None:
        self.taken: list[Any] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802  # aiosmtpd's name
        self.taken.append(envelope)
        return "250 2.0.0 OK taken"


async def test_a_library_server_with_starttls_and_login_takes_it(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """Aiosmtpd with STARTTLS and LOGIN: verified, logged in, and no password in the transcript."""
    authority = trustme.CA()
    certificate = authority.issue_cert("mail.contoso.com")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))

    def authenticate(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        return AuthResult(success=data.password.decode() == PASSWORD, handled=True)

    mailbox = _Mailbox()

    def server() -> SMTP:
        return SMTP(
            mailbox,
            hostname="mail.contoso.com",
            tls_context=context,
            require_starttls=True,
            auth_required=True,
            auth_require_tls=True,
            authenticator=authenticate,
            auth_exclude_mechanism=["PLAIN"],
        )

    async with _running(server) as port:
        route = {
            "name": "library",
            "kind": "smarthost",
            "host": "mail.contoso.com",
            "connect_to": f"127.0.0.1:{port}",
            "ca_file": str(tmp_path / "ca.pem"),
            "tls": "required",
            "login": {"method": "basic", "username": "app", "password": PASSWORD},
        }
        async with a_house(database_url, redis_url, routes=[route], folder=tmp_path) as house:
            message_id = await house.submit()
            await house.in_state(message_id, "sent")
            (attempt,) = await house.attempts(message_id)
            transcript = (await transcript_of(house, attempt)).text

    assert len(mailbox.taken) == 1
    assert attempt["session"]["tls"]["version"] in {"TLSv1.2", "TLSv1.3"}
    assert "AUTH LOGIN" in transcript
    assert PASSWORD not in transcript
    assert base64.b64encode(PASSWORD.encode()).decode() not in transcript


@contextlib.asynccontextmanager
async def _running(factory: Callable[[], SMTP]) -> AsyncIterator[int]:
    server = await asyncio.get_running_loop().create_server(factory, host="127.0.0.1", port=0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def tenant_route(sandbox: Sandbox, **changes: Any) -> dict[str, Any]:
    return {
        "name": "noreply",
        "kind": "client_submission",
        "connect_to": f"127.0.0.1:{sandbox.submission_port}",
        "ca_file": str(sandbox.ca_file),
        "mailboxes": [
            {
                "address": "noreply@contoso.com",
                "login": {
                    "method": "oauth",
                    "client_id": "11111111-1111-4111-8111-111111111111",
                    "client_secret": "sandbox-client-secret",
                },
                "send_as": ["billing@contoso.com"],
            }
        ],
        **changes,
    }


def entra_of(sandbox: Sandbox) -> dict[str, Any]:
    return {
        "entra": {
            "tenant_id": "c0ffee00-0000-4000-8000-000000000365",
            "authority": f"https://localhost:{sandbox.https_port}",
            "ca_file": str(sandbox.ca_file),
        }
    }


async def test_a_large_mail_goes_through_oauth(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """Five megabytes of PDF by XOAUTH2 to the sandbox: taken whole, and no token anywhere in the ledger."""
    pdf = b"%PDF-1.7\n" + bytes(range(256)) * 20_480
    async with Sandbox(contoso(tmp_path / "sandbox")) as sandbox:
        async with a_house(
            database_url,
            redis_url,
            routes=[tenant_route(sandbox)],
            folder=tmp_path,
            settings_changes=entra_of(sandbox),
        ) as house:
            message_id = await house.submit(
                attachments=[{"filename": "report.pdf", "content": base64.b64encode(pdf).decode()}]
            )
            await house.in_state(message_id, "sent")
            (attempt,) = await house.attempts(message_id)
            transcript = (await transcript_of(house, attempt)).text
        (taken,) = sandbox.taken
        octets = sandbox.content(taken)

        assert octets is not None
        mail = message_from_bytes(octets, policy=policy.default)
        assert pdf in [part.get_payload(decode=True) for part in mail.walk()]
        assert attempt["session"]["login"]["identity"] == "noreply@contoso.com"
        assert "AUTH XOAUTH2" in transcript
        assert "eyJ" not in transcript
        assert "sandbox-client-secret" not in transcript


@pytest.mark.parametrize(
    ("recipient", "state", "code"),
    [
        ("bounced@example.com", "failed", None),
        ("send-as-denied@example.com", "failed", "send_as_denied"),
        ("deferred@example.com", "sent", None),
    ],
)
async def test_the_sandbox_rehearses_failures(
    database_url: str, redis_url: str, tmp_path: Path, recipient: str, state: str, code: str | None
) -> None:
    """The recipient's local part chooses what happens, and the ledger tells it in Microsoft's words."""
    async with Sandbox(contoso(tmp_path / "sandbox")) as sandbox:
        async with a_house(
            database_url,
            redis_url,
            routes=[tenant_route(sandbox)],
            folder=tmp_path,
            settings_changes=entra_of(sandbox),
        ) as house:
            shown = await house.in_state(await house.submit(to=recipient), state)

            if code is not None:
                assert shown["last_error"]["code"] == code
            if state == "failed":
                assert shown["last_error"]["diagnosis"]["remedy"]


async def test_a_refused_secret_rests_the_lane_and_names_the_remedy(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """A wrong client secret sends nothing; the message waits and says who must do what."""
    async with Sandbox(contoso(tmp_path / "sandbox")) as sandbox:
        route = tenant_route(sandbox)
        route["mailboxes"][0]["login"]["client_secret"] = "wrong-secret-wrong"
        async with a_house(
            database_url, redis_url, routes=[route], folder=tmp_path, settings_changes=entra_of(sandbox)
        ) as house:
            shown = await house.in_state(await house.submit(), "deferred")

        assert shown["last_error"]["code"] == "token_refused"
        assert shown["last_error"]["diagnosis"]["who"] == "entra_admin"
        assert "wrong-secret-wrong" not in str(shown)
        assert list(sandbox.taken) == []
