"""What a bench asks for: the table."""

from collections.abc import Iterator

import pytest

from tests.bench.figures import Table


@pytest.fixture(scope="session")
def table() -> Iterator[Table]:
    """The table of this run; printed, and at full scale written, when all benches are over."""
    table = Table()
    yield table
    table.end()
