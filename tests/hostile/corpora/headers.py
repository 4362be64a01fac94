"""Headers that a caller may try to set, and what to put into the fields beside the body.

A reserved header would say something else than what was checked, or make a second recipient, author or part.
"""

#: Names that are Postroom's own, in spellings that readers take for the same.
RESERVED_NAMES = (
    "From", "FROM", "from", "Sender", "To", "Cc", "Bcc", "bCC", "Reply-To", "Subject", "Date", "Message-ID",
    "Message-Id", "MIME-Version", "Content-Type", "content-type", "Content-Transfer-Encoding",
    "Content-Disposition", "Content-ID", "Content-Base", "Received", "Return-Path", "Resent-From", "Resent-To",
    "Resent-Bcc", "Resent-Sender", "DKIM-Signature", "ARC-Seal", "ARC-Message-Signature",
    "ARC-Authentication-Results",
)  # fmt: skip

#: Names that are none (RFC 5322 §2.2).
BROKEN_NAMES = (
    "", " ", ":", "X Y", "X:", "X-A: b\r\nBcc", "X-A\r\nBcc", "\r\nBcc", "X\n", "X\r", "X\0", "X\t", " Bcc", "Bcc ",
    "Bcc\u00a0", "Вcc", "X-é", "X-\u2028", "\ufeffBcc", "X(", "X<", "X@", "X;", "X/", "X=", '"X"', "X" * 77,
)  # fmt: skip

#: Values that end the field, or would.
BROKEN_VALUES = (
    "x\r\nBcc: evil@example.com", "x\nBcc: evil@example.com", "x\rBcc: evil@example.com", "x\r\n\r\nbody",
    "x\r\n folded", "x\0y", "x\x0by", "x\x0cy", "x\x85Bcc: evil@example.com", "x\u2028Bcc: evil@example.com",
    "x\u2029y", "x\x1b[2J", "x\x7f", "\r\n", "\n", "x" * 999,
)  # fmt: skip

#: Headers that are the caller's to set.
GOOD = {
    "X-Order": "42",
    "X-Empty": "",
    "X-Word": "=?utf-8?q?x=0D=0ABcc:_evil@example.com?=",
    "X-Unicode": "ünïcödé 😀",
    "X-Long": "word " * 199,
    "X-Unbroken": "é" * 300,
    "X-Tab": "a\tb",
    "X-Address": "Evil <evil@example.com>, evil@example.com",
    "In-Reply-To": "<x@example.com>",
    "References": " ".join(f"<{number}@example.com>" for number in range(30)),
    "List-Unsubscribe": "<https://contoso.com/u?x=1>, <mailto:u@contoso.com>",
    "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
    "Auto-Submitted": "auto-generated",
    "X-MS-Exchange-Organization-SCL": "-1",
    "__proto__": "x",
}

FILENAMES_REFUSED = (
    "../../etc/passwd", "..\\..\\win.ini", "/etc/passwd", "C:\\x", ".", "..", "", " ", "a/b", "a\\b", "a\r\nb", "a\nb",
    "a\0.exe", "a\tb", "a\x1b", "a\u2028b", "x\r\nContent-Type: text/html", "n" * 256,
)  # fmt: skip

FILENAMES = (
    "a.pdf", "a b.pdf", 'a"; filename="evil.exe', "a'b", "a;b.txt", "a%00.exe", "a%0d%0ab", "ünïcödé.pdf",
    "請求書.pdf", "😀.png", "=?utf-8?q?evil=2Eexe?=", "utf-8''evil.exe", "\u202efdp.exe", "CON", "nul.txt", ".htaccess",
    "-rf", "--help", "$(id)", "`id`", "{{7*7}}.txt", "a.pdf.exe", "a,b", "a=b", "<script>.html", "é" * 200, "n" * 255,
    "__proto__", "*", "a:b", "|x",
)  # fmt: skip

CONTENT_TYPES_REFUSED = (
    "", "text", "/", "text/", "text/plain; x", "text/plain;", "text/plain\r\nBcc: evil@example.com",
    'text/plain; name="x\r\ny"', "text/plain\nX: y", "text/plain\0", "text/plain; charset=x; charset=y",
    "text/plain; charset=x; CHARSET=y", "multipart/mixed; boundary=x", "multipart/alternative", "MULTIPART/x",
    "message/partial; id=x; number=1; total=2", "message/external-body; access-type=URL", "text/plain, text/html",
    "text/plain; x*0=a; x*1", "te xt/plain", "text/plain (comment)", 'text/plain; x="é"', "x/" + "y" * 300,
)  # fmt: skip

CONTENT_TYPES = (
    "text/plain", "TEXT/HTML", 'text/plain; charset="utf-8"', "text/plain; x=y; z=w", "application/x-evil",
    'text/plain; x="; boundary=y"', "text/html; charset=utf-7", 'application/octet-stream; name="../../x"',
    "image/svg+xml", "text/x-sh",
)  # fmt: skip

CONTENT_IDS_REFUSED = (
    "", "<", ">", "<>", "<x", "x>", "a b", "a\r\nBcc: x", "a\nb", "a\0b", "é", "a<b", "a>b", "x" * 256, "<<x>>", "\u2028",
    "=?utf-8?q?x?=",
)  # fmt: skip

CONTENT_IDS = (
    "logo",
    "<logo>",
    "logo@contoso.com",
    'x"y',
    "x;y=z",
    "../x",
    "{{7*7}}",
    "x" * 255,
)

#: Visible ASCII (RFC 3461 §4.4), which is written as xtext: what looks like a parameter must not become one.
ENVELOPE_IDS = (
    "order-42", "a+b", "a=b", "+0D+0ARCPT", "SIZE=1", "<x@y>", "a+2Bb", "'--", "$(id)", "{{7*7}}", "~!@#%^&*()", "x" * 100,
)  # fmt: skip

ENVELOPE_IDS_REFUSED = (
    "",
    " ",
    "a b",
    "a\r\nRCPT TO:<evil@example.com>",
    "a\nb",
    "é",
    "a\0b",
    "x" * 101,
    "a\tb",
    "a\x7f",
)

IDEMPOTENCY_KEYS = ("order-42", "'--", "{{7*7}}", "../x", "\\", "%00", "~", "x" * 256)

IDEMPOTENCY_KEYS_REFUSED = (b"", b" ", b"a b", b"\xc3\xa9", b"\xff", b"a\tb", b"\x7f", b"x" * 257, b"a\x0bb")
