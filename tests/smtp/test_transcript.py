"""The transcript: secrets struck out where it is written, bounded, readable."""

import base64
import json

import pytest

from service.smtp.phase import Phase
from service.smtp.transcript import (
    HEAD_LINES,
    LINE_CHARACTERS,
    STARS,
    TAIL_LINES,
    Strikeout,
    Transcript,
    render,
    without_credentials,
)
from tests.smtp.builders import PASSWORD, TOKEN, lines


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("AUTH LOGIN", "AUTH LOGIN"),
        ("AUTH XOAUTH2", "AUTH XOAUTH2"),
        ("AUTH XOAUTH2 dXNlcj1h", f"AUTH XOAUTH2 {STARS}"),
        ("auth plain AGEAYg==", f"auth plain {STARS}"),
        ("AUTH LOGIN dXNlcg== extra", f"AUTH LOGIN {STARS}"),
        ("dXNlcg==", STARS),
        ("AUTHENTICATE", STARS),
        ("", ""),
        ("*", "*"),
    ],
)
def test_what_proves_who_we_are_is_never_written(said: str, written: str) -> None:
    """In the AUTH phase only verb and mechanism are written; answers to a 334 are stars."""
    transcript = Transcript()

    transcript.we_said(Phase.AUTH, said)

    assert [written] == lines(transcript.as_json())


def test_other_commands_are_written_as_they_are() -> None:
    """Outside of AUTH nothing of ours is secret."""
    assert without_credentials(Phase.MAIL, "MAIL FROM:<a@contoso.com>") == "MAIL FROM:<a@contoso.com>"


def test_a_short_prompt_is_kept_and_a_long_challenge_is_not() -> None:
    """`334 UGFzc3dvcmQ6` helps to read a dialogue; a long challenge may hold what we sent."""
    transcript = Transcript()

    transcript.peer_said(Phase.AUTH, "334 UGFzc3dvcmQ6")
    transcript.peer_said(Phase.AUTH, "334 " + base64.b64encode(b'{"status":"400","echo":"x"}').decode())

    assert ["334 UGFzc3dvcmQ6", f"334 {STARS}"] == lines(transcript.as_json())


@pytest.mark.parametrize("secret", [PASSWORD, TOKEN])
def test_a_secret_that_the_peer_repeats_is_struck_out(secret: str) -> None:
    """In clear, in base64, and as a long piece of either: the peer cannot put a secret into the ledger."""
    strikeout = Strikeout()
    strikeout.add(secret)
    coded = base64.b64encode(secret.encode()).decode()

    for text in (f"5.7.3 bad secret {secret}", f"5.7.3 bad <{coded}>", f"5.5.2 what is AUTH:{coded[:38]}?"):
        struck = strikeout(text)
        assert STARS in struck
        assert secret not in struck
        assert coded[:30] not in struck


def test_pieces_are_found_wherever_they_are_cut() -> None:
    """A piece of 23 characters or more is found at every place of a token."""
    strikeout = Strikeout()
    strikeout.add(TOKEN)

    for at in range(200):
        assert strikeout(f"token={TOKEN[at : at + 23]}...") == STARS


def test_ordinary_text_is_left_alone() -> None:
    """Host names, session ids and addresses are no secrets, even when a session has some."""
    strikeout = Strikeout()
    strikeout.add(TOKEN)
    text = "5.7.3 Authentication unsuccessful [SY5P282CA0097.AUSP282.PROD.OUTLOOK.COM 08DF254F56560914]"

    assert text == strikeout(text)


def test_a_transcript_keeps_its_beginning_and_its_end() -> None:
    """A dialogue without end is cut in its middle, and says so: the final reply is always there."""
    transcript = Transcript()
    for number in range(5_000):
        transcript.peer_said(Phase.RCPT, f"250 {number}")

    kept = lines(transcript.as_json())

    assert len(kept) == HEAD_LINES + 1 + TAIL_LINES
    assert kept[0] == "250 0"
    assert kept[HEAD_LINES] == f"({5_000 - HEAD_LINES - TAIL_LINES:,} lines left out)"
    assert kept[-1] == "250 4999"


def test_a_transcript_is_bounded_in_octets_too() -> None:
    """Long lines are cut, and many of them fill the beginning sooner."""
    transcript = Transcript()
    for _ in range(500):
        transcript.peer_said(Phase.RCPT, "250 " + "x" * 8_000)

    kept = lines(transcript.as_json())

    assert len(kept) < 200
    assert all(len(line) < LINE_CHARACTERS + 50 for line in kept)
    assert kept[0].endswith("(8,004 characters)")


def test_a_transcript_just_short_of_its_limit_has_no_gap() -> None:
    """As long as beginning and end hold everything, nothing is said to be left out."""
    transcript = Transcript()
    for number in range(HEAD_LINES + TAIL_LINES):
        transcript.peer_said(Phase.RCPT, f"250 {number}")

    assert [f"250 {number}" for number in range(HEAD_LINES + TAIL_LINES)] == lines(transcript.as_json())


def test_a_transcript_fits_into_json_and_the_database() -> None:
    """Controls, NUL and lone surrogates do not get in."""
    transcript = Transcript()
    transcript.peer_said(Phase.EHLO, "250 a\x00b\udcff")
    transcript.we_said(Phase.MAIL, "MAIL FROM:<ü@contoso.com>")

    text = json.dumps(transcript.as_json(), ensure_ascii=False)

    assert "\\u0000" not in text
    assert text.encode()


def test_people_read_who_said_what_and_when() -> None:
    """The rendered dialogue starts with its date, and gives each line its offset and its speaker."""
    entries = [
        {
            "at": "2026-11-23T19:40:02.100000+00:00",
            "who": "us",
            "phase": "mail",
            "text": "MAIL FROM:<a@b.example>",
        },
        {
            "at": "2026-11-23T19:40:02.350000+00:00",
            "who": "peer",
            "phase": "mail",
            "text": "250 2.1.0 Sender OK",
        },
        {
            "at": "2026-11-23T19:41:12.100000+00:00",
            "who": "note",
            "phase": "body",
            "text": "(9 octets of content)",
        },
    ]

    assert render(entries) == (
        "2026-11-23T19:40:02.100+00:00  (times are seconds since then)\n"
        "    0.000  C: MAIL FROM:<a@b.example>\n"
        "    0.250  S: 250 2.1.0 Sender OK\n"
        "   70.000  -- (9 octets of content)\n"
    )


def test_nothing_renders_as_nothing() -> None:
    """A dialogue without a line is an empty text."""
    assert render([]) == ""
