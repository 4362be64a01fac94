"""A bare FastAPI POST: the same fields as a message, read by pydantic, a small JSON as its answer.

What the door adds (key, idempotency, composing, planning, a durable commit) is missing on purpose: it is
the yardstick for what acceptance costs. One process of uvicorn with uvloop and httptools, as our own.
"""

import asyncio
import socket
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI
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


async def main() -> None:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(app, http="httptools", log_config=None, access_log=False, ws="none", lifespan="off")
    )
    serving = asyncio.create_task(server.serve([listener]))

    async def answer(question: dict[str, Any]) -> None:
        return None

    await eventually(lambda: server.started)
    await answer_for_ever({"port": listener.getsockname()[1]}, answer)
    server.should_exit = True
    await serving


if __name__ == "__main__":
    run(main())
