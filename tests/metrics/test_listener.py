"""The small listener beside a worker: probes and figures on a port of their own."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from service.exposition.listener import Answer, listening


async def answering(accept: str) -> Answer:
    return Answer(status=200, content=f"accepts {accept}".encode(), content_type="text/plain")


async def failing(accept: str) -> Answer:
    raise RuntimeError(f"canary {accept}")


@pytest.fixture
async def port() -> AsyncIterator[int]:
    endpoints = {"/metrics": answering, "/broken": failing}
    async with listening(endpoints, host="127.0.0.1", port=0) as found:
        yield found


async def ask(port: int, octets: bytes) -> bytes:
    """Send something, and read what comes until the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(octets)
    try:
        return await asyncio.wait_for(reader.read(), 20.0)
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def test_a_path_is_answered(port: int) -> None:
    """Whoever asks gets the content with its type and length, and the connection ends."""
    answer = await ask(port, b"GET /metrics?x=1 HTTP/1.1\r\nHost: a\r\nAccept: text/plain\r\n\r\n")

    head, _, content = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Type: text/plain\r\n" in head
    assert b"Content-Length: 18\r\n" in head
    assert content == b"accepts text/plain"


async def test_head_has_no_content(port: int) -> None:
    """HEAD gets what GET gets, without the content (RFC 9110 §9.3.2)."""
    answer = await ask(port, b"HEAD /metrics HTTP/1.1\r\nHost: a\r\n\r\n")

    assert b"Content-Length: 8\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET /elsewhere HTTP/1.1", 404),
        (b"GET //metrics HTTP/1.1", 404),
        (b"POST /metrics HTTP/1.1", 405),
        (b"GET /metrics", 400),
        (b"GET  /metrics HTTP/1.1", 400),
        (b"\xff\xfe\x00", 400),
        (b"GET /metrics HTTP/2", 400),
    ],
)
async def test_anything_else_is_refused(port: int, request_line: bytes, status: int) -> None:
    """What is not here, or is no request, gets its status and nothing of itself back."""
    answer = await ask(port, request_line + b"\r\nHost: a\r\n\r\n")

    head, _, content = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert set(json.loads(content)) == {"status"}
    assert b"elsewhere" not in answer


@pytest.mark.parametrize(
    "octets", [b"", b"GET /metrics HTTP/1.1\r\nX: " + b"a" * 100_000, b"GET /broken HTTP/1.1\r\n\r\n"]
)
async def test_what_does_not_end_or_breaks_costs_a_connection(port: int, octets: bytes) -> None:
    """Silence, an endless head and a bug end with the connection, and the next one is answered."""
    assert await ask(port, octets) == b""

    assert (await ask(port, b"GET /metrics HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 200 ")


async def test_many_at_a_time_do_no_harm(port: int) -> None:
    """Those beyond the number that is served at a time are closed; when they are gone others are served."""
    idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(60)]
    await asyncio.sleep(0.1)
    for _, writer in idle:
        writer.close()
    await asyncio.sleep(0.1)

    assert (await ask(port, b"GET /metrics HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
