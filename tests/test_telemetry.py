"""Logs: what a traceback may show."""

import subprocess
import sys

import pytest

PROGRAM = """
import structlog
from service import telemetry

telemetry.set_up(level="debug", form={form!r})

def fail(secret):
    raise ValueError("it broke")

try:
    fail("canary-" + "4711")
except ValueError:
    structlog.get_logger().exception("request.bug")
"""


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_traceback_shows_no_values(form: str) -> None:
    """The lines of the code are logged, the values of its variables never: they may be content or a key."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(form=form)], capture_output=True, text=True, check=True
    )

    assert "it broke" in done.stderr
    assert "canary-4711" not in done.stderr


ROW = """
import structlog
from service import telemetry

telemetry.set_up(level="debug", form={form!r})

class CheckViolation(Exception):
    pass

try:
    try:
        raise CheckViolation("it broke\\nDETAIL:  Failing row contains (msg_1, canary-4711,\\n\\nmore of canary-4711).")
    except CheckViolation as exc:
        raise RuntimeError("and so did this") from exc
except RuntimeError:
    structlog.get_logger().exception("request.bug")
"""


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_traceback_shows_no_row(form: str) -> None:
    """What PostgreSQL quotes of a row that it refuses is somebody's message, and is left out; the rest stays."""
    done = subprocess.run(
        [sys.executable, "-c", ROW.format(form=form)], capture_output=True, text=True, check=True
    )

    shown = done.stderr.split("Traceback", 1)[1]
    assert "it broke" in shown
    assert "and so did this" in shown
    assert "canary-4711" not in done.stderr
