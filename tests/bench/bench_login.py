"""TLS and XOAUTH2 on a kept session, against plain SMTP on a kept session.

Two routes to the same kind of peer with three connections each: a smarthost without TLS, and client submission to
a peer that has a certificate for smtp.office365.com, wants STARTTLS and takes a token that the sandbox's directory
made. The limits of a mailbox are lifted. The same batches go through both in turns, while the worker waits for them;
what is compared is what it needs for a message.
"""

from pathlib import Path

import pytest
import trustme

from service.sandbox import Sandbox
from service.sandbox.config import contoso
from tests import tenant
from tests.bench.figures import ROUNDS, Figure, Table, median, scaled
from tests.bench.machine import cpu_seconds, watching
from tests.bench.programs import Program, program
from tests.bench.stack import Stack, a_stack, way_out
from tests.waiting import eventually

pytestmark = [pytest.mark.bench, pytest.mark.timeout(900)]

_LIMITS = {"messages_per_minute": None, "recipients_per_day": None, "connections": 3}


async def _cost(
    stack: Stack, loader: Program, sink: Program, *, token: str, run: str, route: str, count: int
) -> tuple[float, float]:
    """Send through one route; return the worker's CPU seconds a message, and messages a second."""
    (worker,) = stack.workers
    await sink.ask(op="reset")
    await loader.ask(
        op="prepare", token=token, run=run, count=count // 100, batch=100, path="/messages/batch", route=route
    )
    before = cpu_seconds(worker.pid)
    load = await loader.ask(op="load", port=stack.port, clients=1)
    assert load["by_status"] == {"202": count // 100}, load["by_status"]
    await eventually(lambda: _has(sink, count), within=300.0)
    await stack.settled()
    seen = await sink.ask(op="figures")
    return (cpu_seconds(worker.pid) - before) / count, (count - 1) / (seen["last"] - seen["first"])


async def _has(sink: Program, count: int) -> bool:
    return bool(await sink.ask(op="count") >= count)


async def test_tls_and_login(table: Table, tmp_path: Path) -> None:
    """A mailbox with OAuth over TLS, and a smarthost without either."""
    count = scaled(4000, least=600) // 100 * 100
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert("smtp.office365.com").private_key_and_cert_chain_pem.write_to_path(
        tmp_path / "peer.pem"
    )
    costs: dict[str, list[tuple[float, float]]] = {"plain": [], "noreply": []}
    with watching() as noise:
        async with (
            Sandbox(contoso(tmp_path / "sandbox")) as sandbox,
            program("sink") as plain,
            program("sink", "--certificate", str(tmp_path / "peer.pem")) as secure,
            program("loader") as loader,
        ):
            mailbox = tenant.submission(
                sandbox,
                connect_to=f"127.0.0.1:{secure.ready['port']}",
                ca_file=str(tmp_path / "ca.pem"),
                limits=_LIMITS,
            )
            routes = [way_out(plain.ready["port"], name="plain", limits=_LIMITS), mailbox]
            async with a_stack(routes=routes, **tenant.settings(sandbox)) as stack:
                await stack.start_api()
                await stack.start_worker()
                token = await stack.key()
                for number in range(ROUNDS + 1):  # the first round is for warmth: it opens the sessions
                    for route, sink in (("plain", plain), ("noreply", secure)):
                        costs[route].append(
                            await _cost(
                                stack, loader, sink, token=token, run=f"{route}{number}", route=route, count=count
                            )
                        )  # fmt: skip
    bare, login = [each[1:] for each in (costs["plain"], costs["noreply"])]
    cpu = median([each[0] for each in login]) / median([each[0] for each in bare])
    rates = median([each[1] for each in login]), median([each[1] for each in bare])
    table.add(
        Figure(
            name="TLS and XOAUTH2 on kept sessions, the worker's CPU per message",
            goal="≤ 1.3 × plain on a kept session",
            reached=f"{median([each[0] for each in login]) * 1000:.2f} ms = {cpu:.2f} × plain",
            met=cpu <= 1.3,
            beside=f"plain {median([each[0] for each in bare]) * 1000:.2f} ms; {rates[0]:.0f}/s against {rates[1]:.0f}/s plain",
            noise=str(noise),
        )
    )
