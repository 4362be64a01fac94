"""The report on logins with a password: who, how much, since when, what to do, how long there is.

What is configured and what the ledger saw are laid side by side: a mailbox that has a password and was
never used is in it, and so is one that the ledger saw and the configuration has no more. What
remains to be done is where the configuration has a password that Microsoft retires. The mail of
test keys goes to the sandbox and is not in the report.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from service.ledger.reports import PasswordUse
from service.routes.advice.retirement import (
    OFF_BY_DEFAULT,
    SOURCE,
    Judgement,
    judge,
    milestones,
    password_accounts,
)
from service.routes.choice import RouteBook
from service.routes.route import Lane, OAuthLogin, Route, RouteKind
from service.submission.representation import moment

SPAN = timedelta(days=30)

_SEE_ALSO = (
    "Exchange admin center → Reports → Mail flow → SMTP AUTH clients submission report: who else in the tenant still "
    "logs in with a password, beside Postroom."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Login:
    """One identity on one lane: configured with a password, seen with one, or both."""

    lane: str
    route: str
    identity: str
    known: Route | None
    configured: bool
    use: PasswordUse | None


def report(
    book: RouteBook, uses: Sequence[PasswordUse], *, now: datetime, application: str | None
) -> dict[str, Any]:
    """Write the report. `application` narrows the shares that are shown to one application's; None shows all."""
    today = now.date()
    client_id = _client_id(book)
    logins = [
        _shown(login, today=today, client_id=client_id, application=application)
        for login in _logins(book, uses)
    ]
    return {
        "object": "basic_auth_report",
        "created_at": moment(now),
        "span_days": SPAN.days,
        "remaining": sum(login["remains"] for login in logins),
        "days_left": max(0, (OFF_BY_DEFAULT - today).days),
        "milestones": [
            {
                "code": each.code,
                "on": each.on.isoformat(),
                "text": each.text,
                "mark": each.mark,
                "days_left": each.days_left,
            }
            for each in milestones(today)
        ],
        "source": SOURCE,
        "logins": sorted(logins, key=lambda login: (not login["remains"], login["lane"], login["identity"])),
        "see_also": _SEE_ALSO,
    }


def _logins(book: RouteBook, uses: Sequence[PasswordUse]) -> Iterator[_Login]:
    """Lay the configuration and the ledger side by side."""
    unseen = {(use.lane, use.identity.lower()): use for use in uses}
    for lane, identity in _configured(book):
        yield _Login(
            lane=lane.name,
            route=lane.route.name,
            identity=identity,
            known=lane.route,
            configured=True,
            use=unseen.pop((lane.name, identity.lower()), None),
        )
    sandbox = None if book.sandbox is None else book.sandbox.name
    for use in unseen.values():
        if use.route != sandbox:
            yield _Login(
                lane=use.lane,
                route=use.route,
                identity=use.identity,
                known=book.routes.get(use.route),
                configured=False,
                use=use,
            )


def _configured(book: RouteBook) -> Iterator[tuple[Lane, str]]:
    for route in book.routes.values():
        lanes = {lane.account.address.key: lane for lane in route.lanes() if lane.account is not None}
        for account in password_accounts(route):
            yield lanes[account.address.key], getattr(account.login, "username", str(account.address))
        if route.login is not None:
            yield route.lanes()[0], route.login.username


def _shown(login: _Login, *, today: date, client_id: str | None, application: str | None) -> dict[str, Any]:
    kind = None if login.known is None else login.known.kind
    judgement = _judged(login, kind, today=today, client_id=client_id)
    shares = () if login.use is None else login.use.applications
    return {
        "lane": login.lane,
        "route": login.route,
        "kind": kind and kind.value,
        "identity": login.identity,
        "configured": login.configured,
        "enabled": login.known is not None and login.known.enabled,
        "affected": judgement.affected,
        "remains": judgement.affected and login.configured,
        "verdict": judgement.verdict,
        "first_seen": None if login.use is None else moment(login.use.first_seen),
        "last_used": None if login.use is None else moment(login.use.last_used),
        "sessions": 0 if login.use is None else login.use.sessions,
        "messages": sum(share.messages for share in shares),
        "recipients": sum(share.recipients for share in shares),
        "applications": [
            {
                "application": share.application,
                "messages": share.messages,
                "recipients": share.recipients,
            }
            for share in shares
            if application in {None, share.application}
        ],
        "what_to_do": list(judgement.steps),
    }


def _judged(login: _Login, kind: RouteKind | None, *, today: date, client_id: str | None) -> Judgement:
    if kind is not None and not login.configured:
        return Judgement(
            affected=kind is RouteKind.CLIENT_SUBMISSION,
            verdict="The configuration has no password for it any more; the ledger still saw one in use.",
            steps=("Nobody has to act, unless a worker with an older configuration still runs.",),
        )
    mailbox = login.lane.partition("/")[2] or login.identity
    return judge(kind, mailbox=mailbox, client_id=client_id, today=today)


def _client_id(book: RouteBook) -> str | None:
    """Find the application that another mailbox logs in with already: it can serve here too."""
    for route in book.routes.values():
        for account in route.accounts:
            if isinstance(account.login, OAuthLogin):
                return account.login.client_id
    return None


def readable(found: Mapping[str, Any]) -> Iterator[str]:
    """Write the report for a terminal, a line at a time."""
    for login in found["logins"]:
        state = "ACT " if login["remains"] else "ok  "
        used = (
            f"last used {login['last_used'][:10]}, since {login['first_seen'][:10]}"
            if login["last_used"]
            else "never used"
        )
        yield f"{state} {login['lane']}  as {login['identity']}  ({login['kind'] or 'no longer configured'})"
        yield f"     {login['verdict']}"
        yield (
            f"     {used}; in {found['span_days']} days {login['messages']:,} messages, "
            f"{login['recipients']:,} recipients, {login['sessions']:,} sessions"
        )
        for share in login["applications"]:
            yield (
                f"       {share['application']}: {share['messages']:,} messages, {share['recipients']:,} recipients"
            )
        if login["remains"]:
            yield "     What to do:"
            yield from (f"       {number}. {step}" for number, step in enumerate(login["what_to_do"], 1))
        yield ""
    for each in found["milestones"]:
        left = f"in {each['days_left']} days" if each["days_left"] else "reached"
        yield f"{each['on']}  {left}: {each['text']} [{each['mark']}]"
    yield f"Source: {found['source']}"
    yield found["see_also"]
    yield ""
    if found["remaining"] == 1:
        yield "1 login with a password remains to be changed."
    elif found["remaining"]:
        yield f"{found['remaining']} logins with a password remain to be changed."
    else:
        yield "Nothing remains: no login that Microsoft retires uses a password."
