"""From what was asked to a message: validated, composed, planned. No I/O.

    JSON ──> MessageIn ──> Asked ──> Addressed ──> (a template's content, the suppressed) ──> NewMessage

An `Asked` is one message, wherever it stood in the request: alone, in a batch, or as one copy of a
`merge`. Everything that can be refused is refused here, before anything is promised, with a pointer to
its place in the request. From `compose` on the octets are fixed. It is work for the processor (base64,
MIME), so the desk runs what is large in a thread of its own.
"""

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
from service.submission.limits import SubmissionLimits
from service.submission.models import AddressIn, AddressLike, BatchItemIn, MergeItemIn, MessageIn
from service.submission.problems import FieldError, Problem, invalid, unprocessable
from service.submission.representation import PRIORITIES
from service.submission.who.callers import demand_recipient, demand_sender

_CONTENT = ("subject", "text", "html", "headers", "attachments", "reply_to", "template")


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What a template was rendered to, and which one it was."""

    subject: str
    text: str | None
    html: str | None
    template: Mapping[str, Any]  # id, version


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)  # each one is itself, whatever it says
class Asked:
    """One message as it was asked for."""

    shape: MessageIn
    at: tuple[object, ...] = ()  # where it stands in the request: (3,) in a batch, ("merge", 2)
    own: frozenset[str] | None = None  # of a merge: the members that stand there; None: all
    idempotency_key: str | None = None  # of its own
    raw: bytes | None = None  # the whole message, where it came as message/rfc822
    variables: Mapping[str, Any] = field(default_factory=dict)  # of the template

    def misplaced(self, problem: Problem) -> Problem:
        """Let a problem's pointers begin at the root of the request."""
        if self.raw is not None:
            return in_query(problem)
        return replace(problem, errors=[self._placed(error) for error in problem.errors])

    def _placed(self, error: FieldError) -> FieldError:
        first = error.pointer.split("/")[1] if error.pointer.startswith("/") else ""
        if self.own is not None and first and first not in self.own:
            return error  # said once for all copies
        return replace(error, pointer="".join(f"/{step}" for step in self.at) + error.pointer)


def in_query(problem: Problem) -> Problem:
    """Let a problem point at the query, where the envelope of a message/rfc822 stands."""
    places = {"from": "?envelope_from", "to": "?envelope_to"}
    errors = [
        replace(error, pointer=places.get(error.pointer[1:].split("/")[0], error.pointer))
        for error in problem.errors
    ]
    return replace(problem, errors=errors)


def asked_of(shape: MessageIn, *, at: tuple[object, ...] = ()) -> list[Asked]:
    """List the messages that a request asks for: one, or one for each entry of `merge`."""
    variables = (shape.template.variables if shape.template else None) or {}
    if shape.merge is None:
        key = shape.idempotency_key if isinstance(shape, BatchItemIn) else None
        return [Asked(shape=shape, at=at, idempotency_key=key, variables=variables)]
    _without(shape, ("to", "cc", "bcc", "raw"), code="not_with_merge", beside="merge names the recipients")
    if shape.template is None and any(each.variables is not None for each in shape.merge):
        detail = "Variables are for a template, and there is none."
        raise unprocessable("/template", "required", detail)
    return [
        _copy(shape, each, at=("merge", index), variables=variables) for index, each in enumerate(shape.merge)
    ]


def _copy(
    shape: MessageIn, each: MergeItemIn, *, at: tuple[object, ...], variables: Mapping[str, Any]
) -> Asked:
    changes: dict[str, Any] = {
        "merge": None,
        "to": each.to,
        "cc": each.cc,
        "bcc": each.bcc,
        "headers": {**(shape.headers or {}), **(each.headers or {})},
        "tags": [*(shape.tags or ()), *(each.tags or ())],
        "metadata": {**(shape.metadata or {}), **(each.metadata or {})},
    }
    for name in ("subject", "scheduled_at"):
        if getattr(each, name) is not None:
            changes[name] = getattr(each, name)
    return Asked(
        shape=shape.model_copy(update=changes),
        at=at,
        own=frozenset({*each.model_fields_set, "variables"}),
        idempotency_key=each.idempotency_key,
        variables={**variables, **(each.variables or {})},
    )


@dataclass(frozen=True, slots=True)
class Recipient:
    type: RecipientType
    mailbox: Mailbox


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Addressed:
    """A message whose addresses are read and allowed."""

    asked: Asked
    sender: Mailbox
    recipients: tuple[Recipient, ...]
    scheduled_at: datetime | None
    now: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """What turns requests into messages."""

    book: RouteBook
    limits: SubmissionLimits
    clock: Callable[[], datetime]

    def address(self, asked: Asked, key: Key) -> Addressed:
        """Read who sends to whom, and when; raises Problem."""
        shape = asked.shape
        sender = _mailbox(shape.from_, "/from")
        demand_sender(key, sender.address, pointer="/from")
        now = self.clock()
        recipients = _recipients(shape, most=self.limits.recipients)
        for each in recipients:
            demand_recipient(key, each.mailbox.address, pointer=f"/{each.type}")
        if shape.template is not None:
            _without(
                shape,
                ("subject", "text", "html", "raw"),
                code="not_with_template",
                beside="the template has it",
            )
        return Addressed(
            asked=asked,
            sender=sender,
            recipients=recipients,
            scheduled_at=self._schedule(shape.scheduled_at, now=now),
            now=now.replace(microsecond=now.microsecond // 1000 * 1000),
        )

    def compose(
        self,
        addressed: Addressed,
        key: Key,
        *,
        content: Content | None = None,
        resting: Mapping[str, Rest] | None = None,
        suppressed: Mapping[str, Mapping[str, Any]] | None = None,
        request_key: str | None = None,
        traceparent: str | None = None,
    ) -> NewMessage:
        """Build the message; raises Problem.

        `request_key` is the idempotency key of the whole request, for a message without one of its own.
        `content` is what its template was rendered to, `resting` has the lanes to pass over,
        `suppressed` the errors of recipients that get no mail, by their address for comparisons, `traceparent`
        the place of the request in a trace.
        """
        shape, sender = addressed.asked.shape, addressed.sender
        message_id = new_message_id(sender.address.domain)
        named: tuple[Address, ...] = ()
        if addressed.asked.raw is not None or shape.raw is not None:
            _without(shape, _CONTENT, code="not_with_raw", beside="raw is the whole message")
            raw = addressed.asked.raw or _decoded(shape.raw or "", "/raw")
            composed, named = _adopted(raw, key, message_id=message_id, now=addressed.now)
        else:
            composed = _composed(
                _draft(addressed, content),
                message_id=message_id,
                now=addressed.now,
                template=content is not None,
            )
        return self._message(
            addressed,
            key,
            composed,
            content,
            named,
            resting or {},
            suppressed or {},
            request_key,
            traceparent,
        )

    def _message(
        self,
        addressed: Addressed,
        key: Key,
        composed: Composed,
        content: Content | None,
        named: Sequence[Address],
        resting: Mapping[str, Rest],
        suppressed: Mapping[str, Mapping[str, Any]],
        request_key: str | None,
        traceparent: str | None,
    ) -> NewMessage:
        asked, sender = addressed.asked.shape, addressed.sender
        wanted = [each for each in addressed.recipients if each.mailbox.address.key not in suppressed]
        authors = tuple(each for each in named if each.key != sender.address.key)
        plan = self._plan(addressed, key, wanted, size=len(composed.octets), resting=resting, authors=authors)
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
            from_key=sender.address.key,
            reply_to=[
                {"email": str(each.address), "name": each.name}
                for each in _mailboxes(asked.reply_to, "/reply_to")
            ],
            reverse_path=str(sender.address),
            sender=sender.address.key,
            subject=composed.subject,
            message_id=composed.message_id,
            octets=composed.octets,
            sha256=composed.sha256,
            smtputf8=composed.smtputf8 or any(each.mailbox.address.smtputf8 for each in addressed.recipients),
            eightbit=composed.eightbit,
            route_requested=asked.route,
            plan=plan.as_json(),
            stream=asked.stream,
            priority=PRIORITIES.index(asked.priority),
            on_uncertain=asked.on_uncertain,
            tags=list(dict.fromkeys(asked.tags or ())),
            metadata=asked.metadata or {},
            created_at=addressed.now,
            scheduled_at=addressed.scheduled_at,
            expires_at=self._expiry(
                asked.expires_at, now=addressed.now, start=addressed.scheduled_at or addressed.now
            ),
            template=None if content is None else content.template,
            dsn=_dsn(asked),
            traceparent=traceparent,
            idempotency_key=addressed.asked.idempotency_key or request_key,
            deliveries=deliveries,
            recipients=[
                self._recipient(position, each, delivery_of.get(each.mailbox.address.key), suppressed)
                for position, each in enumerate(addressed.recipients)
            ],
        )

    def _recipient(
        self,
        position: int,
        each: Recipient,
        delivery: NewDelivery | None,
        suppressed: Mapping[str, Mapping[str, Any]],
    ) -> NewRecipient:
        address = each.mailbox.address
        return NewRecipient(
            position=position,
            type=each.type,
            email=str(address),
            key=address.key,
            name=each.mailbox.name,
            delivery_id=None if delivery is None else delivery.id,
            external=delivery is not None and delivery.external and self.book.external([address]) > 0,
            suppressed=suppressed.get(address.key),
        )

    def _plan(
        self,
        addressed: Addressed,
        key: Key,
        recipients: Sequence[Recipient],
        *,
        size: int,
        resting: Mapping[str, Rest],
        authors: tuple[Address, ...],
    ) -> Plan:
        if not recipients:
            return Plan(deliveries=(), why_not=())  # all of them are suppressed
        asked = addressed.asked.shape
        try:
            return self.book.plan(
                Wanted(
                    sender=addressed.sender.address,
                    recipients=tuple(each.mailbox.address for each in recipients),
                    route=asked.route,
                    size=size,
                    stream=asked.stream,
                    allowed_routes=key.routes,
                    test=key.test,
                    resting={} if addressed.scheduled_at else resting,
                    authors=authors,
                )
            )
        except NoRoute as refused:
            raise _no_route(refused, asked, test=key.test) from None

    def _schedule(self, written: str | None, *, now: datetime) -> datetime | None:
        if written is None:
            return None
        return check_schedule(read_moment(written, "/scheduled_at"), self.limits, now=now)

    def _expiry(self, written: str | None, *, now: datetime, start: datetime) -> datetime:
        if written is None:
            return start + self.limits.expires_after
        return check_expiry(read_moment(written, "/expires_at"), self.limits, now=now, start=start)


def check_schedule(at: datetime, limits: SubmissionLimits, *, now: datetime) -> datetime:
    """Return the time before which a message shall not go; raises Problem."""
    if at <= now:
        raise unprocessable("/scheduled_at", "in_the_past", "The time has passed already.")
    if at - now > limits.longest_schedule:
        days = limits.longest_schedule // timedelta(days=1)
        raise unprocessable("/scheduled_at", "too_far", f"A message may be scheduled {days} days ahead.")
    return at


def check_expiry(at: datetime, limits: SubmissionLimits, *, now: datetime, start: datetime) -> datetime:
    """Return the time at which a message that goes from `start` on is given up; raises Problem."""
    if at <= now:
        raise unprocessable("/expires_at", "in_the_past", "The time has passed already.")
    if at <= start:
        raise unprocessable("/expires_at", "before_scheduled_at", "It would end before it is sent.")
    if at - start > limits.longest_life:
        days = limits.longest_life // timedelta(days=1)
        raise unprocessable("/expires_at", "too_far", f"A message may live {days} days at the most.")
    return at


def read_moment(written: str, pointer: str) -> datetime:
    """Read a time as RFC 3339 has it, with its offset; raises Problem."""
    try:
        at = datetime.fromisoformat(written)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None or "T" not in written.upper():
        detail = "Write the time as RFC 3339, with its offset: 2026-11-26T19:40:02Z."
        raise unprocessable(pointer, "not_a_time", detail)
    try:
        return at.astimezone(UTC)
    except OverflowError:
        raise unprocessable(pointer, "out_of_range", "The time is out of range.") from None


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


def _recipients(asked: MessageIn, *, most: int) -> tuple[Recipient, ...]:
    """Read the recipients in order; who is named twice gets one copy, by the first name."""
    kinds: tuple[tuple[Literal["to", "cc", "bcc"], object], ...] = (
        ("to", asked.to),
        ("cc", asked.cc),
        ("bcc", asked.bcc),
    )
    found: dict[str, Recipient] = {}
    for kind, given in kinds:
        for mailbox in _mailboxes(given, f"/{kind}"):
            found.setdefault(mailbox.address.key, Recipient(kind, mailbox))
    if not found:
        raise unprocessable("/to", "required", "A message needs at least one recipient in to, cc or bcc.")
    if len(found) > most:
        raise unprocessable(
            "/to", "too_many_recipients", f"A message may have {most} recipients at the most."
        )
    return tuple(found.values())


def recipients_named(asked: Asked) -> int:
    """Count the recipients that a message names, before any of them is read."""
    given = (asked.shape.to, asked.shape.cc, asked.shape.bcc)
    return sum(len(each) if isinstance(each, list) else each is not None for each in given)


def _without(shape: MessageIn, names: Sequence[str], *, code: str, beside: str) -> None:
    """Refuse fields that cannot stand beside another one."""
    found = [name for name in names if getattr(shape, name)]
    if found:
        detail = f"This field cannot stand here: {beside}."
        raise invalid([FieldError(pointer=f"/{name}", code=code, detail=detail) for name in found])


def _dsn(asked: MessageIn) -> dict[str, Any] | None:
    if asked.dsn is None:
        return None
    notify = list(dict.fromkeys(asked.dsn.notify or ()))
    if "never" in notify and len(notify) > 1:
        raise unprocessable("/dsn/notify", "never_alone", "`never` stands alone (RFC 3461, section 4.1).")
    return {"notify": notify or None, "return": asked.dsn.return_, "envid": asked.dsn.envid}


def _draft(addressed: Addressed, content: Content | None) -> Draft:
    asked = addressed.asked.shape
    return Draft(
        sender=addressed.sender,
        to=_mailboxes(asked.to, "/to"),
        cc=_mailboxes(asked.cc, "/cc"),
        bcc=_mailboxes(asked.bcc, "/bcc"),
        reply_to=_mailboxes(asked.reply_to, "/reply_to"),
        subject=asked.subject if content is None else content.subject,
        text=asked.text if content is None else content.text,
        html=asked.html if content is None else content.html,
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


def _composed(draft: Draft, *, message_id: str, now: datetime, template: bool) -> Composed:
    try:
        return compose(draft, message_id=message_id, date=now)
    except BadDraft as exc:
        # What a template was rendered to is not in the request; what made it is.
        rendered = template and exc.pointer in {"/subject", "/text", "/html"}
        pointer = "/template" if rendered else exc.pointer
        detail = f"The template's {exc.pointer[1:]}: {exc.detail}" if rendered else exc.detail
        raise unprocessable(pointer, exc.code, detail) from None


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
