"""Logs: one event name a fact, fields instead of prose, to stderr.

Ids are always there (message, attempt, lane's route), addresses only at DEBUG, content and
tokens never. Expected trouble is INFO, what an operator must act upon WARNING, a bug ERROR.
The libraries' own logs go the same way; arq's are kept to warnings because it logs the
arguments of jobs.
"""

import logging
import sys
from typing import Literal

from service.without import without

with without("rich"):
    import structlog
    from structlog.typing import Processor

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
)


def set_up(*, level: Literal["debug", "info", "warning", "error"], form: Literal["json", "console"]) -> None:
    """Configure logging of this process; the last call wins."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer()
        if form == "json"
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            # The prettier one shows the values of variables: content, and keys.
            exception_formatter=structlog.dev.plain_traceback,
        )
    )
    exceptions: list[Processor] = [structlog.processors.format_exc_info] if form == "json" else []
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
