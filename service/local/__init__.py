"""The whole service on one machine with nothing installed but Python: `postroom dev`.

1. `servers` starts a real PostgreSQL and a real Valkey from wheels (`programs` finds them), in a folder
   that nobody else may use meanwhile (`claim`), as children that are not root and end with us (`descent`).
2. `dev` adds the schema, the sandbox, the API and the worker, a key, and keeps all of them up (`child`).
3. `example` is the first message, `report` shows what the ledger says about it.

Nothing here is used in production.
"""
