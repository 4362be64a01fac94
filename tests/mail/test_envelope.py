"""The envelope and its batches."""

from __future__ import annotations

import pytest

from service.mail.address import Address
from service.mail.envelope import Envelope

SENDER = Address.parse("noreply@contoso.com")


def an_envelope(*recipients: str, sender: Address | None = SENDER) -> Envelope:
    return Envelope(reverse_path=sender, forward_paths=tuple(map(Address.parse, recipients)))


def test_an_address_named_twice_gets_one_copy() -> None:
    """The first spelling stays, in its place."""
    envelope = an_envelope("Ana@contoso.com", "bo@contoso.com", "ana@CONTOSO.com")

    assert [str(path) for path in envelope.forward_paths] == ["Ana@contoso.com", "bo@contoso.com"]


def test_an_envelope_has_a_recipient() -> None:
    """There is no such thing as a transaction to nobody."""
    with pytest.raises(ValueError, match="at least one"):
        an_envelope()


@pytest.mark.parametrize(
    ("limit", "sizes"), [(1, [1, 1, 1, 1, 1]), (2, [2, 2, 1]), (4, [4, 1]), (5, [5]), (500, [5])]
)
def test_batches_hold_everybody_once_in_order(limit: int, sizes: list[int]) -> None:
    """A split loses nobody, doubles nobody and keeps the reverse-path."""
    envelope = an_envelope(*(f"r{number}@contoso.com" for number in range(5)))

    batches = list(envelope.batches(limit))

    assert sizes == [len(batch.forward_paths) for batch in batches]
    assert envelope.forward_paths == tuple(path for batch in batches for path in batch.forward_paths)
    assert {SENDER} == {batch.reverse_path for batch in batches}


def test_a_batch_of_nobody_is_refused() -> None:
    """A limit of zero would never come to an end."""
    with pytest.raises(ValueError, match="at least one"):
        list(an_envelope("a@b").batches(0))


def test_one_path_beyond_ascii_asks_for_smtputf8() -> None:
    """The transaction needs SMTPUTF8 for any path, the null reverse-path needs nothing."""
    assert an_envelope("a@b", "jörg@b").smtputf8
    assert an_envelope("a@b", sender=Address.parse("jörg@b")).smtputf8
    assert not an_envelope("a@b", sender=None).smtputf8
