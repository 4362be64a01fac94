r"""Whole messages (RFC 5322) that two servers would read differently, or a server differently from its reader.

The line ends are those of SMTP smuggling (CVE-2023-51764, CVE-2023-51765, CVE-2023-51766); the rest is what
filters and readers have disagreed about: doubled headers, folded names, nested parts, boundaries, octets above 127.
"""

FROM = b"From: Contoso <noreply@contoso.com>\r\n"
TO = b"To: ana@example.com\r\n"
HEAD = FROM + TO + b"Subject: x\r\n"

_NEXT = b"MAIL FROM:<evil@example.com>\r\nRCPT TO:<evil@example.com>\r\nDATA\r\nSubject: y\r\n\r\ny\r\n.\r\n"

#: Refused, by the code that says why.
REFUSED: tuple[tuple[bytes, str], ...] = (
    # A dot alone between line ends that only some servers take for one.
    *((HEAD + b"\r\nx" + end + _NEXT, "bare_line_end") for end in (
        b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r.\r\n", b"\r\n.\r", b"\r\n\n.\r\n", b"\n\n.\r\n", b"\r\r\n.\r\r\n",
        b"\r\n.\r\r\n", b"\n.\r",
    )),
    *((HEAD + b"\r\nx" + end + _NEXT, "nul") for end in (b"\r\n\0.\r\n", b"\r\n.\0\r\n", b"\0\r\n.\r\n", b"\r\n.\r\n\0")),
    (HEAD + b"\r\nx\ry\r\n", "bare_line_end"),
    (HEAD + b"\r\nx\ny\r\n", "bare_line_end"),
    (HEAD + b"X-A: b\rBcc: evil@example.com\r\n\r\nx", "bare_line_end"),
    (HEAD + b"X-A: b\nBcc: evil@example.com\r\n\r\nx", "bare_line_end"),
    (HEAD + b"\r\n" + b"x" * 999 + b"\r\n", "line_too_long"),
    (HEAD + b"X-A: " + b"x" * 999 + b"\r\n\r\nx", "line_too_long"),
    # Headers that are none, or twice, or folded into something else.
    (b"", "bad_header"),
    (b"\r\n", "bad_header"),
    (b"x", "bad_header"),
    (b"\r\n" + HEAD + b"\r\nx", "bad_header"),
    (b"From evil@example.com Mon Nov 23 19:40:02 2026\r\n" + HEAD + b"\r\nx", "bad_header"),
    (HEAD + b"no colon\r\n\r\nx", "bad_header"),
    (HEAD + b": no name\r\n\r\nx", "bad_header"),
    (HEAD + b"Bcc : evil@example.com\r\n\r\nx", "bad_header"),
    (HEAD + b"X\xc3\xa9: y\r\n\r\nx", "bad_header"),
    (HEAD + b"X-" + b"y" * 80 + b": z\r\n\r\nx", "bad_header"),
    (b" folded: first\r\n" + HEAD + b"\r\nx", "bad_folding"),
    (HEAD + b"X-A: b\r\n \t\r\nBcc: evil@example.com\r\n\r\nx", "bad_folding"),
    (HEAD + b"X-A: b\x0bBcc: evil@example.com\r\n\r\nx", "control_character"),
    (HEAD + b"X-A: \x1b[2J\r\n\r\nx", "control_character"),
    (HEAD + b"X-A: \xff\xfe\r\n\r\nx", "header_not_utf8"),
    (HEAD + b"X-A: \xe9\r\n\r\nx", "header_not_utf8"),
    (HEAD + b"Subject: y\r\n\r\nx", "duplicate_header"),
    (HEAD + b"from: evil@example.com\r\n\r\nx", "duplicate_header"),
    (HEAD + b"TO: evil@example.com\r\n\r\nx", "duplicate_header"),
    (HEAD + b"Content-Type: text/plain\r\nContent-type: text/html\r\n\r\nx", "duplicate_header"),
    (HEAD + b"MIME-Version: 1.0\r\nMIME-Version: 1.0\r\n\r\nx", "duplicate_header"),
    (HEAD + b"X-A: =?utf-8?q?x=0D=0ABcc:_evil@example.com?=\r\n\r\nx", "encoded_line_break"),
    (HEAD + b"X-A: =?utf-8?b?DQpCY2M6IGV2aWxAZXhhbXBsZS5jb20=?=\r\n\r\nx", "encoded_line_break"),
    (FROM + TO + b"Subject: =?utf-8?q?=00?=\r\n\r\nx", "encoded_line_break"),
    (HEAD + b"X-A: y\r\n" * 40_000 + b"\r\nx", "header_too_large"),
    # Who wrote it.
    (TO + b"Subject: x\r\n\r\nx", "from_missing"),
    (b"From:\r\n" + TO + b"\r\nx", "bad_from"),
    (b"From: Contoso\r\n" + TO + b"\r\nx", "bad_from"),
    (b"From: noreply@contoso.com <evil@example.com>\r\n" + TO + b"\r\nx", "bad_from"),
    (b"From: (noreply@contoso.com) evil@example.com\r\n" + TO + b"\r\nx", "bad_from"),
    (b"From: Friends: noreply@contoso.com;\r\n" + TO + b"\r\nx", "bad_from"),
    (b"From: <@evil.example:noreply@contoso.com>\r\n" + TO + b"\r\nx", "bad_from"),
    (b"From: =?utf-8?q?noreply=40contoso.com?=@evil.example\r\n" + TO + b"\r\nx", "bad_from"),
    (b"From: noreply@contoso.com, other@contoso.com\r\n" + TO + b"\r\nx", "sender_missing"),
    (HEAD + b"Sender: a@contoso.com, b@contoso.com\r\n\r\nx", "bad_sender"),
    (HEAD + b"Date: yesterday\r\n\r\nx", "bad_date"),
    (HEAD + b"Date: " + b"9" * 200 + b"\r\n\r\nx", "bad_date"),
    (HEAD + b"Message-ID: x\r\n\r\nx", "bad_message_id"),
    (HEAD + b"Message-ID: <a@b> <c@d>\r\n\r\nx", "bad_message_id"),
    (HEAD + b"Message-ID: <a@b\xc3\xa9>\r\n\r\nx", "bad_message_id"),
)  # fmt: skip

#: Taken as they are; what is behind the empty line goes out octet by octet.
ACCEPTED: dict[str, bytes] = {
    "plain": HEAD + b"\r\nx\r\n",
    "no body": HEAD,
    "empty body": HEAD + b"\r\n",
    "no last line end": HEAD + b"\r\nx",
    "lines of lf": (HEAD + b"\r\nx\r\n.\r\ny\r\n").replace(b"\r\n", b"\n"),
    "a dot alone": HEAD + b"\r\nx\r\n.\r\n" + _NEXT,
    "a first dot": HEAD + b"\r\n.\r\nQUIT\r\n",
    "only dots": HEAD + b"\r\n" + b".\r\n" * 500,
    "stuffed dots": HEAD + b"\r\n..\r\n...\r\n.x\r\n",
    "lines of 998": HEAD + b"\r\n" + (b"." + b"x" * 997 + b"\r\n") * 3,
    "eight bit": HEAD + b"Content-Transfer-Encoding: 8bit\r\n\r\n\xff\xfe\x80\xc3\r\n.\r\n",
    "eight bit header": HEAD + "X-Name: ünïcödé\r\n\r\nx\r\n".encode(),
    "bcc": HEAD + b"BCC: hidden@example.com\r\nX-A: y\r\n\r\nx\r\n",
    "bcc folded": HEAD + b"Bcc: hidden@example.com,\r\n other@example.com\r\nX-A: y\r\n\r\nx\r\n",
    "return path": HEAD + b"Return-Path: <evil@example.com>\r\nX-A: y\r\n\r\nx\r\n",
    "header of other recipients": FROM + b"To: somebody@else.example\r\nCc: x@else.example\r\n\r\nx\r\n",
    "resent": HEAD + b"Resent-To: evil@example.com\r\nResent-From: evil@example.com\r\n\r\nx\r\n",
    "nested parts": HEAD + b"Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\n"
    + b"".join(b"Content-Type: multipart/mixed; boundary=a%d\r\n\r\n--a%d\r\n" % (n, n) for n in range(200))
    + b"\r\nx\r\n--a--\r\n",
    "boundary of nothing": HEAD + b'Content-Type: multipart/mixed; boundary=""\r\n\r\n----\r\n\r\nx\r\n------\r\n',
    "boundary of a dot": HEAD + b"Content-Type: multipart/mixed; boundary=.\r\n\r\n--.\r\n\r\n.\r\n.\r\n--.--\r\n",
    "message in a message": HEAD + b"Content-Type: message/rfc822\r\n\r\n" + HEAD + b"Bcc: x@example.com\r\n\r\n.\r\n",
    "commands": HEAD + b"\r\nRSET\r\nMAIL FROM:<evil@example.com>\r\nQUIT\r\n",
    "unclosed word": HEAD + b"X-A: =?utf-8?q?x\r\n\r\nx\r\n",
    "from line": HEAD + b"\r\nFrom evil@example.com Mon Nov 23 19:40:02 2026\r\n",
}  # fmt: skip
