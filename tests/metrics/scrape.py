"""Pages for Prometheus, read as Prometheus does."""

from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families


@dataclass(frozen=True, slots=True, kw_only=True)
class Scraped:
    """The samples of a page."""

    text: str
    samples: Mapping[tuple[str, frozenset[tuple[str, str]]], float]

    @classmethod
    def of(cls, text: str) -> "Scraped":
        """Read a page in the text format; raises ValueError where it is none."""
        return cls(
            text=text,
            samples={
                (sample.name, frozenset(sample.labels.items())): sample.value
                for family in text_string_to_metric_families(text)
                for sample in family.samples
            },
        )

    def value(self, name: str, /, **labels: str) -> float | None:
        """Add up the samples that have these labels; None where there is none."""
        found = [
            value
            for (sample, own), value in self.samples.items()
            if sample == name and labels.items() <= dict(own).items()
        ]
        return sum(found) if found else None

    def names(self) -> set[str]:
        return {name for name, _ in self.samples}
