"""The HTTP server around the door: uvicorn, until SIGTERM or SIGINT.

Then no connection is taken any more, the requests in hand are answered, for as long as the grace lasts, and
the process ends with 0.
"""

import asyncio
import contextlib
import signal
from collections.abc import Iterator

import structlog
import uvicorn
from fastapi import FastAPI

from service.submission.request.connections import ConnectionLimits, bounded

log = structlog.get_logger()


class _Server(uvicorn.Server):
    """uvicorn that ends with 0 after a SIGTERM, instead of raising the signal again."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._finish)
        yield

    def _finish(self) -> None:
        self.should_exit = True
        # Before the connections are waited for: a stream of events ends by itself never.
        assert isinstance(self.config.app, FastAPI)
        self.config.app.state.door.telling.streams.close()


async def serve(app: FastAPI, *, host: str, port: int, limits: ConnectionLimits, grace: float) -> None:
    """Serve `app` until a signal ends it; requests in hand get `grace` seconds, at least 1."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        http=bounded(limits),
        ws="none",
        # Who the client is, the door finds out itself: api.trusted_proxies.
        proxy_headers=False,
        timeout_graceful_shutdown=int(grace) or 1,
    )
    log.info("api.starting", host=config.host, port=config.port)
    await _Server(config).serve()
