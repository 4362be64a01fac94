"""A running sandbox for each test, on free ports."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from service.sandbox import Sandbox, contoso
from service.sandbox.certificates import prepare


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The keys and certificates of a sandbox: an RSA key takes longer to make than a test to run."""
    folder = tmp_path_factory.mktemp("prepared")
    prepare(folder, names=())
    return folder


@pytest_asyncio.fixture
async def sandbox(tmp_path: Path, prepared: Path) -> AsyncIterator[Sandbox]:
    """The tenant of the documentation, with a second that passes quickly where it is slow."""
    (tmp_path / "sandbox").mkdir()
    shutil.copy2(prepared / "token.key", tmp_path / "sandbox")
    async with Sandbox(contoso(tmp_path / "sandbox")) as running:
        running.switch(slow_seconds=0.01)
        yield running


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A folder for the state of a sandbox that the test opens itself."""
    return tmp_path / "state"
