"""Replies: digits, enhanced status, text."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.smtp.reply import TEXT_LIMIT, BadReply, Reply


def test_code_enhanced_status_and_text_are_kept_apart() -> None:
    """The three parts of a reply are three fields, as they came."""
    reply = Reply.from_text("535 5.7.139 Authentication unsuccessful, basic authentication is disabled.")

    assert reply.as_json() == {
        "code": 535,
        "enhanced": "5.7.139",
        "text": "Authentication unsuccessful, basic authentication is disabled.",
    }


def test_lines_are_joined_without_codes_and_status() -> None:
    """A reply of several lines is one text; the repeated enhanced status goes, the raw lines stay."""
    reply = Reply.of_lines(["550-5.1.1 The address", "550-does not", "550 5.1.1 exist"])

    assert reply.text == "The address\ndoes not\nexist"
    assert reply.enhanced == "5.1.1"
    assert reply.lines == ("550-5.1.1 The address", "550-does not", "550 5.1.1 exist")


@pytest.mark.parametrize(
    ("text", "raw", "status"),
    [
        ("250 2.1.5 OK", "2.1.5", "2.1.5"),
        ("250 OK", None, "2.0.0"),
        ("250", None, "2.0.0"),
        ("354 Start", None, "3.0.0"),
        # Microsoft's contradictions: the code decides, the raw status stays readable.
        ("550 4.4.4 Mail received as unauthenticated", "4.4.4", "5.0.0"),
        ("451 5.7.3 STARTTLS is required to send mail", "5.7.3", "4.0.0"),
        ("550 5.7.1Unable", None, "5.0.0"),
        ("550 5.7.1", "5.7.1", "5.7.1"),
        ("550 5.1234.1 x", None, "5.0.0"),
        ("550 3.1.1 x", None, "5.0.0"),
    ],
)
def test_the_status_is_repaired_and_the_raw_one_kept(text: str, raw: str | None, status: str) -> None:
    """A missing or contradicting enhanced status becomes x.0.0 of the code; what came is kept."""
    reply = Reply.from_text(text)

    assert (raw, status) == (reply.enhanced, reply.status)


@pytest.mark.parametrize(
    ("code", "positive", "intermediate", "transient", "permanent"),
    [
        (200, True, False, False, False),
        (250, True, False, False, False),
        (251, True, False, False, False),
        (299, True, False, False, False),
        (354, False, True, False, False),
        (421, False, False, True, False),
        (499, False, False, True, False),
        (554, False, False, False, True),
    ],
)
def test_the_first_digit_says_what_became_of_the_command(
    code: int, positive: bool, intermediate: bool, transient: bool, permanent: bool
) -> None:
    """Any 2yz is a yes, any 4yz and 5yz a no, whatever the other digits are."""
    reply = Reply.from_text(f"{code} words")

    assert positive == reply.positive()
    assert intermediate == reply.intermediate()
    assert transient == reply.transient()
    assert permanent == reply.permanent()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "\n",
        "2_0 ok",
        "20 ok",
        "2500 ok",
        "250ok",
        "150 ok",
        "650 ok",
        "٢٥٠ ok",  # digits that int() would read
        "+50 ok",
        "ok 250",
        "550-no\n250 yes",
        "250-yes\n550 no",
        "250-yes",
        "250 yes\n250 yes",
    ],
)
def test_what_is_not_one_reply_is_refused(text: str) -> None:
    """Digits that are none, codes that disagree, and a reply without an end are not repaired."""
    with pytest.raises(BadReply):
        Reply.from_text(text)


def test_a_pasted_reply_may_be_wrapped() -> None:
    """Lines without a code continue the line before, as a terminal wraps a long reply."""
    reply = Reply.from_text(
        "  554 5.2.252 SendAsDenied; a@contoso.com not allowed\r\n   to send as b@contoso.com\n"
    )

    assert reply.text == "SendAsDenied; a@contoso.com not allowed to send as b@contoso.com"


def test_a_line_may_begin_with_a_number_that_is_no_code_of_its_own() -> None:
    """A wrapped line that begins like a code of another reply is refused rather than guessed."""
    with pytest.raises(BadReply):
        Reply.from_text("550 5.7.1 see\n421 things")


def test_controls_do_not_reach_the_text() -> None:
    """NUL, escapes and bare CR become U+FFFD: PostgreSQL refuses the first, terminals obey the second."""
    reply = Reply.of_lines(["550 5.1.1 a\x00b\x1b[2Jc\rd\x9be\tf"])

    assert reply.text == "a�b�[2Jc�d�e\tf"
    assert "\x00" not in "".join(reply.lines)


def test_a_long_text_is_capped() -> None:
    """At most 8 kB of text are kept, however long the reply is."""
    reply = Reply.of_lines([*["250-" + "x" * 4000] * 6, "250 end"])

    assert len(reply.text) == TEXT_LIMIT


def test_a_reply_prints_as_it_would_be_read_aloud() -> None:
    """The printed form is code, raw status and text."""
    assert str(Reply.from_text("550 5.1.1 No such user")) == "550 5.1.1 No such user"
    assert str(Reply.from_text("354")) == "354"


@given(st.text(max_size=400))
def test_any_text_is_a_reply_or_a_bad_reply(text: str) -> None:
    """Whatever is pasted, the answer is a reply that fits into JSON and the database, or BadReply."""
    try:
        reply = Reply.from_text(text)
    except BadReply:
        return
    assert "\x00" not in reply.text
    json.dumps(reply.as_json(), ensure_ascii=False).encode()


@given(
    code=st.integers(200, 599),
    texts=st.lists(st.text(st.characters(min_codepoint=32, max_codepoint=0x2FFF), max_size=40), min_size=1),
)
def test_of_lines_reads_what_a_server_writes(code: int, texts: list[str]) -> None:
    """However many lines a reply has, its code is kept and every line is."""
    written = [f"{code}-{text}" for text in texts[:-1]] + [f"{code} {texts[-1]}"]

    reply = Reply.of_lines(written)

    assert reply.code == code
    assert len(reply.lines) == len(texts)
