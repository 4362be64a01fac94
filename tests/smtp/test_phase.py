"""Phases: ordered, and named as the ledger names them."""

import pytest

from service.smtp.phase import Phase


def test_phases_are_ordered_as_a_dialogue_goes() -> None:
    """The words are those of the contract, in the order in which a dialogue reaches them."""
    words = [
        "connect",
        "greeting",
        "ehlo",
        "starttls",
        "auth",
        "mail",
        "rcpt",
        "data",
        "body",
        "dot",
        "reply",
        "quit",
    ]

    assert words == [phase.word for phase in sorted(Phase)]
    assert Phase.BODY < Phase.DOT < Phase.REPLY


@pytest.mark.parametrize("phase", list(Phase))
def test_a_phase_is_found_by_its_word(phase: Phase) -> None:
    """A phase and its word are each other's inverse."""
    assert phase is Phase.named(phase.word)


def test_an_unknown_word_is_no_phase() -> None:
    """A word that is no phase is a ValueError, not a guess."""
    with pytest.raises(ValueError, match="not a phase"):
        Phase.named("helo")
