"""How something is counted, and how the page is written."""

import timeit
from collections.abc import Iterator

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics

from service.telemetry.families import MOST, OTHER, Counter, Family, Gauge, Histogram, page
from tests.metrics.scrape import Scraped


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    """Families of a test are not in the catalogue afterwards."""
    before = list(Family.every)
    yield
    Family.every[:] = before


def scraped() -> Scraped:
    octets, content_type = page("")
    assert content_type.startswith("text/plain")
    return Scraped.of(octets.decode())


def test_a_counter_grows() -> None:
    """What was counted stands on the page under its labels, numbers as texts."""
    counter = Counter("test_things_total", "Things.", "kind", "status")
    counter.add("a", 202)
    counter.add("a", 202, by=2)
    counter.add('"quoted"\\', 500)

    found = scraped()

    assert found.value("test_things_total", kind="a", status="202") == 3
    assert found.value("test_things_total", kind='"quoted"\\', status="500") == 1


def test_a_counter_without_labels_begins_at_zero() -> None:
    """Its first step shows, because there was something before it; so do those of values that are known before."""
    Counter("test_plain_total", "Things.")
    Counter("test_known_total", "Things.", "kind", known=("a", "b"))

    found = scraped()

    assert found.value("test_plain_total") == 0
    assert found.value("test_known_total", kind="b") == 0


def test_a_gauge_forgets_what_is_no_more() -> None:
    """A lane that is not named any more has no series."""
    gauge = Gauge("test_depth", "Depth.", "lane")
    gauge.set_all({("a",): 1, ("b",): 2})
    gauge.set_all({("b",): 3})

    found = scraped()

    assert found.value("test_depth", lane="a") is None
    assert found.value("test_depth", lane="b") == 3


def test_a_histogram_counts_up_to_its_bounds() -> None:
    """A value on a bound belongs to it; what is beyond all of them is in +Inf; the sum is right."""
    histogram = Histogram("test_wait_seconds", "Waits.", "route", buckets=(0.1, 1, 10))
    for value in (0.05, 0.1, 0.5, 100.0):
        histogram.observe(value, "a")

    found = scraped()

    counts = [
        found.value("test_wait_seconds_bucket", route="a", le=le) for le in ("0.1", "1.0", "10.0", "+Inf")
    ]
    assert counts == [2, 3, 3, 4]
    assert found.value("test_wait_seconds_count", route="a") == histogram.count("a") == 4
    assert found.value("test_wait_seconds_sum", route="a") == pytest.approx(100.65)


def test_the_number_of_series_is_bounded() -> None:
    """Whatever comes as a label, a family has no more than so many series; nothing is left uncounted."""
    counter = Counter("test_wild_total", "Wild.", "name")
    histogram = Histogram("test_wild_seconds", "Wild.", "name", buckets=(1,))
    for number in range(MOST + 500):
        counter.add(str(number))
        histogram.observe(0.5, str(number))

    found = scraped()

    assert found.value("test_wild_total") == MOST + 500
    assert found.value("test_wild_total", name=OTHER) == 500
    assert found.value("test_wild_seconds_count", name=OTHER) == 500
    assert sum(name == "test_wild_total" for name, _ in found.samples) == MOST + 1


def test_openmetrics_is_there_for_who_asks() -> None:
    """The page can be had in OpenMetrics, and is valid there."""
    Counter("test_plain_total", "Things.")

    octets, content_type = page("application/openmetrics-text; version=1.0.0")

    assert content_type.startswith("application/openmetrics-text")
    assert "test_plain" in {family.name for family in openmetrics(octets.decode())}  # type: ignore[no-untyped-call]  # the library's


def test_counting_is_cheap() -> None:
    """A count costs a few microseconds at the most on any machine: a lock, a text or a look-up by name is not in it."""
    counter = Counter("test_quick_total", "Quick.", "a", "b", "c", "d")
    histogram = Histogram("test_quick_seconds", "Quick.", "a", buckets=(0.1, 1, 10))

    def both() -> None:
        counter.add("route", "lane", "sent", "")
        histogram.observe(0.7, "route")

    best = min(timeit.repeat(both, number=2000, repeat=20)) / 2000

    assert best < 10e-6
