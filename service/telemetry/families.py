"""Counters, gauges and histograms, as Prometheus means them, for code that runs for every message.

To count costs a fifth of a microsecond: a process does all of this on its one event loop, so nothing has to be
locked. The names follow the conventions (https://prometheus.io/docs/practices/naming/): seconds and bytes, `_total`
behind what only grows. prometheus-client writes the page, and is loaded with the first one.

The number of series is bounded: beyond `MOST` combinations of labels a family counts the rest as `other`.
"""

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from prometheus_client import Metric

#: Combinations of labels that a family keeps apart.
MOST = 2_000

#: The value of a label behind that.
OTHER = "other"

Labels = tuple[object, ...]  # become texts when the page is written


class Family(ABC):
    """One metric with its labels. All there are stand in `every`."""

    every: ClassVar[list["Family"]] = []

    def __init__(self, name: str, meaning: str, *labels: str) -> None:
        """`name` is the one of its samples; `meaning` is what HELP says."""
        self.name = name
        self.meaning = meaning
        self.labels = labels
        self._other = (OTHER,) * len(labels)
        self.every.append(self)

    @abstractmethod
    def metric(self) -> "Metric":
        """Give it to prometheus-client."""

    def _texts(self, labels: Labels) -> list[str]:
        return [str(label) for label in labels]


class Counter(Family):
    """What only grows."""

    def __init__(self, name: str, meaning: str, *labels: str, known: Sequence[str] = ()) -> None:
        """`known` are values of the one label that are there from the beginning.

        A series that begins at 0 shows its first step: of one that begins at 1, `increase()` sees nothing.
        """
        super().__init__(name, meaning, *labels)
        self._values: dict[Labels, float] = {(value,): 0 for value in known} if labels else {(): 0}

    def add(self, *labels: object, by: float = 1) -> None:
        """Count one more; the labels' values come in the order of their names."""
        values = self._values
        known = values.get(labels)
        if known is None:
            if len(values) >= MOST:
                labels = self._other
            known = values.get(labels, 0)
        values[labels] = known + by

    def value(self, *labels: object) -> float:
        """Say how much was counted."""
        return self._values.get(labels, 0)

    def metric(self) -> "Metric":
        from prometheus_client.core import CounterMetricFamily

        family = CounterMetricFamily(self.name, self.meaning, labels=self.labels)
        for labels, value in list(self._values.items()):
            family.add_metric(self._texts(labels), value)
        return family


class Gauge(Family):
    """What goes up and down."""

    def __init__(self, name: str, meaning: str, *labels: str) -> None:
        super().__init__(name, meaning, *labels)
        self._values: dict[Labels, float] = {}

    def set(self, value: float, *labels: object) -> None:
        """Say what it is now."""
        self._values[labels] = value

    def set_all(self, values: Mapping[Labels, float]) -> None:
        """Say what all of it is now; what is not named is no more."""
        self._values = dict(values)

    def metric(self) -> "Metric":
        from prometheus_client.core import GaugeMetricFamily

        family = GaugeMetricFamily(self.name, self.meaning, labels=self.labels)
        for labels, value in list(self._values.items()):
            family.add_metric(self._texts(labels), value)
        return family


class Histogram(Family):
    """How often something was how large."""

    def __init__(self, name: str, meaning: str, *labels: str, buckets: Sequence[float]) -> None:
        """`buckets` are upper bounds, the smallest first, without the infinite one."""
        super().__init__(name, meaning, *labels)
        self._bounds = tuple(buckets)
        self._rows: dict[Labels, list[float]] = {}  # a count for each bucket, and last the sum

    def observe(self, value: float, *labels: object) -> None:
        """Count one observation."""
        row = self._rows.get(labels)
        if row is None:
            if len(self._rows) >= MOST:
                labels = self._other
            row = self._rows.setdefault(labels, [0] * (len(self._bounds) + 2))
        row[bisect_left(self._bounds, value)] += 1
        row[-1] += value

    def count(self, *labels: object) -> int:
        """Say how many observations there were."""
        return int(sum(self._rows.get(labels, (0,))[:-1]))

    def metric(self) -> "Metric":
        from prometheus_client.core import HistogramMetricFamily
        from prometheus_client.utils import floatToGoString

        family = HistogramMetricFamily(self.name, self.meaning, labels=self.labels)
        bounds = [*map(floatToGoString, self._bounds), "+Inf"]
        for labels, row in list(self._rows.items()):
            *counts, total = row
            buckets = list(zip(bounds, accumulate(counts), strict=True))
            family.add_metric(self._texts(labels), buckets=buckets, sum_value=total)
        return family


class _Everything:
    """All families, in the form in which prometheus-client asks for them."""

    def __init__(self, process: "Iterable[Metric]") -> None:
        self._process = process

    def collect(self) -> "Iterator[Metric]":
        for family in Family.every:
            metric = family.metric()
            if metric.samples:
                yield metric
        yield from self._process


def page(accept: str) -> tuple[bytes, str]:
    """Write the page, in the form that `accept` asks for: its octets, and their content type."""
    from prometheus_client import GCCollector, ProcessCollector
    from prometheus_client.exposition import choose_encoder
    from prometheus_client.registry import CollectorRegistry

    own = CollectorRegistry(auto_describe=False)
    process = [*ProcessCollector(registry=None).collect(), *GCCollector(registry=own).collect()]
    encode, content_type = choose_encoder(accept)
    return encode(_Everything(process)), content_type
