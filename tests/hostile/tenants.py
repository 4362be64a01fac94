"""An application with one of everything, each with its mark on it, and what of the ledger is its own."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx2

from tests.hostile.world import Caller, World
from tests.house import FINAL
from tests.waiting import eventually


@dataclass(slots=True)
class Tenant(Caller):
    """A caller whose things can be told from everybody else's."""

    application: str = ""
    mark: str = ""  # in every text that it writes
    token: str = ""
    ids: set[str] = field(default_factory=set)  # of all its things

    async def make(self, method: str, path: str, body: Any = None, **request: Any) -> Any:
        """Ask for something that has to be there; keep its id."""
        answer = await self.client.request(method, path, json=body, **request)
        assert answer.status_code < 300, (method, path, answer.text)
        made = answer.json() if answer.content else {}
        for each in [made, *made.get("data", ())]:
            if "id" in each:
                self.ids.add(each["id"])
        return made

    def message(self, **changes: Any) -> dict[str, Any]:
        return {
            "from": {"email": "noreply@contoso.com", "name": self.mark},
            "to": [f"ana@{self.mark}.example"],
            "subject": f"subject {self.mark}",
            "text": f"text {self.mark}",
            "headers": {"X-Mark": self.mark},
            "tags": [self.mark],
            "metadata": {self.mark: self.mark},
            "stream": self.mark,
            **changes,
        }


async def send_first(tenant: Tenant) -> list[str]:
    """Send what a worker is to bring to its end: one is taken, one refused."""
    sent = await tenant.make("POST", "/messages", tenant.message())
    failed = await tenant.make("POST", "/messages", tenant.message(to=[f"nobody@{tenant.mark}.example"]))
    tenant.things["/messages"] = sent["id"]
    return [sent["id"], failed["id"]]


async def make_everything(tenant: Tenant) -> None:
    """Make one of everything else; no worker runs any more."""
    mark, things = tenant.mark, tenant.things
    attempts = (await tenant.client.get(f"/messages/{things['/messages']}/attempts")).json()["data"]
    things["/attempts"] = attempts[0]["id"]
    template = await tenant.make(
        "POST", "/templates",
        {"name": f"{mark}-receipt", "description": mark, "subject": mark, "text": f"{mark} {{{{ x }}}}", "publish": True},
    )  # fmt: skip
    things["/templates"] = template["id"]
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    await tenant.make("POST", "/messages", tenant.message(), headers={"Idempotency-Key": f"{mark}-key"})
    await tenant.make("POST", "/messages", tenant.message(scheduled_at=later))
    for act in ("hold", "cancel"):
        made = await tenant.make("POST", "/messages", tenant.message())
        await tenant.make("POST", f"/messages/{made['id']}/{act}", {})
    use = {"id": f"{mark}-receipt", "variables": {"x": mark}}
    await tenant.make("POST", "/messages", tenant.message(template=use, subject=None, text=None))
    batch = [tenant.message(idempotency_key=f"{mark}-{number}") for number in range(2)]
    await tenant.make("POST", "/messages/batch", batch, headers={"Idempotency-Key": f"{mark}-batch"})
    email = {"from": "noreply@contoso.com", "to": f"ana@{mark}.example", "subject": mark, "text": mark}
    made = await tenant.make("POST", "/emails", {**email, "scheduled_at": later})
    things["/emails"] = made["id"]
    stopped = await tenant.make(
        "POST", "/suppressions", {"address": f"stopped@{mark}.example", "reason": mark}
    )
    things["/suppressions"] = stopped["id"]
    await tenant.make("POST", "/messages", tenant.message(to=[f"stopped@{mark}.example"]))
    rule = await tenant.make("POST", "/suppressions/rules", {"enhanced": ["5.1.10"]})
    things["/suppressions/rules"] = rule["id"]
    hook = await tenant.make(
        "POST", "/webhooks", {"url": f"https://{mark}.example/hook", "description": mark}
    )
    things["/webhooks"] = hook["id"]
    told = await tenant.make("POST", f"/webhooks/{hook['id']}/test")
    things[f"/webhooks/{hook['id']}/deliveries"] = told["id"]
    me = await tenant.make("GET", "/me")
    things["/keys"] = me["id"]
    things["/erasures"] = f"era_{me['id'][4:]}"
    feed = await tenant.make("GET", "/events")
    things["event"] = feed["data"][0]["id"]
    tenant.ids |= set(things.values())


async def settle(world: World, *tenants: Tenant) -> None:
    """Give each tenant one of everything, in the state that it has after a day's work."""
    world.peer.on("rcpt", reply="550 5.1.10 No such user", when=lambda path: path.startswith("nobody@"))
    waits = {message: tenant for tenant in tenants for message in await send_first(tenant)}
    worker = await world.house.start_worker()

    async def over() -> bool:
        found = [
            (await tenant.client.get(f"/messages/{message}")).json()["status"]
            for message, tenant in waits.items()
        ]
        return set(found) <= FINAL

    await eventually(over, within=60)
    world.house.workers.remove(worker)
    await worker.end()
    for tenant in tenants:
        await make_everything(tenant)


def ghost(name: str) -> str:
    """Give an id that is formed like this one and that nobody has."""
    if name.startswith("evt_"):
        return "evt_999999999999"
    if name.isdigit():
        return "999"
    return name[:-1] + ("1" if name[-1] != "1" else "0")


async def rows_of(tenant: Tenant, database_url: str) -> set[str]:
    """Read every row of the ledger that is an application's, or that names something of its."""
    connection = await asyncpg.connect(database_url)
    try:
        tables = await connection.fetch(
            "SELECT table_name AS name FROM information_schema.tables WHERE table_schema = 'public'"
        )
        rows: list[tuple[str, Mapping[str, Any]]] = []
        for (name,) in tables:
            found = await connection.fetch(f'SELECT to_jsonb(t) FROM "{name}" t')  # noqa: S608  # the schema's own
            rows += [(name, json.loads(row)) for (row,) in found]
    finally:
        await connection.close()
    own = {row["id"] for _, row in rows if row.get("application") == tenant.application and "id" in row}

    def belongs(row: Mapping[str, Any]) -> bool:
        if row.get("application") in {None, "", tenant.application} or "target" in row:
            return row.get("application") == tenant.application or not own.isdisjoint(
                value for value in row.values() if isinstance(value, str)
            )
        return False

    return {f"{name} {json.dumps(row, sort_keys=True)}" for name, row in rows if belongs(row)}


def without_request(answer: httpx2.Response) -> tuple[int, str, dict[str, str]]:
    """Give an answer without what is new in each: all that could tell one id from another."""
    request = answer.headers.get("x-request-id", "-")
    headers = {
        name: value
        for name, value in answer.headers.items()
        if name not in {"x-request-id", "content-length", "date"}
    }
    return answer.status_code, answer.text.replace(request, "-"), headers
