"""`database_url`, as everybody in PostgreSQL's world writes it, in the words of our driver.

    postgresql://user:password@host:5432/database?sslmode=verify-full&sslrootcert=/run/ca.pem

What stands before the question mark is SQLAlchemy's to read. What stands behind it are the parameters of libpq
(PostgreSQL, "Connection URIs"), and asyncpg reads them itself: `sslmode` and its files, several hosts
(`?host=a,b&port=5432,5432&target_session_attrs=read-write`), and whatever a server lets a session set.

A wrong URL is refused when the configuration is read, in a sentence that repeats nothing of it: any part of it
may be a password in which a sign was not written as %40.
"""

from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
_PARAMETERS = frozenset({
    *("host", "port", "user", "password", "dbname", "passfile", "service", "target_session_attrs"),
    *("sslmode", "sslnegotiation", "sslpassword", *_FILES),
    *("ssl_min_protocol_version", "ssl_max_protocol_version", "krbsrvname", "gsslib"),
    *("application_name", "options", "search_path"),
})  # fmt: skip

#: SQLAlchemy's name for `sslmode`, and what we set ourselves.
_SYNONYMS = {"ssl": "sslmode"}
_OURS = frozenset({"connect_timeout"})


class BadDatabaseUrl(ValueError):
    """This is no address of a PostgreSQL; the text is a sentence without any part of it."""


def driver_url(url: str) -> tuple[URL, dict[str, Any]]:
    """Return SQLAlchemy's address, and what `asyncpg.connect` is to be told beside it. Raises BadDatabaseUrl."""
    parsed = _parsed(url)
    parameters = _parameters(parsed)
    # Not `update_query`: SQLAlchemy would hand each parameter to the driver as an argument, which has none of them.
    bare = parsed.set(drivername="postgresql+asyncpg", query={})
    return bare, {"dsn": f"postgresql://?{urlencode(parameters)}"} if parameters else {}


def check(url: str) -> None:
    """Raise BadDatabaseUrl with what is wrong and what to do; files that it names have to be there."""
    parameters = _parameters(_parsed(url))
    mode = parameters.get("sslmode")
    if mode is not None and mode not in _SSL_MODES:
        raise BadDatabaseUrl(f"has an sslmode that there is not. Write one of {', '.join(_SSL_MODES)}.")
    for name in _FILES:
        if name in parameters and not Path(parameters[name]).is_file():
            raise BadDatabaseUrl(f"names a file in {name} that is not there. Correct it.")


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise BadDatabaseUrl(
            "cannot be read. Write postgresql://user:password@host:5432/database; in a password @ is %40, / is %2F,"
            " : is %3A, ? is %3F and % is %25. Several hosts are written ?host=a,b&port=5432,5432."
        ) from None
    if parsed.get_backend_name() not in {"postgresql", "postgres"}:
        raise BadDatabaseUrl("is not a postgresql:// address.")
    if parsed.port is not None and not 0 < parsed.port < 65_536:
        raise BadDatabaseUrl("has a port that there is not. Write one of 1 to 65535.")
    return parsed


def _parameters(parsed: URL) -> dict[str, str]:
    # Of a parameter that comes twice the last one counts, as for libpq.
    given = {
        _SYNONYMS.get(name, name): value if isinstance(value, str) else value[-1]
        for name, value in parsed.query.items()
        if name not in _OURS
    }
    if not given.keys() <= _PARAMETERS:
        raise BadDatabaseUrl(
            "has a parameter behind the ? that PostgreSQL does not know. Remove it; a ? in a password is %3F."
        )
    return given
