"""Why the ledger cannot be used, in a sentence for whoever starts it, and what to do.

`engine` says only whether an error means "not now"; this says which one it was. Neither sentence repeats an
address, a user or a password: they stand in logs.
"""

import ssl
from dataclasses import dataclass
from socket import gaierror

from asyncpg.exceptions import ClientConfigurationError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from service.ledger.engine import LedgerUnavailable, sqlstate


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """What is wrong, and its remedy: two sentences."""

    detail: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.detail} {self.remedy}"


#: A standby, or a server that was made read-only, for example because its disk is full.
READ_ONLY = Why(
    detail="PostgreSQL takes no writes: a standby, or read-only.",
    remedy="Point database_url at the primary.",
)

_WAIT = "Wait: it goes on by itself."

#: By the beginning of PostgreSQL's code (Appendix A), the longer before the shorter.
_CODES: tuple[tuple[str, Why], ...] = (
    (
        "28P01",
        Why(
            detail="PostgreSQL refuses the user or the password in database_url.",
            remedy="Correct database_url (or the file that database_url_file names).",
        ),
    ),
    (
        "28",
        Why(
            detail="PostgreSQL does not let this user in from here.",
            remedy="Correct the user in database_url, or the server's pg_hba.conf; some servers want ?sslmode=require.",
        ),
    ),
    (
        "3D000",
        Why(
            detail="There is no database of the name in database_url on that server.",
            remedy="Create it (CREATE DATABASE), or correct database_url.",
        ),
    ),
    (
        "42501",
        Why(
            detail="The user in database_url may not do this in the database.",
            remedy="`postroom migrate` needs a user that may create tables; the others need the rights of the tables' owner.",
        ),
    ),
    ("42P01", Why(detail="The database has no tables yet.", remedy="Run `postroom migrate`.")),
    ("42703", Why(detail="The database has an older schema.", remedy="Run `postroom migrate`.")),
    (
        "53300",
        Why(
            detail="PostgreSQL has no connection left.",
            remedy="Raise its max_connections, or run fewer processes (each takes up to 12).",
        ),
    ),
    ("53100", Why(detail="PostgreSQL's disk is full.", remedy="Give it room.")),
    ("53", Why(detail="PostgreSQL lacks memory or room.", remedy="Look into its log.")),
    ("25006", READ_ONLY),
    ("57P", Why(detail="PostgreSQL is starting or stopping.", remedy=_WAIT)),
    (
        "55000",
        Why(
            detail="The database takes no connections: somebody has closed it.",
            remedy="ALTER DATABASE … ALLOW_CONNECTIONS true, when they are done.",
        ),
    ),
    (
        "55P03",
        Why(
            detail="Somebody holds a lock in the database for long.",
            remedy="Find who: SELECT * FROM pg_stat_activity WHERE state <> 'idle' ORDER BY xact_start. Then try again.",
        ),
    ),
    (
        "57014",
        Why(detail="PostgreSQL stopped a statement that took too long.", remedy="Look into its log."),
    ),
    ("40", Why(detail="Two transactions met.", remedy="Try again.")),
)

_START = "Start PostgreSQL, or correct database_url."

#: By the kind of error, where no PostgreSQL has spoken; the narrower before the wider.
_KINDS: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], Why], ...] = (
    (
        ClientConfigurationError,
        Why(
            detail="The driver cannot follow database_url.", remedy="Correct it: its host or its parameters."
        ),
    ),
    (
        ssl.SSLError,
        Why(
            detail="TLS to PostgreSQL fails: its certificate is not trusted, or a file is no certificate.",
            remedy="Correct sslrootcert (or sslmode) in database_url.",
        ),
    ),
    (
        gaierror,
        Why(
            detail="The host in database_url is not known to DNS.",
            remedy="Correct database_url, or the resolver of this machine.",
        ),
    ),
    (
        ConnectionRefusedError,
        Why(detail="Nobody listens at the host and port in database_url.", remedy=_START),
    ),
    (
        (TimeoutError, PoolTimeout),
        Why(detail="PostgreSQL does not answer in time at the address in database_url.", remedy=_START),
    ),
)


def why(error: BaseException) -> Why:
    """Say what is behind an error that means "not now" (`engine.is_unavailable`), or behind a LedgerUnavailable."""
    code = sqlstate(error) or ""
    for begin, found in _CODES:
        if code.startswith(begin):
            return found
    cause = error.__cause__ if isinstance(error, LedgerUnavailable) else error
    for link in _chain(cause):
        for kind, found in _KINDS:
            if isinstance(link, kind):
                return found
    return Why(detail="The connection to PostgreSQL does not come about, or breaks.", remedy=_START)


def _chain(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = getattr(error, "orig", None) or error.__cause__
    return found
