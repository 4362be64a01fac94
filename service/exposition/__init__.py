"""How the outside learns how a process is: the page for Prometheus, and a listener beside what a process serves.

    page      what was counted here and what the ledger knows, written for Prometheus
    listener  /livez, /readyz and /metrics on a port of their own: a worker has no other

Above ledger and routes, below wiring. Whoever reads figures never makes them: what is counted stands in
`service.telemetry.figures`.
"""
