"""Every code that a problem can have: its status, where it can come, what it means, and what to do.

The OpenAPI document lists an operation's codes from here, and `docs/errors.md` is written from here
(`python -m service.submission.contract.codes`). A test finds the codes in the source and compares.

`where` names what an operation has to have for a code to be one of its own:

    key             it needs a key                  body        it takes a body
    parameters      it takes any                    query       it takes some in its query
    page            it is a list in pages
    MessageIn …     that shape, at whatever depth   send_message …   that operation alone

A code of a field stands in `errors[].code`; where one field alone is wrong, it is the problem's code too.
A code never changes its meaning. Clients treat one that they do not know by its status.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """One reason for which a request is refused."""

    code: str
    status: int
    where: frozenset[str]
    means: str
    remedy: str

    def belongs(self, traits: Collection[str]) -> bool:
        """Say whether an operation with these traits can answer with it."""
        return not self.where.isdisjoint(traits)


_MEND = "Correct the field that `errors[].pointer` names."
_ADDRESS = 'Give exactly one address: `a@b`, `"Name <a@b>"` or `{email, name}`.'
_RAW = "Correct the message itself, or send its parts as fields and let Postroom write it."

_SENDS = "send_message send_batch"
_ADDRESSES = (
    "AddressIn CheckIn NeedsIn SuppressionIn ErasureIn list_suppressions list_messages ActIn SettleIn"
)
_DRAFT = "MessageIn BatchItemIn"
_TEMPLATE = "create_template create_template_version render_template TemplateUseIn"

_AGAIN = "retry_message release_message settle_message"
_ACTS = f"cancel_message hold_message reschedule_message {_AGAIN}"

# fmt: off
_TABLE: tuple[tuple[int, str, str, str, str], ...] = (
    # -- the request as a whole --
    (400, "not_json", "body", "The body is not JSON; the detail has line and column.", "Send one JSON object (RFC 8259)."),
    (400, "not_utf8", "body", "The body is not UTF-8.", "Send UTF-8."),
    (400, "not_an_object", "body", "The body is JSON, and not an object.", "Send one JSON object."),
    (400, "too_deep", "body", "The body is nested deeper than 32 levels.", "Send less nesting."),
    (400, "disconnected", "body", "The connection ended in the middle of the body.", "Send the request again, with the same Idempotency-Key."),
    (400, "bad_request", "parameters", "This is not an HTTP request, or its URL cannot be read.", "Send what RFC 9112 describes."),
    (400, "not_an_array", "send_batch", "The body is JSON, and not an array.", "Send one JSON array."),
    (401, "missing_key", "key", "The request has no key.", "Send `Authorization: Bearer pr_…`."),
    (401, "invalid_key", "key", "The key is not known.", "Check the key; `postroom keys create` makes one."),
    (401, "key_closed", "key", "The key was revoked or has expired.", "Use a new key."),
    (401, "invalid_token", "key", "The access token is not one of Entra ID, or its signature is wrong.", "Ask Entra ID for a new token."),
    (401, "token_expired", "key", "The access token has expired.", "Ask Entra ID for a new token."),
    (401, "token_not_yet_valid", "key", "The access token is not valid yet.", "Set the clocks right."),
    (401, "unknown_signing_key", "key", "The access token is signed with a key that the directory does not publish.", "Ask Entra ID for a new token; check `entra.tenant_id`."),
    (401, "wrong_audience", "key", "The access token is for another API.", "Ask for the scope `<audience>/.default`, with the audience that is configured."),
    (401, "wrong_issuer", "key", "The access token was issued by another directory.", "Ask the directory that is configured."),
    (401, "wrong_tenant", "key", "The access token is of another tenant.", "Ask the tenant that is configured."),
    (403, "insufficient_scope", "key", "The key lacks the scope that the detail names.", "Use a key with this scope."),
    (403, "network_not_allowed", "key", "The key may not be used from this network.", "Its `networks` say from which."),
    (403, "delegated_token", "key", "The access token speaks for a person.", "Ask for one by the client credentials grant."),
    (403, "no_roles", "key", "The application has none of Postroom's app roles.", "Assign one in Entra ID, and ask for a new token."),
    (403, "recipient_not_allowed", _DRAFT, "The key may not send to this domain.", "`GET /me` lists the domains of a key."),
    (403, "sender_not_allowed", _DRAFT, "The key may not send from this address.", "`GET /me` lists the senders of a key."),
    (404, "not_found", "key", "There is no such resource for this key; another application's looks the same.", "Check the id, and which application's key is used."),
    (404, "no_metrics", "get_metrics", "The figures are on another port, or switched off.", "Ask the port that `metrics.port` names; `metrics.enabled` says whether there are any."),
    (405, "method_not_allowed", "nowhere", "The path exists, and not with this method.", "Use a method that the OpenAPI document lists."),
    (408, "request_timeout", "body", "The body took too long to arrive.", "Send the request again, with the same Idempotency-Key."),
    (413, "too_many_values", "body", "The body holds more than 1,200,000 values and names.", "Send files as base64, and less at a time."),
    (413, "request_too_large", "body", "The body is larger than a request may be.", "Send less, or smaller attachments."),
    (415, "unsupported_media_type", "body", "The body's content type is not for this path.", "Send `application/json`, or what the operation lists."),
    (429, "too_many_wrong_keys", "key", "Too many wrong keys came from this address; known ones still work.", "Correct the key, and wait for `Retry-After`."),
    (429, "quota_exceeded", _SENDS, "The key has sent what it may in this minute or day; `RateLimit` has the figures.", "Send the request again after `Retry-After`."),
    (431, "head_too_large", "parameters", "The request's head is larger than 64 kB.", "Send less in the URL and the headers."),
    (500, "internal_error", "nowhere", "A bug of Postroom.", "Report the `request_id`; the log has the details under it."),
    (503, "ledger_unavailable", "key", "PostgreSQL cannot be used at the moment; nothing was stored.", "Send the request again after `Retry-After`, with the same Idempotency-Key."),
    (503, "busy", "key", "There are too many connections or large requests at the moment.", "Send the request again after `Retry-After`."),
    (503, "entra_unavailable", "key", "The keys of Entra ID cannot be had at the moment, so the token cannot be judged.", "Try again after `Retry-After`; API keys work as ever."),
    (503, "rendering_busy", "TemplateUseIn render_template", "Too many templates are being rendered at the moment.", "Send the request again after `Retry-After`."),
    (503, "queue_full", _SENDS, "Too many messages wait; nothing more is taken until some have gone.", "Send the request again after `Retry-After`."),
    # -- sending once --
    (409, "request_in_progress", _SENDS, "The first request under this Idempotency-Key is still running.", "Send it again after `Retry-After`."),
    (422, "idempotency_key_invalid", _SENDS, "Idempotency-Key is not one header of 1 to 256 visible ASCII characters.", "Use a UUID, for example."),
    (422, "idempotency_key_reused", _SENDS, "This Idempotency-Key was used with another request.", "Take a new key for a new request."),
    (422, "duplicate_idempotency_key", _SENDS, "Two messages of one request have the same idempotency key.", "Give each its own."),
    # -- JSON, and the form of fields --
    (422, "invalid", "body query", "Several fields are wrong; `errors` has each one.", _MEND),
    (422, "required", "body", "A field is missing.", "Give the field."),
    (422, "unknown_field", "body", "There is a field that this endpoint does not know.", "Check its spelling in the OpenAPI document."),
    (422, "duplicate_name", "body", "A name stands twice in one object.", "Send each name once."),
    (422, "not_a_number", "body", "NaN and Infinity are no JSON numbers.", "Send a number, a string or null."),
    (422, "number_too_large", "body", "A number is larger than JSON can carry exactly (2^53).", "Send it as a string."),
    (422, "nul", "body", "A string holds the character NUL.", "Remove it."),
    (422, "lone_surrogate", "body", "A string holds half of a surrogate pair, which is no character.", "Send whole characters."),
    (422, "string_type", "body", "This has to be a string.", _MEND),
    (422, "list_type", "body", "This has to be a list.", _MEND),
    (422, "dict_type", "body", "This has to be an object.", _MEND),
    (422, "bool_type", "body", "This has to be true or false.", _MEND),
    (422, "int_type", "body", "This has to be an integer.", _MEND),
    (422, "float_type", "body", "This has to be a number.", _MEND),
    (422, "none_required", "body", "This has to be null where it is given.", _MEND),
    (422, "string_too_long", "body query", "This string is too long.", _MEND),
    (422, "string_too_short", "body", "This string is too short.", _MEND),
    (422, "too_long", "body list_suppressions", "There are too many entries or characters here.", _MEND),
    (422, "too_short", "body", "There are too few entries here.", _MEND),
    (422, "greater_than_equal", "body", "This number is too small.", _MEND),
    (422, "less_than_equal", "body", "This number is too large.", _MEND),
    (422, "literal_error", "body query", "This is not one of the possible values.", "The OpenAPI document lists them."),
    (422, "enum", "body", "This is not one of the possible values.", "The OpenAPI document lists them."),
    (422, "string_pattern_mismatch", "body query", "This string does not have the form that is needed here.", "The OpenAPI document has the pattern."),
    (422, "model_type", "body", "This has to be an object, or a string where that is possible.", _MEND),
    (422, "model_attributes_type", "body", "This has to be an object, or a string where that is possible.", _MEND),
    # -- queries --
    (422, "unknown_parameter", "query page", "There is a parameter that this endpoint does not know.", "The detail lists the ones that it knows."),
    (422, "repeated", "query page", "A parameter stands twice.", "Give it once."),
    (422, "not_text", "query page", "A parameter holds NUL, or half of a surrogate pair.", "Remove it."),
    (422, "not_an_id", "page", "This is no id of an entry of this list.", "Take it from `next`, or from an entry."),
    (422, "unknown_event", "list_events ReplayIn", "The feed has no such event.", "Begin without it."),
    (422, "unknown_type", "list_events WebhookIn WebhookChangeIn", "There is no such type of event.", "The types are `recipient.` and a state."),
    (422, "not_a_version", "list_template_versions get_template_version", "This is not the number of a version.", "Versions are numbered from 1."),
    (422, "exclusive", "page SuppressionIn", "Two parameters or fields exclude each other: `after` and `before`, `address` and `addresses`.", "Give one of them."),
    (422, "not_a_time", "body query", "This is not a time with its offset.", "Write it as RFC 3339: `2026-11-26T19:40:02Z`."),
    (422, "out_of_range", "body query", "A number or a time is out of range.", "The detail says the range."),
    # -- a message --
    (422, "in_the_past", f"{_DRAFT} SuppressionIn RescheduleIn", "The time has passed already.", "Give a later one."),
    (422, "before_scheduled_at", f"{_DRAFT} RescheduleIn", "The message would end before it is sent.", "Give a later `expires_at`."),
    (422, "too_far", f"{_DRAFT} RescheduleIn", "The time is too far away.", "Give an earlier one; the detail has the limit."),
    (422, "never_alone", "DsnIn", "`never` stands alone (RFC 3461, section 4.1).", "Leave the others out."),
    (422, "not_with_template", _DRAFT, "The template has this field already.", "Leave one of them out."),
    (422, "not_with_merge", _DRAFT, "`merge` names the recipients.", "Leave one of them out."),
    (422, "not_in_a_batch", "BatchItemIn", "A message of a batch cannot have this field.", "Use `POST /messages` or `POST /messages/plan`."),
    (422, "not_supported_yet", _DRAFT, "This version does not carry out this field.", "Leave it out."),
    (422, "batch_size", "send_batch", "A batch has no messages, or more than 500.", "Send 1 to 500 at a time."),
    (422, "more_than_quota", _SENDS, "The request has more messages than the key may ever send in a minute or a day.", "Send fewer at a time; `GET /me` has the quota."),
    (422, "too_many_recipients", _DRAFT, "The message, or all messages of the request together, have too many recipients.", "Send several messages, or several requests."),
    (422, "not_with_raw", _DRAFT, "`raw` is the whole message; this field cannot stand beside it.", "Leave one of them out."),
    (422, "not_base64", _DRAFT, "This is not base64 (RFC 4648, section 4).", "Encode it with the standard alphabet and padding."),
    (422, "message_too_large", _DRAFT, "The message is larger than every route takes; `plan` has the limits.", "Send less, or a link."),
    (422, "no_route", _DRAFT, "No route takes the message; `plan` says for each one why not.", "Choose another sender or route, or configure one: `POST /routes/recommend`."),
    (422, "envelope_missing", "send_message", "A body of message/rfc822 came without its envelope.", "Give `envelope_from` and `envelope_to` in the query."),
    (422, "empty", f"{_DRAFT} {_ADDRESSES}", "There is neither text nor HTML nor an attachment, or a name or address is blank.", "Give it, or leave it out."),
    (422, "too_many", _DRAFT, "There are more headers or attachments than a message may have.", "Send fewer."),
    (422, "control_character", f"{_DRAFT} {_ADDRESSES}", "A line holds a control character or a line break.", "Remove it."),
    (422, "surrogate", f"{_DRAFT} {_ADDRESSES}", "A text holds half of a surrogate pair, which is no character.", "Send whole characters."),
    (422, "duplicate_header", _DRAFT, "A header is given twice.", "Give it once."),
    (422, "bad_header_name", _DRAFT, "A header's name is not 1 to 76 letters, digits or hyphens.", _MEND),
    (422, "bad_header_value", _DRAFT, "A header that machines read has a value that is not plain ASCII.", _MEND),
    (422, "forbidden_header", _DRAFT, "A header is Postroom's own.", "Use the message's own fields for it."),
    (422, "header_too_large", _DRAFT, "The header is too large.", "Send fewer or shorter headers."),
    (422, "path", _DRAFT, "A file name has a path.", "Give the name alone."),
    (422, "bad_content_type", _DRAFT, "A content type does not have the form `type/subtype; name=value`.", _MEND),
    (422, "content_type_refused", _DRAFT, "An attachment cannot have this content type.", "Give another one, such as application/octet-stream."),
    (422, "bad_content_id", _DRAFT, "A content id is not visible ASCII, or too long.", _MEND),
    (422, "duplicate_content_id", _DRAFT, "A content id is used twice.", "Give each file its own."),
    (422, "bad_disposition", _DRAFT, "The disposition is neither `attachment` nor `inline`.", _MEND),
    # -- a whole message, as `raw` or message/rfc822 --
    (422, "bare_line_end", _DRAFT, "The whole message mixes line ends: a CR or LF stands alone.", _RAW),
    (422, "line_too_long", _DRAFT, "A line of the whole message is too long.", _RAW),
    (422, "bad_folding", _DRAFT, "A header line that continues another is blank or comes first.", _RAW),
    (422, "bad_header", _DRAFT, "A header line has no name with a colon right behind it.", _RAW),
    (422, "header_not_utf8", _DRAFT, "The header is neither ASCII nor UTF-8.", _RAW),
    (422, "encoded_line_break", _DRAFT, "An encoded word of the header holds a line break.", _RAW),
    (422, "from_missing", _DRAFT, "The whole message has no From.", _RAW),
    (422, "bad_from", _DRAFT, "From cannot be read.", _RAW),
    (422, "sender_missing", _DRAFT, "A message with more than one author needs a Sender.", _RAW),
    (422, "bad_sender", _DRAFT, "Sender is not one mailbox.", _RAW),
    (422, "bad_date", _DRAFT, "Date is not a date.", _RAW),
    (422, "bad_message_id", _DRAFT, "Message-ID does not have the form `<left@right>`.", _RAW),
    # -- addresses --
    (422, "no_at", _ADDRESSES, "There is no `@`.", _ADDRESS),
    (422, "several", _ADDRESSES, "A comma stands outside quotes.", _ADDRESS),
    (422, "several_at", _ADDRESSES, "There is more than one `@` outside quotes.", _ADDRESS),
    (422, "group", _ADDRESSES, "Groups and lists are not accepted.", _ADDRESS),
    (422, "comment", _ADDRESSES, "Comments in parentheses are not accepted.", _ADDRESS),
    (422, "angle_brackets", _ADDRESSES, "Angle brackets do not stand around one address at the end.", _ADDRESS),
    (422, "needs_quotes", _ADDRESSES, "A character needs double quotes around the name.", _ADDRESS),
    (422, "space", _ADDRESSES, "There is a space outside quotes.", _ADDRESS),
    (422, "source_route", _ADDRESSES, "Source routes are not accepted.", _ADDRESS),
    (422, "encoded_word", _ADDRESSES, "Encoded words are not accepted.", "Give the name in UTF-8."),
    (422, "quote_unclosed", _ADDRESSES, "A double quote is not closed.", _ADDRESS),
    (422, "name_too_long", _ADDRESSES, "The display name is too long.", "Give a shorter one."),
    (422, "local_empty", _ADDRESSES, "The part before the `@` is empty.", _ADDRESS),
    (422, "local_dots", _ADDRESSES, "The part before the `@` begins or ends with a dot, or has two together.", _ADDRESS),
    (422, "local_quotes", _ADDRESSES, "Quotes stand in the middle of the part before the `@`.", _ADDRESS),
    (422, "local_character", _ADDRESSES, "The part before the `@` has a character that it cannot have.", _ADDRESS),
    (422, "local_too_long", _ADDRESSES, "The part before the `@` has more than 64 octets.", _ADDRESS),
    (422, "domain_empty", _ADDRESSES, "The domain is empty.", _ADDRESS),
    (422, "domain_literal", _ADDRESSES, "An IP address in brackets is no domain that can be used.", _ADDRESS),
    (422, "domain_idna", _ADDRESSES, "The domain is no internationalised domain name.", _ADDRESS),
    (422, "domain_syntax", _ADDRESSES, "The domain does not have the form of a domain.", _ADDRESS),
    (422, "domain_too_long", _ADDRESSES, "The domain has more than 255 octets.", _ADDRESS),
    # -- acts on a message --
    # -- templates --
    (409, "name_taken", "TemplateIn TemplateChangeIn", "Another template of the application has this name.", "Take another name."),
    (422, "name_invalid", "TemplateIn TemplateChangeIn", "A name has printable characters, no space at its ends, and does not begin with `tpl_`.", _MEND),
    (422, "template_not_found", "TemplateUseIn", "There is no such template, or no such version of it.", "`GET /templates` lists them."),
    (422, "template_not_published", "TemplateUseIn render_template", "No version of the template is published.", "Publish one, or name a version."),
    (422, "template_version_not_found", "publish_template render_template", "The template has no version of this number.", "`GET /templates/{id}/versions` lists them."),
    (422, "template_syntax", _TEMPLATE, "The template cannot be read; the detail has the line.", "Correct it."),
    (422, "template_forbidden", _TEMPLATE, "The template asks for what a template may not have.", "Correct it; the detail says what it was."),
    (422, "template_variable_missing", _TEMPLATE, "The template needs a variable that was not given; the detail names it.", "Give it, or a default in the template."),
    (422, "template_failed", _TEMPLATE, "The template failed with these variables; the detail has the line.", "Correct the template or the variables."),
    (422, "template_limit_exceeded", _TEMPLATE, "The template takes too much time, memory or output.", "Make it smaller."),
    (422, "template_subject_not_one_line", _TEMPLATE, "The subject holds a line break with these variables.", "Correct the template or the variables."),
    (422, "template_not_text", _TEMPLATE, "What is rendered holds NUL, or half of a surrogate pair.", "Correct the variables."),
    # -- keys --
    (409, "key_closed", "KeyChangesIn KeyRotationIn", "The key was revoked or has expired.", "Make a new one."),
    (409, "key_replaced", "KeyRotationIn", "Another key has taken the place of this one already.", "Revoke that one to rotate this one again."),
    (409, "not_a_key", "rotate_own_key", "The caller came with an access token, which Entra ID renews.", "Ask Entra ID for a new token."),
    (422, "unknown_scope", "KeyIn KeyChangesIn", "There is no such scope.", "`GET /me` shows the form; the guide lists the scopes."),
    (422, "not_a_sender", "KeyIn KeyChangesIn", "This is neither an address nor `@` and a domain.", _MEND),
    (422, "not_a_domain", "KeyIn KeyChangesIn", "This is not a domain.", _MEND),
    (422, "not_a_network", "KeyIn KeyChangesIn", "This is not a network such as 10.0.0.0/8.", _MEND),
    (422, "not_printable", "KeyIn KeyChangesIn", "A name is 1 to 100 printable characters.", _MEND),
    # -- webhooks --
    (409, "too_many_webhooks", "create_webhook", "The application has as many webhooks as it may have.", "Delete one first."),
    (409, "webhook_disabled", "test_webhook replay_webhook replay_webhook_delivery", "The webhook is disabled; `disabled_reason` and `last_error` say why.", "Enable it with PATCH first."),
    (422, "not_an_address", "WebhookIn WebhookChangeIn", "This is not the address of a web server.", "Write `https://host/path`."),
    (422, "login_in_address", "WebhookIn WebhookChangeIn", "There is a user name or password in the address.", "Leave it out; the signature says who calls."),
    (422, "fragment", "WebhookIn WebhookChangeIn", "There is a fragment (`#…`) in the address.", "Leave it out."),
    (422, "http_not_allowed", "WebhookIn WebhookChangeIn", "The address is not https.", "Use https."),
    (422, "address_not_allowed", "WebhookIn WebhookChangeIn", "The address leads into a private or reserved network.", "Use another host, or allow the network in the configuration."),
    (422, "null", "WebhookChangeIn", "This field has no null.", "Leave it out to keep it."),
    (429, "too_many_streams", "list_events", "There are as many streams of events as there may be.", "Poll `GET /events`, or share a stream."),
    # -- acts on messages --
    (403, "test_key", _ACTS, "A test key acts on messages of test keys only.", "Use a live key of the application."),
    (409, "attempt_running", _ACTS, "An attempt has the recipients in hand at this moment.", "Ask again after `Retry-After`, when it has ended."),
    (409, "not_cancelable", "cancel_message", "Nothing of the message waits any more; the detail says how it stands.", "Nothing: what is sent cannot be called back."),
    (409, "not_retryable", "retry_message", "Nothing of the message has failed, expired or been canceled, or is deferred.", "Nothing; an uncertain recipient is settled instead."),
    (409, "not_holdable", "hold_message", "Nothing of the message waits to be sent.", "Nothing; the detail says how it stands."),
    (409, "not_held", "release_message", "Nothing of the message is held.", "Nothing; the detail says how it stands."),
    (409, "not_uncertain", "settle_message", "Nothing of the message is uncertain.", "Nothing; the detail says how it stands."),
    (409, "not_scheduled", "reschedule_message", "The message does not wait for its time, or was tried already.", "Hold or cancel it, if it waits."),
    (409, "lane_gone", _AGAIN, "The configuration no longer has the lane, and no other route takes the recipients; `plan` says why not.", "Configure the route again, or another one that takes them."),
    (409, "content_not_kept", _AGAIN, "The content is no longer kept, or was erased.", "Send a new message."),
    (409, "suppressed", _AGAIN, "The addresses are suppressed.", "Lift the entry that `GET /suppressions` shows, then retry."),
    (422, "not_a_recipient", "ActIn SettleIn", "The message has no such recipient.", "Name addresses as the message has them."),
    # -- what was sent --
    (404, "attachment_not_found", "get_content", "The message has no attachment of this number.", "They are counted from 0, in the order of `attachments`."),
    (503, "content_sealed", "get_content", "The content is sealed with a key that the configuration does not have.", "Configure it as previous_encryption_key; then the workers seal it anew."),
    (410, "content_gone", "get_content", "The content is no longer kept; the message and its ledger are.", "Nothing: it cannot be brought back."),
    # -- routes --
    (409, "check_in_progress", "check_route", "Another process has been checking this route for too long.", "Ask again after `Retry-After`."),
    (429, "too_many_test_messages", "check_route", "A test message went through this route a moment ago.", "Ask again after `Retry-After`, or without `send_to`."),
    (422, "contradiction", "recommend_route", "Two needs exclude each other.", _MEND),
    (422, "not_a_date", "recommend_route", "This is not a day, as in 2026-11-26.", _MEND),
    (422, "reply_missing", "explain", "There is no text to explain.", "Give it in `reply`."),
    (422, "reply_too_long", "explain", "The text to explain is too long.", "Give the lines around the error."),
    (422, "route_and_kind", "explain", "`route` and `kind` exclude each other.", "Give one of them."),
    (422, "unknown_diagnosis", "SuppressionRuleIn", "There is no such diagnosis in the catalogue.", "`GET /explain?reply=…` names a reply's."),
    (422, "unknown_route", "explain KeyIn KeyChangesIn", "There is no such route.", "`GET /routes` lists them."),
    (422, "unknown_kind", "explain", "There is no such kind of route.", "The detail lists them."),
)
# fmt: on

CODES: tuple[Code, ...] = tuple(
    Code(code=code, status=status, where=frozenset(where.split()), means=means, remedy=remedy)
    for status, code, where, means, remedy in _TABLE
)

#: What the framework refuses by itself has this code, with whatever status.
REFUSED = "refused"


#: What stands under `/emails` only, where problems have Resend's form.
RESEND = frozenset({"message_busy", "not_in_this_state"})


def codes_of(traits: Collection[str], status: int) -> list[Code]:
    """List the codes with which an operation of these traits can answer under this status."""
    return [each for each in CODES if each.status == status and each.belongs(traits)]


def page() -> str:
    """Write `docs/errors.md`."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield "# Errors"
    yield ""
    yield (
        "Every refusal is `application/problem+json` (RFC 9457) with `status`, `code`, `detail`, `request_id`, "
        "`retryable` and `errors`, one entry for each wrong field with its `pointer` (RFC 6901), `code` and "
        "`detail`. The pointer of a parameter is `?name`. Where one field alone is wrong, its code is the "
        "problem's too. Codes keep their meaning; new ones may come, so treat one that you do not know by its "
        "status. `retryable` says that the same request may succeed later: after `Retry-After`, with the same "
        "`Idempotency-Key`."
    )
    yield ""
    yield "Written by `make openapi` from `service/submission/contract/codes.py`."
    yield ""
    yield "| status | code | meaning | what to do |"
    yield "|---|---|---|---|"
    for each in sorted(CODES, key=lambda each: each.status):
        yield f"| {each.status} | `{each.code}` | {_cell(each.means)} | {_cell(each.remedy)} |"
    yield ""


def _cell(text: str) -> str:
    return re.sub(r"([|])", r"\\\1", text)


def main() -> None:
    """Print the page."""
    print(page(), end="")


if __name__ == "__main__":
    main()
