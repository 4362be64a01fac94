"""The wait helper that all tests lean on."""

import pytest

from tests.waiting import eventually


async def test_the_first_true_answer_is_returned() -> None:
    """`eventually` asks again until the answer is true, and returns it."""
    answers = iter([None, "", "there"])

    assert await eventually(lambda: next(answers)) == "there"


async def test_a_probe_may_be_a_coroutine_and_may_assert() -> None:
    """An AssertionError means "not yet"."""
    asked = 0

    async def probe() -> bool:
        nonlocal asked
        asked += 1
        assert asked > 2
        return True

    assert await eventually(probe)


async def test_what_never_comes_is_shown() -> None:
    """When the time is over the last answer, or the probe's own assertion, is what the test shows."""

    def probe() -> bool:
        raise AssertionError("3 of 5 messages")

    with pytest.raises(AssertionError, match="the last answer was 0"):
        await eventually(lambda: 0, within=0.02)
    with pytest.raises(AssertionError, match="3 of 5 messages"):
        await eventually(probe, within=0.02)


async def test_other_errors_are_not_waited_for() -> None:
    """Anything but an AssertionError is a mistake of the test and ends the wait."""
    with pytest.raises(ZeroDivisionError):
        await eventually(lambda: 1 / 0)
