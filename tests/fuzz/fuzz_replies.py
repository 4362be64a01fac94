"""Atheris on the reply parser: `python -m tests.fuzz.fuzz_replies [libFuzzer's arguments] [corpus folders]`.

The first octet says how many of the next ones are places at which the rest is cut. What must hold is in `reading`.
"""

import sys

import atheris  # type: ignore[import-untyped, import-not-found, unused-ignore]  # without types, and not everywhere

with atheris.instrument_imports(include=["service.smtp"], enable_loader_override=False):
    from service.smtp import framing, reply  # noqa: F401

from tests.fuzz.reading import replies_hold


def one_input(octets: bytes) -> None:
    """Read one input; whatever is raised is a find."""
    cuts = octets[0] % 8 if octets else 0
    places = [each * 257 for each in octets[1 : cuts + 1]]
    replies_hold(octets[cuts + 1 :], places)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
