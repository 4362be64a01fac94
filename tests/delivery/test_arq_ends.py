"""The end of arq's part of a worker, on its own or because Redis has gone."""

import asyncio
import gc
from typing import Any

from arq.worker import Worker as ArqWorker
from arq.worker import func

from service.delivery.bell import open_redis
from service.delivery.worker import _end


async def _ring(ctx: dict[Any, Any], *args: Any, **kwargs: Any) -> None:
    """Do nothing."""


async def test_a_job_whose_end_cannot_be_written_is_no_bug(redis_url: str) -> None:
    """What a job writes at its end fails because Redis has gone: nobody is told of a task without an owner."""
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    redis = open_redis(redis_url)
    worker = ArqWorker(functions=[func(_ring, name="ring")], redis_pool=redis, handle_signals=False)

    async def written() -> None:
        await asyncio.sleep(0.05)
        raise ConnectionError

    async def job() -> None:
        await asyncio.shield(written())

    worker.tasks["job"] = asyncio.create_task(job())
    await asyncio.sleep(0)
    await _end(worker)
    await asyncio.sleep(0.1)
    gc.collect()
    await redis.aclose(close_connection_pool=True)

    assert reported == []
