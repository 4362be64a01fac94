"""What the ledger knows for reports: who still logged in with a password, and what was announced."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplicationShare:
    """What one application sent by a password login in the span of the report."""

    application: str
    messages: int
    recipients: int  # that the peer took


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordUse:
    """One identity that logged in with a password on one lane."""

    route: str
    lane: str
    identity: str
    host: str
    first_seen: datetime  # of what the ledger still keeps
    last_used: datetime
    sessions: int  # in the span of the report
    applications: Sequence[ApplicationShare]


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something that expires, as it was announced last."""

    route: str
    subject: str
    expires_at: datetime
    detail: str
    announced_at: datetime


# AUTH LOGIN and AUTH PLAIN are one method here: a user name and a password. A session counts from its
# opening until its last message.
_LOGINS = text("""
    SELECT s.route, s.lane, s.facts #>> '{login,identity}' AS identity,
           (array_agg(s.facts ->> 'host' ORDER BY s.id DESC))[1] AS host,
           min(s.created_at) AS first_seen, max(s.created_at) AS last_opened,
           count(*) FILTER (WHERE s.created_at >= :since) AS sessions
      FROM sessions s WHERE s.facts #>> '{login,method}' = 'login'
     GROUP BY s.route, s.lane, identity ORDER BY s.lane, identity
""")

_SHARES = text("""
    SELECT s.lane, s.facts #>> '{login,identity}' AS identity, m.application,
           count(DISTINCT a.message_id) AS messages,
           sum((SELECT count(*) FROM jsonb_array_elements(a.recipients) AS r
                 WHERE r ->> 'status' = 'sent')) AS recipients,
           max(a.ended_at) AS last_used
      FROM attempts a JOIN sessions s ON s.id = a.session_id JOIN messages m ON m.id = a.message_id
     WHERE a.lane = ANY(:lanes) AND a.ended_at >= :since AND s.facts #>> '{login,method}' = 'login'
     GROUP BY s.lane, identity, m.application ORDER BY m.application
""")

_NOTICES = text("""
    SELECT DISTINCT ON (route, subject) route, subject, expires_at, detail, created_at AS announced_at
      FROM notices WHERE CAST(:route AS text) IS NULL OR route = :route
     ORDER BY route, subject, expires_at DESC, days
""")


async def password_logins(db: AsyncConnection, *, since: datetime) -> list[PasswordUse]:
    """List every identity that the ledger saw logging in with a password; volumes count from `since`."""
    logins = (await db.execute(_LOGINS, {"since": since})).all()
    lanes = sorted({row.lane for row in logins})
    shares = (await db.execute(_SHARES, {"lanes": lanes, "since": since})).all() if lanes else []
    uses = []
    for login in logins:
        mine = [row for row in shares if (row.lane, row.identity) == (login.lane, login.identity)]
        uses.append(
            PasswordUse(
                route=login.route,
                lane=login.lane,
                identity=login.identity,
                host=login.host or "",
                first_seen=login.first_seen,
                last_used=max([login.last_opened, *(row.last_used for row in mine)]),
                sessions=login.sessions,
                applications=[
                    ApplicationShare(
                        application=row.application, messages=row.messages, recipients=int(row.recipients)
                    )
                    for row in mine
                ],
            )
        )
    return uses


async def notices(db: AsyncConnection, *, route: str | None) -> list[Notice]:
    """List what was announced of a route, or of all: the last announcement of each thing that expires."""
    return [Notice(**row) for row in (await db.execute(_NOTICES, {"route": route})).mappings()]
