"""What is announced before it ends: each threshold once, the nearest after a gap, anew after a renewal."""

from datetime import UTC, date, datetime, timedelta

import pytest

from service.routes.preflight.expiry import Ending, Notice, due_notices
from service.routes.preflight.papers import endings, of_peer
from service.routes.preflight.steps import ok
from service.routes.route import OAuthLogin, RouteKind
from tests.routes.builders import a_route, an_account

END = datetime(2027, 3, 1, 12, tzinfo=UTC)


def an_ending(ends_at: datetime = END, subject: str = "client_secret:app-1") -> Ending:
    return Ending(
        subject=subject,
        route="noreply",
        what="the client secret of app-1",
        ends_at=ends_at,
        remedy="Make a new one.",
    )


def due(*, left: timedelta, already: set[tuple[str, datetime, int]] | None = None) -> list[int]:
    return [notice.days for notice in due_notices([an_ending()], END - left, already or set())]


@pytest.mark.parametrize(
    ("left", "expected"),
    [
        (timedelta(days=61), []),
        (timedelta(days=60, seconds=1), []),
        (timedelta(days=60), [60]),
        (timedelta(days=31), [60]),
        (timedelta(days=30), [30]),
        (timedelta(days=14), [14]),
        (timedelta(days=7), [7]),
        (timedelta(days=2), [7]),
        (timedelta(days=1), [1]),
        (timedelta(seconds=1), [1]),
        (timedelta(0), [0]),
        (timedelta(days=-400), [0]),
    ],
)
def test_each_threshold(left: timedelta, expected: list[int]) -> None:
    """60, 30, 14, 7 and 1 days before, and when it has ended."""
    assert due(left=left) == expected


def test_each_is_announced_once() -> None:
    """A worker that looks every hour from day 70 to day -2 announces six times."""
    already: set[tuple[str, datetime, int]] = set()
    made = []
    now = END - timedelta(days=70)
    while now < END + timedelta(days=2):
        for notice in due_notices([an_ending()], now, already):
            already.add(notice.key)
            made.append(notice.days)
        now += timedelta(hours=1)

    assert made == [60, 30, 14, 7, 1, 0]


def test_a_gap_announces_the_nearest_only() -> None:
    """The worker was off from day 15 to day 4: day 14 is missed, day 7 is announced, and not twice."""
    already = {("client_secret:app-1", END, 60), ("client_secret:app-1", END, 30)}

    assert due(left=timedelta(days=4), already=already) == [7]
    assert due(left=timedelta(days=4), already=already | {("client_secret:app-1", END, 7)}) == []


def test_a_clock_that_goes_back_announces_nothing_again() -> None:
    """What was announced at 7 days needs no announcement at 14."""
    assert due(left=timedelta(days=10), already={("client_secret:app-1", END, 7)}) == []


def test_a_renewal_begins_anew() -> None:
    """The same secret with a later end has announcements of its own."""
    already = {("client_secret:app-1", END, days) for days in (60, 30, 14, 7, 1, 0)}
    renewed = an_ending(END + timedelta(days=50))

    (notice,) = due_notices([renewed], END, already)

    assert notice.days == 60


def test_a_subject_of_several_routes_is_announced_once() -> None:
    """One secret in two routes is one announcement."""
    assert len(due_notices([an_ending(), an_ending()], END, set())) == 1


@pytest.mark.parametrize(
    ("left", "words"),
    [
        (timedelta(days=14), "ends in 14 days"),
        (timedelta(days=1, hours=3), "ends in 1 day,"),
        (timedelta(hours=3), "ends in less than a day"),
        (timedelta(0), "ended at 2027-03-01 12:00 UTC"),
    ],
)
def test_the_words(left: timedelta, words: str) -> None:
    """An announcement says what ends, when, and what to do."""
    said = Notice(ending=an_ending(), days=1).detail(END - left)

    assert words in said
    assert said.startswith("The client secret of app-1")
    assert said.endswith("Make a new one.")


def test_what_of_a_route_ends() -> None:
    """A secret by its configured end; the peer's certificate by the check that saw it."""
    login = OAuthLogin(client_id="app-1", client_secret="s", client_secret_expires=date(2027, 3, 1))
    route = a_route(accounts=(an_account(login=login), an_account("b@contoso.com", login=login)))
    seen = ok(
        "peer_certificate",
        "…",
        host="smtp.office365.com",
        verified=True,
        not_after="2027-05-01T00:00:00+00:00",
    )

    ours = list(endings(route))
    theirs = list(of_peer(route, [seen]))

    assert {each.subject for each in ours} == {"client_secret:app-1"}
    assert ours[0].ends_at == datetime(2027, 3, 1, tzinfo=UTC)
    assert [each.subject for each in theirs] == ["peer_certificate:smtp.office365.com"]
    assert "Nobody has to act" in theirs[0].remedy
    (own,) = of_peer(a_route(kind=RouteKind.SMARTHOST), [seen])
    assert own.remedy.startswith("Renew")
