"""Insert new messages with all that belongs to them, in one statement.

One statement is one round trip and, sent by itself, one transaction, so many messages cost little more
than one. Idempotency keys are inserted plainly: where one is taken already, the whole statement fails
with a unique violation and nothing is written; `accepting` then looks at each submission by itself. So it
does where another transaction has the same key in hand for more than a moment.

The statement's parts see the same instant (`now()` is the transaction's): a delivery and its recipients
are due together, so no claim can find the one due and the others not.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from service.ledger import facets
from service.ledger.engine import as_json
from service.ledger.sealing import UNSEALED, Seal

if TYPE_CHECKING:
    from service.ledger.accepting import NewMessage, Reservation

INSERT = """
    WITH reserved AS (
        INSERT INTO idempotency (application, path, key, sha256, answer)
        SELECT row.* FROM (SELECT set_config('lock_timeout', '100ms', true)) AS patience (set),
               jsonb_to_recordset($1::jsonb)
                   AS row(application text, path text, key text, sha256 text, answer text)
         WHERE patience.set IS NOT NULL
         ORDER BY application, path, key
    ), messages AS (
        INSERT INTO messages (id, application, key_id, test, from_email, from_name, reply_to, reverse_path,
            subject, message_id, size, sha256, smtputf8, eightbit, route_requested, plan, stream, priority,
            on_uncertain, tags, metadata, created_at, expires_at, scheduled_at, from_key, idempotency_key,
            template, dsn, traceparent)
        SELECT id, application, key_id, test, from_email, from_name, reply_to, reverse_path,
            subject, message_id, size, sha256, smtputf8, eightbit, route_requested, plan, stream, priority,
            on_uncertain, ARRAY(SELECT jsonb_array_elements_text(tags)), metadata, created_at, expires_at,
            scheduled_at, from_key, idempotency_key, template, dsn, traceparent
          FROM jsonb_to_recordset($2::jsonb) AS row(
            id text, application text, key_id text, test boolean, from_email text, from_name text,
            reply_to jsonb, reverse_path text, subject text, message_id text, size integer, sha256 text,
            smtputf8 boolean, eightbit boolean, route_requested text, plan jsonb, stream text,
            priority smallint, on_uncertain text, tags jsonb, metadata jsonb, created_at timestamptz,
            expires_at timestamptz, scheduled_at timestamptz, from_key text, idempotency_key text,
            template jsonb, dsn jsonb, traceparent text)
    ), contents AS (
        INSERT INTO contents (message_id, octets) SELECT * FROM unnest($3::text[], $4::bytea[])
    ), deliveries AS (
        INSERT INTO deliveries (id, message_id, application, route, lane, sender, priority, external, size,
            due_at, expires_at)
        SELECT id, message_id, application, route, lane, sender, priority, external, size,
               coalesce(scheduled_at, now()), expires_at
          FROM jsonb_to_recordset($5::jsonb) AS row(
            id text, message_id text, application text, route text, lane text, sender text,
            priority smallint, external boolean, size integer, expires_at timestamptz,
            scheduled_at timestamptz)
    ), facets AS (
        INSERT INTO facets (application, name, value, message_id)
        SELECT * FROM jsonb_to_recordset($6::jsonb)
                   AS row(application text, name text, value text, message_id text)
    )
    INSERT INTO recipients (message_id, position, type, email, name, external, status, delivery_id, due_at,
        application, reason, error, finished_at)
    SELECT message_id, position, type, email, name, external, status, delivery_id,
           CASE WHEN delivery_id IS NOT NULL THEN coalesce(scheduled_at, now()) END,
           application, error ->> 'code', error, CASE WHEN delivery_id IS NULL THEN now() END
      FROM jsonb_to_recordset($7::jsonb) AS row(
        message_id text, position smallint, type text, email text, name text, external boolean, status text,
        delivery_id text, scheduled_at timestamptz, application text, error jsonb)
     ORDER BY message_id, position
"""


def arguments(
    messages: Sequence["NewMessage"],
    reservations: Iterable[tuple[str, "Reservation"]] = (),
    *,
    seal: Seal = UNSEALED,
) -> tuple[object, ...]:
    """Give the values of `INSERT`; `reservations` are keys with the applications that they belong to."""
    # Texts go as JSON: the driver looks at each element of an array for a long time.
    return (
        as_json(
            [
                {
                    "application": application,
                    "path": each.key.path,
                    "key": each.key.key,
                    "sha256": each.key.sha256,
                    "answer": each.answer,
                }
                for application, each in reservations
            ]
        ),
        as_json([_message(message) for message in messages]),
        [message.id for message in messages],
        [seal.close_octets(message.octets, purpose=message.id) for message in messages],
        as_json([row for message in messages for row in _deliveries(message)]),
        as_json(
            [
                {"application": application, "name": name, "value": value, "message_id": message_id}
                for application, name, value, message_id in sorted(
                    [row for message in messages for row in _facets(message)]
                )
            ]
        ),
        as_json([row for message in messages for row in _recipients(message)]),
    )


def _facets(message: "NewMessage") -> list[tuple[str, str, str, str]]:
    found = facets.of_message(
        recipients=[recipient.key for recipient in message.recipients],
        ways=[(delivery.route, delivery.lane) for delivery in message.deliveries],
        tags=message.tags,
        metadata=message.metadata,
        errors=[recipient.suppressed for recipient in message.recipients if recipient.suppressed],
    )
    return [(message.application, name, value, message.id) for name, value in found]


def _deliveries(message: "NewMessage") -> list[dict[str, object]]:
    return [
        {
            "id": delivery.id,
            "message_id": message.id,
            "application": message.application,
            "route": delivery.route,
            "lane": delivery.lane,
            "sender": message.sender,
            "external": delivery.external,
            "priority": message.priority,
            "size": len(message.octets),
            "expires_at": message.expires_at,
            "scheduled_at": message.scheduled_at,
        }
        for delivery in message.deliveries
    ]


def _recipients(message: "NewMessage") -> list[dict[str, object]]:
    return [
        {
            "message_id": message.id,
            "position": recipient.position,
            "type": recipient.type,
            "email": recipient.email,
            "name": recipient.name,
            "external": recipient.external,
            "status": message.status_of(recipient),
            "delivery_id": recipient.delivery_id,
            "scheduled_at": message.scheduled_at,
            "application": message.application,
            "error": recipient.suppressed,
        }
        for recipient in message.recipients
    ]


def _message(message: "NewMessage") -> dict[str, object]:
    return {
        "id": message.id,
        "application": message.application,
        "key_id": message.key_id,
        "test": message.test,
        "from_email": message.from_email,
        "from_name": message.from_name,
        "reply_to": message.reply_to,
        "reverse_path": message.reverse_path,
        "subject": message.subject,
        "message_id": message.message_id,
        "size": len(message.octets),
        "sha256": message.sha256,
        "smtputf8": message.smtputf8,
        "eightbit": message.eightbit,
        "route_requested": message.route_requested,
        "plan": message.plan,
        "stream": message.stream,
        "priority": message.priority,
        "on_uncertain": message.on_uncertain,
        "tags": message.tags,
        "metadata": message.metadata,
        "created_at": message.created_at,
        "expires_at": message.expires_at,
        "scheduled_at": message.scheduled_at,
        "from_key": message.from_key,
        "idempotency_key": message.idempotency_key,
        "template": message.template,
        "dsn": message.dsn,
        "traceparent": message.traceparent,
    }
