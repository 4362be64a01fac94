"""Keep SQLAlchemy's ORM out of memory: nothing here uses it.

The package of its asyncio engine loads the ORM for its own two modules of sessions, 6 MB in each process.
Two empty modules stand in for these, unless somebody has loaded the real ones before; who imports
`sqlalchemy.orm` itself gets it. Imported before anything of `sqlalchemy.ext.asyncio` (`service.ledger`).
"""

import sys
from types import ModuleType


class _NoSessions(ModuleType):
    """A module in which every name is None."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


for _name in ("sqlalchemy.ext.asyncio.scoping", "sqlalchemy.ext.asyncio.session"):
    sys.modules.setdefault(_name, _NoSessions(_name))
