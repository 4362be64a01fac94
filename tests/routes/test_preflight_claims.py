"""What a token says about itself: audience, roles, end, tenant and application, compared with what is needed."""

from datetime import UTC, datetime
from typing import Any

import jwt
import pytest

from service.routes.preflight.claims import EXCHANGE, Expected, judge, lacks_role, read
from service.routes.preflight.steps import Status
from service.routes.route import RouteKind

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
TENANT = "11111111-2222-3333-4444-555555555555"
EXPECTED = Expected(
    kind=RouteKind.CLIENT_SUBMISSION,
    scope="https://outlook.office365.com/.default",
    tenant_id=TENANT,
    client_id="app-1",
)


def a_token(**changes: Any) -> str:
    claims = {
        "aud": "https://outlook.office365.com",
        "roles": ["SMTP.SendAsApp"],
        "tid": TENANT,
        "appid": "app-1",
        "exp": NOW.timestamp() + 3600,
    } | changes
    return jwt.encode(claims, "x" * 32, algorithm="HS256")


@pytest.mark.parametrize("changes", [{}, {"aud": EXCHANGE}, {"aud": "https://outlook.office365.com/"}])
def test_a_token_that_fits(changes: dict[str, Any]) -> None:
    """The right audience by name or id, the role, and an hour to live."""
    step = judge(a_token(**changes), EXPECTED, lane="noreply/a", now=NOW)

    assert step.status is Status.OK, step.detail
    assert step.facts["roles"] == ["SMTP.SendAsApp"]
    assert step.facts["expires_at"] == "2026-11-24T13:00:00+00:00"
    assert "for 60 minutes" in step.detail


@pytest.mark.parametrize(
    ("changes", "detail", "remedy"),
    [
        ({"aud": "https://graph.microsoft.com"}, "for https://graph.microsoft.com", "entra.cloud"),
        (
            {"roles": ["Mail.Send"]},
            "has Mail.Send, and the login needs SMTP.SendAsApp",
            "Grant admin consent",
        ),
        ({"roles": []}, "has no role at all", "API permissions"),
        ({"tid": "other"}, "of the tenant other", "entra.tenant_id"),
        ({"appid": "app-2"}, "of the application app-2", "client_id"),
        ({"exp": NOW.timestamp() - 1}, "had ended", "clock"),
        ({"roles": "SMTP.SendAsApp", "aud": ["x"], "exp": "soon"}, "for nobody", "entra.cloud"),
    ],
)
def test_a_token_that_does_not_fit(changes: dict[str, Any], detail: str, remedy: str) -> None:
    """Each claim that is wrong is named, with what to do."""
    step = judge(a_token(**changes), EXPECTED, lane="noreply/a", now=NOW)

    assert step.status is Status.WARN
    assert detail in step.detail
    assert remedy in " ".join(step.remedy)


def test_a_missing_role() -> None:
    """Only a token whose roles were read can lack one."""
    without = judge(a_token(roles=[]), EXPECTED, lane="a", now=NOW)
    opaque = judge("not a token", EXPECTED, lane="a", now=NOW)

    assert lacks_role(without, EXPECTED)
    assert not lacks_role(opaque, EXPECTED)
    assert opaque.status is Status.SKIP


@pytest.mark.parametrize(
    "text", ["", "a.b", "a.b.c", "e30.WzFd.x", "e30.bm9uZQ.x", "é.é.é", f"a.{'A' * 70_000}.c"]
)
def test_what_is_no_token(text: str) -> None:
    """Anything at all may come from a token service; what cannot be read is None."""
    assert read(text) is None


def test_the_token_never_shows() -> None:
    """Neither words nor facts hold the token or its signature."""
    token = a_token()

    step = judge(token, EXPECTED, lane="a", now=NOW)

    assert all(part not in str(step) for part in token.split("."))
