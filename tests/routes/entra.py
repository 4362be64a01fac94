"""A token service that answers as Entra ID does, on a real TLS socket.

`FakeEntra` knows one tenant and two applications, of which one proves itself by a secret and the
other by a certificate. It counts what it is asked, and does what it is told:

    entra.answers.append(Answer(status=429, headers={"Retry-After": "120"}))   # the next token request
    entra.gates["app-1"] = asyncio.Event()       # its requests wait until the event is set
    entra.lifetime = 3600                        # seconds that a token lives

It is written on bare asyncio streams, so that broken answers can be given as they are.
"""

import asyncio
import base64
import json
import ssl
from collections import deque
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs

import jwt
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from tests.routes.builders import SECRET

TENANT = "11111111-2222-3333-4444-555555555555"
DISCOVERY = "/v2.0/.well-known/openid-configuration"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What is answered once instead of the right thing."""

    status: int = 200
    body: str | dict[str, object] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    hang_up: bool = False  # close without an answer


class FakeEntra:
    """The token service of one tenant."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        self.ca_file = folder / "entra-ca.pem"
        authority.cert_pem.write_to_path(str(self.ca_file))
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(self._tls)
        self.certificate: x509.Certificate | None = None  # the one that was uploaded for app-2
        self.lifetime: object = 3600
        self.answers: deque[Answer] = deque()  # to the next token requests
        self.gates: dict[str, asyncio.Event] = {}
        self.asked: list[dict[str, str]] = []  # the forms of all token requests
        self.issued = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for gate in self.gates.values():
            gate.set()

    @property
    def authority(self) -> str:
        return f"https://localhost:{self.port}"

    @property
    def token_endpoint(self) -> str:
        return f"{self.authority}/{TENANT}/oauth2/v2.0/token"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = next(
                    (
                        int(line[15:])
                        for line in head.split("\r\n")
                        if line.lower().startswith("content-length:")
                    ),
                    0,
                )
                body = (await reader.readexactly(length)).decode()
                answer = await self._answer(head.split(" ")[1], body)
                if answer.hang_up:
                    break
                writer.write(_wire(answer))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.transport.abort()

    async def _answer(self, path: str, body: str) -> Answer:
        if path == f"/{TENANT}{DISCOVERY}":
            return self._discovery()
        if path != f"/{TENANT}/oauth2/v2.0/token":
            return _refusal(400, "invalid_tenant", "AADSTS90002: Tenant 'x' not found. Check to make sure.")
        form = {name: values[0] for name, values in parse_qs(body).items()}
        self.asked.append(form)
        if form["client_id"] in self.gates:
            await self.gates[form["client_id"]].wait()
        return self.answers.popleft() if self.answers else self._token(form)

    def _discovery(self) -> Answer:
        base = f"{self.authority}/{TENANT}"
        return Answer(
            body={
                "issuer": f"{base}/v2.0",
                "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                "token_endpoint": self.token_endpoint,
            }
        )

    def _token(self, form: dict[str, str]) -> Answer:
        if not (form.get("client_secret") == SECRET or self._is_ours(form.get("client_assertion"))):
            return _refusal(
                401,
                "invalid_client",
                f"AADSTS7000215: Invalid client secret provided ({form.get('client_secret')}).\r\nTrace ID: 0f",
            )
        self.issued += 1
        return Answer(
            body={"token_type": "Bearer", "expires_in": self.lifetime, "access_token": f"token-{self.issued}"}
        )

    def _is_ours(self, assertion: str | None) -> bool:
        if assertion is None or self.certificate is None:
            return False
        thumbprint = (
            base64.urlsafe_b64encode(self.certificate.fingerprint(hashes.SHA256())).rstrip(b"=").decode()
        )
        jwt.decode(
            assertion,
            self.certificate.public_key(),  # type: ignore[arg-type]  # trustme makes EC and RSA keys only
            algorithms=["PS256"],
            audience=self.token_endpoint,
            issuer="app-2",
        )
        return bool(jwt.get_unverified_header(assertion)["x5t#S256"].rstrip("=") == thumbprint.rstrip("="))


def _refusal(status: int, error: str, description: str) -> Answer:
    return Answer(status=status, body={"error": error, "error_description": description, "error_codes": [1]})


def _wire(answer: Answer) -> bytes:
    body = (answer.body if isinstance(answer.body, str) else json.dumps(answer.body)).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **answer.headers}
    lines = [f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body
