"""Examples for the OpenAPI document: one value for each shape, made of its fields.

A word means the same wherever it stands in this API, so an example is put together by the names of the
fields: `email` is always Ana's address, `created_at` the same morning. What a shape says itself
(`json_schema_extra`) goes first; a few fields that mean something else in one shape are listed for it; what
has no name here is told by its type. A new shape therefore has an example without anybody writing one,
and a test holds every example against its schema.

Requests show what is required, answers show everything.
"""

from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]

_ULID = "01JDB6Z0Q5V8W6K3T1E9F4H2RC"
_MORNING = "2026-11-23T19:40:02.114Z"

#: The prefix of an id by the `object` of the shape in which it stands.
_PREFIXES = {
    "message": "msg",
    "attempt": "att",
    "key": "key",
    "template": "tpl",
    "suppression": "sup",
    "suppression_rule": "sru",
    "webhook": "whk",
    "webhook_delivery": "whd",
    "route_check": "chk",
}

#: By shape and field: words that mean something of their own there.
_SPECIAL: Mapping[tuple[str, str], Any] = {
    ("EventOut", "id"): "evt_4711",
    ("EventOut", "type"): "recipient.sent",
    ("EventOut", "status"): "sent",
    ("EventOut", "from_status"): "sending",
    ("EventOut", "diagnosis"): None,
    ("EventOut", "actor"): None,
    ("MessageOut", "status"): "queued",
    ("RecipientOut", "status"): "queued",
    ("RecipientOut", "reply"): None,
    ("MessageOut", "attempts"): 0,
    ("RecipientOut", "attempts"): 0,
    ("AttemptOut", "session"): {
        "host": "smtp.office365.com",
        "port": 587,
        "tls": {"version": "TLSv1.3", "cipher": "TLS_AES_256_GCM_SHA384", "verified": True},
        "login": {"method": "xoauth2", "identity": "noreply@contoso.com"},
    },
    ("AttemptOut", "phase"): "reply",
    ("AddressOut", "email"): "noreply@contoso.com",
    ("AddressOut", "name"): "Contoso",
    ("AttemptOut", "reply"): {"code": 250, "enhanced": "2.0.0", "text": "OK"},
    ("AttemptRecipientOut", "reply"): {"code": 250, "enhanced": "2.1.5", "text": "Recipient OK"},
    ("DiagnosisOut", "title"): "The mailbox may not send as this address",
    ("ReplyOut", "code"): 550,
    ("ReplyOut", "text"): "5.7.60 SMTP; Client does not have permissions to send as this sender",
    ("ReplyOut", "enhanced"): "5.7.60",
    ("RecipientOut", "name"): "Ana",
    ("RouteOut", "name"): "noreply",
    ("RouteLaneOut", "name"): "noreply/noreply@contoso.com",
    ("LaneOut", "name"): "noreply/noreply@contoso.com",
    ("BudgetOut", "name"): "messages_per_minute",
    ("StepOut", "name"): "starttls",
    ("LimitOut", "source"): "Microsoft 365, client submission",
    ("SettingOut", "value"): "smtp.office365.com",
    ("LimitOut", "value"): 30,
    ("RouteOut", "kind"): "client_submission",
    ("CellOut", "value"): "30 messages a minute, 10,000 recipients a day",
    ("ColumnOut", "because"): ["There is a mailbox to log in with."],
    ("ResendTagOut", "value"): "42",
    ("SaidOut", "text"): "Recipients lie inside and outside the organisation.",
    ("MilestoneOut", "text"): "Passwords are off by default.",
    ("TemplateVersionOut", "variables"): ["name"],
    ("TemplateVersionHeadOut", "variables"): ["name"],
    ("RenderingOut", "variables"): ["name"],
}

#: By shape: requests of which nothing is required, or little.
_REQUESTS: Mapping[str, Any] = {
    "CheckIn": {"to": "ana@contoso.com"},
    "KeyChangesIn": {"messages_per_minute": 60},
    "KeyIn": {
        "application": "billing",
        "scopes": ["messages.send", "messages.read"],
        "senders": ["@contoso.com"],
    },
    "KeyRotationIn": {"overlap": "24h"},
    "RotationIn": {"overlap": "24h"},
    "WebhookChangeIn": {"events": ["recipient.failed", "recipient.expired"]},
}

#: By field: what the word means everywhere.
_NAMED: Mapping[str, Any] = {
    "actions": ["cancel", "hold"],
    "admin_centre": ["Exchange admin centre, Mailboxes, noreply: allow authenticated SMTP."],
    "assumed": ["per_minute"],
    "address": "noreply@contoso.com",
    "actor": "key_01JDB6Z0Q5V8W6K3T1E9F4H2RC",
    "application": "billing",
    "asked_by": "billing",
    "attempt": f"att_{_ULID}",
    "bcc": [],
    "because": ["30 messages a minute (Microsoft 365)"],
    "cc": [],
    "checks": {"ledger": "ok", "schema": "ok", "redis": "ok"},
    "code": "send_as_denied",
    "configured": ["noreply"],
    "content_type": "application/pdf",
    "created_by": f"key_{_ULID}",
    "description": "Receipts and invoices",
    "detail": "The mailbox may not send as this address.",
    "diagnosis": "exo.send_as_denied",
    "domain": "contoso.com",
    "drains_because": ["30 messages a minute (Microsoft 365)"],
    "ehlo_name": "postroom.contoso.com",
    "email": "ana@contoso.com",
    "enhanced": "2.1.5",
    "error": None,
    "events": ["recipient.sent", "recipient.failed"],
    "expected_at": "2026-11-23T19:41:14.000Z",
    "expected_because": ["36 messages ahead in this lane", "30 messages a minute (Microsoft 365)"],
    "expires_at": "2026-11-26T19:40:02.114Z",
    "explanation": "The login is right, and the mailbox may not send as the address in From.",
    "feature": "limits",
    "from": "Contoso <noreply@contoso.com>",
    "has_more": False,
    "host": "smtp.office365.com",
    "html": "<p>Thank you for your order.</p>",
    "identity": "noreply@contoso.com",
    "id": f"key_{_ULID}",
    "key": "pr_live_01JDB6Z0Q5V8W6K3T1E9F4H2RC_…",
    "kind": "client_submission",
    "lanes": ["noreply/noreply@contoso.com"],
    "lane": "noreply/noreply@contoso.com",
    "last_error": None,
    "limit": 30,
    "message": f"msg_{_ULID}",
    "message_id": f"<{_ULID.lower()}@contoso.com>",
    "mark": "verified",
    "metadata": {"order_id": "42"},
    "name": "receipt",
    "next": None,
    "note": None,
    "on_uncertain": "resend",
    "option": "client_submission",
    "outcome": "sent",
    "parameters": {},
    "phase": "reply",
    "plan": {
        "deliveries": [
            {
                "route": "noreply",
                "lane": "noreply/noreply@contoso.com",
                "recipients": ["ana@contoso.com"],
                "external_recipients": 0,
            }
        ],
        "why_not": [],
    },
    "pointer": "/to/0",
    "port": 587,
    "powershell": ["Set-CASMailbox noreply@contoso.com -SmtpClientAuthenticationDisabled $false"],
    "priority": "normal",
    "reason": None,
    "recipient": "ana@contoso.com",
    "recipients": ["ana@contoso.com"],
    "remedy": ["Add-RecipientPermission billing@contoso.com -Trustee noreply@contoso.com -AccessRights SendAs"],
    "reply_to": [],
    "request_id": f"req_{_ULID}",
    "resting": None,
    "retryable": False,
    "route": "noreply",
    "scopes": ["messages.send", "messages.read"],
    "see_also": "GET /routes/compare",
    "send_as": ["billing@contoso.com"],
    "senders": ["@contoso.com"],
    "setting": "host",
    "secret": "whsec_…",
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "size": 18234,
    "source": "https://learn.microsoft.com/exchange/mail-flow-best-practices/non-delivery-reports-in-exchange-online",
    "started_at": "2026-11-23T19:41:14.020Z",
    "ended_at": "2026-11-23T19:41:14.310Z",
    "status": "sent",
    "stream": "transactional",
    "subject": "Your receipt",
    "tags": ["receipt"],
    "template": f"tpl_{_ULID}",
    "test": False,
    "text": "Thank you for your order.",
    "then": "The message fails for this recipient.",
    "title": "Client submission",
    "to": ["ana@contoso.com"],
    "type": "recipient.sent",
    "unverified": [],
    "url": "https://billing.contoso.com/hooks/postroom",
    "variables": {"name": "Ana"},
    "version": 1,
    "verdict": "It stops working when Microsoft switches passwords off.",
    "way": "client_submission",
    "what_to_do": ["Log in with OAuth: `login: {method: oauth, …}`."],
    "who": "exchange_admin",
    "why": "The first route of `route_order` that fits every recipient.",
    "window_seconds": 60.0,
    "worker": f"wrk_{_ULID}",
}  # fmt: skip


class Examples:
    """Makes examples for the shapes of one document."""

    def __init__(self, schemas: Mapping[str, Schema]) -> None:
        self._schemas = schemas

    def of(self, schema: Schema, *, whole: bool) -> Any:
        """Make an example; `whole` with every field, else with the required ones."""
        return self._value(schema, owner="", field="", whole=whole, open_shapes=())

    def _value(
        self, schema: Schema, *, owner: str, field: str, whole: bool, open_shapes: tuple[str, ...]
    ) -> Any:
        if "$ref" in schema:
            shape = str(schema["$ref"]).rpartition("/")[2]
            if shape in open_shapes:
                return None
            return self._shape(
                shape, whole=whole, open_shapes=(*open_shapes, shape), field=field, owner=owner
            )
        for found in self._said(schema, owner, field):
            return found
        if branches := schema.get("anyOf") or schema.get("oneOf"):
            # What may be null and has no word of its own is shown as null.
            chosen = next((each for each in branches if each.get("type") == "null"), branches[0])
            return self._value(chosen, owner=owner, field=field, whole=whole, open_shapes=open_shapes)
        if "allOf" in schema:
            return self._value(
                schema["allOf"][0], owner=owner, field=field, whole=whole, open_shapes=open_shapes
            )
        if schema.get("type") == "array":
            items = schema.get("items", {})
            if not items or items.get("$ref", "").rpartition("/")[2] in open_shapes:
                return []
            return [self._value(items, owner="", field="", whole=whole, open_shapes=open_shapes)]
        if schema.get("type") == "object":
            return self._object(schema, owner="", whole=whole, open_shapes=open_shapes)
        return _plain(schema)

    def _shape(self, shape: str, *, whole: bool, open_shapes: tuple[str, ...], field: str, owner: str) -> Any:
        schema = self._schemas[shape]
        if (owner, field) in _SPECIAL:
            return _SPECIAL[owner, field]
        if shape in _REQUESTS and not whole:
            return _REQUESTS[shape]
        for found in (schema.get("examples") or [])[:1]:
            return found
        if schema.get("type") != "object":
            return self._value(schema, owner=owner, field=field, whole=whole, open_shapes=open_shapes)
        return self._object(schema, owner=shape, whole=whole, open_shapes=open_shapes)

    def _object(
        self, schema: Schema, *, owner: str, whole: bool, open_shapes: tuple[str, ...]
    ) -> dict[str, Any]:
        fields: Mapping[str, Schema] = schema.get("properties", {})
        required = set(schema.get("required", ()))
        kind = str(fields.get("object", {}).get("const"))
        shown = {}
        for name, described in fields.items():
            if not whole and name not in required:
                continue
            own = f"{_PREFIXES.get(kind)}_{_ULID}"
            if name == "id" and kind in _PREFIXES and (owner, name) not in _SPECIAL and _fits(own, described):
                shown[name] = own
                continue
            shown[name] = self._value(
                described, owner=owner, field=name, whole=whole, open_shapes=open_shapes
            )
        more = schema.get("additionalProperties")
        if not fields and isinstance(more, dict) and more:
            shown["name"] = self._value(more, owner="", field="", whole=whole, open_shapes=open_shapes)
        return shown

    def _said(self, schema: Schema, owner: str, field: str) -> Iterator[Any]:
        """Give what is known of a field, the surest first."""
        if (owner, field) in _SPECIAL:
            yield _SPECIAL[owner, field]
        yield from schema.get("examples", ())
        for word in ("example", "const", "default"):
            if schema.get(word) is not None:
                yield schema[word]
        yield from schema.get("enum", ())
        if field in _NAMED and _fits(_NAMED[field], schema):
            yield _NAMED[field]


def _fits(value: Any, schema: Schema) -> bool:
    """Say whether a value has the type and the limits of its schema, as far as examples need it."""
    branches = schema.get("anyOf") or schema.get("oneOf")
    if branches:
        return any(_fits(value, each) for each in branches)
    if "$ref" in schema or "enum" in schema or "const" in schema:
        return False
    if schema.get("format") in {"date-time", "date"}:
        return isinstance(value, str) and value[:4].isdigit() and schema["format"] == "date-time"
    kinds: Mapping[str, Any] = {
        "string": str, "integer": int, "number": (int, float), "boolean": bool,
        "array": list, "object": dict, "null": type(None),
    }  # fmt: skip
    kind = schema.get("type")
    if kind is None:
        return True
    if isinstance(value, bool) and kind != "boolean":
        return False
    if kind == "array" and value and "$ref" in schema.get("items", {}):
        return False
    return isinstance(value, kinds[kind])


def _plain(schema: Schema) -> Any:
    """Make a value of which nothing is known but its type."""
    match schema.get("type"), schema.get("format"):
        case "string", "date-time":
            return _MORNING
        case "string", "date":
            return _MORNING[:10]
        case "string", "binary":
            return ""
        case "string", _:
            return "text"
        case "integer", _:
            return schema.get("minimum", 1)
        case "number", _:
            return schema.get("minimum", 1.5)
        case "boolean", _:
            return False
        case _:
            return None
