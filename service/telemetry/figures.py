"""Everything that is counted: the catalogue of Postroom's metrics.

What an operator reads about each stands in docs/metrics.md; a test compares the two, and the dashboard and the
alerts with both. Labels are few and bounded: what the configuration or the catalogues of codes and diagnoses name.
No recipient, no application, no subject, no id of a message is ever a label, because the page is open to whoever
reaches it; a lane's name may hold the address of a configured mailbox.

    Counted by a process itself   requests, acceptances, attempts, sweeps, the bell, webhooks, traces
    Read from the ledger          queues, budgets, lanes, checks; `service.exposition` fills them in
"""

from service.telemetry.families import Counter, Gauge, Histogram

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_LONG = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600, 14_400, 86_400)

# -- the process -------------------------------------------------------------------------------

BUILD = Gauge("postroom_build_info", "What runs here; always 1.", "process", "version", "schema")
BUGS = Counter(
    "postroom_bugs_total",
    "Errors of Postroom's own; the log has each with its traceback.",
    "where",
    known=("request", "attempt", "drain", "sweep", "webhook"),
)

# -- the door ----------------------------------------------------------------------------------

REQUESTS = Counter(
    "postroom_http_requests_total",
    "Requests that were answered, by operation of the API and status.",
    "operation",
    "status",
)
REFUSED = Counter(
    "postroom_http_refusals_total",
    "Requests that were refused, by the code of the problem.",
    "status",
    "code",
)
ACCEPTANCE = Histogram(
    "postroom_acceptance_seconds",
    "Time from a request's head to the answer that its messages are committed.",
    "operation",
    buckets=_FAST,
)
ACCEPTED = Counter(
    "postroom_messages_accepted_total", "Messages that were committed to the ledger.", "priority"
)
ACCEPTED_BYTES = Counter(
    "postroom_messages_accepted_bytes_total",
    "Octets of these messages, as they go after DATA.",
    "priority",
)
BODIES = Gauge("postroom_http_bodies_bytes", "Octets of request bodies that are in hand.")
STREAMS = Gauge("postroom_event_streams", "Streams of events that are open.")

# -- attempts ----------------------------------------------------------------------------------

ATTEMPTS = Counter(
    "postroom_attempts_total",
    "Attempts that ended, by outcome and the diagnosis of what went wrong.",
    "route",
    "lane",
    "outcome",
    "diagnosis",
)
DELIVERY = Histogram(
    "postroom_delivery_seconds",
    "Time from acceptance, or from scheduled_at, to the peer's 250.",
    "route",
    buckets=_LONG,
)
REPLY = Histogram(
    "postroom_reply_seconds", "Time from the final dot to the peer's reply.", "route", buckets=_LONG[:12]
)
SESSIONS_OPENED = Counter("postroom_sessions_opened_total", "SMTP sessions that were opened.", "route")
IN_HAND = Gauge("postroom_attempts_in_hand", "Attempts that this worker has in hand.", "route", "lane")
CONTENTS = Gauge("postroom_contents_bytes", "Octets of large messages that this worker holds.")
CONTENTS_WAITING = Gauge("postroom_contents_waiting", "Large messages that wait for room in this worker.")

# -- leases, sweep, bell -----------------------------------------------------------------------

LEASES_LOST = Counter("postroom_leases_lost_total", "Leases that this worker lost while it had them in hand.")
RENEWALS_FAILED = Counter(
    "postroom_renewals_failed_total", "Renewals of leases that the ledger did not take."
)
RESCUED = Counter(
    "postroom_attempts_rescued_total",
    "Attempts whose lease lapsed, as the sweep judged them.",
    "outcome",
    known=("deferred", "uncertain"),
)
EXPIRED = Counter("postroom_recipients_expired_total", "Recipients given up at their message's expires_at.")
SWEEPS = Counter(
    "postroom_sweeps_total",
    "Sweeps of this worker: done, no_ledger or failed.",
    "result",
    known=("done", "no_ledger", "failed"),
)
SWEEP_SECONDS = Histogram("postroom_sweep_seconds", "How long a sweep took.", buckets=_FAST)
SWEPT_AT = Gauge("postroom_sweep_last_timestamp_seconds", "When the last sweep of this worker was done.")
RINGS = Counter(
    "postroom_bell_rings_total",
    "Rings of the bell, through Redis: rung or silent.",
    "result",
    known=("rung", "silent"),
)
HEARD = Counter("postroom_bell_heard_total", "Rings that this worker heard.")
LISTENING = Gauge("postroom_bell_listening", "Whether this worker hears the bell: 1, or 0 without Redis.")

# -- webhooks ----------------------------------------------------------------------------------

WEBHOOK_CALLS = Counter(
    "postroom_webhook_calls_total",
    "Calls of webhooks: delivered, retried or failed.",
    "result",
    known=("delivered", "retried", "failed"),
)
WEBHOOK_SECONDS = Histogram("postroom_webhook_call_seconds", "How long these calls took.", buckets=_FAST)
WEBHOOKS_DISABLED = Counter(
    "postroom_webhooks_disabled_total",
    "Webhooks that were given up, by reason.",
    "reason",
    known=("gone", "failing"),
)
WEBHOOKS_LOOKED_AT = Gauge(
    "postroom_webhook_round_last_timestamp_seconds", "When this worker last looked for events to tell."
)

# -- tokens and papers -------------------------------------------------------------------------

TOKEN_SECONDS = Gauge(
    "postroom_token_remaining_seconds",
    "How long the access token of an application still lives.",
    "client_id",
)
TOKEN_REQUESTS = Counter(
    "postroom_token_requests_total",
    "Requests for access tokens: given or failed.",
    "result",
    known=("given", "failed"),
)
CREDENTIAL_ENDS = Gauge(
    "postroom_credential_expiry_timestamp_seconds",
    "When a certificate or client secret of the configuration ends.",
    "kind",
    "name",
    "route",
)

# -- the ledger --------------------------------------------------------------------------------

LEDGER_UP = Gauge("postroom_ledger_up", "Whether the ledger could be read for this page.")
LEDGER_READ_AT = Gauge("postroom_ledger_read_timestamp_seconds", "When the figures of the ledger were read.")
LEDGER_FAILURES = Counter(
    "postroom_ledger_unavailable_total", "Acts that the ledger could not do at the moment."
)
LEDGER_WAIT = Histogram(
    "postroom_ledger_connection_wait_seconds",
    "How long an act waited for a connection to the ledger.",
    buckets=(0.0001, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 2),
)
OLDEST_TRANSACTION = Gauge(
    "postroom_ledger_oldest_transaction_seconds", "Age of the oldest open transaction of the database."
)
QUEUE = Gauge("postroom_queue_depth", "Deliveries that wait: due, or later.", "route", "lane", "state")
QUEUE_AGE = Gauge(
    "postroom_queue_oldest_due_seconds",
    "For how long the oldest delivery of the lane has been due; 0 where none is.",
    "route",
    "lane",
)
RUNNING = Gauge("postroom_lane_attempts_running", "Attempts that all workers have in hand.", "route", "lane")
SESSIONS = Gauge("postroom_lane_sessions", "Sessions of all workers that are open.", "route", "lane")
PAUSED = Gauge(
    "postroom_lane_paused", "Whether the lane rests, and the diagnosis why.", "route", "lane", "diagnosis"
)
PAUSED_UNTIL = Gauge(
    "postroom_lane_paused_until_timestamp_seconds", "When the rest of the lane ends.", "route", "lane"
)
TROUBLES = Gauge("postroom_lane_troubles", "Failures of the route in a row.", "route", "lane")
STOPPED = Gauge("postroom_lane_senders_stopped", "Senders that rest on the lane.", "route", "lane")
BUDGET_LIMIT = Gauge(
    "postroom_lane_budget_limit", "What a window of the lane allows.", "route", "lane", "window"
)
BUDGET_LEFT = Gauge("postroom_lane_budget_left", "What is left of it now.", "route", "lane", "window")
UNSETTLED = Gauge("postroom_recipients_unsettled", "Recipients that are uncertain or held.", "status")
WEBHOOKS_WAITING = Gauge("postroom_webhook_deliveries_waiting", "Deliveries of webhooks that wait.")
WEBHOOK_LAG = Gauge(
    "postroom_webhook_lag_seconds",
    "For how long the oldest delivery of a webhook has been due; 0 where none is.",
)
CHECKED = Gauge(
    "postroom_route_check_result", "The last check of the route: 0 ok, 1 warn, 2 fail; -1 skipped.", "route"
)
CHECKED_AT = Gauge("postroom_route_check_timestamp_seconds", "When that check ended.", "route")

#: What is read from the ledger, and said no more when it cannot be.
OF_THE_MOMENT = (
    OLDEST_TRANSACTION,
    QUEUE,
    QUEUE_AGE,
    RUNNING,
    SESSIONS,
    PAUSED,
    PAUSED_UNTIL,
    TROUBLES,
    STOPPED,
    UNSETTLED,
    WEBHOOKS_WAITING,
    WEBHOOK_LAG,
    CHECKED,
    CHECKED_AT,
)
OF_BUDGETS = (BUDGET_LIMIT, BUDGET_LEFT)
