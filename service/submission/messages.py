"""From a request to a submission: validated, composed, planned. No I/O.

    JSON ──> MessageIn ──> Draft ──> octets (fixed from here on) ──> plan ──> NewMessage

Everything that can be refused is refused here, before anything is promised. This is work for
the processor (base64, MIME), so the door runs it in a thread of its own.
"""

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from service.ledger.accepting import NewDelivery, NewMessage, NewRecipient, RecipientType
from service.ledger.ids import new_id
from service.ledger.keys import Key
from service.mail import adopt as adoption
from service.mail.address import Address, BadAddress, Mailbox
from service.mail.adopt import adopt
from service.mail.compose import compose
from service.mail.draft import Attachment, BadDraft, Composed, Draft
from service.mail.message_id import new_message_id
from service.routes.choice import NoRoute, Plan, Rest, RouteBook, Wanted
from service.submission.callers import demand_sender
from service.submission.limits import SubmissionLimits
from service.submission.models import AddressIn, AddressLike, MessageIn
from service.submission.problems import FieldError, Problem, invalid, unprocessable
from service.submission.representation import PRIORITIES
from service.submission.validation import validated

#: Fields of the API that this version does not carry out: refused, never ignored.
_LATER = ("template", "merge", "scheduled_at", "dry_run")

_CONTENT = ("subject", "text", "html", "headers", "attachments", "reply_to")


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """What turns requests into messages."""

    book: RouteBook
    limits: SubmissionLimits
    clock: Callable[[], datetime]

    def from_json(
        self, members: Mapping[str, Any], key: Key, *, resting: Mapping[str, Rest] | None = None
    ) -> NewMessage:
        """Build a message from a JSON object; `resting` has the lanes to pass over. Raises Problem."""
        asked = _validated(members)
        sender = _mailbox(asked.from_, "/from")
        demand_sender(key, sender.address, pointer="/from")
        recipients = _recipients(asked, most=self.limits.recipients)
        now = self.clock()
        message_id = new_message_id(sender.address.domain)
        named: tuple[Address, ...] = ()
        if asked.raw is not None:
            _alone(asked)
            composed, named = _adopted(_decoded(asked.raw, "/raw"), key, message_id=message_id, now=now)
        else:
            composed = _composed(_draft(asked, sender), message_id=message_id, now=now)
        return self._message(
            asked,
            key,
            sender=sender,
            recipients=recipients,
            composed=composed,
            now=now,
            resting=resting or {},
            named=named,
        )

    def from_rfc822(
        self,
        raw: bytes,
        key: Key,
        *,
        envelope_from: str | None,
        envelope_to: Sequence[str],
        resting: Mapping[str, Rest] | None = None,
    ) -> NewMessage:
        """Build a message from a body of `message/rfc822` and the envelope in its query; raises Problem."""
        if not envelope_from or not envelope_to:
            raise unprocessable("", "envelope_missing", "Give envelope_from and envelope_to in the query.")
        members = {"from": envelope_from, "to": list(envelope_to)}
        asked = _validated(members)
        sender = _mailbox(asked.from_, "/from")
        demand_sender(key, sender.address, pointer="/from")
        now = self.clock()
        composed, named = _adopted(raw, key, message_id=new_message_id(sender.address.domain), now=now)
        recipients = _recipients(asked, most=self.limits.recipients)
        return self._message(
            asked,
            key,
            sender=sender,
            recipients=recipients,
            composed=composed,
            now=now,
            resting=resting or {},
            named=named,
        )

    def _message(
        self,
        asked: MessageIn,
        key: Key,
        *,
        sender: Mailbox,
        recipients: "Sequence[_Recipient]",
        composed: Composed,
        now: datetime,
        resting: Mapping[str, Rest],
        named: Sequence[Address],
    ) -> NewMessage:
        plan = self._plan(
            asked,
            key,
            sender=sender,
            recipients=recipients,
            size=len(composed.octets),
            resting=resting,
            authors=tuple(each for each in named if each.key != sender.address.key),
        )
        created_at = now.replace(microsecond=now.microsecond // 1000 * 1000)
        deliveries, delivery_of = [], {}
        for planned in plan.deliveries:
            external = planned.external_recipients > 0
            delivery = NewDelivery(
                id=new_id("dlv"), route=planned.route, lane=planned.lane, external=external
            )
            deliveries.append(delivery)
            delivery_of.update({address.key: delivery for address in planned.recipients})
        return NewMessage(
            id=new_id("msg"),
            application=key.application,
            key_id=key.id,
            test=key.test,
            from_email=str(sender.address),
            from_name=sender.name,
            reply_to=[
                {"email": str(each.address), "name": each.name}
                for each in _mailboxes(asked.reply_to, "/reply_to")
            ],
            reverse_path=str(sender.address),
            sender=sender.address.key,
            from_key=sender.address.key,
            subject=composed.subject,
            message_id=composed.message_id,
            octets=composed.octets,
            sha256=composed.sha256,
            smtputf8=composed.smtputf8 or any(each.mailbox.address.smtputf8 for each in recipients),
            eightbit=composed.eightbit,
            route_requested=asked.route,
            plan=plan.as_json(),
            stream=asked.stream,
            priority=PRIORITIES.index(asked.priority),
            on_uncertain=asked.on_uncertain,
            tags=asked.tags or [],
            metadata=asked.metadata or {},
            created_at=created_at,
            expires_at=self._expiry(asked.expires_at, now=created_at),
            deliveries=deliveries,
            recipients=[
                NewRecipient(
                    position=position,
                    type=each.type,
                    email=str(each.mailbox.address),
                    key=each.mailbox.address.key,
                    name=each.mailbox.name,
                    delivery_id=delivery_of[each.mailbox.address.key].id,
                    external=delivery_of[each.mailbox.address.key].external
                    and self.book.external([each.mailbox.address]) > 0,
                )
                for position, each in enumerate(recipients)
            ],
        )

    def _plan(
        self,
        asked: MessageIn,
        key: Key,
        *,
        sender: Mailbox,
        recipients: "Sequence[_Recipient]",
        size: int,
        resting: Mapping[str, Rest],
        authors: tuple[Address, ...],
    ) -> Plan:
        try:
            return self.book.plan(
                Wanted(
                    sender=sender.address,
                    recipients=tuple(each.mailbox.address for each in recipients),
                    route=asked.route,
                    size=size,
                    stream=asked.stream,
                    test=key.test,
                    resting=resting,
                    authors=authors,
                )
            )
        except NoRoute as refused:
            raise _no_route(refused, asked, test=key.test) from None

    def _expiry(self, written: str | None, *, now: datetime) -> datetime:
        if written is None:
            return now + self.limits.expires_after
        try:
            at = datetime.fromisoformat(written)
        except ValueError:
            at = None
        if at is None or at.tzinfo is None or "T" not in written.upper():
            raise unprocessable(
                "/expires_at",
                "not_a_time",
                "Write the time as RFC 3339, with its offset: 2026-11-26T19:40:02Z.",
            )
        try:
            at = at.astimezone(UTC)
        except OverflowError:
            raise unprocessable("/expires_at", "out_of_range", "The time is out of range.") from None
        if at <= now:
            raise unprocessable("/expires_at", "in_the_past", "The time has passed already.")
        if at - now > self.limits.longest_life:
            days = self.limits.longest_life // timedelta(days=1)
            raise unprocessable("/expires_at", "too_far", f"A message may live {days} days at the most.")
        return at


@dataclass(frozen=True, slots=True)
class _Recipient:
    type: RecipientType
    mailbox: Mailbox


def _validated(members: Mapping[str, Any]) -> MessageIn:
    later = [name for name in _LATER if name in members]
    if later:
        detail = "This version does not carry out this field yet."
        raise invalid(
            [FieldError(pointer=f"/{name}", code="not_supported_yet", detail=detail) for name in later]
        )
    return validated(MessageIn, members)


def _mailbox(given: AddressLike, pointer: str) -> Mailbox:
    try:
        if isinstance(given, AddressIn):
            return Mailbox.of(email=given.email, name=given.name)
        return Mailbox.parse(given)
    except BadAddress as exc:
        raise unprocessable(pointer, exc.code, exc.detail) from None


def _mailboxes(given: object, pointer: str) -> tuple[Mailbox, ...]:
    if given is None:
        return ()
    if isinstance(given, list):
        return tuple(_mailbox(each, f"{pointer}/{index}") for index, each in enumerate(given))
    assert isinstance(given, str | AddressIn)
    return (_mailbox(given, pointer),)


def _recipients(asked: MessageIn, *, most: int) -> list[_Recipient]:
    """Read the recipients in order; who is named twice gets one copy, by the first name."""
    kinds: tuple[tuple[Literal["to", "cc", "bcc"], object], ...] = (
        ("to", asked.to),
        ("cc", asked.cc),
        ("bcc", asked.bcc),
    )
    found: dict[str, _Recipient] = {}
    for kind, given in kinds:
        for mailbox in _mailboxes(given, f"/{kind}"):
            found.setdefault(mailbox.address.key, _Recipient(kind, mailbox))
    if not found:
        raise unprocessable("/to", "required", "A message needs at least one recipient in to, cc or bcc.")
    if len(found) > most:
        raise unprocessable(
            "/to", "too_many_recipients", f"A message may have {most} recipients at the most."
        )
    return list(found.values())


def _alone(asked: MessageIn) -> None:
    beside = [name for name in _CONTENT if getattr(asked, name) is not None]
    if beside:
        detail = "raw is the whole message; this field cannot stand beside it."
        raise invalid([FieldError(pointer=f"/{name}", code="not_with_raw", detail=detail) for name in beside])


def _draft(asked: MessageIn, sender: Mailbox) -> Draft:
    return Draft(
        sender=sender,
        to=_mailboxes(asked.to, "/to"),
        cc=_mailboxes(asked.cc, "/cc"),
        bcc=_mailboxes(asked.bcc, "/bcc"),
        reply_to=_mailboxes(asked.reply_to, "/reply_to"),
        subject=asked.subject,
        text=asked.text,
        html=asked.html,
        headers=asked.headers or {},
        attachments=tuple(
            Attachment(
                filename=each.filename,
                content=_decoded(each.content, f"/attachments/{index}/content"),
                content_type=each.content_type,
                content_id=each.content_id,
                disposition=each.disposition,
            )
            for index, each in enumerate(asked.attachments or ())
        ),
    )


def _decoded(text: str, pointer: str) -> bytes:
    """Read base64 strictly (RFC 4648, section 4); line breaks are allowed, as MIME has them."""
    try:
        compact = text.encode("ascii").translate(None, b"\r\n")
        return base64.b64decode(compact, validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raise unprocessable(pointer, "not_base64", "This is not base64.") from None


def _composed(draft: Draft, *, message_id: str, now: datetime) -> Composed:
    try:
        return compose(draft, message_id=message_id, date=now)
    except BadDraft as exc:
        raise unprocessable(exc.pointer, exc.code, exc.detail) from None


def _adopted(raw: bytes, key: Key, *, message_id: str, now: datetime) -> tuple[Composed, tuple[Address, ...]]:
    """Take a whole message as it is; with it come the authors that its From header names."""
    try:
        composed = adopt(raw, message_id=message_id, date=now)
        named = adoption.authors(composed.octets)
    except BadDraft as exc:
        raise unprocessable("/raw", exc.code, exc.detail) from None
    for author in named:
        demand_sender(key, author, pointer="/raw")
    return composed, named


def _no_route(refused: NoRoute, asked: MessageIn, *, test: bool) -> Problem:
    plan = refused.plan.as_json()
    reasons = {no.code for no in refused.plan.why_not}
    if reasons == {"message_too_large"}:
        detail = "The message is larger than every route takes; see `plan` for the limits."
        return Problem(status=422, code="message_too_large", detail=detail, members={"plan": plan})
    if test:
        detail = "A test key sends to the sandbox only, and no sandbox is configured."
        if refused.plan.why_not and reasons != {"test_key"}:
            detail = "A test key sends to the sandbox only, and the sandbox does not take this message."
    elif asked.route != "auto" and not any(no.code != "not_asked_for" for no in refused.plan.why_not):
        detail = "There is no route of this name."
    else:
        detail = "No route takes this message; `plan` says for each one why not."
    errors = [FieldError(pointer="/route", code="no_route", detail=detail)]
    return Problem(status=422, code="no_route", detail=detail, errors=errors, members={"plan": plan})
