"""Close attempts whose message was simply taken: nearly all of them, and so in few round trips.

What `closing.close` does for every attempt is done here for those that end as `sent`, with every recipient,
and teach nobody anything. The statements are three, each with a fresh look at the ledger, because an act of a
person may be on the same message (decision record 0012): the first one locks the attempts, the second one
the recipients, and only the third one, which sees what acts have left, sets when a delivery is due.

What is not so simple is said in the answer: attempts that somebody judged before, and lanes and senders
that rest and have just been seen to work. `closing` has the rest of it.
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from service.ledger.engine import Fetch, as_json
from service.ledger.lane_rows import EXTERNAL
from service.ledger.states import Outcome, Status

if TYPE_CHECKING:
    from service.ledger.closing import Closing

# `coalesce` keeps PostgreSQL from going by the index of what is open: with an old snapshot in the database, a
# dump's for example, that one still has all that was closed since. Each row is found by its key.
# What rows name is named once more as an array: by rows alone, a plan that is made while tables are small reads a
# whole index, and stays when they have grown.
# Attempts are locked in the order of their names wherever several are: a renewal has all of a worker's.
_JUDGE = """
    WITH mine AS MATERIALIZED (
        SELECT id FROM attempts WHERE id = ANY($3) AND coalesce(outcome) IS NULL ORDER BY id FOR UPDATE
    ), opened AS (
        INSERT INTO sessions (id, worker, route, lane, facts)
        SELECT * FROM jsonb_to_recordset($2::jsonb)
                   AS row(id text, worker text, route text, lane text, facts jsonb)
        ON CONFLICT DO NOTHING
    )
    UPDATE attempts a
       SET outcome = 'sent', ended_at = clock_timestamp(), lease_until = NULL, phase = row.phase,
           recipients = row.recipients, reply = row.reply, transcript = row.transcript,
           session_id = row.session_id, session_message = row.session_message, peer_trailer = row.peer_trailer
      FROM jsonb_to_recordset($1::jsonb) AS row(
           id text, phase text, recipients jsonb, reply jsonb, transcript jsonb, session_id text,
           session_message integer, peer_trailer jsonb), mine
     WHERE a.id = row.id AND a.id = mine.id
    RETURNING a.id
"""

_MOVE = """
    UPDATE recipients r
       SET status = 'sent', reason = row.reason, reply = row.reply, error = NULL, due_at = NULL,
           tries = r.tries + 1, updated_at = clock_timestamp(), finished_at = clock_timestamp()
      FROM jsonb_to_recordset($1::jsonb) AS row(
           message_id text, position smallint, attempt_id text, reason text, reply jsonb)
     WHERE r.message_id = ANY($3) AND r.message_id = row.message_id AND r.position = row.position
       AND r.attempt_id = row.attempt_id AND coalesce(r.status) = 'sending' AND row.attempt_id = ANY($2)
"""

# The delivery is due when the first of its open recipients is; it is over when none is open.
_SETTLE = """
    WITH settled AS (
        UPDATE deliveries d
           SET attempt_id = NULL, due_at = open.due_at,
               finished_at = CASE WHEN open.recipients IS NULL THEN clock_timestamp() END
          FROM unnest($1::text[]) AS wanted (id)
          LEFT JOIN LATERAL (
               SELECT min(due_at) AS due_at, nullif(count(*), 0) AS recipients FROM recipients
                WHERE delivery_id = wanted.id AND finished_at IS NULL) AS open ON true
         WHERE d.id = ANY($1) AND d.id = wanted.id AND (d.attempt_id IS NULL OR d.attempt_id = ANY($2))
    )
    SELECT EXISTS (SELECT 1 FROM lanes WHERE name = ANY($3) AND troubles > 0)
        OR EXISTS (SELECT 1 FROM stops WHERE lane = ANY($3)) AS resting
"""


@dataclass(frozen=True, slots=True)
class Leftover:
    """What is still to do after a group of closings was written."""

    late: frozenset[str]  # attempts that somebody else has judged
    resting: bool  # a lane of these, or a sender on one, rests: it works


def is_plain(closing: "Closing") -> bool:
    """Say whether the message was taken for every recipient, and there is nothing else to say."""
    return (
        closing.outcome == Outcome.SENT
        and closing.trouble is None
        and closing.error is None
        and not closing.split
        and all(
            each.status == Status.SENT and each.counts and each.error is None for each in closing.recipients
        )
    )


async def close(fetch: Fetch, closings: Sequence["Closing"], *, known: Container[str]) -> Leftover:
    """Write plain closings; the caller commits. `known` are sessions that the ledger has already."""
    opened = {
        each.session_id: each
        for each in closings
        if each.session_id and each.session_facts and each.session_id not in known
    }
    rows = await fetch(
        _JUDGE,
        as_json([_attempt(each) for each in closings]),
        as_json([_session(each) for each in opened.values()]),
        [each.attempt_id for each in closings],
    )
    judged = frozenset(row["id"] for row in rows)
    ours = [each for each in closings if each.attempt_id in judged]
    resting = False
    if ours:
        await fetch(
            _MOVE,
            as_json([row for each in ours for row in _recipients(each)]),
            list(judged),
            sorted({each.message_id for each in ours}),
        )
        ((resting,),) = await fetch(
            _SETTLE,
            sorted({each.delivery_id for each in ours}),
            list(judged),
            sorted({each.lane for each in ours} | {EXTERNAL for each in ours if each.external}),
        )
    return Leftover(late=frozenset(each.attempt_id for each in closings) - judged, resting=resting)


def _attempt(closing: "Closing") -> Mapping[str, Any]:
    return {
        "id": closing.attempt_id,
        "phase": closing.phase,
        "recipients": [
            {"position": each.position, "email": each.email, "reply": each.rcpt_reply, "status": each.status}
            for each in closing.recipients
        ],
        "reply": closing.reply,
        "transcript": closing.transcript,
        "session_id": closing.session_id,
        "session_message": closing.session_message,
        "peer_trailer": closing.peer_trailer,
    }


def _session(closing: "Closing") -> Mapping[str, Any]:
    return {
        "id": closing.session_id,
        "worker": closing.worker,
        "route": closing.route,
        "lane": closing.lane,
        "facts": closing.session_facts,
    }


def _recipients(closing: "Closing") -> list[Mapping[str, Any]]:
    return [
        {
            "message_id": closing.message_id,
            "position": each.position,
            "attempt_id": closing.attempt_id,
            "reason": each.reason,
            "reply": each.reply,
        }
        for each in closing.recipients
    ]
