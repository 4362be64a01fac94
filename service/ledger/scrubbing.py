"""Scrub messages: take out whom they were for, what they said, and nothing that counts or proves.

What goes: the content, subject, names and addresses, tags, metadata, transcripts, and the texts of replies
and errors, which may name somebody. What stays: ids, times, sizes, the SHA-256 of the octets, states, codes and
enhanced statuses, routes, lanes and diagnoses.

`who` is one person's address in its comparison form: then only what is theirs goes, and of the others on the
same message the address stays; what all of them share (content, subject, tags, metadata, dialogue) goes. None
is everybody.

Only messages that are over are scrubbed. Whoever calls has locked them (`over`).
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.ledger import facets
from service.mail.address import Address, BadAddress

#: What stands where an address stood (RFC 2606: `.invalid` is nobody's).
NOBODY = "erased@erased.invalid"

#: Where idempotency keys of messages are kept under (`submission`).
_PATHS = ("/messages", "/messages/batch", "/messages[]", "/emails", "/emails/batch")

_ERASED = "The details were erased; the code and the diagnosis stay."

# Who acts on a message locks its row, too: what is not locked here is in somebody's hand.
_LOCK = text("SELECT id FROM messages WHERE id = ANY(:ids) ORDER BY id FOR NO KEY UPDATE SKIP LOCKED")

_OPEN = text(
    "SELECT DISTINCT message_id FROM deliveries WHERE message_id = ANY(:ids) AND finished_at IS NULL"
)


async def over(db: AsyncConnection, ids: Sequence[str]) -> list[str]:
    """Lock those of these messages that are over, until the end of the transaction, and return them in order."""
    locked = list((await db.execute(_LOCK, {"ids": list(ids)})).scalars())
    still_open = set((await db.execute(_OPEN, {"ids": locked})).scalars())
    return [message for message in locked if message not in still_open]


_MESSAGES = text("""
    SELECT id, application, from_email, from_key, tags, metadata, idempotency_key FROM messages
     WHERE id = ANY(:ids) ORDER BY id
""")

_RECIPIENTS = text("""
    SELECT message_id, position, email FROM recipients WHERE message_id = ANY(:ids) ORDER BY message_id, position
""")

_DROP_FACETS = text("""
    DELETE FROM facets f
     USING jsonb_to_recordset(CAST(:rows AS jsonb)) AS row(application text, name text, value text, message_id text)
     WHERE f.application = row.application AND f.name = row.name AND f.value = row.value
       AND f.message_id = row.message_id
""")

_DROP_CONTENTS = text("DELETE FROM contents WHERE message_id = ANY(:ids)")

_SCRUB_MESSAGES = text("""
    UPDATE messages m
       SET subject = '', tags = '{}', metadata = '{}', reply_to = '[]', dsn = NULL, template = m.template,
           from_email = CASE WHEN row.sender THEN :nobody ELSE from_email END,
           reverse_path = CASE WHEN row.sender THEN :nobody ELSE reverse_path END,
           from_key = CASE WHEN NOT row.sender THEN from_key END,
           from_name = CASE WHEN NOT row.sender THEN from_name END,
           plan = plan || CASE WHEN plan ? 'deliveries' THEN jsonb_build_object('deliveries', (
               SELECT coalesce(jsonb_agg(d || jsonb_build_object('recipients', (d -> 'recipients') - row.emails)), '[]')
                 FROM jsonb_array_elements(plan -> 'deliveries') AS d)) ELSE '{}' END
      FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS row(id text, sender boolean, emails text[])
     WHERE m.id = row.id
""")

_SCRUB_SENDERS = text("""
    UPDATE deliveries SET sender = '' WHERE message_id = ANY(:ids)
""")

_QUIET_REPLY = 'CASE WHEN {0} IS NOT NULL THEN {0} || \'{{"text": ""}}\' END'

_QUIET_ERROR = """
    CASE WHEN {0} IS NOT NULL THEN jsonb_build_object(
        'code', {0} -> 'code', 'phase', {0} -> 'phase', 'retryable', {0} -> 'retryable',
        'reply', CASE WHEN jsonb_typeof({0} -> 'reply') = 'object' THEN ({0} -> 'reply') || '{{"text": ""}}' END,
        'diagnosis', CASE WHEN jsonb_typeof({0} -> 'diagnosis') = 'object' THEN
            ({0} -> 'diagnosis') || jsonb_build_object('title', {0} -> 'code', 'explanation', CAST(:erased AS text),
                                                       'remedy', jsonb_build_array(CAST(:erased AS text))) END)
    END
"""

_SCRUB_RECIPIENTS = text(f"""
    UPDATE recipients r
       SET email = :nobody, name = NULL, reply = {_QUIET_REPLY.format("r.reply")},
           error = {_QUIET_ERROR.format("r.error")}
      FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS row(message_id text, position smallint)
     WHERE r.message_id = row.message_id AND r.position = row.position
""")  # noqa: S608  (our own words)

_SCRUB_ATTEMPTS = text(f"""
    UPDATE attempts a
       SET transcript = NULL, reply = {_QUIET_REPLY.format("a.reply")}, error = {_QUIET_ERROR.format("a.error")},
           recipients = (
               SELECT jsonb_agg(CASE WHEN (each ->> 'position')::smallint = ANY(row.positions) THEN
                          each || jsonb_build_object('email', CAST(:nobody AS text), 'reply',
                              CASE WHEN jsonb_typeof(each -> 'reply') = 'object'
                                   THEN (each -> 'reply') || '{{"text": ""}}' END)
                      ELSE each END ORDER BY place)
                 FROM jsonb_array_elements(a.recipients) WITH ORDINALITY AS of (each, place))
      FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS row(message_id text, positions smallint[])
     WHERE a.message_id = row.message_id
""")  # noqa: S608

_SCRUB_EVENTS = text(f"""
    UPDATE events e SET reply = {_QUIET_REPLY.format("e.reply")}
      FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS row(message_id text, position smallint)
     WHERE e.message_id = row.message_id AND e.position = row.position AND e.reply IS NOT NULL
""")  # noqa: S608

# Also what is still to be posted: it is signed at each try, and its receiver learns the rest. A payload of another
# shape than `webhook_deliveries.payload` gives it could name anybody.
_SCRUB_WEBHOOKS = text("""
    UPDATE webhook_deliveries d
       SET payload = CASE WHEN jsonb_typeof(told.payload -> 'data') = 'object' THEN
               told.payload || jsonb_build_object('data', (told.payload -> 'data') || jsonb_build_object(
                   'recipient', CAST(:nobody AS text),
                   'reply', CASE WHEN jsonb_typeof(told.payload -> 'data' -> 'reply') = 'object'
                                 THEN (told.payload -> 'data' -> 'reply') || '{"text": ""}' END))
               ELSE '{}' END
      FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS row(message_id text, position smallint)
      JOIN events e ON e.message_id = row.message_id AND e.position = row.position
      JOIN messages m ON m.id = e.message_id
      JOIN webhooks w ON w.application IN (m.application, '')
      JOIN LATERAL (SELECT id, CAST(payload AS jsonb) AS payload FROM webhook_deliveries
                     WHERE webhook_id = w.id AND event_id = e.id) AS told ON true
     WHERE d.id = told.id
""")

_ANSWERS = text("""
    SELECT path, key, application, answer FROM idempotency
     WHERE application = :application AND path = ANY(:paths) AND key = :key FOR UPDATE
""")

_NEW_ANSWER = text("""
    UPDATE idempotency SET answer = :answer WHERE application = :application AND path = :path AND key = :key
""")


async def scrub(db: AsyncConnection, ids: Sequence[str], *, who: str | None = None) -> None:
    """Scrub messages that are over and locked; the caller commits."""
    if not ids:
        return
    messages = (await db.execute(_MESSAGES, {"ids": list(ids)})).all()
    named = [row for row in (await db.execute(_RECIPIENTS, {"ids": list(ids)})) if _is(row.email, who)]
    positions: dict[str, list[int]] = {message.id: [] for message in messages}
    emails: dict[str, list[str]] = {message.id: [] for message in messages}
    for row in named:
        positions[row.message_id].append(row.position)
        emails[row.message_id].append(row.email)
    sent_by = {message.id for message in messages if who is None or message.from_key == who}
    rows = json.dumps([{"message_id": row.message_id, "position": row.position} for row in named])
    words = {"nobody": NOBODY, "erased": _ERASED}
    await db.execute(_DROP_FACETS, {"rows": json.dumps(_facets(messages, emails))})
    await db.execute(_DROP_CONTENTS, {"ids": list(ids)})
    await db.execute(
        _SCRUB_ATTEMPTS,
        {
            "rows": json.dumps([{"message_id": id_, "positions": found} for id_, found in positions.items()]),
            **words,
        },
    )
    await db.execute(_SCRUB_RECIPIENTS, {"rows": rows, **words})
    await db.execute(_SCRUB_EVENTS, {"rows": rows})
    await db.execute(_SCRUB_WEBHOOKS, {"rows": rows, "nobody": NOBODY})
    await db.execute(
        _SCRUB_MESSAGES,
        {
            "rows": json.dumps(
                [{"id": id_, "sender": id_ in sent_by, "emails": found} for id_, found in emails.items()]
            ),
            "nobody": NOBODY,
        },
    )
    await db.execute(_SCRUB_SENDERS, {"ids": sorted(sent_by)})
    await _scrub_answers(db, messages, {email for found in emails.values() for email in found})


def _is(email: str, who: str | None) -> bool:
    return who is None or _key(email) == who


def _key(email: str) -> str:
    try:
        return Address.parse(email).key
    except BadAddress:  # an older release took it
        return email.lower()


def _facets(messages: Sequence[Any], emails: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """List what the messages are found by that goes: everything but their ways and what they were answered with."""
    return [
        {"application": message.application, "name": name, "value": value, "message_id": message.id}
        for message in messages
        for name, value in facets.of_message(
            recipients=[_key(email) for email in emails[message.id]],
            ways=(),
            tags=message.tags,
            metadata=message.metadata,
        )
    ]


async def _scrub_answers(db: AsyncConnection, messages: Sequence[Any], emails: set[str]) -> None:
    """Scrub the first answers that are kept for repeated requests: a repetition stays one."""
    ids = {message.id for message in messages}
    for application, key in {(m.application, m.idempotency_key) for m in messages if m.idempotency_key}:
        where = {"application": application, "key": key}
        for row in (await db.execute(_ANSWERS, {**where, "paths": list(_PATHS)})).all():
            answer = json.loads(row.answer)
            shown = answer["data"] if answer.get("object") == "list" else [answer]
            for each in shown:
                if each.get("id") in ids:
                    _scrub_shown(each, emails)
            await db.execute(_NEW_ANSWER, {**where, "path": row.path, "answer": json.dumps(answer)})


def _scrub_shown(shown: dict[str, Any], emails: set[str]) -> None:
    shown |= {"subject": "", "tags": [], "metadata": {}, "reply_to": [], "plan": {}}
    for recipient in shown.get("recipients", ()):
        if recipient["email"] in emails:
            recipient |= {"email": NOBODY, "name": None}
    if shown.get("from", {}).get("email") in emails:
        shown["from"] = {"email": NOBODY, "name": None}
