"""What happened, in PostgreSQL.

states     the states of a recipient and the moves between them
tables     the tables; `migrate` brings a database to them
standing   how far a database is; `reasons` why it cannot be used, `database_url` where it is
accepting  the transaction behind every 202
claiming   the transaction before every socket
pace       what the windows of a lane have used and leave
stops      senders that rest on a lane
closing    the two on either side of the final dot: fence and close
sweeping   what time alone does: renew, rescue, expire
keys       API keys, as hashes
history    what people read of messages
feed       what happened, in an order in which nothing is missed, and who follows it
webhooks   where applications are told; `webhook_deliveries` what, `telling` how they are sent
sealing    secrets of others at rest
lanes      what a lane is doing, for people and forecasts
forecast   when a delivery is expected to go
ledger     all of it as the other rooms hold it: `Ledger`
"""

from service.without import without

with without("sqlalchemy.ext.asyncio.scoping", "sqlalchemy.ext.asyncio.session"):
    import sqlalchemy.ext.asyncio  # noqa: F401

from service.ledger.engine import LedgerUnavailable
from service.ledger.ledger import Ledger

__all__ = ["Ledger", "LedgerUnavailable"]
