"""What happened, in PostgreSQL.

states     the states of a recipient and the moves between them
tables     the tables; `migrate` brings a database to them
accepting  the transaction behind every 202
claiming   the transaction before every socket
closing    the two on either side of the final dot: fence and close
sweeping   what time alone does: renew, rescue, expire
keys       API keys, as hashes
history    what people read
ledger     all of it as the other rooms hold it: `Ledger`
"""

from service.ledger.engine import LedgerUnavailable
from service.ledger.ledger import Ledger

__all__ = ["Ledger", "LedgerUnavailable"]
