"""Leave out of memory what a library loads and nothing here uses.

Three libraries load others for a corner of theirs: structlog takes rich for tracebacks that show the values of
variables, SQLAlchemy's asyncio engine its ORM for sessions, redis PyJWT (with cryptography) for logins by Entra
ID. Together they are 20 MB of resident memory, in each process.

    with without("rich"):
        import structlog

Who needs one of these imports it afterwards, and gets it whole.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


class _Nothing(ModuleType):
    """A module in which every name is None; there is nothing below it, so that importing that fails."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


@contextmanager
def without(*names: str) -> Iterator[None]:
    """Let what is imported inside find nothing in these modules, unless they have been loaded already."""
    absent = [name for name in names if name not in sys.modules]
    sys.modules.update({name: _Nothing(name) for name in absent})
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]
