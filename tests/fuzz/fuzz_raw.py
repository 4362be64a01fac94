"""Atheris on the door for raw messages: `python -m tests.fuzz.fuzz_raw [libFuzzer's arguments] [corpus folders]`.

What must hold is in `reading`.
"""

import sys

import atheris  # type: ignore[import-untyped, import-not-found, unused-ignore]  # without types, and not everywhere

with atheris.instrument_imports(include=["service.mail"], enable_loader_override=False):
    from service.mail import address, adopt, lines  # noqa: F401

from tests.fuzz.reading import raw_holds


def one_input(octets: bytes) -> None:
    """Take over one input; whatever is raised, but for a refusal, is a find."""
    raw_holds(octets)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
