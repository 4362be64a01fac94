"""When to try again, by table."""

from collections.abc import Collection

import pytest

from service.delivery.schedule import Policy, Retry, rest_for, retry_for, wait_before
from service.routes.diagnoses import CATALOGUE, Class, Diagnosis
from service.routes.diagnoses.entry import Waits
from tests.delivery.cases import POLICY, RETRY


def in_a_hurry(cap: float, first: float = 30.0) -> Policy:
    """The policy of a rehearsal: nothing takes longer than `cap` seconds by itself."""
    return Policy(
        lease=30.0,
        poll_interval=5.0,
        retry=Retry(first=first, factor=2.0, cap=cap),
        uncertain_after=900.0,
        shutdown_grace=60.0,
    )


def an_entry(kind: Class, waits: Waits | None = None, *, faults: Collection[str] = ()) -> Diagnosis:
    """An entry as the catalogue has them; without `waits` it has those of its class."""
    return Diagnosis(
        id="test.entry",
        title="An entry",
        explanation="For this test.",
        who="nobody",
        remedy=("Nothing.",),
        kind=kind,
        source="this test",
        waits=waits,
        faults=frozenset(faults),
    )


def test_the_waits_grow_to_their_cap() -> None:
    """30 s, 1, 2, 4, 8 minutes, then a quarter of an hour; jitter moves a wait by a fifth at most."""
    waits = [wait_before(tries, retry=RETRY, jitter=0.0) for tries in range(1, 8)]

    assert waits == [30.0, 60.0, 120.0, 240.0, 480.0, 900.0, 900.0]
    assert wait_before(1, retry=RETRY, jitter=1.0) == 36.0
    assert wait_before(10_000, retry=RETRY, jitter=-1.0) == 720.0


def test_a_long_rest_and_then_shorter_ones() -> None:
    """A first wait above the cap is kept: a day for a blocked mailbox, and then a probe every four hours."""
    blocked = Retry(first=86_400.0, factor=1.0, cap=14_400.0)

    waits = [wait_before(tries, retry=blocked, jitter=0.0) for tries in (1, 2, 3)]

    assert waits == [86_400.0, 14_400.0, 14_400.0]


@pytest.mark.parametrize(("cap", "scale"), [(900.0, 1.0), (9_000.0, 1.0), (90.0, 0.1), (1.0, 1 / 900)])
def test_the_catalogues_waits_shrink_with_the_cap(cap: float, scale: float) -> None:
    """A configuration with a short cap is quick everywhere; one with a long cap does not wait longer."""
    hour = an_entry(Class.T2, Waits(first=300.0, factor=3.0, cap=3_600.0))

    rest = rest_for(hour, in_a_hurry(cap))

    assert (rest.first, rest.factor, rest.cap) == (300.0 * scale, 3.0, 3_600.0 * scale)


def test_passing_trouble_is_probed_as_soon_as_the_first_retry() -> None:
    """Who asks for a first retry after a fifth of a second does not wait half a minute for a probe."""
    passing = an_entry(Class.T1)

    assert rest_for(passing, in_a_hurry(900.0, first=0.2)).first == 0.2
    assert rest_for(passing, POLICY).first == 30.0


def test_where_nobody_answers_the_first_probe_comes_soon() -> None:
    """A machine that is restarted is not waited for half a minute; what lasts is asked ever more rarely."""
    unreachable = an_entry(Class.T1, faults=["connection_refused"])

    rest = rest_for(unreachable, POLICY)

    assert [wait_before(tries, retry=rest, jitter=0.0) for tries in (1, 2, 3, 20)] == [2.0, 4.0, 8.0, 900.0]


def test_a_recipient_in_passing_trouble_waits_as_it_is_configured() -> None:
    """The catalogue knows better only where it is a throttle, a window or an administrator's business."""
    passing = an_entry(Class.T1)
    throttle = an_entry(Class.T2, Waits(first=3_600.0, factor=1.0, cap=3_600.0))

    assert retry_for(passing, POLICY) == RETRY
    assert retry_for(throttle, POLICY).first == 3_600.0


@pytest.mark.parametrize("entry", CATALOGUE, ids=lambda entry: entry.id)
def test_no_entry_is_tried_again_and_again(entry: Diagnosis) -> None:
    """Whatever the catalogue says, each wait is longer than nothing and no longer than a day."""
    for waits in (rest_for(entry, POLICY), retry_for(entry, POLICY)):
        for tries in (1, 2, 50):
            assert 1.0 <= wait_before(tries, retry=waits, jitter=0.0) <= 86_400.0
