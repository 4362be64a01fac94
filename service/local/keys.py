"""`postroom keys`: what is asked for on the command line, and how keys are shown there.

The commands work on the ledger itself, so they need the database and no key: they make the first one.
Each act is audited as the command line's, with the name of the system user.
"""

import getpass
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from service.ledger import rights
from service.ledger.audit import Actor
from service.ledger.keys import DEFAULT_SCOPES, LONGEST_OVERLAP, Key, Rotated, WantedKey

_WHY_NOT = {
    "unknown": "There is no key of this id; `postroom keys list` shows them.",
    "closed": "This key is revoked or has expired: make a new one.",
    "replaced": "Another key has taken its place already; revoke that one to rotate this one again.",
}


class WrongUse(ValueError):
    """What was asked for cannot be; the text says why, a line for each mistake."""


def actor() -> Actor:
    """Say who acts, for the audit."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        user = "unknown"
    return Actor(application="command line", id=f"user:{user}", address=None, request_id=None)


def wanted(
    application: str,
    *,
    label: str | None,
    given: Mapping[str, Any],
    test: bool,
    expires: str | None,
    routes: Collection[str],
) -> WantedKey:
    """Read what `keys create` was given; raises WrongUse.

    `given` are rights by their names; a list is comma-separated or repeated, an empty one is not given.
    """
    lists = {name: words(value) or None for name, value in given.items() if not isinstance(value, int)}
    asked = {**given, **lists}
    asked["scopes"] = asked["scopes"] or list(DEFAULT_SCOPES)
    try:
        found = rights.read(asked, routes={*routes, rights.SANDBOX})
    except rights.BadRights as bad:
        raise WrongUse("\n".join(_line(each, asked) for each in bad.mistakes)) from None
    return WantedKey(
        application=_name("NAME is the application's name", application),
        name=None if label is None else _name("--label is a name", label),
        scopes=found["scopes"],
        senders=found["senders"],
        restrictions=rights.restrictions_of(found),
        test=test,
        expires_at=None if expires is None else end(expires, now=datetime.now(UTC)),
    )


def end(written: str, *, now: datetime) -> datetime:
    """Read when a key ends: `90d` from now, or a time with its offset. Raises WrongUse."""
    try:
        at = now + rights.span(written)
    except OverflowError:
        raise WrongUse("--expires is too far away.") from None
    except ValueError:
        at = _time(written)
    if at.tzinfo is None or at <= now:
        raise WrongUse("--expires is a time to come: 90d, 12h, or 2027-01-01T00:00:00Z with its offset.")
    return at


def overlap(written: str) -> timedelta:
    """Read how long the old key lives on. Raises WrongUse."""
    try:
        found = rights.span(written)
    except ValueError as exc:
        raise WrongUse(f"--overlap: {exc}") from None
    if found > LONGEST_OVERLAP:
        raise WrongUse("--overlap is 30d at the most.")
    return found


def why_not(outcome: str) -> str:
    """Say why a key cannot be rotated."""
    return _WHY_NOT[outcome]


def as_json(key: Key) -> dict[str, Any]:
    """Show a key to programs."""
    return {
        "id": key.id,
        "application": key.application,
        "name": key.name,
        "test": key.test,
        "scopes": list(key.scopes),
        "senders": list(key.senders),
        **{name: getattr(key, name) for name in rights.RESTRICTIONS},
        "replaces": key.replaces,
        "created_at": _moment(key.created_at),
        "expires_at": _moment(key.expires_at),
        "revoked_at": _moment(key.revoked_at),
        "last_used_at": _moment(key.last_used_at),
    }


def readable(key: Key, *, now: datetime) -> str:
    """Show a key to people, in one line."""
    state = "revoked" if key.revoked_at else "usable" if key.usable(now) else "expired"
    parts = [
        key.id,
        state,
        "test" if key.test else "live",
        key.application + (f" ({key.name})" if key.name else ""),
        ", ".join(key.senders) or "any sender",
    ]
    parts += [
        f"{name}: {', '.join(value) if isinstance(value, tuple) else value}"
        for name in rights.RESTRICTIONS
        if (value := getattr(key, name)) is not None
    ]
    if key.expires_at is not None:
        parts.append(f"until {key.expires_at:%Y-%m-%d %H:%M}Z")
    parts.append(f"last used {key.last_used_at:%Y-%m-%d %H:%M}Z" if key.last_used_at else "never used")
    return "  ".join(parts)


def rotated(outcome: Rotated) -> str:
    """Say what a rotation means, for people."""
    until = outcome.old.expires_at
    assert until is not None, "a rotation sets it"
    return (
        f"{outcome.new.id} takes the place of {outcome.old.id}, which lives until "
        f"{until:%Y-%m-%d %H:%M:%S}Z. The new key is shown once:"
    )


def words(given: Sequence[str] | None) -> list[str]:
    """Split what was written with commas, or said several times."""
    return [word.strip() for text in given or () for word in text.split(",") if word.strip()]


def _time(written: str) -> datetime:
    try:
        return datetime.fromisoformat(written)
    except ValueError:
        return datetime.min  # noqa: DTZ901  # refused, as what has no offset


def _name(what: str, text: str) -> str:
    stripped = text.strip()
    if not stripped or len(stripped) > 100 or not stripped.isprintable():
        raise WrongUse(f"{what}: 1 to 100 printable characters.")
    return stripped


def _line(mistake: rights.Mistake, asked: Mapping[str, Any]) -> str:
    entry = "" if mistake.index is None else f" {asked[mistake.member][mistake.index]!r}"
    return f"--{mistake.member.replace('_', '-')}{entry}: {mistake.detail}"


def _moment(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()
