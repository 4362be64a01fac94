"""The two Helms, for the tests of the chart."""

import pytest

from tests.tools.cache import Unobtainable, skip_or_fail
from tests.tools.helm import Helm, obtain


@pytest.fixture(scope="session", params=[3, 4], ids=["helm3", "helm4"])
def helm(request: pytest.FixtureRequest) -> Helm:
    """One of the two Helms that are in use."""
    return _obtain(request.param)


@pytest.fixture(scope="session")
def both_helms() -> tuple[Helm, Helm]:
    """Helm 3 and Helm 4, in this order."""
    return _obtain(3), _obtain(4)


def _obtain(major: int) -> Helm:
    try:
        return obtain(major)
    except Unobtainable as why:
        skip_or_fail(str(why))
