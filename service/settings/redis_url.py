"""`redis_url`: what may stand in it.

    redis://user:password@host:6379/0
    rediss://host:6380/0?ssl_ca_certs=/run/ca.pem&ssl_check_hostname=true
    unix:///run/valkey.sock?db=0

The client takes a parameter that it does not know for an argument, and fails at its first use, which is long after
the start; so what may stand behind the question mark is listed here.

A wrong URL is refused in a sentence that repeats nothing of it: any part may be a password in which a sign was not
written as %40.
"""

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

_NUMBERS = frozenset({"db", "socket_timeout", "socket_connect_timeout", "health_check_interval"})
_FILES = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"})
_TLS = frozenset({*_FILES, "ssl_cert_reqs", "ssl_check_hostname"})
_PARAMETERS = frozenset({*_NUMBERS, *_TLS, "username", "password", "client_name", "socket_keepalive"})


def check(url: str) -> None:
    """Raise ValueError with what is wrong and what to do; files that it names have to be there."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        port = -1
    if port is not None and not 0 < port < 65_536:
        raise ValueError(
            "cannot be read. Write redis://user:password@host:6379/0; in a password @ is %40, / is %2F, : is %3A,"
            " # is %23 and ? is %3F."
        )
    database = parts.path.strip("/")
    if parts.fragment or (parts.scheme != "unix" and database and not database.isdecimal()):
        raise ValueError(
            "has something else than a number behind the host. In a password / is %2F and # is %23."
        )
    given = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
    if not given.keys() <= _PARAMETERS:
        raise ValueError(
            "has a parameter behind the ? that there is not. Remove it; a ? in a password is %3F."
        )
    if given.keys() & _TLS and parts.scheme != "rediss":
        raise ValueError("says something of TLS and does not use it. Begin it with rediss://.")
    for name in sorted(given.keys() & _NUMBERS):
        if not given[name].replace(".", "", 1).isdecimal():
            raise ValueError(f"has in {name} what is no number. Correct it.")
    if given.get("ssl_cert_reqs", "required") not in {"none", "optional", "required"}:
        raise ValueError("has in ssl_cert_reqs what there is not. Write required, optional or none.")
    for name in sorted(given.keys() & _FILES):
        if not Path(given[name]).is_file():
            raise ValueError(f"names a file in {name} that is not there. Correct it.")
