"""The first message that a newcomer sends: text, HTML, an inline picture and a PDF.

Picture and document are made here, small enough to stand in a command line as base64.
"""

import base64
import struct
import zlib

SENDER = "noreply@contoso.com"

# An envelope, one character a pixel.
ENVELOPE = """
########################
#......................#
#.##................##.#
#...##............##...#
#.....##........##.....#
#.......##....##.......#
#......#..####..#......#
#....##..........##....#
#..##..............##..#
#.#..................#.#
#......................#
########################
"""


def message(*, to: str = "ana@example.com") -> dict[str, object]:
    """Return the body of a `POST /messages` with everything that a usual mail has."""
    return {
        "from": f"Contoso <{SENDER}>",
        "to": [to],
        "subject": "Your first message ✉",
        "text": "Postroom works. The receipt is attached.",
        "html": '<p><img src="cid:envelope" width="96" alt=""></p><p>Postroom works. The receipt is attached.</p>',
        "attachments": [
            {"filename": "envelope.png", "content_type": "image/png", "content_id": "envelope",
             "content": _base64(picture())},
            {"filename": "receipt.pdf", "content_type": "application/pdf",
             "content": _base64(document("Receipt No. 42"))},
        ],
    }  # fmt: skip


def picture() -> bytes:
    """Draw the envelope as a PNG with one bit a pixel (RFC 2083)."""
    rows = ENVELOPE.split()
    header = struct.pack(">IIBBBBB", len(rows[0]), len(rows), 1, 0, 0, 0, 0)
    pixels = b"".join(b"\0" + _bits(row) for row in rows)
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + _chunk(b"IDAT", zlib.compress(pixels, 9))
        + _chunk(b"IEND", b"")
    )


def document(line: str) -> bytes:
    """Write one line on one page as a PDF (ISO 32000-1, 7.5); the line is plain ASCII without brackets."""
    content = f"BT/F 24 Tf 20 40 Td({line})Tj ET"
    font = "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"
    objects = [
        "<</Type/Catalog/Pages 2 0 R>>",
        "<</Type/Pages/Kids[3 0 R]/Count 1>>",
        f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 240 90]/Contents 4 0 R/Resources<</Font<</F{font}>>>>>>",
        f"<</Length {len(content)}>>stream\n{content}\nendstream",
    ]
    written, places = "%PDF-1.4\n", []
    for number, text in enumerate(objects, 1):
        places.append(f"{len(written):010} 00000 n \n")
        written += f"{number} 0 obj{text}endobj\n"
    size = len(objects) + 1
    table = f"xref\n0 {size}\n0000000000 65535 f \n{''.join(places)}trailer<</Size {size}/Root 1 0 R>>\n"
    return f"{written}{table}startxref\n{len(written)}\n%%EOF\n".encode("ascii")


def _bits(row: str) -> bytes:
    return int(row.replace(".", "1").replace("#", "0"), 2).to_bytes(len(row) // 8, "big")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
