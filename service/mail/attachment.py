"""Attachments: what a file is called, what it is, and how it is written as a part.

A file name is a name and not a path, because readers save under it (RFC 2183 §2.3). Names beyond
ASCII are written as RFC 2231 says.

The type is the caller's, or it is told by the end of the name from a table of our own: the
standard library's table differs from machine to machine and does not know today's documents.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from service.mail.draft import (
    CONTENT_ID_CHARACTERS,
    CONTENT_TYPE_CHARACTERS,
    FILENAME_CHARACTERS,
    Attachment,
    BadDraft,
    check_line,
)
from service.mail.headers import fold, parameter_field

if TYPE_CHECKING:
    from service.mail.mime import Leaf, Writer

_WORD = r"[A-Za-z0-9!#$%&'*+.^_`{|}~-]+"
_CONTENT_TYPE = re.compile(
    rf'(?P<type>{_WORD}/{_WORD})(?P<parameters>(?: *; *{_WORD}=(?:{_WORD}|"[ !#-\[\]-~]*"))*)'
)
_PARAMETER = re.compile(rf'(?P<name>{_WORD})=(?:(?P<token>{_WORD})|"(?P<quoted>[^"]*)")')
_CONTENT_ID = re.compile(r"<?(?P<id>[!-;=?-~]+)>?")

# IANA's registered types, as far as applications send them.
_TYPES = {
    "7z": "application/x-7z-compressed",
    "avif": "image/avif",
    "bmp": "image/bmp",
    "csv": "text/csv",
    "doc": "application/msword",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "eml": "message/rfc822",
    "gif": "image/gif",
    "gz": "application/gzip",
    "heic": "image/heic",
    "htm": "text/html",
    "html": "text/html",
    "ics": "text/calendar",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "json": "application/json",
    "log": "text/plain",
    "md": "text/markdown",
    "mov": "video/quicktime",
    "mp3": "audio/mpeg",
    "mp4": "video/mp4",
    "odp": "application/vnd.oasis.opendocument.presentation",
    "ods": "application/vnd.oasis.opendocument.spreadsheet",
    "odt": "application/vnd.oasis.opendocument.text",
    "p7m": "application/pkcs7-mime",
    "p7s": "application/pkcs7-signature",
    "pdf": "application/pdf",
    "png": "image/png",
    "ppt": "application/vnd.ms-powerpoint",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "ps": "application/postscript",
    "rtf": "application/rtf",
    "svg": "image/svg+xml",
    "tar": "application/x-tar",
    "tif": "image/tiff",
    "tiff": "image/tiff",
    "txt": "text/plain",
    "vcf": "text/vcard",
    "wav": "audio/wav",
    "webp": "image/webp",
    "xls": "application/vnd.ms-excel",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "xml": "application/xml",
    "zip": "application/zip",
}
_UNKNOWN = "application/octet-stream"
# A multipart needs parts, and these two ask the reader to fetch or to wait for the rest
# (RFC 2046 §5.2.2 and §5.2.3); Exchange refuses them.
_REFUSED = re.compile(r"(?:multipart/.*|message/partial|message/external-body)", re.IGNORECASE)


def check_attachment(attachment: Attachment, *, pointer: str) -> None:
    """Refuse what a part cannot be made of. `pointer` names the attachment."""
    if attachment.filename is not None:
        _check_filename(attachment.filename, pointer=f"{pointer}/filename")
    if attachment.content_type is not None:
        _check_content_type(attachment.content_type, pointer=f"{pointer}/content_type")
    if attachment.content_id is not None:
        _check_content_id(attachment.content_id, pointer=f"{pointer}/content_id")
    if attachment.disposition not in {None, "attachment", "inline"}:
        raise BadDraft(
            f"{pointer}/disposition", "bad_disposition", 'The disposition is "attachment" or "inline".'
        )


def is_inline(attachment: Attachment) -> bool:
    """Whether readers show it in its place and not in the list of files."""
    return (attachment.disposition or ("inline" if attachment.content_id else "attachment")) == "inline"


def content_id(attachment: Attachment) -> str | None:
    """Give the name by which the HTML refers to it, without brackets."""
    match = _CONTENT_ID.fullmatch(attachment.content_id or "")
    return match["id"] if match else None


def part_of(attachment: Attachment, *, writer: Writer) -> Leaf:
    """Make the part of a checked attachment."""
    kind, parameters = _type_of(attachment)
    if kind.startswith("message/"):
        leaf = writer.message(_fields(attachment, kind, parameters), attachment.content)
        if leaf is not None:
            return leaf
        kind, parameters = _UNKNOWN, []
    return writer.file(_fields(attachment, kind, parameters), attachment.content)


def _fields(attachment: Attachment, kind: str, parameters: list[tuple[str, str]]) -> bytes:
    names = [] if attachment.filename is None else [attachment.filename.strip()]
    fields = parameter_field("Content-Type", kind, [*parameters, *(("name", name) for name in names)])
    disposition = "inline" if is_inline(attachment) else "attachment"
    fields += parameter_field("Content-Disposition", disposition, [("filename", name) for name in names])
    identity = content_id(attachment)
    return fields + fold("Content-ID", [f" <{identity}>"]) if identity else fields


def _type_of(attachment: Attachment) -> tuple[str, list[tuple[str, str]]]:
    if attachment.content_type is None:
        ending = (attachment.filename or "").rpartition(".")[2].lower()
        return _with_charset(_TYPES.get(ending, _UNKNOWN), [], attachment.content)
    match = _CONTENT_TYPE.fullmatch(attachment.content_type)
    assert match is not None, "checked before"
    parameters = [
        (found["name"].lower(), found["token"] or found["quoted"] or "")
        for found in _PARAMETER.finditer(match["parameters"])
    ]
    kept = [(name, value) for name, value in parameters if name != "name"]
    return _with_charset(match["type"].lower(), kept, attachment.content)


def _with_charset(
    kind: str, parameters: list[tuple[str, str]], content: bytes
) -> tuple[str, list[tuple[str, str]]]:
    """Say that a text is UTF-8 where it is and the caller did not say: readers guess wrong."""
    named = {name for name, _ in parameters}
    if not kind.startswith("text/") or "charset" in named or content.isascii():
        return kind, parameters
    try:
        content.decode()
    except UnicodeDecodeError:
        return kind, parameters
    return kind, [*parameters, ("charset", "utf-8")]


def _check_filename(filename: str, *, pointer: str) -> None:
    check_line(filename, pointer=pointer, limit=FILENAME_CHARACTERS)
    if "\t" in filename:
        raise BadDraft(pointer, "control_character", "A file name has no tab.")
    if "/" in filename or "\\" in filename or filename in {".", ".."}:
        raise BadDraft(pointer, "path", "A file name is a name alone, without a path.")
    if not filename.strip():
        raise BadDraft(pointer, "empty", "A file name is not blank; leave it out instead.")


def _check_content_type(text: str, *, pointer: str) -> None:
    match = _CONTENT_TYPE.fullmatch(text) if len(text) <= CONTENT_TYPE_CHARACTERS else None
    if match is None:
        raise BadDraft(pointer, "bad_content_type", 'A content type has the form "type/subtype; name=value".')
    names = [found["name"].lower() for found in _PARAMETER.finditer(match["parameters"])]
    if len(names) != len(set(names)):
        raise BadDraft(pointer, "bad_content_type", "A parameter of the content type is given twice.")
    if _REFUSED.fullmatch(match["type"]):
        raise BadDraft(pointer, "content_type_refused", "An attachment cannot have this type.")


def _check_content_id(text: str, *, pointer: str) -> None:
    if (
        len(text) > CONTENT_ID_CHARACTERS
        or not _CONTENT_ID.fullmatch(text)
        or text.startswith("<") != text.endswith(">")
        # Readers decode an encoded word wherever they see one, and may find a line end in it.
        or "=?" in text
    ):
        raise BadDraft(
            pointer,
            "bad_content_id",
            f"A content id is at most {CONTENT_ID_CHARACTERS} visible ASCII characters, in angle brackets or not.",
        )
