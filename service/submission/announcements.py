"""What webhooks are told, for the section `webhooks` of the OpenAPI document.

Each event of the feed is posted as Standard Webhooks 1.0 has it (https://www.standardwebhooks.com): a payload
of `type`, `timestamp` and `data`, and the headers `webhook-id`, `webhook-timestamp` and `webhook-signature`.
One entry for each state that a recipient can come to; `data` is the event as `GET /events` shows it.
"""

from typing import Any

from service.ledger.states import Status
from service.submission.examples import Examples

Json = dict[str, Any]

_PAYLOAD = "WebhookPayload"

SCHEMAS: Json = {
    _PAYLOAD: {
        "title": _PAYLOAD,
        "description": "What is posted to a webhook.",
        "type": "object",
        "required": ["type", "timestamp", "data"],
        "properties": {
            "type": {"type": "string", "description": "`recipient.` and the state that was reached."},
            "timestamp": {"type": "string", "format": "date-time", "description": "When it happened."},
            "data": {"$ref": "#/components/schemas/EventOut"},
        },
    }
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
    """Describe every event."""
    return {f"recipient.{status}": {"post": _operation(status, examples)} for status in Status}


def _operation(status: str, examples: Examples) -> Json:
    event = examples.of({"$ref": "#/components/schemas/EventOut"}, whole=True)
    event |= {"type": f"recipient.{status}", "status": status}
    payload = {"type": event["type"], "timestamp": event["created_at"], "data": event}
    return {
        "operationId": f"on_recipient_{status}",
        "tags": ["webhooks"],
        "summary": f"A recipient is {status}",
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
                    "schema": {"$ref": f"#/components/schemas/{_PAYLOAD}"},
                    "example": payload,
                }
            },
        },
        "responses": {
            "2XX": {"description": "Taken; anything else is tried again, up to a day later."},
            "410": {"description": "The receiver wants nothing more: the webhook is disabled."},
        },
    }
