"""Who logged in with a password, as the ledger saw it, and what was announced."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.ledger import Ledger
from service.ledger.checks import NewNotice
from service.ledger.ids import new_id
from service.ledger.states import Status
from tests.builders import a_closing, a_submission, claim

LANE = "noreply/noreply@contoso.com"


@pytest.fixture
async def ledger(database_url: str) -> AsyncIterator[Ledger]:
    """A ledger on a database of this test's own."""
    opened = Ledger.open(database_url, name="test", connections=5)
    yield opened
    await opened.dispose()


async def sent(
    ledger: Ledger,
    *,
    method: str | None,
    application: str = "tests",
    lane: str = LANE,
    to: tuple[str, ...] = ("ana@example.com",),
    status: Status = Status.SENT,
) -> None:
    """Send a message on a session of its own that logged in like this."""
    await ledger.accept(a_submission(lane=lane, application=application, to=to))
    (claimed,) = (await claim(ledger, lane=lane)).claimed
    session = new_id("ses")
    login = None if method is None else {"method": method, "identity": "noreply@contoso.com"}
    facts: dict[str, Any] = {"id": session, "host": "smtp.office365.com", "login": login, "transcript": []}
    await ledger.close(a_closing(claimed, status, session_id=session, session_message=1, session_facts=facts))


def a_month_ago() -> datetime:
    return datetime.now(UTC) - timedelta(days=30)


async def test_a_password_login_is_counted_by_application(ledger: Ledger) -> None:
    """Messages and taken recipients of the span, for each application, with the first and the last use."""
    await sent(ledger, method="login", application="billing", to=("a@example.com", "b@example.com"))
    await sent(ledger, method="login", application="billing")
    await sent(ledger, method="login", application="shop")

    (use,) = await ledger.password_logins(since=a_month_ago())

    assert (use.lane, use.identity, use.host) == (LANE, "noreply@contoso.com", "smtp.office365.com")
    assert use.sessions == 3
    assert a_month_ago() < use.first_seen <= use.last_used <= datetime.now(UTC)
    assert [(each.application, each.messages, each.recipients) for each in use.applications] == [
        ("billing", 2, 3),
        ("shop", 1, 1),
    ]


async def test_what_was_refused_is_no_volume(ledger: Ledger) -> None:
    """A recipient that the peer refused did not go that way, though its session logged in."""
    await sent(ledger, method="login", status=Status.FAILED)

    (use,) = await ledger.password_logins(since=a_month_ago())

    assert [(each.messages, each.recipients) for each in use.applications] == [(1, 0)]


@pytest.mark.parametrize("method", ["xoauth2", None])
async def test_other_logins_are_not_reported(ledger: Ledger, method: str | None) -> None:
    """OAuth, and no login at all, is nobody's password."""
    await sent(ledger, method=method)

    assert await ledger.password_logins(since=a_month_ago()) == []


async def test_what_lies_before_the_span_is_known_but_not_counted(ledger: Ledger) -> None:
    """An identity that was used long ago stays in the report, with nothing in the span."""
    await sent(ledger, method="login")

    (use,) = await ledger.password_logins(since=datetime.now(UTC) + timedelta(days=1))

    assert (use.sessions, list(use.applications)) == (0, [])


async def test_the_last_announcement_of_each_thing(ledger: Ledger) -> None:
    """Of several announcements about one certificate the last one is shown, and only its route's."""
    end = datetime.now(UTC) + timedelta(days=14)
    for days in (30, 14):
        await ledger.announce(
            NewNotice(
                subject="certificate", expires_at=end, days=days, route="connector", detail=f"in {days} days"
            )
        )

    (notice,) = await ledger.notices(route="connector")

    assert (notice.detail, notice.expires_at) == ("in 14 days", end)
    assert [each.route for each in await ledger.notices()] == ["connector"]
    assert await ledger.notices(route="other") == []
