"""Problems in Resend's form."""

import pytest

from service.submission.problems import FieldError, Problem, by_status, ledger_unavailable, unprocessable
from service.submission.resend.errors import error_of


def shown(problem: Problem) -> tuple[int, str, str]:
    error = error_of(problem.body("req_1"))
    assert {"statusCode", "name", "message"} == error.keys()
    return error["statusCode"], error["name"], error["message"]


@pytest.mark.parametrize(
    ("problem", "expected"),
    [
        (Problem(status=401, code="missing_key", detail="D"), (401, "missing_api_key", "D")),
        (Problem(status=401, code="invalid_key", detail="D"), (403, "invalid_api_key", "D")),
        (Problem(status=401, code="key_closed", detail="D"), (403, "invalid_api_key", "D")),
        (Problem(status=403, code="insufficient_scope", detail="D"), (401, "restricted_api_key", "D")),
        (Problem(status=403, code="network_not_allowed", detail="D"), (401, "restricted_api_key", "D")),
        (by_status(404), (404, "not_found", "There is nothing here")),
        (by_status(405), (405, "method_not_allowed", "This method is not for this path")),
        (by_status(413), (413, "validation_error", "The request is too large")),
        (Problem(status=400, code="not_json", detail="D"), (400, "validation_error", "D")),
        (
            Problem(status=409, code="request_in_progress", detail="D"),
            (409, "concurrent_idempotent_requests", "D"),
        ),
        (Problem(status=409, code="not_cancelable", detail="D"), (422, "validation_error", "D")),
        (
            Problem(status=422, code="idempotency_key_invalid", detail="D"),
            (400, "invalid_idempotency_key", "D"),
        ),
        (
            Problem(status=422, code="idempotency_key_reused", detail="D"),
            (409, "invalid_idempotent_request", "D"),
        ),
        (Problem(status=429, code="quota_exceeded", detail="D"), (429, "rate_limit_exceeded", "D")),
        (Problem(status=500, code="internal_error", detail="D"), (500, "internal_server_error", "D")),
        (Problem(status=418, code="teapot", detail="D"), (418, "application_error", "D")),
        (ledger_unavailable(), (503, "application_error", ledger_unavailable().detail)),
    ],
)
def test_each_refusal_has_its_name_there(problem: Problem, expected: tuple[int, str, str]) -> None:
    """Statuses and names are those from which the SDKs make their exceptions."""
    assert expected == shown(problem)


@pytest.mark.parametrize(
    ("code", "retry_after", "expected"),
    [
        ("quota_exceeded", 60, "rate_limit_exceeded"),
        ("quota_exceeded", 61, "daily_quota_exceeded"),
        ("too_many_wrong_keys", 3600, "rate_limit_exceeded"),
    ],
)
def test_a_quota_of_a_day_is_told_by_its_time(code: str, retry_after: int, expected: str) -> None:
    """A quota that is back within a minute is a rate; what is slowed for other reasons always is."""
    problem = Problem(status=429, code=code, detail="D")

    assert error_of(problem.body("req_1"), retry_after=retry_after)["name"] == expected


@pytest.mark.parametrize(
    ("pointer", "code", "expected"),
    [
        ("/from", "required", (422, "missing_required_field", "Missing `from` field.")),
        ("/1/to", "required", (422, "missing_required_field", "Email 1: Missing `to` field.")),
        ("/from", "no_at", (422, "invalid_from_address", "Invalid `from` field. D")),
        ("/to/0", "no_at", (422, "validation_error", "Invalid `to[0]` field. D")),
        ("/0/cc/2", "no_at", (422, "validation_error", "Email 0: Invalid `cc[2]` field. D")),
        (
            "/attachments/0/content",
            "not_base64",
            (422, "invalid_attachment", "Invalid `attachments[0].content` field. D"),
        ),
        (
            "/attachments/0/content",
            "required",
            (422, "invalid_attachment", "Missing `attachments[0].content` field."),
        ),
        ("/template/id", "not_found", (422, "validation_error", "Invalid `template.id` field. D")),
        ("/route", "no_route", (422, "validation_error", "D")),
        ("", "empty", (422, "validation_error", "D")),
        ("?after", "not_an_id", (422, "invalid_parameter", "Invalid `after` field. D")),
    ],
)
def test_a_wrong_field_is_named_in_the_message(
    pointer: str, code: str, expected: tuple[int, str, str]
) -> None:
    """The message has the field's name in the way of their API, and the email of a batch by its index."""
    assert expected == shown(unprocessable(pointer, code, "D"))


def test_of_several_mistakes_the_first_is_told() -> None:
    """Resend tells one mistake; the first field decides about the name too."""
    errors = [FieldError(pointer=f"/{name}", code="required", detail="D") for name in ("to", "subject")]
    problem = Problem(status=422, code="invalid", detail="2 fields are wrong", errors=errors)

    assert shown(problem) == (422, "missing_required_field", "Missing `to` field.")


def test_a_sender_that_the_key_may_not_use_is_a_403() -> None:
    """As a domain that is not verified is there."""
    errors = [FieldError(pointer="/from", code="sender_not_allowed", detail="D")]
    problem = Problem(status=403, code="sender_not_allowed", detail="D", errors=errors)

    assert shown(problem) == (403, "validation_error", "Invalid `from` field. D")
