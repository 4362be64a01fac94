"""A running sandbox for each test, on free ports."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from service.sandbox import Sandbox, contoso


@pytest_asyncio.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    """The tenant of the documentation, with a second that passes quickly where it is slow."""
    async with Sandbox(contoso(tmp_path / "sandbox")) as running:
        running.switch(slow_seconds=0.01)
        yield running


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A folder for the state of a sandbox that the test opens itself."""
    return tmp_path / "state"
