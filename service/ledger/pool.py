"""The pool of connections, with a watch: how long an act waited for one."""

import time

from sqlalchemy.pool import AsyncAdaptedQueuePool, PoolProxiedConnection
from typing_extensions import override

from service.telemetry import figures


class WatchedPool(AsyncAdaptedQueuePool):
    """SQLAlchemy's own pool; a wait that ends without a connection counts too."""

    @override
    def connect(self) -> PoolProxiedConnection:
        began = time.perf_counter()
        try:
            return super().connect()
        finally:
            figures.LEDGER_WAIT.observe(time.perf_counter() - began)
