"""The shape of the Resend API over the same core, so that its published SDKs work with another base URL.

    POST /emails · POST /emails/batch · GET /emails · GET /emails/{id} · PATCH /emails/{id}
    POST /emails/{id}/cancel

A request is read in Resend's shape (`shapes`, `times`), written down as the members of `POST /messages`
(`mapping`), and goes the way of every message from there on: the same keys, scopes, restrictions, routes,
quotas and ledger. What comes back is the same message in Resend's words (`view`). Refusals stay
problems until the last moment and are put into Resend's form around all of it (`errors`).

Nothing that cannot be carried out is ignored: remote attachments, topics and unknown fields are refused.

Source: https://resend.com/docs/api-reference, and the SDKs as they are published.
"""
