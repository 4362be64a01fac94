"""Take one person out of the ledger."""
