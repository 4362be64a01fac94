"""The sandbox as a whole: its listeners, and how they start and end.

Three listeners share one tenant and one event loop: submission (SMTP with STARTTLS), the token
endpoint (HTTPS) and the read-back (HTTP). A further service of Microsoft's is one more door in
`_doors`. One state folder belongs to one sandbox at a time: a lock that the operating system drops
with the process keeps a second one out.
"""

import asyncio
import contextlib
import fcntl
import os
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog
import uvicorn
from fastapi import FastAPI

from service.sandbox import certificates
from service.sandbox.certificates import Certificates
from service.sandbox.config import SandboxConfig, Switches
from service.sandbox.door import Door
from service.sandbox.http import readback
from service.sandbox.mailroom import Taken
from service.sandbox.smtp import Dialogue
from service.sandbox.submission import Submission
from service.sandbox.tenant import Tenant
from service.sandbox.tokens import Entra
from service.sandbox.wire import Wire

_BACKLOG = 512

_log = structlog.get_logger()


class SandboxBusy(RuntimeError):
    """Another sandbox uses this state folder; stop it, or give this one a folder of its own."""


class Sandbox:
    """A simulated Microsoft 365; open from `async with` until its end.

    The ports are known inside the `async with`. OSError where one of them is taken.
    """

    def __init__(self, config: SandboxConfig) -> None:
        """Nothing is opened or written yet."""
        self._config = config
        self._resources = contextlib.AsyncExitStack()
        self._tenant: Tenant | None = None
        self._entra: Entra | None = None
        self._wires: set[Wire] = set()
        self._web: list[tuple[uvicorn.Server, asyncio.Task[None]]] = []
        self.submission_port = config.submission_port
        self.http_port = config.http_port
        self.https_port = config.https_port

    async def __aenter__(self) -> Self:
        """Take the state folder, make what certificates are missing, and listen."""
        async with contextlib.AsyncExitStack() as opening:
            opening.enter_context(_sole_user_of(self._config.state))
            certs = certificates.prepare(self._config.state, names=self._names())
            self._tenant = tenant = Tenant(self._config)
            self._entra = entra = Entra(tenant, key=certs.token_key)
            self.submission_port = await self._listen(
                opening, Submission(tenant, entra), port=self._config.submission_port, certs=certs
            )
            opening.push_async_callback(self._stop_web)
            self.https_port = self._serve(entra.app(), port=self._config.https_port, certs=certs)
            pages = readback(tenant, entra, ca_file=certs.ca_file)
            self.http_port = self._serve(pages, port=self._config.http_port, certs=None)
            self._resources = opening.pop_all()
        _log.info(
            "sandbox.started", submission=self.submission_port, http=self.http_port, https=self.https_port
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening and end every session."""
        await self._resources.aclose()

    @property
    def ca_file(self) -> Path:
        """The certificate authority that a client has to trust."""
        return self._config.state / "ca.pem"

    @property
    def authority(self) -> str:
        """The token endpoint's base URL, without the tenant."""
        return f"https://localhost:{self.https_port}"

    @property
    def taken(self) -> tuple[Taken, ...]:
        """What it took and still remembers, the oldest first."""
        return tuple(self._open_tenant.mailroom)

    @property
    def switches(self) -> Switches:
        """How the switches stand."""
        return self._open_tenant.switches

    def switch(self, **changes: object) -> None:
        """Change switches, as `PUT /switches` does. Raises BadSandbox."""
        self._open_tenant.switch(changes)

    def content(self, taken: Taken) -> bytes | None:
        """Return the octets of a message as they came; None once it is forgotten."""
        return self._open_tenant.mailroom.content(taken.id)

    @property
    def _open_tenant(self) -> Tenant:
        if self._tenant is None:
            raise RuntimeError("the sandbox is not open yet")
        return self._tenant

    def _names(self) -> list[str]:
        bound = [] if self._config.host in {"", "0.0.0.0", "::"} else [self._config.host]
        return [*bound, *self._config.names, *map(certificates.mx_name, self._config.accepted_domains)]

    async def _listen(
        self, opening: contextlib.AsyncExitStack, door: Door, *, port: int, certs: Certificates
    ) -> int:
        """Open one SMTP door and return its port."""
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.minimum_version = ssl.TLSVersion.TLSv1_2
        tls.load_cert_chain(certs.certificate_file, certs.key_file)

        async def serve(wire: Wire) -> None:
            self._wires.add(wire)
            try:
                await Dialogue(wire, tenant=self._open_tenant, door=door, tls=tls).run()
            finally:
                self._wires.discard(wire)

        line = _bind(self._config.host, port)
        server = await asyncio.get_running_loop().create_server(
            lambda: Wire(serve), sock=line, backlog=_BACKLOG
        )
        opening.push_async_callback(self._hang_up)
        opening.callback(server.close)
        return _port_of(line)

    async def _hang_up(self) -> None:
        wires = list(self._wires)
        for wire in wires:
            wire.hang_up()
        for wire in wires:
            await wire.ended()

    def _serve(self, app: FastAPI, *, port: int, certs: Certificates | None) -> int:
        """Serve an application with uvicorn, on our loop, and return its port."""
        server = _Uvicorn(
            uvicorn.Config(
                app,
                lifespan="off",
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=1,
                ssl_certfile=certs.certificate_file if certs else None,
                ssl_keyfile=certs.key_file if certs else None,
            )
        )
        line = _bind(self._config.host, port)
        self._web.append((server, asyncio.create_task(server.serve(sockets=[line]))))
        return _port_of(line)

    async def _stop_web(self) -> None:
        for server, _ in self._web:
            server.should_exit = True
        if self._web:
            await asyncio.wait([task for _, task in self._web])
        self._web.clear()


class _Uvicorn(uvicorn.Server):
    """A uvicorn that leaves the signals to the process it lives in."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def run_sandbox(config: SandboxConfig) -> None:
    """Run a sandbox until this task is cancelled."""
    async with Sandbox(config):
        await asyncio.Event().wait()


@contextlib.contextmanager
def _sole_user_of(state: Path) -> Iterator[None]:
    """Hold the state folder, or raise SandboxBusy."""
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(state / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise SandboxBusy("another sandbox uses this state folder") from None
    try:
        yield
    finally:
        os.close(lock)


def _bind(host: str, port: int) -> socket.socket:
    """Listen before anything is served: the port is known, and early connections wait."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    line = socket.socket(family, socket.SOCK_STREAM)
    try:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        line.bind((host, port))
        line.listen(_BACKLOG)
        line.setblocking(False)
    except OSError:
        line.close()
        raise
    return line


def _port_of(line: socket.socket) -> int:
    port: int = line.getsockname()[1]
    return port
