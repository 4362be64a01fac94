"""The tenant's external recipients of a day (Microsoft's "tenant external recipient rate limit").

Every pair of message and external recipient counts, over smtp.office365.com and the connectors
together; High Volume Email and Azure Communication Services do not count. Senders in onmicrosoft.com
have a smaller budget besides. Above it Exchange mostly takes the message and reports later that it
came back; at which phase a refusal comes, where one comes, is unverified.
"""

from collections.abc import Sequence

from service.sandbox import replies
from service.sandbox.replies import Reply
from service.sandbox.tenant import Tenant


def refusal(tenant: Tenant, reverse_path: str, recipients: Sequence[str]) -> Reply | None:
    """Return the refusal after the dot; None where reports do it, or where there is room for all."""
    if tenant.switches.external_mode != "refuse":
        return None
    wanted = len(tenant.external_among(recipients))
    reply, room = _room(tenant, reverse_path)
    return reply if wanted > 0 and room < wanted else None


def count(tenant: Tenant, reverse_path: str, recipients: Sequence[str]) -> dict[str, Reply]:
    """Count the external recipients of a message; return those for whom there was no room, and why."""
    came_back: dict[str, Reply] = {}
    for recipient in tenant.external_among(recipients):
        reply, room = _room(tenant, reverse_path)
        if room < 1:
            came_back[recipient] = reply
            continue
        tenant.external.add(1, now=tenant.now())
        if _is_onmicrosoft(reverse_path):
            tenant.onmicrosoft.add(1, now=tenant.now())
    return came_back


def _room(tenant: Tenant, reverse_path: str) -> tuple[Reply, float]:
    """Return how many more external recipients fit, and what is said above."""
    switches, now = tenant.switches, tenant.now()
    room = float("inf")
    reply = replies.EXTERNAL_LIMIT_TRIAL if switches.trial else replies.EXTERNAL_LIMIT
    if switches.external_per_day is not None:
        room = switches.external_per_day - tenant.external.used(now)
    if switches.onmicrosoft_per_day is not None and _is_onmicrosoft(reverse_path):
        left = switches.onmicrosoft_per_day - tenant.onmicrosoft.used(now)
        if left < room:
            return replies.ONMICROSOFT_LIMIT, left
    return reply, room


def _is_onmicrosoft(address: str) -> bool:
    domain = address.rpartition("@")[2].lower()
    return domain == "onmicrosoft.com" or domain.endswith(".onmicrosoft.com")
