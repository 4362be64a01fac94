"""Plain text from HTML."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.mail.html_text import READ_CHARACTERS, TEXT_CHARACTERS, text_of
from tests.mail.builders import examples


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("", ""),
        ("Hello", "Hello"),
        ("<p>Hello,</p><p>Ana</p>", "Hello,\n\nAna"),
        ("Hello,<br>Ana<br/>Silva", "Hello,\nAna\nSilva"),
        ("<div>One</div><div>Two</div>", "One\nTwo"),
        ("<h1>Receipt</h1>\n\n<p>Thank\n  you   <b>very</b> much</p>", "Receipt\n\nThank you very much"),
        ("a<b>b</b>c", "abc"),
        ("a <b> b </b> c", "a b c"),
        ("&lt;b&gt; &amp; &eacute; &#233; &#xe9;&nbsp;!", "<b> & é é é !"),
        ("1 < 2 and 3 > 2", "1 < 2 and 3 > 2"),
        ("<ul><li>One<li>Two</ul>", "- One\n- Two"),
        ("<ol><li>One</li><li>Two</li></ol>x", "1. One\n2. Two\n\nx"),
        ("<ul><li><p>One</p></li><li>Two<ul><li>Inner</li></ul></li></ul>", "- One\n\n- Two\n  - Inner"),
        ("<table><tr><td>Total</td><td>12 €</td></tr><tr><td>Tax</td></tr></table>", "Total 12 €\nTax"),
        ("<pre>a\n  b</pre>", "a\n  b"),
        ("One<hr>Two", "One\n\n--------------------\n\nTwo"),
        ('See <a href="https://contoso.com/r?a=1&amp;b=2">your receipt</a>.', None),
        ('<a href="https://contoso.com/">contoso.com</a>', "contoso.com"),
        ('<a href="mailto:help@contoso.com">help@contoso.com</a>', "help@contoso.com"),
        ('<a href="https://contoso.com"><img alt="Contoso"></a>', "Contoso <https://contoso.com>"),
        ('<a href="https://contoso.com"><img></a>', "<https://contoso.com>"),
        ('<a href="#top">Up</a> <a href="javascript:alert(1)">x</a>', "Up x"),
        ('<img src="cid:logo" alt="Our &quot;logo&quot;">', 'Our "logo"'),
        ("<p title=it's>fine</p>", "fine"),
        ('<p title="a > b">fine</p>', "fine"),
        ("<head><title>T</title><style>p{}</style></head><body>Hi<script>x<y</script></body>", "Hi"),
        ("a<!-- <p>no</p> -->b<!doctype html><?xml?>c", "abc"),
        ("a<!--[if mso]><td>no</td><![endif]-->b", "ab"),
        ("a<script>no", "a"),
        ("a<!-- no", "a"),
        ('a<p title="no', "a"),
        ("a\0b\x1b[31m\ud800c", "ab[31mc"),
    ],
)
def test_html_reads_as_text(html: str, text: str | None) -> None:
    """Words, breaks, lists and links stay; looks and scripts go."""
    if text is None:
        text = "See your receipt <https://contoso.com/r?a=1&b=2>."

    assert text_of(html) == text


@pytest.mark.parametrize(
    "html",
    [
        "<" * READ_CHARACTERS,
        "<!--" * 100_000,
        '<a href="' * 50_000,
        "<script>" * 50_000,
        "<ul>" * 100_000 + "<li>x",
        "</ul></a></pre>" * 30_000,
        "<a href='https://x'>" * 20_000,
        "&#" + "9" * 100_000 + ";",
        "&#x110000;&#xd800;&#0;",
    ],
)
def test_hostile_html_does_no_harm(html: str) -> None:
    """Whatever is unclosed, nested or endless ends in a text that is bounded and can be sent."""
    text = text_of(html)

    assert len(text) <= TEXT_CHARACTERS + 10
    text.encode()


def test_what_is_too_long_is_cut_and_says_so() -> None:
    """A text that is cut ends in a mark, and does not pretend to be whole."""
    assert text_of("word " * 60_000).endswith("\n[…]")
    assert text_of(" " * READ_CHARACTERS + "end") == "[…]"
    assert not text_of("word " * 1000).endswith("[…]")


@examples
@given(
    html=st.lists(
        st.sampled_from([*"<>/!-\"'=& \n;#9ax", "<p>", "<a href=", "<li>", "<ul>", "</", "\ud800"])
    ).map("".join)
)
def test_any_html_gives_text(html: str) -> None:
    """No markup makes the reader fail."""
    text_of(html).encode()
