"""Composing alone, in CPU time of this process.

Text and HTML with a subject and names that are not ASCII; and the same with an attachment of 1 MB, against
encoding the attachment in base64 and nothing else, in turns.
"""

import base64
import random
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256

import pytest

from service.mail.address import Mailbox
from service.mail.compose import Attachment, Draft, compose, new_message_id
from tests.bench import letters
from tests.bench.figures import Figure, Table, median, ms, scaled
from tests.bench.machine import watching

pytestmark = [pytest.mark.bench, pytest.mark.timeout(300)]


def _draft() -> Draft:
    given = letters.letter(1, run="compose")
    return Draft(
        sender=Mailbox.parse("Encomendas São João <noreply@contoso.com>"),
        to=(Mailbox.parse("Inês Gonçalves <ana@example.com>"),),
        cc=(Mailbox.parse("Łukasz Żółć <lukasz@example.com>"),),
        bcc=(),
        reply_to=(Mailbox.parse("Atendimento técnico <help@contoso.com>"),),
        subject="O seu recibo n.º 42: encomenda já a caminho, obrigado pela preferência",
        text=given["text"],
        html=given["html"],
        headers={"X-Order": "42"},
        attachments=(),
    )


def _seconds(act: Callable[[], object], *, times: int) -> float:
    began = time.process_time()
    for _ in range(times):
        act()
    return (time.process_time() - began) / times


def _composing(draft: Draft) -> Callable[[], object]:
    message_id, date = new_message_id("contoso.com"), datetime.now(UTC)
    return lambda: compose(draft, message_id=message_id, date=date)


def test_small(table: Table) -> None:
    """Text and HTML."""
    compose_it = _composing(_draft())
    with watching() as noise:
        reached = median([_seconds(compose_it, times=scaled(500, least=50)) for _ in range(9)])
    table.add(
        Figure(
            name="composing text + HTML, non-ASCII subject and names",
            goal="≤ 0.2 ms",
            reached=f"{reached * 1000:.3f} ms",
            met=reached <= 0.0002,
            beside="CPU time; SHA-256 included",
            noise=str(noise),
        )
    )


def test_attachment(table: Table) -> None:
    """With an attachment of 1 MB."""
    content = random.Random(1).randbytes(1_000_000)
    attachment = Attachment(
        filename="relatório.pdf",
        content=content,
        content_type="application/pdf",
        content_id=None,
        disposition=None,
    )
    compose_it = _composing(replace(_draft(), attachments=(attachment,)))
    encoded, times = base64.encodebytes(content), scaled(20, least=5)
    with watching() as noise:
        rounds = [
            (
                _seconds(compose_it, times=times),
                _seconds(lambda: base64.b64encode(content), times=times),
                _seconds(lambda: base64.encodebytes(content), times=times),
                _seconds(lambda: sha256(encoded).digest(), times=times),
            )
            for _ in range(9)
        ]
    ours, plain, lines, hashed = (median(column) for column in zip(*rounds, strict=True))
    table.add(
        Figure(
            name="composing with a 1 MB attachment",
            goal="≤ 1.5 × its base64 alone",
            reached=f"{ms(ours)} = {ours / plain:.2f} × b64encode",
            met=ours <= 1.5 * plain,
            beside=f"CPU time; b64encode (one line) {ms(plain)}, encodebytes (lines of 76, as MIME wants them) {ms(lines)},"
            f" the SHA-256 of the whole, which is in ours, {ms(hashed)}",
            noise=str(noise),
        )
    )
