"""The pool of connections, with a watch: how long an act waited for one, and how long a goodbye takes."""

import time

from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import AsyncAdaptedQueuePool, PoolProxiedConnection
from typing_extensions import override

from service.telemetry import figures

#: Seconds that SQLAlchemy lets the server have for its answer to a goodbye, where a connection may be broken.
_GOODBYE = 2.0

#: Seconds in which a server that did not answer to a goodbye is told no other.
_DEAF = 60.0


class WatchedPool(AsyncAdaptedQueuePool):
    """SQLAlchemy's own pool; a wait that ends without a connection counts too.

    A server that stands still keeps no process from its end: SQLAlchemy's usual goodbye would wait for
    `command_timeout`, for each connection anew.
    """

    _deaf_until = 0.0  # of time.monotonic

    @override
    def connect(self) -> PoolProxiedConnection:
        began = time.perf_counter()
        try:
            return super().connect()
        finally:
            figures.LEDGER_WAIT.observe(time.perf_counter() - began)

    @override
    def _close_connection(self, connection: DBAPIConnection, *, terminate: bool = False) -> None:
        began = time.monotonic()
        if began < self._deaf_until:
            connection.driver_connection.terminate()
            return
        super()._close_connection(connection, terminate=True)
        if time.monotonic() - began >= _GOODBYE:
            self._deaf_until = time.monotonic() + _DEAF
