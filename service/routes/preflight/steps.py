"""What a check is made of: steps with a status, and the worst of them as the result."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from service.smtp.phase import Phase


class Status(StrEnum):
    """How a step came out, the worst last."""

    SKIP = "skip"  # not asked for, or something before it failed
    OK = "ok"
    WARN = "warn"  # it works, and will surprise someone; or only for the moment it does not
    FAIL = "fail"


_ORDER = tuple(Status)


def worst(statuses: Iterable[Status]) -> Status:
    """Give the worst; `skip` where there is nothing else."""
    return max(statuses, key=_ORDER.index, default=Status.SKIP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing that was looked at."""

    name: str
    status: Status
    detail: str  # what was seen, one sentence or two
    remedy: tuple[str, ...] = ()  # what to do, in this order; never empty where the step failed
    lane: str | None = None  # None: the step is the whole route's
    facts: Mapping[str, Any] = field(default_factory=dict)  # the same for programs
    diagnosis: str | None = None  # the entry of the catalogue that explains a refusal

    def __post_init__(self) -> None:
        assert self.remedy or self.status is not Status.FAIL, f"{self.name} failed without a remedy"

    def as_json(self) -> dict[str, Any]:
        """Write the step as it is kept and shown."""
        return {
            "name": self.name,
            "status": self.status.value,
            "lane": self.lane,
            "detail": self.detail,
            "remedy": list(self.remedy),
            "diagnosis": self.diagnosis,
            "facts": dict(self.facts),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Preflight:
    """One check of one route, from its start to its end."""

    route: str
    started_at: datetime
    ended_at: datetime
    steps: tuple[Step, ...]
    well: Mapping[str, Phase] = field(default_factory=dict)  # by lane: how far nothing was refused

    @property
    def result(self) -> Status:
        """The worst of its steps."""
        return worst(step.status for step in self.steps)


def ok(name: str, detail: str, *, lane: str | None = None, **facts: Any) -> Step:
    """Say that a step went well."""
    return Step(name=name, status=Status.OK, detail=detail, lane=lane, facts=facts)


def skip(name: str, detail: str, *, lane: str | None = None) -> Step:
    """Say why a step was not taken."""
    return Step(name=name, status=Status.SKIP, detail=detail, lane=lane)


def warn(name: str, detail: str, *remedy: str, lane: str | None = None, **facts: Any) -> Step:
    """Say what will surprise someone."""
    return Step(name=name, status=Status.WARN, detail=detail, remedy=remedy, lane=lane, facts=facts)


def fail(name: str, detail: str, *remedy: str, lane: str | None = None, **facts: Any) -> Step:
    """Say what is broken, and what to do."""
    return Step(name=name, status=Status.FAIL, detail=detail, remedy=remedy, lane=lane, facts=facts)
