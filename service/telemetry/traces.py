"""Traces: one for each message, from the request that brought it through every attempt to the reply.

A request's span is the child of its caller's, where the request names one (`traceparent`, W3C Trace Context). Its
own place in the trace is kept with each message that was accepted in it, so the attempts of whichever worker, hours
later and after a restart, are its children: one span each, with the phases of the dialogue as events.

Off unless OTEL_EXPORTER_OTLP_ENDPOINT, or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, says where spans go (OTLP over HTTP);
the other standard variables hold too: OTEL_TRACES_SAMPLER, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES,
OTEL_EXPORTER_OTLP_HEADERS, OTEL_BSP_…. It needs the extra `otel`. While it is off nothing of OpenTelemetry is
loaded, and a caller's `traceparent` is kept all the same, for the logs.

What is in a span is a list of ids, names of the configuration, codes and counts. No address, no subject, no text of
a peer, no exception's message.
"""

import os
import re
import threading
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from service.without import without

with without("rich"):
    import structlog

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

log = structlog.get_logger()

Attributes = Mapping[str, str | int | float | bool]
Event = tuple[str, datetime, Attributes]

#: Version 00, and what later versions begin with (Trace Context, section 3.2.2).
_TRACEPARENT = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?"
)

#: Seconds that the last spans get to leave when the process ends. A receiver that is away is tried for half a minute
#: otherwise, which is longer than a pod has.
_LAST = 3.0


class _State:
    """What `set_up` has made; nothing while traces are off."""

    provider: "TracerProvider | None" = None
    tracer: "Tracer | None" = None


def on() -> bool:
    """Say whether anybody wants spans."""
    return _State.tracer is not None


def set_up(process: str, *, version: str, environment: Mapping[str, str] = os.environ) -> None:
    """Begin to send spans, where the environment says where to; `process` is api or worker."""
    if not _wanted(environment):
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        log.warning("traces.not_installed", remedy="install Postroom with its extra `otel`")
        return
    named = "OTEL_SERVICE_NAME" in environment or "service.name=" in environment.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )
    names = {"service.version": version} | ({} if named else {"service.name": f"postroom-{process}"})
    provider = TracerProvider(resource=Resource.create(names), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _State.provider, _State.tracer = provider, provider.get_tracer("postroom", version)
    log.info("traces.on")


def end() -> None:
    """Send what is left, and be off; blocks for some seconds at the most."""
    provider, _State.provider, _State.tracer = _State.provider, None, None
    if provider is not None:
        last = threading.Thread(target=provider.shutdown, daemon=True)
        last.start()
        last.join(_LAST)


def _wanted(environment: Mapping[str, str]) -> bool:
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    if environment.get("OTEL_TRACES_EXPORTER", "otlp").lower() != "otlp":
        return False
    places = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    return any(environment.get(name) for name in places)


# -- the context -------------------------------------------------------------------------------


def given(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Read a request's traceparent; None where there is none, or it is not one, or there are two."""
    found: bytes | None = None
    for name, value in headers:
        if name == b"traceparent":
            if found is not None:
                return None
            found = value
    if found is None or not _TRACEPARENT.fullmatch(found):
        return None
    return f"00-{found[3:55].decode('ascii')}"


def trace_id(traceparent: str) -> str:
    """Name the trace that a traceparent belongs to."""
    return traceparent[3:35]


def traceparent_of(span: "Span") -> str:
    """Write a span's place in its trace."""
    context = span.get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


# -- spans -------------------------------------------------------------------------------------


def begin_request(method: str, headers: Iterable[tuple[bytes, bytes]]) -> "Span | None":
    """Begin the span of a request; None while traces are off."""
    tracer = _State.tracer
    if tracer is None:
        return None
    from opentelemetry.trace import SpanKind

    state = b",".join(value for name, value in headers if name == b"tracestate").decode("latin-1")
    context = _context(given(headers), state)
    return tracer.start_span(
        method, context=context, kind=SpanKind.SERVER, attributes={"http.request.method": method}
    )


def end_request(span: "Span", *, name: str, status: int | None, attributes: Attributes) -> None:
    """End the span of a request: `status` is None where it was not answered."""
    from opentelemetry.trace import StatusCode

    span.update_name(name)
    span.set_attributes(dict(attributes))
    if status is not None:
        span.set_attribute("http.response.status_code", status)
    if status is None or status >= 500:
        span.set_status(StatusCode.ERROR)
    span.end()


def attempt(
    traceparent: str | None,
    *,
    name: str,
    began: datetime,
    ended: datetime,
    attributes: Attributes,
    events: Iterable[Event],
    failed: bool,
) -> None:
    """Write the span of an attempt that is over."""
    tracer = _State.tracer
    if tracer is None:
        return
    from opentelemetry.trace import SpanKind, StatusCode

    span = tracer.start_span(
        name,
        context=_context(traceparent, ""),
        kind=SpanKind.CLIENT,
        attributes=dict(attributes),
        start_time=_nanoseconds(began),
    )
    if span.is_recording():
        for what, at, facts in events:
            span.add_event(what, dict(facts), timestamp=_nanoseconds(at))
        if failed:
            span.set_status(StatusCode.ERROR)
    span.end(end_time=_nanoseconds(ended))


def _context(traceparent: str | None, tracestate: str) -> "Context":
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier = {} if traceparent is None else {"traceparent": traceparent, "tracestate": tracestate}
    return TraceContextTextMapPropagator().extract(carrier, context=Context())


def _nanoseconds(at: datetime) -> int:
    return int(at.timestamp() * 1_000_000) * 1000
