"""Readable plain text from HTML, for readers and filters that do not show HTML.

One pass from left to right, in time that grows with the length and nothing else: the tokeniser
never looks at an octet twice for want of a closing quote, tag or comment, since like the HTML
standard it takes what is never closed for the rest of the document. (The standard library's
parser is quadratic there.) Nothing here recurses.

Kept: paragraphs, lists, links with their target, the words that stand for pictures. Gone: style,
script, comments, everything that only looks.
"""

from __future__ import annotations

import html as entities
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

READ_CHARACTERS = 500_000  # of the HTML; what follows is not looked at
TEXT_CHARACTERS = 200_000  # of the text; what follows is cut, and a mark says so
LINK_CHARACTERS = 2_000  # of a target; a longer one says nothing to a person
_CUT = "[…]"

_TAG_NAME = re.compile(r"/?[A-Za-z][^\s/>]{0,40}")
# A quote opens a value only behind an equals sign: `<p title=it's>` is a whole tag.
_TAG_STOP = re.compile(r"=\s{0,20}([\"'])|>")
# Seven digits are enough for every character; more of them would be work for nothing.
_ENTITY = re.compile(r"&(?:#[0-9]{1,7};?|#[xX][0-9A-Fa-f]{1,6};?|[A-Za-z][A-Za-z0-9]{1,31};)")
_ATTRIBUTE = re.compile(
    r"""(?:^|[\s"'/])(href|alt)\s{0,8}=\s{0,8}(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""", re.IGNORECASE
)
_SPACE = re.compile(r"[ \t\r\n\f]+")
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_LINK_TARGET = re.compile(r"(?:https?://|mailto:|tel:)", re.IGNORECASE)

_SILENT = {"script", "style", "title", "template", "textarea", "select", "svg", "math", "object"}
_PARAGRAPHS = {"p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "dl", "table", "blockquote", "pre", "hr"}
_LINES = {
    *{"div", "tr", "li", "dt", "dd", "section", "article", "header", "footer", "main", "aside", "nav"},
    *{"address", "figure", "figcaption", "center", "form", "fieldset", "body", "caption"},
}
_CELLS = {"td", "th"}


def text_of(html: str) -> str:
    """Derive plain text: lines end with LF, the text has no blank line at its ends.

    What is beyond the limits is left out, and a mark at the end says so.
    """
    return _read(html[: READ_CHARACTERS + 1])  # one more, which tells that something follows


@lru_cache(maxsize=2)  # the copies of a merge have the same HTML, and it takes a tenth of a second
def _read(html: str) -> str:
    page = _Page()
    for token in _tokens(html[:READ_CHARACTERS].replace("\r\n", "\n").replace("\r", "\n")):
        if isinstance(token, str):
            page.write(token)
        else:
            page.mark(token)
        if page.length > TEXT_CHARACTERS:
            break
    text = page.text()
    if len(html) <= READ_CHARACTERS and len(text) <= TEXT_CHARACTERS:
        return text
    return f"{text[:TEXT_CHARACTERS]}\n{_CUT}".lstrip("\n")


class _Tag(NamedTuple):  # made by the thousand
    name: str  # lower case
    closing: bool
    attributes: str  # as written


@dataclass(slots=True)
class _Page:
    """The text so far, and what the next piece of it must keep in mind."""

    pieces: list[str] = field(default_factory=list)
    length: int = 0
    breaks: int = 2  # line ends that stand at the end; two at the start, where no blank line is wanted
    gap: bool = False  # a space is due before the next word
    lists: list[int] = field(default_factory=list)  # for each open list its next number; 0: no numbers
    preformatted: int = 0
    target: str = ""  # of the open link
    link_start: int = 0  # the piece with which its words begin

    def text(self) -> str:
        return "".join(self.pieces).strip("\n").rstrip()

    def write(self, text: str) -> None:
        text = _unescaped(text)
        if not text.isprintable():
            text = _UNPRINTABLE.sub("", text).replace("\u00a0", " ")
        if self.preformatted:
            self._put(text)
            return
        spaced = _SPACE.sub(" ", text)
        self.gap = self.gap or spaced.startswith(" ")
        words = spaced.strip(" ")
        if words:
            self._put(f" {words}" if self.gap and not self.breaks else words)
            self.gap = spaced.endswith(" ")

    def mark(self, tag: _Tag) -> None:
        if tag.name == "br":
            self._put("\n")
        elif tag.name == "a":
            self._link(tag)
        elif tag.name in _CELLS:
            self.gap = True
        elif tag.name == "img":
            self.write(_attribute(tag, "alt"))
        elif tag.name in _PARAGRAPHS or tag.name in _LINES:
            self._block(tag)

    def _block(self, tag: _Tag) -> None:
        inner_list = tag.name in {"ul", "ol"} and len(self.lists) > (1 if tag.closing else 0)
        self._break(2 if tag.name in _PARAGRAPHS and not inner_list else 1)
        match tag.name:
            case "ul" | "ol" if tag.closing:
                del self.lists[-1:]
            case "ul" | "ol":
                self.lists.append(1 if tag.name == "ol" else 0)
            case "li" if not tag.closing:
                self._item()
            case "pre":
                self.preformatted = max(0, self.preformatted + (-1 if tag.closing else 1))
            case "hr":
                self._put("-" * 20)
                self._break(2)

    def _item(self) -> None:
        number = self.lists[-1] if self.lists else 0
        if number:
            self.lists[-1] += 1
        # Deep nesting is somebody's joke; eight levels are indented.
        self._put("  " * min(len(self.lists) - 1, 8) + (f"{number}. " if number else "- "))
        self.breaks, self.gap = 2, False

    def _link(self, tag: _Tag) -> None:
        """Write a link's target behind its words, unless the words say it already."""
        if self.target:
            words = "".join(self.pieces[self.link_start :]).strip()
            bare = _LINK_TARGET.sub("", self.target)
            if words.removeprefix("http://").removeprefix("https://").rstrip("/") != bare.rstrip("/"):
                self._put(f" <{self.target}>" if words else f"<{self.target}>")
        self.target, self.link_start = "", len(self.pieces)
        if not tag.closing:
            target = _SPACE.sub("", _attribute(tag, "href"))
            useful = _LINK_TARGET.match(target) and len(target) <= LINK_CHARACTERS
            self.target = target if useful else ""

    def _break(self, wanted: int) -> None:
        self.gap = False
        if self.breaks < wanted:
            self._put("\n" * (wanted - self.breaks))

    def _put(self, text: str) -> None:
        if not text:
            return
        self.pieces.append(text)
        self.length += len(text)
        ends = len(text) - len(text.rstrip("\n"))
        self.breaks = self.breaks + ends if ends == len(text) else ends


def _tokens(html: str) -> Iterator[str | _Tag]:
    """Cut HTML into texts and tags, as the tokeniser of the HTML standard would, simplified."""
    at = 0
    while at < len(html):
        opening = html.find("<", at)
        if opening < 0:
            yield html[at:]
            return
        if opening > at:
            yield html[at:opening]
        name = _TAG_NAME.match(html, opening + 1)
        if name is None:
            if html[opening + 1 : opening + 2] in {"!", "?", "/"}:
                at = _after_comment(html, opening)
            else:
                yield "<"
                at = opening + 1
            continue
        end = _tag_end(html, name.end())
        tag = _Tag(name[0].lstrip("/").lower(), name[0].startswith("/"), html[name.end() : end])
        yield tag
        at = end + 1
        if tag.name in _SILENT and not tag.closing and not tag.attributes.endswith("/"):
            at = _after_element(html, tag.name, at)


def _after_comment(html: str, at: int) -> int:
    closing = "-->" if html.startswith("<!--", at) else ">"
    end = html.find(closing, at + 2)
    return len(html) if end < 0 else end + len(closing)


def _tag_end(html: str, at: int) -> int:
    """Find the ">" that ends a tag, which is none inside a quoted value."""
    while stop := _TAG_STOP.search(html, at):
        if stop[1] is None:
            return stop.start()
        at = html.find(stop[1], stop.end()) + 1
        if not at:
            break
    return len(html)


def _after_element(html: str, name: str, at: int) -> int:
    closing = re.compile(rf"</{name}\b[^>]{{0,200}}>", re.IGNORECASE).search(html, at)
    return closing.end() if closing else len(html)


def _attribute(tag: _Tag, name: str) -> str:
    for match in _ATTRIBUTE.finditer(tag.attributes):
        if match[1].lower() == name:
            value = next((group for group in match.groups()[1:] if group is not None), "")
            return _unescaped(value)
    return ""


def _unescaped(text: str) -> str:
    return _ENTITY.sub(lambda match: entities.unescape(match[0]), text) if "&" in text else text
