"""Resend's requests, written down as the members of `POST /messages`."""

import base64
from datetime import UTC, datetime
from typing import Any

import pytest

from service.submission.problems import Problem
from service.submission.request.validation import validated
from service.submission.resend.mapping import members_of
from service.submission.resend.shapes import ResendEmailIn
from service.submission.resend.times import moment

#: A Wednesday.
NOW = datetime(2026, 11, 25, 16, 30, tzinfo=UTC)

SMALLEST = {"from": "a@contoso.com", "to": "b@example.com", "subject": "Hi", "text": "Hello"}


def mapped(**changes: Any) -> dict[str, Any]:
    members = {name: value for name, value in {**SMALLEST, **changes}.items() if value is not ...}
    return members_of(validated(ResendEmailIn, members), now=NOW)


def refused(**changes: Any) -> tuple[str, str]:
    with pytest.raises(Problem) as caught:
        mapped(**changes)
    (error,) = caught.value.errors
    return error.pointer, error.code


def test_what_means_the_same_stays_as_it_is() -> None:
    """Addresses, subject, texts and headers go through unchanged; what is null is left out."""
    same = {
        "from": "Contoso <a@contoso.com>",
        "to": ["b@example.com", "c@example.com"],
        "cc": "d@example.com",
        "reply_to": ["e@contoso.com"],
        "subject": "Grüße",
        "html": "<p>Hello</p>",
        "text": "",
        "headers": {"X-Entity-Ref-ID": "42"},
    }

    assert same == mapped(**same, bcc=None, tags=None, attachments=None, template=None, topic_id=None)


@pytest.mark.parametrize(
    "content",
    [
        base64.b64encode(b"\x00\xff%PDF").decode(),
        list(b"\x00\xff%PDF"),
        {"type": "Buffer", "data": list(b"\x00\xff%PDF")},
    ],
    ids=["base64", "a list of octets", "Node's Buffer"],
)
def test_a_file_may_be_written_in_each_of_the_ways_of_the_sdks(content: object) -> None:
    """Base64, a list of octets (Python) and a Buffer as Node writes it are the same file."""
    (file,) = mapped(attachments=[{"filename": "a.pdf", "content": content, "content_id": "logo"}])[
        "attachments"
    ]

    assert file == {"filename": "a.pdf", "content": "AP8lUERG", "content_id": "logo"}


def test_the_older_name_of_a_content_id_is_known() -> None:
    """`inline_content_id` is `content_id`."""
    (file,) = mapped(attachments=[{"content": "AA==", "inline_content_id": "logo"}])["attachments"]

    assert file["content_id"] == "logo"


def test_tags_keep_their_order_and_their_values() -> None:
    """Tags become metadata with a value, and tags by name in their order."""
    members = mapped(tags=[{"name": "z", "value": "1"}, {"name": "a"}])

    assert members["tags"] == ["z", "a"]
    assert members["metadata"] == {"z": "1", "a": ""}


def test_a_template_brings_its_own_subject_and_text() -> None:
    """With a template, subject and texts may be missing."""
    members = mapped(subject=..., text=..., template={"id": "tpl_1", "variables": {"name": "Ana", "n": 3}})

    assert members["template"] == {"id": "tpl_1", "variables": {"name": "Ana", "n": 3}}
    assert members.keys().isdisjoint({"subject", "text", "html"})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"from": ...}, ("/from", "required")),
        ({"to": ...}, ("/to", "required")),
        ({"subject": ...}, ("/subject", "required")),
        ({"text": ...}, ("", "empty")),
        ({"topic_id": "t"}, ("/topic_id", "not_supported_yet")),
        ({"template_id": "t"}, ("", "unknown_field")),
        ({"attachments": [{"path": "https://example.com/a"}]}, ("/attachments/0/path", "not_supported_yet")),
        ({"attachments": [{"filename": "a"}]}, ("/attachments/0/content", "required")),
        ({"attachments": [{"content": [256]}]}, ("/attachments/0/content", "not_base64")),
        ({"attachments": [{"content": ["a"]}]}, ("/attachments/0/content", "not_base64")),
        ({"attachments": [{"content": {"type": "Buffer"}}]}, ("/attachments/0/content", "not_base64")),
        ({"attachments": [{"content": 7}]}, ("/attachments/0/content", "not_base64")),
        ({"tags": [{"name": "a b"}]}, ("/tags/0/name", "string_pattern_mismatch")),
        ({"tags": [{"name": "a\n"}]}, ("/tags/0/name", "string_pattern_mismatch")),
        ({"tags": [{"name": "a"}, {"name": "a"}]}, ("/tags/1/name", "duplicate_name")),
        ({"scheduled_at": "soon"}, ("/scheduled_at", "not_a_time")),
        ({"scheduled_at": "in 999999 weeks"}, ("/scheduled_at", "not_a_time")),
    ],
)
def test_what_cannot_be_carried_out_is_refused_with_its_field(
    changes: dict[str, Any], expected: tuple[str, str]
) -> None:
    """Missing fields, remote files, topics, unknown names and unreadable values each name their field."""
    assert expected == refused(**changes)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("2026-12-01T08:00:00.858Z", datetime(2026, 12, 1, 8, 0, 0, 858_000, UTC)),
        ("2026-12-01T09:00:00+01:00", datetime(2026, 12, 1, 8, tzinfo=UTC)),
        ("2026-12-01T08:00:00", datetime(2026, 12, 1, 8, tzinfo=UTC)),
        ("2026-12-01 08:00", datetime(2026, 12, 1, 8, tzinfo=UTC)),
        ("in 1 min", datetime(2026, 11, 25, 16, 31, tzinfo=UTC)),
        ("in 90 minutes", datetime(2026, 11, 25, 18, 0, tzinfo=UTC)),
        ("In an hour", datetime(2026, 11, 25, 17, 30, tzinfo=UTC)),
        ("in 30 days", datetime(2026, 12, 25, 16, 30, tzinfo=UTC)),
        ("in 2 weeks", datetime(2026, 12, 9, 16, 30, tzinfo=UTC)),
        ("today at 5pm", datetime(2026, 11, 25, 17, tzinfo=UTC)),
        ("tomorrow at 9am", datetime(2026, 11, 26, 9, tzinfo=UTC)),
        ("tomorrow at 12am", datetime(2026, 11, 26, 0, tzinfo=UTC)),
        ("Friday at 3:30 PM UTC", datetime(2026, 11, 27, 15, 30, tzinfo=UTC)),
        ("on monday at 15:00", datetime(2026, 11, 30, 15, tzinfo=UTC)),
        ("wednesday at 16:29", datetime(2026, 12, 2, 16, 29, tzinfo=UTC)),
        ("wednesday at 16:31", datetime(2026, 11, 25, 16, 31, tzinfo=UTC)),
    ],
)
def test_a_time_may_be_iso_8601_or_a_few_words(written: str, expected: datetime) -> None:
    """ISO 8601 without an offset is UTC; the words of Resend's own documents are understood, in UTC."""
    assert expected == moment(written, now=NOW, pointer="/scheduled_at")


@pytest.mark.parametrize(
    "written",
    [
        "",
        "tomorrow",
        "next friday at 3pm",
        "Friday at 3pm ET",
        "tomorrow at 25:00",
        "tomorrow at 13pm",
        "tomorrow at 9:60",
        "in -1 hours",
        "0001-01-01T00:00:00+14:00",
        "in ١ hour",
        "1764093600",
    ],
)
def test_a_time_that_could_mean_something_else_is_refused(written: str) -> None:
    """Without an hour, in another zone, or out of range: no guess is made."""
    with pytest.raises(Problem):
        moment(written, now=NOW, pointer="/scheduled_at")
