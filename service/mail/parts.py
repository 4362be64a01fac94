"""Take a message apart for a reader: its headers, its texts, its attachments (RFC 2045 to 2047, 2183).

The message may be anybody's: nested a thousand times, with ten thousand parts, with boundaries that
are nearly found on every line. So the structure is read here, in time that grows with the size
alone and within limits of depth, number and time, and the standard library is asked only for
the parameters of single, short header fields. What cannot be read is said in `unread`, in a sentence
that repeats nothing of the message, and the rest is shown.

Text is decoded by the charsets that mail is written in; Python knows others, some of which take
quadratic time or are no charsets at all.
"""

import binascii
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from email.message import Message

#: Parts within parts, and parts in all.
_DEPTH, _PARTS = 20, 500

#: Octets of a header that are read, of the message and of a part; octets of one field's parameters.
_HEADER, _PART_HEADER, _PARAMETERS = 262_144, 16_384, 4_000

#: Characters of one field and of a text that are shown.
_VALUE, _TEXT = 10_000, 2_000_000

#: Fields that are shown.
_FIELDS = 1_000

#: Seconds that the structure of one message may take.
_SECONDS = 0.5

_CHARSETS = {
    **{f"iso-8859-{n}": f"iso8859-{n}" for n in (*range(1, 12), *range(13, 17))},
    **{f"windows-{n}": f"cp{n}" for n in range(1250, 1259)},
    **{
        name: name
        for name in (
            "utf-8", "utf-16", "utf-16le", "utf-16be", "koi8-r", "koi8-u", "gb2312", "gbk", "gb18030", "big5",
            "shift_jis", "euc-jp", "iso-2022-jp", "euc-kr", "iso-2022-kr", "tis-620", "latin-1",
        )
    },
    "us-ascii": "ascii", "ascii": "ascii", "utf8": "utf-8", "latin1": "latin-1", "ks_c_5601-1987": "cp949",
}  # fmt: skip

_WORD = re.compile(r"=\?([!-~]{1,40}?)(?:\*[!-~]{1,20})?\?([bBqQ])\?([!->@-~]{0,2000})\?=")
_BETWEEN_WORDS = re.compile(r"(\?=)[ \t]{1,100}(?==\?)")
_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]{1,100}/[a-z0-9!#$&^_.+-]{1,100}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """A part that is not the text of the message."""

    filename: str | None  # as the message gives it: not to be trusted as a path
    content_type: str
    content_id: str | None
    disposition: str | None
    octets: bytes = field(repr=False)  # decoded


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """A message, taken apart."""

    headers: tuple[tuple[str, str], ...]
    text: str | None
    html: str | None
    attachments: tuple[Attachment, ...]
    unread: tuple[str, ...]  # what could not be read, in sentences


def take_apart(octets: bytes) -> Parts:
    """Take a message with CRLF line ends apart; never fails, whatever it is."""
    return _Reader(octets).parts()


class _Enough(Exception):
    """A limit is reached: the rest is not read."""


@dataclass(frozen=True, slots=True)
class _Leaf:
    fields: dict[str, str]  # the first of each name, lower case
    start: int
    end: int
    content_type: str
    filename: str | None


class _Reader:
    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self._until = time.monotonic() + _SECONDS
        self._leaves: list[_Leaf] = []
        self._unread: dict[str, None] = {}

    def parts(self) -> Parts:
        header_end, body = self._halves(0, len(self._octets))
        headers = self._shown(list(self._lines(0, min(header_end, _HEADER))))
        if header_end > _HEADER:
            self._miss(f"Only the first {_HEADER:,} octets of the header are shown.")
        try:
            self._walk(0, header_end, body, len(self._octets), depth=0)
        except _Enough as limit:
            self._miss(str(limit))
        text = self._body_of("text/plain")
        html = self._body_of("text/html")
        rest = [leaf for leaf in self._leaves if leaf not in (text, html)]
        return Parts(
            headers=headers,
            text=self._text(text),
            html=self._text(html),
            attachments=tuple(self._attachment(leaf) for leaf in rest),
            unread=tuple(self._unread),
        )

    def _miss(self, sentence: str) -> None:
        self._unread[sentence] = None

    def _look_at_clock(self) -> None:
        if time.monotonic() > self._until:
            raise _Enough("The message takes too long to be taken apart; the rest is not shown.")

    # -- structure -----------------------------------------------------------------------

    def _halves(self, start: int, end: int) -> tuple[int, int]:
        """Find where a header ends and where the body begins."""
        if self._octets.startswith(b"\r\n", start, end):
            return start, start + 2
        found = self._octets.find(b"\r\n\r\n", start, end)
        return (end, end) if found < 0 else (found + 2, found + 4)

    def _walk(self, start: int, header_end: int, body: int, end: int, *, depth: int) -> None:
        fields: dict[str, str] = {}
        for name, value in self._lines(start, min(header_end, start + _PART_HEADER)):
            fields.setdefault(name.lower(), value)
        content_type = _content_type(fields.get("content-type"))
        boundary = None
        if content_type.startswith("multipart/"):
            boundary = _parameter(fields, "content-type", "boundary")
            if not boundary:
                self._miss("A part says that it has parts, and not where they begin.")
        if not boundary:
            if len(self._leaves) >= _PARTS:
                raise _Enough(f"Only the first {_PARTS:,} parts are shown.")
            self._look_at_clock()
            self._leaves.append(_Leaf(fields, body, end, content_type, _filename(fields)))
            return
        if depth >= _DEPTH:
            self._miss(f"Parts are nested more than {_DEPTH} deep; what lies deeper is not shown.")
            return
        for first, last in self._between(boundary.rstrip().encode("utf-8", "replace"), body, end):
            self._walk(first, *self._halves(first, last), last, depth=depth + 1)

    def _between(self, boundary: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Give the spans between the delimiters (RFC 2046 §5.1.1)."""
        delimiter = b"\r\n--" + boundary
        begin: int | None = None
        # The empty line before the body is the line end of a delimiter that comes first.
        at = max(start - 2, 0)
        while True:
            self._look_at_clock()
            found = self._octets.find(delimiter, at, end)
            if found < 0:
                break
            behind = found + len(delimiter)
            line_end = self._octets.find(b"\r\n", behind, min(behind + 1000, end))
            rest = self._octets[behind : end if line_end < 0 else line_end]
            at = behind
            if rest.strip(b" \t") not in {b"", b"--"}:
                continue
            if begin is not None:
                yield begin, found
            if rest.startswith(b"--"):
                return
            begin = end if line_end < 0 else line_end + 2
            at = max(begin - 2, behind)
        if begin is not None:
            self._miss("The parts have no end; the last one is shown as far as it goes.")
            yield begin, end

    # -- headers -------------------------------------------------------------------------

    def _lines(self, start: int, end: int) -> Iterator[tuple[str, str]]:
        """Give name and value of each field, unfolded."""
        name, value = "", [""]
        for line in self._octets[start:end].split(b"\r\n"):
            if line[:1] in {b" ", b"\t"}:
                value.append(" " + line.strip(b" \t").decode("utf-8", "replace"))
                continue
            if name:
                yield name, "".join(value)
            before, colon, behind = line.partition(b":")
            name = before.decode("ascii", "replace").strip() if colon else ""
            value = [behind.strip(b" \t").decode("utf-8", "replace")]
        if name:
            yield name, "".join(value)

    def _shown(self, fields: list[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
        if len(fields) > _FIELDS:
            self._miss(f"Only the first {_FIELDS:,} fields of the header are shown.")
        shown = []
        for name, value in fields[:_FIELDS]:
            if len(value) > _VALUE:
                self._miss(f"Only the first {_VALUE:,} characters of a field of the header are shown.")
            shown.append((name[:1000], _decoded_words(value[:_VALUE])))
        return tuple(shown)

    # -- leaves --------------------------------------------------------------------------

    def _body_of(self, content_type: str) -> _Leaf | None:
        """Find the first part of this type that is no attachment."""
        for leaf in self._leaves:
            if leaf.content_type != content_type:
                continue
            if _disposition(leaf.fields) != "attachment" and leaf.filename is None:
                return leaf
        return None

    def _text(self, leaf: _Leaf | None) -> str | None:
        if leaf is None:
            return None
        # No charset takes more than four octets for a character, no transfer encoding more than three for one.
        if leaf.end - leaf.start > 12 * _TEXT:
            leaf = replace(leaf, end=leaf.start + 12 * _TEXT)
        charset = (_parameter(leaf.fields, "content-type", "charset") or "us-ascii").strip().lower()
        codec = _CHARSETS.get(charset.replace("_", "-"), _CHARSETS.get(charset))
        if codec is None:
            self._miss("A text is in a charset that is not known here; it is shown as UTF-8.")
        # ASCII that is none is UTF-8 in most cases.
        codec = "utf-8" if codec in {None, "ascii"} else codec
        text = _whole(self._decoded(leaf).decode(codec, "replace")).replace("\r\n", "\n")
        if len(text) > _TEXT:
            self._miss(f"Only the first {_TEXT:,} characters of a text are shown.")
        return text[:_TEXT]

    def _attachment(self, leaf: _Leaf) -> Attachment:
        content_id = leaf.fields.get("content-id")
        return Attachment(
            filename=leaf.filename,
            content_type=leaf.content_type,
            content_id=content_id.strip()[:1000].removeprefix("<").removesuffix(">") if content_id else None,
            disposition=_disposition(leaf.fields),
            octets=self._decoded(leaf),
        )

    def _decoded(self, leaf: _Leaf) -> bytes:
        octets = self._octets[leaf.start : leaf.end]
        encoding = leaf.fields.get("content-transfer-encoding", "7bit").strip().lower()
        if encoding == "base64":
            try:
                return binascii.a2b_base64(octets)
            except binascii.Error:
                self._miss("A part is no good base64; its octets are shown as they came.")
        elif encoding == "quoted-printable":
            return binascii.a2b_qp(octets)
        elif encoding not in {"7bit", "8bit", "binary"}:
            self._miss(
                "A part has a transfer encoding that is not known here; its octets are shown as they came."
            )
        return octets


def _content_type(value: str | None) -> str:
    """Return the type without its parameters; what cannot be read is octets (RFC 2045 §5.2 says text)."""
    if value is None:
        return "text/plain"
    written = value.partition(";")[0].strip().lower()
    return written if _TYPE.fullmatch(written) else "application/octet-stream"


def _disposition(fields: dict[str, str]) -> str | None:
    written = fields.get("content-disposition", "").partition(";")[0].strip().lower()
    return written if written in {"attachment", "inline"} else None


def _filename(fields: dict[str, str]) -> str | None:
    name = _parameter(fields, "content-disposition", "filename")
    if name is None:
        name = _parameter(fields, "content-type", "name")
    return None if name is None else _decoded_words(name[:_PARAMETERS])[:1000]


def _parameter(fields: dict[str, str], field_name: str, name: str) -> str | None:
    """Read a parameter of a field, with the standard library (RFC 2231 has its traps)."""
    value = fields.get(field_name)
    if value is None or len(value) > _PARAMETERS:
        return None
    message = Message()
    message[field_name] = value
    try:
        found = message.get_param(name, header=field_name)
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    if isinstance(found, tuple):
        charset, _, text = found
        codec = _CHARSETS.get((charset or "utf-8").lower(), "utf-8")
        # What RFC 2231 encodes comes as octets in the clothes of Latin-1.
        return _whole(text.encode("latin-1", "replace").decode(codec, "replace"))
    return None if found is None else str(found)


def _decoded_words(value: str) -> str:
    """Write the encoded words of a field as what they say (RFC 2047); what is none stays as it is."""
    if "=?" not in value:
        return _whole(value)

    def decoded(word: re.Match[str]) -> str:
        codec = _CHARSETS.get(word[1].lower())
        if codec is None:
            return word[0]
        encoded = word[3].encode("ascii")
        try:
            octets = (
                binascii.a2b_base64(encoded)
                if word[2] in "bB"
                else binascii.a2b_qp(encoded.replace(b"_", b" "), header=False)
            )
        except binascii.Error:
            return word[0]
        return octets.decode(codec, "replace")

    return _whole(_WORD.sub(decoded, _BETWEEN_WORDS.sub(r"\1", value)))


def _whole(text: str) -> str:
    """Replace halves of surrogate pairs: they cannot be written down."""
    return text.encode("utf-8", "replace").decode("utf-8")
