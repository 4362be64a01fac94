"""The fault campaign in short (`make chaos` is the whole of it): the same stories and the same count, fewer faults."""

from pathlib import Path

import pytest

from service.local.servers import LocalPostgres, LocalRedis
from service.smtp.phase import Phase
from tests.chaos.phases import matrix
from tests.chaos.registry import Run
from tests.chaos.report import progress
from tests.chaos.restarts import roll
from tests.chaos.storm import rage
from tests.chaos.world import Servers, Victim


@pytest.fixture
def run(
    request: pytest.FixtureRequest,
    postgres: LocalPostgres,
    postgres_url: str,
    redis: LocalRedis,
    tmp_path: Path,
) -> Run:
    """A run of one story on servers that may be killed."""
    servers = Servers(postgres=postgres, redis=redis, database_url=postgres_url)
    return Run(name=request.node.name, seed=9, folder=tmp_path / "world", servers=servers)


def assert_all_held(run: Run) -> None:
    """See that there are rows, and that none of them is red."""
    assert run.rows
    assert [progress(row) for row in run.rows if not row.held] == []


async def test_a_worker_is_killed_in_every_phase(run: Run) -> None:
    """Kill -9 with a dialogue in each phase: nothing lost, a copy more only where the ledger is in doubt."""
    phases = [phase for phase in Phase if phase is not Phase.BODY]  # which takes megabytes
    await matrix(run, victims=[Victim.WORKER], phases=phases, choices=("resend", "hold"))

    assert_all_held(run)


async def test_anything_is_killed_at_any_moment(run: Run) -> None:
    """Six times kill -9 of API, worker, Redis and PostgreSQL under clients that retry by key: the records agree."""
    await rage(run, messages=100, kills=6, a_minute=300, clients=6)

    assert_all_held(run)


async def test_planned_restarts_cost_nothing(run: Run) -> None:
    """Three processes are replaced under load: one try each, nothing in doubt, nothing twice."""
    await roll(run, times=3, clients=3, pause=0.1)

    assert_all_held(run)
