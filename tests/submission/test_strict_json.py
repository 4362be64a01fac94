"""Bodies that are made to cost: read within bounds, whatever they hold."""

import tracemalloc

import pytest

from service.submission.problems import Problem
from service.submission.request.strict_json import VALUES, parse


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b'"",' * VALUES + b'""]',
        b"[" + b"[]," * VALUES + b"[]]",
        b"[" + b"1," * VALUES + b"1]",
        b"[" + b"{}," * VALUES + b"{}]",
        b'{"a":[' + b'"\\u0000",' * VALUES + b"1]}",
    ],
)
def test_a_body_of_millions_of_values_is_refused_before_they_are_made(body: bytes) -> None:
    """The refusal costs a fraction of the memory that reading would."""
    tracemalloc.start()
    with pytest.raises(Problem) as refused:
        parse(body, names=())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert (refused.value.status, refused.value.code) == (413, "too_many_values")
    assert peak < 30_000_000


@pytest.mark.parametrize(
    "body",
    [
        b'{"text":"' + b"," * 2_000_000 + b'"}',
        b'{"text":"' + b'\\",[{' * 500_000 + b'"}',
        b"[" + b"1," * (VALUES - 10) + b"1]",
    ],
)
def test_commas_in_a_text_are_no_values(body: bytes) -> None:
    """What stands inside strings is not counted, and a body just below the bound is read."""
    assert parse(body, names=("text",))


def test_a_string_that_never_ends_is_looked_at_once() -> None:
    """An unclosed string of escaped quotes costs a moment, not the square of its length."""
    with pytest.raises(Problem) as refused:
        parse(b'["' + b'\\",' * 3_000_000, names=())

    assert refused.value.code == "not_json"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"a":["x","\\u0000"]}', "nul"),
        (b'{"a":{"b":"\\ud800"}}', "lone_surrogate"),
        (b'{"\\uDfff":1}', "lone_surrogate"),
        (b"[" * 40 + b"]" * 40, "too_deep"),
        (b'{"a":' * 40 + b"1" + b"}" * 40, "too_deep"),
    ],
)
def test_what_cannot_be_stored_is_found_at_any_depth(body: bytes, code: str) -> None:
    """NUL, half of a surrogate pair, and depth."""
    with pytest.raises(Problem) as refused:
        parse(body, names=("a", "b"))

    assert refused.value.code == code


@pytest.mark.parametrize(
    ("body", "code", "pointer"),
    [
        (b'{"from":NaN}', "not_a_number", "/from"),
        (b'{"from":1e400}', "number_too_large", "/from"),
        (b'[{"to":["a",9007199254740993]}]', "number_too_large", "/0/to/1"),
        (b'{"from":"a","from":"b"}', "duplicate_name", "/from"),
        (b'{"to":[{"email":1,"email":2}]}', "duplicate_name", "/to/0/email"),
        (b'{"metadata":{"canary":1,"canary":2}}', "duplicate_name", "/metadata"),
        (b'{"canary":{"x":1},"canary":2}', "duplicate_name", ""),
        (b'{"to":[' + b"[" * 60 + b"NaN" + b"]" * 61 + b"}", "not_a_number", ""),
        (b'{"to":[NaN]} x', "not_a_number", ""),
        (b'{"from":NaN,"text":"' + b"x" * 300_000 + b'"}', "not_a_number", ""),
    ],
)
def test_what_cannot_be_read_is_named(body: bytes, code: str, pointer: str) -> None:
    """The pointer leads to the value, or to the name that stands twice, and ends where the caller's names begin."""
    with pytest.raises(Problem) as refused:
        parse(body, names=("from", "to", "email", "metadata", "text"))

    assert [(each.code, each.pointer) for each in refused.value.errors] == [(code, pointer)]
