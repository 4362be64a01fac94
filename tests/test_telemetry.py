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
