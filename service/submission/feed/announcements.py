"""What webhooks are told, for the section `webhooks` of the OpenAPI document.

Each event of the feed is posted as Standard Webhooks 1.0 has it (https://www.standardwebhooks.com): a payload
of `type`, `timestamp` and `data`, and the headers `webhook-id`, `webhook-timestamp` and `webhook-signature`.
One entry for each type that a webhook can want: `recipient.` and a state, whose `data` is the event as
`GET /events` shows it, and `webhook.test`.
"""

from typing import Any

from service.ledger.webhooks import TEST, TYPES
from service.submission.contract.examples import Examples

Json = dict[str, Any]

_PAYLOAD, _TEST = "WebhookPayload", "WebhookTestPayload"


def _payload(name: str, told: str, data: Json) -> Json:
    return {
        "title": name,
        "description": told,
        "type": "object",
        "required": ["type", "timestamp", "data"],
        "properties": {
            "type": {"type": "string", "description": "The type of the event."},
            "timestamp": {"type": "string", "format": "date-time", "description": "When it happened."},
            "data": data,
        },
    }


SCHEMAS: Json = {
    _PAYLOAD: _payload(_PAYLOAD, "What a webhook is told.", {"$ref": "#/components/schemas/EventOut"}),
    _TEST: _payload(
        _TEST,
        "What `POST /webhooks/{id}/test` sends.",
        {
            "type": "object",
            "required": ["object", "id", "type", "webhook", "created_at"],
            "properties": {
                "object": {"type": "string", "const": "event"},
                "id": {"type": "string"},
                "type": {"type": "string", "const": TEST},
                "webhook": {"type": "string"},
                "created_at": {"type": "string", "format": "date-time"},
            },
        },
    ),
}

_HEADERS = (
    ("webhook-id", "The event's name: the same in every try, so that a receiver can take it once."),
    ("webhook-timestamp", "When this try was made, in seconds since 1970; refuse what is minutes old."),
    (
        "webhook-signature",
        "`v1,` and the HMAC-SHA256 in base64 of `id.timestamp.body`; several while secrets are rotated.",
    ),
)


def webhooks(examples: Examples) -> Json:
    """Describe every type of event."""
    return {kind: {"post": _operation(kind, examples)} for kind in TYPES}


def _operation(kind: str, examples: Examples) -> Json:
    if kind == TEST:
        shape, summary = _TEST, "A test was asked for"
        event = {
            "object": "event",
            "id": "whd_01JDB6Z0Q5V8W6K3T1E9F4H2RC",
            "type": TEST,
            "webhook": "whk_01JDB6Z0Q5V8W6K3T1E9F4H2RC",
            "created_at": "2026-11-23T19:40:02.114Z",
        }
    else:
        status = kind.removeprefix("recipient.")
        shape, summary = _PAYLOAD, f"A recipient is {status}"
        event = examples.of({"$ref": "#/components/schemas/EventOut"}, whole=True)
        event |= {"type": kind, "status": status}
    payload = {"type": kind, "timestamp": event["created_at"], "data": event}
    return {
        "operationId": f"on_{kind.replace('.', '_')}",
        "tags": ["webhooks"],
        "summary": summary,
        "parameters": [
            {
                "name": name,
                "in": "header",
                "required": True,
                "schema": {"type": "string"},
                "description": told,
            }
            for name, told in _HEADERS
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"$ref": f"#/components/schemas/{shape}"},
                    "example": payload,
                }
            },
        },
        "responses": {
            "2XX": {"description": "Taken; anything else is tried again, up to a day later."},
            "410": {"description": "The receiver wants nothing more: the webhook is disabled."},
        },
    }
