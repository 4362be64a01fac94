"""The endpoints of Resend's shape, as the OpenAPI document lists them."""

from typing import Any

from fastapi import APIRouter

from service.submission.door import Door, guarded
from service.submission.request.query import PAGE_PARAMETERS
from service.submission.resend import shapes
from service.submission.resend.acting import Changing
from service.submission.resend.reading import Reading
from service.submission.resend.taking import VALIDATION, Taking

SHAPES = (shapes.ResendEmailIn, shapes.ResendUpdateIn)

#: What each status means, and the names that an error can have under it.
_REFUSALS: dict[int, tuple[str, tuple[str, ...]]] = {
    400: (
        "The body is not JSON, or the Idempotency-Key has no form.",
        ("validation_error", "invalid_idempotency_key"),
    ),
    401: ("There is no key, or it lacks the scope.", ("missing_api_key", "restricted_api_key")),
    403: (
        "The key is not valid, or may not send from or to this address.",
        ("invalid_api_key", "validation_error"),
    ),
    404: ("There is no such email for this key.", ("not_found",)),
    408: ("The body took too long to arrive.", ("application_error",)),
    409: (
        "The Idempotency-Key is in use.",
        ("invalid_idempotent_request", "concurrent_idempotent_requests"),
    ),
    413: ("The body is too large.", ("validation_error",)),
    415: ("The body is not announced as JSON.", ("validation_error",)),
    422: (
        "A field is wrong, or the email's state does not allow it.",
        (
            "validation_error",
            "missing_required_field",
            "invalid_from_address",
            "invalid_attachment",
            "invalid_parameter",
        ),
    ),
    429: ("Too many requests, or a quota is used up.", ("rate_limit_exceeded", "daily_quota_exceeded")),
    503: ("The ledger cannot be used at the moment, or the queue is full.", ("application_error",)),
}
_BODY = (400, 408, 413, 415, 422)

_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": 256, "pattern": "^[!-~]+$"},
    "description": "Makes repeated requests one request, for 72 hours.",
}
_VALIDATION = {
    "name": VALIDATION,
    "in": "header",
    "required": False,
    "schema": {"type": "string", "enum": ["strict", "permissive"], "default": "strict"},
    "description": "`strict`: all or none. `permissive`: the good ones, and `errors` for the others.",
}


def endpoints(door: Door) -> APIRouter:
    """Make the endpoints of Resend's shape."""
    router = APIRouter(tags=["emails"])
    taking, reading, changing = Taking(door, door.desk), Reading(door), Changing(door)
    email = {"$ref": "#/components/schemas/ResendEmailIn"}

    def add(
        path: str, endpoint: Any, *, method: str, name: str, model: Any, refused: tuple[int, ...], **more: Any
    ) -> None:
        router.add_api_route(
            path,
            endpoint,
            methods=[method],
            operation_id=name,
            responses={200: {"model": model}, **_refusals(*refused)},
            response_model_exclude_unset=True,
            **more,
        )

    add(
        "/emails",
        taking.send,
        method="POST",
        name="resend_send_email",
        summary="Send an email",
        model=shapes.ResendIdOut,
        refused=(*_BODY, 409),
        **guarded(parameters=[_IDEMPOTENCY_KEY], requestBody=_body(email)),
    )
    add(
        "/emails/batch",
        taking.batch,
        method="POST",
        name="resend_send_batch",
        summary="Send several emails",
        model=shapes.ResendBatchOut,
        refused=(*_BODY, 409),
        **guarded(
            parameters=[_IDEMPOTENCY_KEY, _VALIDATION],
            requestBody=_body(
                {"type": "array", "minItems": 1, "maxItems": door.limits.batch, "items": email}
            ),
        ),
    )
    add(
        "/emails",
        reading.emails,
        method="GET",
        name="resend_list_emails",
        summary="List emails",
        model=shapes.ResendListOut,
        refused=(422,),
        **guarded(parameters=list(PAGE_PARAMETERS)),
    )
    add(
        "/emails/{email_id}",
        reading.email,
        method="GET",
        name="resend_get_email",
        summary="See an email",
        model=shapes.ResendEmailOut,
        refused=(404, 422),
        **guarded(),
    )
    add(
        "/emails/{email_id}",
        changing.update,
        method="PATCH",
        name="resend_update_email",
        summary="Move a scheduled email to another time",
        model=shapes.ResendEmailIdOut,
        refused=(404, *_BODY),
        **guarded(requestBody=_body({"$ref": "#/components/schemas/ResendUpdateIn"})),
    )
    add(
        "/emails/{email_id}/cancel",
        changing.cancel,
        method="POST",
        name="resend_cancel_email",
        summary="Cancel an email",
        model=shapes.ResendEmailIdOut,
        refused=(404, 422),
        **guarded(),
    )
    return router


def _refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {
        status: _refusal(status, *_REFUSALS[status]) for status in sorted({401, 403, 429, 503, *statuses})
    }


def _refusal(status: int, means: str, names: tuple[str, ...]) -> dict[str, Any]:
    example = {"statusCode": status, "name": names[0], "message": means}
    return {
        "model": shapes.ResendErrorOut,
        "description": f"{means} Names: {', '.join(f'`{name}`' for name in names)}.",
        "content": {"application/json": {"example": example}},
    }


def _body(schema: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": schema}}}
