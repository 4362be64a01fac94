"""Postroom: a company's own mail-sending API on top of Microsoft 365.

The way of a message, one short function a room:

    submission.intake.sending          who is calling, validate, compose, plan
    ledger.accepting.accept            one transaction; then, and only then, 202
    delivery.bell.Bell.ring            the lane's drains hear of it
    delivery.drain.Drain._fill         what may go now?
    ledger.claiming.claim              attempt and lease, before any socket
    delivery.attempt.Attempt.converse  the story of one attempt
    smtp.session.Session.transmit      MAIL, RCPT, DATA, content, the fence, the dot, the reply
    delivery.verdict.judge             what it means
    ledger.closing.close               verdicts, replies, transcript

Nothing here is imported by name only: each process starts in `commands` and is put together
in `wiring`.
"""
