"""Give recipients another way, because the configuration no longer has their lane.

The door plans them anew; here they leave their delivery for a new one. The old delivery keeps its
attempts and whoever else it carried, and the message is found by its new route and lane too.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.ledger.inhand import Locked


@dataclass(frozen=True, slots=True, kw_only=True)
class Reroute:
    """The new way of a recipient whose lane the configuration no longer has."""

    gone: str  # the lane; elsewhere by now: it stays where it is
    delivery_id: str  # a new one; recipients with the same one travel together
    route: str
    lane: str
    external: bool  # this recipient uses the tenant's budget


_NEW_DELIVERIES = text("""
    INSERT INTO deliveries (id, message_id, application, route, lane, sender, priority, external, size, expires_at)
    SELECT row.id, :message, :application, row.route, row.lane, :sender, :priority, row.external, :size, :expires_at
      FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS row(id text, route text, lane text, external boolean)
""")

_CARRY_OVER = text("""
    UPDATE recipients r SET delivery_id = row.delivery_id, external = row.external
      FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS row(
           position smallint, delivery_id text, external boolean)
     WHERE r.message_id = :message AND r.position = row.position
""")

_FACETS = text("""
    INSERT INTO facets (application, name, value, message_id)
    SELECT :application, name, value, :message
      FROM unnest(CAST(:names AS text[]), CAST(:values AS text[])) AS facet (name, value)
        ON CONFLICT DO NOTHING
""")


async def reroute(
    db: AsyncConnection, message_id: str, locked: Locked, new: Mapping[int, Reroute], *, expires_at: datetime
) -> set[str]:
    """Put recipients, by their position, into new deliveries; return the names of these."""
    if not new:
        return set()
    deliveries: dict[str, dict[str, Any]] = {}
    for each in new.values():
        made = deliveries.setdefault(
            each.delivery_id,
            {"id": each.delivery_id, "route": each.route, "lane": each.lane, "external": False},
        )
        made["external"] = made["external"] or each.external
    about = {"message": message_id, "application": locked.message.application}
    await db.execute(
        _NEW_DELIVERIES,
        {
            **about,
            "sender": next(iter(locked.deliveries.values())).sender,
            "priority": locked.message.priority,
            "size": locked.message.size,
            "expires_at": expires_at,
            "rows": json.dumps(list(deliveries.values())),
        },
    )
    carried = [
        {"position": position, "delivery_id": each.delivery_id, "external": each.external}
        for position, each in new.items()
    ]
    await db.execute(_CARRY_OVER, {"message": message_id, "rows": json.dumps(carried)})
    facets = sorted({(name, made[name]) for made in deliveries.values() for name in ("route", "lane")})
    await db.execute(
        _FACETS,
        {**about, "names": [name for name, _ in facets], "values": [value for _, value in facets]},
    )
    return set(deliveries)
