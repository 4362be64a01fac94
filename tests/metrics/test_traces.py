"""Traces: what is taken from a caller, when spans are sent, and what happens when nobody takes them."""

import subprocess
import sys
import time

import pytest

from service.telemetry import traces

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-01"),
        (f"00-{TRACE}-{SPAN}-00", f"00-{TRACE}-{SPAN}-00"),
        (f"cc-{TRACE}-{SPAN}-01-what-comes-later", f"00-{TRACE}-{SPAN}-01"),
        (f"ff-{TRACE}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE.upper()}-{SPAN}-01", None),
        (f"00-{TRACE}-{SPAN}", None),
        (f"00-{TRACE}-{SPAN}-01\nx", None),
        ("zilpzalp@example.com", None),
        ("", None),
    ],
)
def test_a_traceparent_is_read_as_the_specification_says(value: str, kept: str | None) -> None:
    """What is a traceparent is kept in the form of version 00, and nothing else is (Trace Context, section 3.2)."""
    assert traces.given([(b"accept", b"*/*"), (b"traceparent", value.encode())]) == kept


def test_two_traceparents_are_none() -> None:
    """A header that comes twice says nothing for sure."""
    header = (b"traceparent", f"00-{TRACE}-{SPAN}-01".encode())

    assert traces.given([header, header]) is None
    assert traces.given([]) is None


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_spans_are_off_until_they_are_wanted(environment: dict[str, str]) -> None:
    """Without a place to send them to, or switched off, there are none."""
    traces.set_up("api", version="1", environment=environment)

    assert not traces.on()
    assert traces.begin_request("GET", []) is None


OFF = """
import sys
import service.wiring, service.submission.tracing
from service.telemetry import traces
traces.set_up("api", version="1", environment={})
print(sorted(name for name in sys.modules if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter", "prometheus"))))
"""


def test_what_nobody_asks_for_is_not_in_memory() -> None:
    """Neither the SDK of OpenTelemetry nor the client of Prometheus is loaded before somebody wants them."""
    done = subprocess.run([sys.executable, "-c", OFF], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


DEAD = """
from datetime import UTC, datetime
from service import telemetry
from service.telemetry import traces
telemetry.set_up(level="info", form="json")
traces.set_up("worker", version="1")
now = datetime.now(UTC)
for _ in range(5000):
    traces.attempt(None, name="send", began=now, ended=now, attributes={}, events=[], failed=False)
print(traces.on(), flush=True)
traces.end()
"""


def test_a_receiver_that_is_away_holds_nothing_up() -> None:
    """Nobody takes the spans: the process ends within seconds all the same, and does not log each of them."""
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "PATH": ""}
    began = time.monotonic()

    done = subprocess.run(
        [sys.executable, "-c", DEAD], capture_output=True, text=True, check=True, env=environment, timeout=60
    )

    assert done.stdout.strip() == "True"
    assert time.monotonic() - began < 20
    assert len(done.stderr.splitlines()) < 20
