"""Does with Resend's SDK for Python what the test asks for, line by line; see `sdk.py`.

Everything here is what an application would write. The base URL comes from RESEND_API_URL.
"""

import base64
import json
import sys
from typing import Any

import resend


def call(asked: dict[str, Any]) -> Any:
    """Make one call as an application makes it."""
    resend.api_key = asked["key"]
    given: Any = asked["given"]
    options: Any = asked.get("options", {})
    match asked["call"]:
        case "send":
            return resend.Emails.send(_with_files(given), options)
        case "batch":
            return resend.Batch.send([_with_files(each) for each in given], options)
        case "get":
            return resend.Emails.get(given)
        case "list":
            return resend.Emails.list(given)
        case "update":
            return resend.Emails.update(given)
        case "cancel":
            return resend.Emails.cancel(given)
        case "put":  # no method of the SDK does this: its own request does
            return resend.Request(path="/emails", params={}, verb="put").perform()
        case other:
            raise AssertionError(other)


def _with_files(email: dict[str, Any]) -> Any:
    """Give files as the SDK's documentation does: as the list of their octets."""
    files = [
        {**each, "content": list(base64.b64decode(each["content"]))} for each in email.get("attachments", [])
    ]
    return {**email, "attachments": files} if files else email


for line in sys.stdin:
    try:
        told = {"data": call(json.loads(line)), "error": None}
    except resend.exceptions.ResendError as exc:
        error = {
            "name": exc.error_type,
            "status": exc.code,
            "message": exc.message,
            "class": type(exc).__name__,
        }
        told = {"data": None, "error": error | {"retry_after": exc.headers.get("retry-after")}}
    print(json.dumps(told), flush=True)
