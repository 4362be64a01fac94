"""What an access token says about itself, without believing it: audience, roles, end, tenant.

Exchange Online's tokens are JWTs (RFC 7519). Nobody but Exchange has to verify them, and the
product never does; but their claims tell an administrator what is missing before Exchange says
"535 5.7.3 Authentication unsuccessful", which tells nothing. The token itself is never shown.

An application that was given its right by RBAC for Applications has no role in its token, so a
missing role is a warning until the login is refused as well.
"""

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from service.routes.preflight.steps import Step, ok, skip, warn
from service.routes.route import RouteKind

#: "Office 365 Exchange Online" by its id, which stands in some tokens instead of its name.
EXCHANGE = "00000002-0000-0ff1-ce00-000000000000"

_ROLES = {RouteKind.CLIENT_SUBMISSION: "SMTP.SendAsApp", RouteKind.HIGH_VOLUME_EMAIL: "Mail.Send"}
_MOST_CHARACTERS = 65_536
_SHOWN = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What a token for a route should say."""

    kind: RouteKind
    scope: str  # that it was asked for with: "https://outlook.office365.com/.default"
    tenant_id: str
    client_id: str

    @property
    def role(self) -> str:
        """The application permission that the login needs."""
        return _ROLES.get(self.kind, "SMTP.SendAsApp")


def read(token: str) -> dict[str, Any] | None:
    """Decode the claims of a JWT, not verified; None where this is no JWT."""
    parts = token.split(".")
    if len(parts) != 3 or len(token) > _MOST_CHARACTERS:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return None
    return claims if isinstance(claims, dict) else None


def judge(token: str, expected: Expected, *, lane: str, now: datetime) -> Step:
    """Compare a token's claims with what the route needs."""
    claims = read(token)
    if claims is None:
        return skip("token", "A token came; it is no JWT, so nothing can be read in it.", lane=lane)
    roles, audience = _texts(claims.get("roles")), _text(claims.get("aud"))
    tenant, application = _text(claims.get("tid")), _text(claims.get("appid") or claims.get("azp"))
    ends_at = _time(claims.get("exp"))
    facts = {
        "audience": audience,
        "roles": roles,
        "tenant": tenant,
        "application": application,
        "expires_at": None if ends_at is None else ends_at.isoformat(),
    }
    faults = [
        *_audience(audience, expected),
        *_tenant(tenant, expected),
        *_application(application, expected),
        *_end(ends_at, now),
        *_role(roles, expected),
    ]
    if faults:
        details, remedies = zip(*faults, strict=True)
        return warn("token", " ".join(details), *remedies, lane=lane, **facts)
    lives = "" if ends_at is None else f", for {(ends_at - now).total_seconds() / 60:.0f} minutes"
    return ok("token", f"For {audience} with {', '.join(roles)}{lives}.", lane=lane, **facts)


def lacks_role(step: Step, expected: Expected) -> bool:
    """Say whether a judged token has no permission that could explain a refused login."""
    roles = step.facts.get("roles")
    return roles is not None and expected.role not in roles


def role_remedy(expected: Expected) -> str:
    """Say how the application gets its permission."""
    return (
        f"Entra ID, App registrations, {expected.client_id}, API permissions, Add a permission, APIs my organization "
        f"uses, Office 365 Exchange Online, Application permissions: {expected.role}, then Grant admin consent."
    )


_Fault = tuple[str, str]  # what is wrong, what to do


def _audience(audience: str, expected: Expected) -> list[_Fault]:
    wanted = expected.scope.removesuffix("/.default").rstrip("/")
    if audience.rstrip("/") in {wanted, EXCHANGE}:
        return []
    return [
        (
            f"The token is for {audience or 'nobody'}, not for {wanted}.",
            "Set entra.cloud to the tenant's cloud, and remove a scope that was set by hand.",
        )
    ]


def _tenant(tenant: str, expected: Expected) -> list[_Fault]:
    # A tenant may be configured by its domain name; then there is nothing to compare.
    if tenant.lower() == expected.tenant_id.lower() or len(expected.tenant_id) != 36:
        return []
    return [
        (
            f"The token is of the tenant {tenant or '(none)'}, not of {expected.tenant_id}.",
            "Set entra.tenant_id to the directory in which the mailbox is.",
        )
    ]


def _application(application: str, expected: Expected) -> list[_Fault]:
    if application.lower() == expected.client_id.lower():
        return []
    return [
        (
            f"The token is of the application {application or '(none)'}, not of {expected.client_id}.",
            "Set the login's client_id to the application's own id (Entra ID, App registrations, Overview).",
        )
    ]


def _end(ends_at: datetime | None, now: datetime) -> list[_Fault]:
    if ends_at is None or ends_at > now:
        return []
    return [
        (
            f"The token had ended at {ends_at:%Y-%m-%d %H:%M:%S} UTC when it came.",
            "Set this machine's clock (NTP).",
        )
    ]


def _role(roles: Sequence[str], expected: Expected) -> list[_Fault]:
    if expected.role in roles:
        return []
    has = ", ".join(roles) or "no role at all"
    return [
        (
            (
                f"The token has {has}, and the login needs {expected.role} "
                "(unless RBAC for Applications gives the right)."
            ),
            role_remedy(expected),
        )
    ]


def _text(value: object) -> str:
    return value[:_SHOWN] if isinstance(value, str) and value.isprintable() else ""


def _texts(value: object) -> list[str]:
    listed = value if isinstance(value, list) else []
    return [text for text in map(_text, listed[:50]) if text]


def _time(value: object) -> datetime | None:
    try:
        return datetime.fromtimestamp(float(str(value)), UTC)
    except (ValueError, OverflowError, OSError):
        return None
