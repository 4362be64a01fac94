"""The sandbox as a whole: its listeners, and how they start and end.

All listeners share one tenant and one event loop: four doors of SMTP (submission, the tenant's MX,
High Volume Email, Azure Communication Services), the token endpoint (HTTPS) and the read-back (HTTP).
One state folder belongs to one sandbox at a time: a lock that the operating system drops
with the process keeps a second one out.
"""

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog
import uvicorn
from cryptography import x509
from fastapi import FastAPI

from service.sandbox import certificates, tls
from service.sandbox.certificates import Certificates
from service.sandbox.communication_services import CommunicationServices
from service.sandbox.config import SandboxConfig, Switches
from service.sandbox.door import Door
from service.sandbox.high_volume import HighVolume
from service.sandbox.http import readback
from service.sandbox.mailroom import Taken
from service.sandbox.mx import Mx
from service.sandbox.reports import Report
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
        self._web: list[tuple[uvicorn.Server, socket.socket, asyncio.Task[None]]] = []
        self.submission_port = config.submission_port
        self.mx_port = config.mx_port
        self.hve_port = config.hve_port
        self.acs_port = config.acs_port
        self.http_port = config.http_port
        self.https_port = config.https_port

    async def __aenter__(self) -> Self:
        """Take the state folder, make what certificates are missing, and listen."""
        async with contextlib.AsyncExitStack() as opening:
            opening.enter_context(_sole_user_of(self._config.state))
            certs = certificates.prepare(
                self._config.state,
                names=self._names(),
                client=f"relay.{self._config.accepted_domains[0].lower()}",
            )
            self._tenant = tenant = Tenant(self._config)
            self._entra = entra = Entra(tenant, key=certs.token_key)
            await self._open_doors(opening, tenant, entra, certs)
            opening.push_async_callback(self._stop_web)
            self.https_port = self._serve(entra.app(), port=self._config.https_port, certs=certs)
            pages = readback(tenant, entra, ca_file=certs.ca_file, doors=self._doors)
            self.http_port = self._serve(pages, port=self._config.http_port, certs=None)
            self._resources = opening.pop_all()
        _log.info(
            "sandbox.started",
            submission=self.submission_port,
            mx=self.mx_port,
            hve=self.hve_port,
            acs=self.acs_port,
            http=self.http_port,
            https=self.https_port,
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
    def client_certificate(self) -> Path:
        """A certificate for relay through the MX, with its whole chain."""
        return self._config.state / "client.pem"

    @property
    def client_key(self) -> Path:
        """The key of `client_certificate`."""
        return self._config.state / "client.key"

    @property
    def authority(self) -> str:
        """The token endpoint's base URL, without the tenant."""
        return f"https://localhost:{self.https_port}"

    @property
    def taken(self) -> tuple[Taken, ...]:
        """What it took and still remembers, the oldest first."""
        return tuple(self._open_tenant.mailroom)

    @property
    def reports(self) -> tuple[Report, ...]:
        """The non-delivery reports that it wrote, the oldest first."""
        return tuple(self._open_tenant.reports)

    @property
    def switches(self) -> Switches:
        """How the switches stand."""
        return self._open_tenant.switches

    def switch(self, **changes: object) -> None:
        """Change switches, as `PUT /switches` does. Raises BadSandbox."""
        self._open_tenant.switch(changes)

    def content(self, taken: Taken | Report) -> bytes | None:
        """Return the octets of a message as they came, or of a report; None once it is forgotten."""
        if isinstance(taken, Report):
            return self._open_tenant.reports.content(taken.id)
        return self._open_tenant.mailroom.content(taken.id)

    @property
    def _open_tenant(self) -> Tenant:
        if self._tenant is None:
            raise RuntimeError("the sandbox is not open yet")
        return self._tenant

    def _doors(self) -> dict[str, object]:
        """Where to find what, for `GET /doors`."""
        config = self._config
        mx = certificates.mx_name(config.accepted_domains[0])
        return {
            "submission": {"name": "smtp.office365.com", "host": config.host, "port": self.submission_port},
            "mx": {"name": mx, "host": config.host, "port": self.mx_port},
            "hve": {"name": "smtp.hve.mx.microsoft", "host": config.host, "port": self.hve_port},
            "acs": {"name": "smtp.azurecomm.net", "host": config.host, "port": self.acs_port},
            "tokens": {"authority": f"{self.authority}/{config.tenant_id}"},
            "ca_file": str(self.ca_file.absolute()),
            "client_certificate": str(self.client_certificate.absolute()),
            "client_key": str(self.client_key.absolute()),
        }

    def _names(self) -> list[str]:
        bound = [] if self._config.host in {"", "0.0.0.0", "::"} else [self._config.host]
        return [*bound, *self._config.names, *map(certificates.mx_name, self._config.accepted_domains)]

    async def _open_doors(
        self, opening: contextlib.AsyncExitStack, tenant: Tenant, entra: Entra, certs: Certificates
    ) -> None:
        config = self._config
        plain = tls.plain(certs.certificate_file, certs.key_file)
        asking = tls.asking(certs.certificate_file, certs.key_file)
        mx = Mx(tenant, trusted=_authorities((certs.ca_file, *config.client_cas)))
        self.submission_port = await self._listen(
            opening, Submission(tenant, entra), port=config.submission_port, secure=plain
        )
        self.mx_port = await self._listen(opening, mx, port=config.mx_port, secure=asking)
        self.hve_port = await self._listen(
            opening, HighVolume(tenant, entra), port=config.hve_port, secure=plain
        )
        self.acs_port = await self._listen(
            opening, CommunicationServices(tenant), port=config.acs_port, secure=plain
        )

    async def _listen(
        self, opening: contextlib.AsyncExitStack, door: Door, *, port: int, secure: tls.Maker
    ) -> int:
        """Open one SMTP door and return its port."""

        async def serve(wire: Wire) -> None:
            self._wires.add(wire)
            try:
                await Dialogue(wire, tenant=self._open_tenant, door=door, tls=secure).run()
            finally:
                self._wires.discard(wire)

        line = _bind(self._config.host, port)
        # Not serving yet, so that nothing waits here and a cancelled start leaves no open socket.
        server = await asyncio.get_running_loop().create_server(
            lambda: Wire(serve), sock=line, backlog=_BACKLOG, start_serving=False
        )
        opening.push_async_callback(self._hang_up)
        opening.callback(server.close)
        await server.start_serving()
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
        self._web.append((server, line, asyncio.create_task(server.serve(sockets=[line]))))
        return _port_of(line)

    async def _stop_web(self) -> None:
        for server, _, _ in self._web:
            server.should_exit = True
        if self._web:
            await asyncio.wait([task for _, _, task in self._web])
        for _, line, _ in self._web:
            line.close()  # uvicorn leaves it open where it was stopped before it had begun
        self._web.clear()


class _Uvicorn(uvicorn.Server):
    """A uvicorn that leaves the signals to the process it lives in."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def run_sandbox(config: SandboxConfig) -> None:
    """Run a sandbox until SIGTERM or SIGINT, or until this task is cancelled."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with Sandbox(config):
        await stop.wait()


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


def _authorities(files: Iterable[Path]) -> list[x509.Certificate]:
    return [one for file in files for one in x509.load_pem_x509_certificates(file.read_bytes())]


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
