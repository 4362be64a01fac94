"""Which operation of the API a request was for, by the name that it has in the OpenAPI document.

Figures and spans name requests by it and never by their path, in which there may be addresses.
"""

from collections.abc import Mapping
from typing import Any, Final

#: What goes past the framework (`express`), which finds the route of everything else.
_EXPRESS: Final = {("POST", "/messages"): "send_message", ("POST", "/v1/messages"): "send_message"}

#: The operations that accept messages.
ACCEPTING: Final = frozenset({"send_message", "send_batch", "resend_send_email", "resend_send_batch"})


def operation_of(scope: Mapping[str, Any]) -> str:
    """Name the operation that answered; empty where there was none, or it is in no document."""
    route = scope.get("route")
    if route is not None:
        return getattr(route, "operation_id", None) or ""
    return _EXPRESS.get((scope["method"], scope["path"]), "")
