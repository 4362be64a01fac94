"""A bare aiosmtplib loop: so many connections, one message after the other on each, nothing recorded.

The yardstick for a drain. The octets are composed beforehand and the same in each message; sender and
recipient are given to `sendmail`, as the library's documentation does it.
"""

import asyncio
import time
from typing import Any

import aiosmtplib

from tests.bench import letters
from tests.bench.programs import answer_for_ever, run


async def _send(*, port: int, count: int, connections: int, label: str) -> dict[str, float]:
    content = letters.octets()
    supply = iter(range(count))
    clients = [
        aiosmtplib.SMTP(hostname="127.0.0.1", port=port, use_tls=False, start_tls=False)
        for _ in range(connections)
    ]
    for client in clients:
        await client.connect()

    async def loop(client: aiosmtplib.SMTP) -> None:
        for number in supply:
            await client.sendmail("noreply@contoso.com", [f"{label}.{number}@example.com"], content)

    cpu, began = time.process_time(), time.monotonic()
    await asyncio.gather(*map(loop, clients))
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    for client in clients:
        await client.quit()
    return {"seconds": seconds, "cpu": cpu}


async def _answer(question: dict[str, Any]) -> dict[str, float]:
    return await _send(**question)


if __name__ == "__main__":
    run(answer_for_ever({}, _answer))
