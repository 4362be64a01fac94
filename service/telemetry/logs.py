"""Logs: one event name a fact, fields instead of prose, to stderr.

Ids are always there: message, attempt, the lane's route; while a request is in hand its `request_id`, and its
`trace_id` where its caller or `traces` gave it one. Addresses only at DEBUG, content and tokens never. Expected
trouble is INFO, what an operator must act upon WARNING, a bug ERROR. The libraries' own logs go the same way;
arq's are kept to warnings because it logs the arguments of jobs.

A traceback shows the lines of the code, and what an exception says; of what PostgreSQL says the row is left out,
because it is somebody's message.
"""

import io
import logging
import re
import sys
import textwrap
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Literal, TextIO

from service.telemetry.traces import trace_id
from service.without import without

with without("rich"):
    import structlog
    from structlog.typing import EventDict, ExcInfo, Processor, WrappedLogger

_QUIET = (
    "arq",
    "uvicorn",
    "uvicorn.error",
    "uvicorn.access",
    "asyncio",
    "httpx2",
    "httpcore2",
    "msal",
    "alembic",
    "service.ledger.pool",  # SQLAlchemy's own words about its pool, under the name of our class
)


#: The request that is served, each in its own task: its `request_id`, and its `traceparent` (`traces`) or None.
IN_HAND: ContextVar[Mapping[str, Any] | None] = ContextVar("in_hand", default=None)


def traceparent() -> str | None:
    """Say where in a trace the request stands that is served."""
    request = IN_HAND.get()
    return None if request is None else request["traceparent"]


#: What PostgreSQL quotes of a row, and all that follows of it, up to the next exception of a traceback.
_ROW = re.compile(
    r"^DETAIL:.*?(?=^Traceback |^The above exception |^During handling |\Z)", re.DOTALL | re.MULTILINE
)


def _with_request(_logger: "WrappedLogger", _method: str, event: "EventDict") -> "EventDict":
    request = IN_HAND.get()
    if request is not None:
        event.setdefault("request_id", request["request_id"])
        if request["traceparent"] is not None:
            event.setdefault("trace_id", trace_id(request["traceparent"]))
    return event


def _without_rows(_logger: "WrappedLogger", _method: str, event: "EventDict") -> "EventDict":
    """Leave out of a traceback what belongs to a message."""
    if "exception" in event:
        event["exception"] = without_rows(event["exception"])
    return event


def without_rows(text: str) -> str:
    """Leave the rows out of what PostgreSQL says."""
    return _ROW.sub("DETAIL: (not logged)\n", text)


def _printable(_logger: "WrappedLogger", _method: str, event: "EventDict") -> "EventDict":
    """Let nothing of a value end its line or steer a terminal; JSON does so by itself."""
    for name, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[name] = _escaped(value)
    return event


def _escaped(text: str, *, keep: str = "") -> str:
    return "".join(each if each.isprintable() or each in keep else ascii(each)[1:-1] for each in text)


def _plain_traceback(out: TextIO, failure: "ExcInfo") -> None:
    written = io.StringIO()
    structlog.dev.plain_traceback(written, failure)
    # Indented: no line of what an exception says begins as a log's own lines do.
    out.write(textwrap.indent(_escaped(without_rows(written.getvalue()), keep="\n"), "    "))


def set_up(*, level: Literal["debug", "info", "warning", "error"], form: Literal["json", "console"]) -> None:
    """Configure logging of this process; the last call wins."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        _with_request,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer()
        if form == "json"
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            # The prettier one shows the values of variables: content, and keys.
            exception_formatter=_plain_traceback,
        )
    )
    exceptions: list[Processor] = (
        [structlog.processors.format_exc_info, _without_rows] if form == "json" else [_printable]
    )
    structlog.configure(
        processors=[*shared, *exceptions, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta, *exceptions, renderer,
        ])
    )  # fmt: skip
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    # It warns of each span that a receiver which is away does not take.
    logging.getLogger("opentelemetry").setLevel(logging.ERROR)
