"""What a suppressed recipient shows: who decided that it gets no mail, and how to lift it."""

from datetime import datetime

from service.routes.diagnoses import error, of_code


def suppressed(
    code: str, *, suppression_id: str, address: str, reason: str, until: datetime | None
) -> dict[str, object]:
    """Write the error of a suppressed recipient; `code` is `suppressed_manual` or `suppressed_rule`.

    `address` is what is suppressed, an address or "@domain", and `reason` is for people.
    """
    span = "" if until is None else f" until {until:%Y-%m-%d}"
    return error(
        of_code(code),
        phase=None,
        reply=None,
        retryable=False,
        names={"suppression": suppression_id, "recipient": address},
        detail=f"{address} is suppressed{span}: {reason}",
    )
