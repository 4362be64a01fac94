"""Every code that a problem can have: its status, where it can come, what it means, and what to do.

The OpenAPI document lists an operation's codes from here, and `docs/errors.md` is written from here
(`python -m service.submission.codes`). A test finds the codes in the source and compares.

`where` names what an operation has to have for a code to be one of its own:

    key             it needs a key                  body        it takes a body
    query           it takes parameters             page        it is a list in pages
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

_ADDRESSES = "AddressIn CheckIn NeedsIn SuppressionIn list_suppressions"
_DRAFT = "MessageIn"

# fmt: off
_TABLE: tuple[tuple[int, str, str, str, str], ...] = (
    # -- the request as a whole --
    (400, "not_json", "body", "The body is not JSON; the detail has line and column.", "Send one JSON object (RFC 8259)."),
    (400, "not_utf8", "body", "The body is not UTF-8.", "Send UTF-8."),
    (400, "not_an_object", "body", "The body is JSON, and not an object.", "Send one JSON object."),
    (400, "too_deep", "body", "The body is nested deeper than 32 levels.", "Send less nesting."),
    (400, "disconnected", "body", "The connection ended in the middle of the body.", "Send the request again, with the same Idempotency-Key."),
    (401, "missing_key", "key", "The request has no key.", "Send `Authorization: Bearer pr_…`."),
    (401, "invalid_key", "key", "The key is not known.", "Check the key; `postroom keys create` makes one."),
    (401, "key_closed", "key", "The key was revoked or has expired.", "Use a new key."),
    (403, "insufficient_scope", "key", "The key lacks the scope that the detail names.", "Use a key with this scope."),
    (403, "sender_not_allowed", _DRAFT, "The key may not send from this address.", "`GET /me` lists the senders of a key."),
    (404, "not_found", "key", "There is no such resource for this key; another application's looks the same.", "Check the id, and which application's key is used."),
    (405, "method_not_allowed", "nowhere", "The path exists, and not with this method.", "Use a method that the OpenAPI document lists."),
    (408, "request_timeout", "body", "The body took too long to arrive.", "Send the request again, with the same Idempotency-Key."),
    (413, "request_too_large", "body", "The body is larger than a request may be.", "Send less, or smaller attachments."),
    (415, "unsupported_media_type", "body", "The body's content type is not for this path.", "Send `application/json`, or what the operation lists."),
    (500, "internal_error", "nowhere", "A bug of Postroom.", "Report the `request_id`; the log has the details under it."),
    (503, "ledger_unavailable", "key", "PostgreSQL cannot be used at the moment; nothing was stored.", "Send the request again after `Retry-After`, with the same Idempotency-Key."),
    (503, "queue_full", "send_message", "Too many messages wait; nothing more is taken until some have gone.", "Send the request again after `Retry-After`."),
    # -- sending once --
    (409, "request_in_progress", "send_message", "The first request under this Idempotency-Key is still running.", "Send it again after `Retry-After`."),
    (422, "idempotency_key_invalid", "send_message", "Idempotency-Key is not one header of 1 to 256 visible ASCII characters.", "Use a UUID, for example."),
    (422, "idempotency_key_reused", "send_message", "This Idempotency-Key was used with another request.", "Take a new key for a new request."),
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
    (422, "literal_error", "body", "This is not one of the possible values.", "The OpenAPI document lists them."),
    (422, "enum", "body", "This is not one of the possible values.", "The OpenAPI document lists them."),
    (422, "string_pattern_mismatch", "body", "This string does not have the form that is needed here.", "The OpenAPI document has the pattern."),
    (422, "model_type", "body", "This has to be an object, or a string where that is possible.", _MEND),
    (422, "model_attributes_type", "body", "This has to be an object, or a string where that is possible.", _MEND),
    # -- queries --
    (422, "unknown_parameter", "query page", "There is a parameter that this endpoint does not know.", "The detail lists the ones that it knows."),
    (422, "repeated", "query page", "A parameter stands twice.", "Give it once."),
    (422, "not_text", "query page", "A parameter holds NUL, or half of a surrogate pair.", "Remove it."),
    (422, "not_an_id", "page", "This is no id of an entry of this list.", "Take it from `next`, or from an entry."),
    (422, "exclusive", "page SuppressionIn", "Two parameters or fields exclude each other: `after` and `before`, `address` and `addresses`.", "Give one of them."),
    (422, "not_a_time", "query MessageIn SuppressionIn", "This is not a time with its offset.", "Write it as RFC 3339: `2026-11-26T19:40:02Z`."),
    (422, "out_of_range", "page MessageIn SuppressionIn SuppressionRuleIn", "A number or a time is out of range.", "The detail says the range."),
    # -- a message --
    (422, "in_the_past", f"{_DRAFT} SuppressionIn", "The time has passed already.", "Give a later one."),
    (422, "too_far", _DRAFT, "The time is too far away.", "Give an earlier one; the detail has the limit."),
    (422, "not_supported_yet", _DRAFT, "This version does not carry out this field.", "Leave it out."),
    (422, "too_many_recipients", _DRAFT, "The message has too many recipients.", "Send several messages."),
    (422, "not_with_raw", _DRAFT, "`raw` is the whole message; this field cannot stand beside it.", "Leave one of them out."),
    (422, "not_base64", _DRAFT, "This is not base64 (RFC 4648, section 4).", "Encode it with the standard alphabet and padding."),
    (422, "message_too_large", _DRAFT, "The message is larger than every route takes; `plan` has the limits.", "Send less, or a link."),
    (422, "no_route", _DRAFT, "No route takes the message; `plan` says for each one why not.", "Choose another sender or route, or configure one: `POST /routes/recommend`."),
    (422, "envelope_missing", "send_message", "A body of message/rfc822 came without its envelope.", "Give `envelope_from` and `envelope_to` in the query."),
    (422, "empty", f"{_DRAFT} SuppressionIn list_suppressions", "There is neither text nor HTML nor an attachment, or a name or address is blank.", "Give it, or leave it out."),
    (422, "too_many", _DRAFT, "There are more headers or attachments than a message may have.", "Send fewer."),
    (422, "control_character", f"{_DRAFT} SuppressionIn list_suppressions", "A line holds a control character or a line break.", "Remove it."),
    (422, "surrogate", f"{_DRAFT} SuppressionIn list_suppressions", "A text holds half of a surrogate pair, which is no character.", "Send whole characters."),
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
    # -- routes --
    (409, "check_in_progress", "check_route", "Another process has been checking this route for too long.", "Ask again after `Retry-After`."),
    (429, "too_many_test_messages", "check_route", "A test message went through this route a moment ago.", "Ask again after `Retry-After`, or without `send_to`."),
    (422, "contradiction", "recommend_route", "Two needs exclude each other.", _MEND),
    (422, "not_a_date", "recommend_route", "This is not a day, as in 2026-11-26.", _MEND),
    (422, "reply_missing", "explain", "There is no text to explain.", "Give it in `reply`."),
    (422, "reply_too_long", "explain", "The text to explain is too long.", "Give the lines around the error."),
    (422, "route_and_kind", "explain", "`route` and `kind` exclude each other.", "Give one of them."),
    (422, "unknown_diagnosis", "SuppressionRuleIn", "There is no such diagnosis in the catalogue.", "`GET /explain?reply=…` names a reply's."),
    (422, "unknown_route", "explain", "There is no such route.", "`GET /routes` lists them."),
    (422, "unknown_kind", "explain", "There is no such kind of route.", "The detail lists them."),
)
# fmt: on

CODES: tuple[Code, ...] = tuple(
    Code(code=code, status=status, where=frozenset(where.split()), means=means, remedy=remedy)
    for status, code, where, means, remedy in _TABLE
)

#: What the framework refuses by itself has this code, with whatever status.
REFUSED = "refused"


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
    yield "Written by `make openapi` from `service/submission/codes.py`."
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
