"""A bare FastAPI POST: the same fields as a message, read by pydantic, a small JSON as its answer.

What the door adds (key, idempotency, composing, planning, a durable commit) is missing on purpose: it is
the yardstick for what acceptance costs. One process of uvicorn with uvloop and httptools, as our own.

With `--database URL` there is also `/durable`: the same, and one row with the body committed through asyncpg
before the answer. That is told beside the figures: nobody who promises that nothing is lost can be quicker.
"""

import argparse
import asyncio
import contextlib
import socket
from typing import Annotated, Any

import asyncpg
import uvicorn
from fastapi import FastAPI, Request
from pydantic import BaseModel, ConfigDict, Field, StrictStr

from tests.bench.programs import answer_for_ever, run
from tests.waiting import eventually


class Letter(BaseModel):
    """A message, as strictly as ours."""

    model_config = ConfigDict(extra="forbid")

    from_: Annotated[str, Field(alias="from", max_length=998)]
    to: list[Annotated[str, Field(max_length=998)]]
    subject: Annotated[str, Field(max_length=998)]
    text: str | None = None
    html: str | None = None
    headers: dict[str, str] | None = None
    route: str = "auto"
    tags: Annotated[list[Annotated[str, Field(max_length=256)]], Field(max_length=50)] = []
    metadata: dict[str, StrictStr | int | float | bool | None] | None = None
    scheduled_at: str | None = None
    expires_at: str | None = None


app = FastAPI()


@app.post("/messages", status_code=202)
async def take(letter: Letter) -> dict[str, str]:
    """Take a message, and forget it."""
    return {"object": "message", "id": "msg_1", "status": "queued", "subject": letter.subject}


@app.post("/durable", status_code=202)
async def keep(letter: Letter, request: Request) -> dict[str, str]:
    """Take a message, and keep its text."""
    await app.state.pool.execute("INSERT INTO kept (text) VALUES ($1)", letter.text)
    return {"object": "message", "id": "msg_1", "status": "queued", "subject": letter.subject}


@contextlib.asynccontextmanager
async def _pool(url: str) -> Any:
    if not url:
        yield None
        return
    async with asyncpg.create_pool(url, min_size=1, max_size=10) as pool:
        await pool.execute("CREATE TABLE IF NOT EXISTS kept (id bigserial PRIMARY KEY, text text)")
        yield pool


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--database", default="")
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(app, http="httptools", log_config=None, access_log=False, ws="none", lifespan="off")
    )

    async def answer(question: dict[str, Any]) -> None:
        return None

    async with _pool(parser.parse_args().database) as app.state.pool:
        serving = asyncio.create_task(server.serve([listener]))
        await eventually(lambda: server.started)
        await answer_for_ever({"port": listener.getsockname()[1]}, answer)
        server.should_exit = True
        await serving


if __name__ == "__main__":
    run(main())
