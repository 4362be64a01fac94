"""What a process says about itself: logs, figures and traces.

    logs       one event name a fact, fields instead of prose
    families   how something is counted and how the page for Prometheus is written
    figures    everything that is counted, with its name and what it means: the catalogue of metrics
    traces     from the request through the attempt to the reply, for whoever has an OTLP receiver

The lowest room: every other one may say something about itself, so this one imports none of them. What the
ledger knows (depth, age, budgets) is read by `service.exposition`, which also answers Prometheus.
"""

from service.telemetry.logs import set_up

__all__ = ["set_up"]
