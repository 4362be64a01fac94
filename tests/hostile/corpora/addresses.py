r"""Addresses in every form that a parser can misread, with what must happen to each.

The forms are those of RFC 5321, RFC 5322, RFC 6531 and their errata, in the manner of Dominic Sayers' isEmail
tests: quoted local parts, comments, folding white space, literals, lengths at their limits; and those of
attackers: lists, groups, source routes, encoded words, bang paths, the percent hack, line ends, invisible
characters and lookalikes.

Postroom takes less than the RFCs allow: what two parsers may read differently is refused (`service.mail.address`).
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A text that is one mailbox."""

    text: str
    path: str  # as it goes between the angle brackets of RCPT
    name: str | None = None  # the display name

    @property
    def bare(self) -> bool:
        """Whether it is an addr-spec alone, as the member `email` takes it."""
        return not self.text.endswith(">") and not self.text.startswith(" ") and not self.text.endswith(" ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A text that is not one mailbox, and the code that says why."""

    text: str
    code: str


def _same(*texts: str) -> tuple[Accepted, ...]:
    """Addresses that stay as they are."""
    return tuple(Accepted(text=text, path=text) for text in texts)


def _read(text: str, path: str, name: str | None = None) -> Accepted:
    return Accepted(text=text, path=path, name=name)


def _no(code: str, *texts: str) -> tuple[Refused, ...]:
    return tuple(Refused(text=text, code=code) for text in texts)


L64 = "l" * 64  # RFC 5321 §4.5.3.1.1
D63 = "d" * 63  # RFC 1035 §2.3.4
D189 = f"{D63}.{D63}.{'e' * 61}"  # with L64 and the @ it is 254 octets, all that a path has room for

ACCEPTED: tuple[Accepted, ...] = (
    # Dot-atoms (RFC 5322 §3.2.3), with every sign that needs no quotes; some mean something elsewhere:
    # to a shell, a template, a database, a command line, UUCP, and sendmail's percent hack.
    *_same(
        "test@iana.org",
        "a@b",
        "a@b.co",
        "first.last@iana.org",
        "1.2.3@iana.org",
        "123@iana.org",
        "_@iana.org",
        "-@iana.org",
        "--help@iana.org",
        "-oQ/tmp@iana.org",
        "a-@iana.org",
        "test+tag@iana.org",
        "!#$%&'*+/?=^_`{|}~-@iana.org",
        "o'brien@iana.org",
        "'/**/or/**/1=1--@iana.org",
        "customer/department=shipping@iana.org",
        "!def!xyz%abc@iana.org",
        "user%other.example@iana.org",
        "uunet!decvax!user@iana.org",
        "{{7*7}}@iana.org",
        "{%if%}@iana.org",
        "${7*7}@iana.org",
        "`id`@iana.org",
        "|cat@iana.org",
        "*@iana.org",
        "%s%n%x@iana.org",
        "/etc/passwd@iana.org",
        "constructor@iana.org",
        "__proto__@iana.org",
        "NOTIFY=NEVER@iana.org",
        "MAILER-DAEMON@iana.org",
        "root@localhost",
        "a?=b@iana.org",
    ),
    # Domains: case and width are mapped (UTS 46), labels become A-labels (RFC 5891), hyphens stand inside.
    *_same(
        "test@a-b.example",
        "test@a--b.example",
        "test@1.example",
        "test@123.456.example",
        "test@1.2.3.4.example",
        "test@xn--mnchen-3ya.de",
        f"test@{D63}.example",
        "test@" + "a." * 20 + "example",
    ),
    _read("test@IANA.ORG", "test@iana.org"),
    _read("Test.User@IaNa.org", "Test.User@iana.org"),
    _read("test@MÜNCHEN.de", "test@xn--mnchen-3ya.de"),
    _read("test@例え.jp", "test@xn--r8jz45g.jp"),
    _read("test@бүх.example", "test@xn--90a4b6t.example"),
    _read("test@iana。org", "test@iana.org"),
    _read("test@ｉａｎａ.org", "test@iana.org"),
    _read("test@iаna.org", "test@xn--ina-6cd.org"),  # a Cyrillic letter shows itself
    _read("test@straße.de", "test@xn--strae-oqa.de"),
    _read("test@ﬁne.example", "test@fine.example"),
    _read("test@xn--MNCHEN-3ya.DE", "test@xn--mnchen-3ya.de"),
    _read("test@ia\u00adna.org", "test@iana.org"),  # UTS 46 drops a soft hyphen
    # Lengths at their limits.
    _read(f"{L64}@iana.org", f"{L64}@iana.org"),
    _read(f"{L64}@{D189}", f"{L64}@{D189}"),
    _read(f"{'é' * 32}@iana.org", f"{'é' * 32}@iana.org"),
    # Quoted local parts (RFC 5321 §4.1.2): needless quotes go, the others stay, escapes are undone once.
    *_same(
        '"first last"@iana.org',
        '"a@b"@iana.org',
        '"a,b"@iana.org',
        '"a;b:c"@iana.org',
        '"(comment)"@iana.org',
        '"a..b"@iana.org',
        '".a"@iana.org',
        '"a."@iana.org',
        '" "@iana.org',
        '"\\""@iana.org',
        '"\\\\"@iana.org',
        '"[192.0.2.1]"@iana.org',
        '"a\\\\\\"b"@iana.org',
        '"RCPT TO: evil@example.com"@iana.org',
    ),
    _read('"test"@iana.org', "test@iana.org"),
    _read('"first.last"@iana.org', "first.last@iana.org"),
    _read('"\\a\\b"@iana.org', "ab@iana.org"),
    _read('"te\\st"@iana.org', "test@iana.org"),
    _read('"a\\ b"@iana.org', '"a b"@iana.org'),
    # Beyond ASCII (RFC 6531): letters and signs of all scripts, as they are.
    *_same(
        "jörg@iana.org",
        "用户@iana.org",
        "θσερ@iana.org",
        "аdmin@iana.org",  # lookalike letters are another mailbox, not another syntax
        "🦊@iana.org",
        "e\u0301@iana.org",
        "ﬁ@iana.org",
        "İ@iana.org",
        "ß@iana.org",
    ),
    # With a name (RFC 5322 §3.4): the name is plain text, whatever it looks like.
    _read("<test@iana.org>", "test@iana.org"),
    _read("  test@iana.org  ", "test@iana.org"),
    _read("  <test@iana.org>  ", "test@iana.org"),
    _read('"" <test@iana.org>', "test@iana.org"),
    _read('" " <test@iana.org>', "test@iana.org"),
    _read("Ana <test@iana.org>", "test@iana.org", "Ana"),
    _read("Ana<test@iana.org>", "test@iana.org", "Ana"),
    _read("Ana   M.   Silva <test@iana.org>", "test@iana.org", "Ana M. Silva"),
    _read('"Silva, Ana" <test@iana.org>', "test@iana.org", "Silva, Ana"),
    _read('"evil@example.com" <test@iana.org>', "test@iana.org", "evil@example.com"),
    _read('"<evil@example.com>" <test@iana.org>', "test@iana.org", "<evil@example.com>"),
    _read('"Ana (Silva)" <test@iana.org>', "test@iana.org", "Ana (Silva)"),
    _read('"Friends: a@b;" <test@iana.org>', "test@iana.org", "Friends: a@b;"),
    _read('"Ana \\"A\\" Silva" <test@iana.org>', "test@iana.org", 'Ana "A" Silva'),
    _read("=?utf-8?q?Ana?= <test@iana.org>", "test@iana.org", "=?utf-8?q?Ana?="),
    _read(
        "=?utf-8?q?x=0D=0ABcc=3A_evil=40example.com?= <test@iana.org>",
        "test@iana.org",
        "=?utf-8?q?x=0D=0ABcc=3A_evil=40example.com?=",
    ),
    _read("Ünïcödé 名前 <test@iana.org>", "test@iana.org", "Ünïcödé 名前"),
    _read("{{7*7}} <test@iana.org>", "test@iana.org", "{{7*7}}"),
    _read('"\u202egro.ana" <test@iana.org>', "test@iana.org", "\u202egro.ana"),
    _read('Ana <"a b"@iana.org>', '"a b"@iana.org', "Ana"),
    _read('"a" "b" <test@iana.org>', "test@iana.org", "a b"),
    _read("--- <test@iana.org>", "test@iana.org", "---"),
)

REFUSED: tuple[Refused, ...] = (
    # Something is missing.
    *_no("empty", "", " ", "   ", "<>", "Ana <>"),
    *_no("no_at", "test", "test.iana.org", "Ana", '"test"', '"test@iana.org"', "<test>"),
    *_no("local_empty", "@iana.org", '""@iana.org'),
    *_no("domain_empty", "test@", "Ana <test@>", '"a b"@'),
    # Dots (isEmail: ISEMAIL_ERR_DOT_START, DOT_END, CONSECUTIVEDOTS).
    *_no(
        "local_dots", ".test@iana.org", "test.@iana.org", "test..last@iana.org", ".@iana.org", "...@iana.org"
    ),
    *_no(
        "domain_syntax",
        "test@iana.org.",
        "test@.iana.org",
        "test@iana..org",
        "test@.",
        "test@..",
        "test@-iana.org",
        "test@iana-.org",
        "test@iana.-org",
        "test@ia_na.org",
        "test@iana/org",
        "test@iana.org#fragment",
        "test@iana%00.org",
        "test@iana.org|cat",
        "test@{{7*7}}",
        "test@*.org",
        f"test@{D63}d.example",
        "test@iana!org",
        "test@iana.org'--",
    ),
    # Numbers: no route delivers to an address literal (RFC 5321 §4.1.3).
    *_no(
        "domain_literal",
        "test@[192.0.2.1]",
        "test@[255.255.255.256]",
        "test@[IPv6:2001:db8::1]",
        "test@[IPv6:::]",
        "test@[RFC-5322-domain-literal]",
        "test@[]",
        "test@[127.0.0.1",
        "test@192.0.2.1",
        "test@iana.123",
        "test@0x7f.1",
        "test@2130706433",
    ),
    # Internationalised names that are none (RFC 5891 §4.4, §5.4).
    *_no(
        "domain_idna",
        "test@xn--0049.com",
        "test@xn--.com",
        "test@xn--a.com",
        "test@☃.com",
        "test@🦊.example",
        "test@ia\u202ena.org",
        "test@\u0301iana.org",
        "test@ia\u200dna.org",
        "test@iana\uff0forg",
        "test@iana\u2024.org",
    ),
    # Lengths beyond their limits.
    *_no("local_too_long", f"{L64}l@iana.org", f"{'é' * 33}@iana.org", f'"{"l " * 32}"@iana.org'),
    *_no("too_long", f"{L64}@{D189}e", f"{'n' * 1000}@iana.org", f"Ana <{'n' * 1000}@iana.org>"),
    *_no("domain_too_long", "test@" + "a." * 128 + "example", f"test@{'d' * 256}"),
    *_no("name_too_long", f"{'n' * 321} <test@iana.org>"),
    # Several where one is asked for: the comma is how one recipient becomes two.
    *_no(
        "several",
        "a@b,c@d",
        "a@b, c@d",
        "a,b@iana.org",
        "Silva, Ana <test@iana.org>",
        "test@iana.org,",
        ",test@iana.org",
        "test@iana.org,,evil@example.com",
    ),
    *_no("several_at", "a@b@c", "test@@iana.org", "@@", "evil@example.com <test@iana.org>", "a@b%c@d"),
    *_no(
        "group",
        "a@b;c@d",
        "Friends: a@b, c@d;",
        "Friends:;",
        "undisclosed-recipients:;",
        "mailto:test@iana.org",
        "test@iana.org:25",
        "Contoso: Sales <test@iana.org>",
        "javascript:alert@iana.org",
        "test@iana.org;ls",
        "a@b;",
    ),
    *_no(
        "source_route", "<@x.example:test@iana.org>", "<@x.example,@y.example:test@iana.org>", "<@iana.org>"
    ),
    # Comments and folding white space (RFC 5322 §3.2.2): isEmail warns, Postroom refuses.
    *_no(
        "comment",
        "test(comment)@iana.org",
        "(comment)test@iana.org",
        "test@(comment)iana.org",
        "test@iana.org(comment)",
        "test@iana.org (comment)",
        "Ana (Silva) <test@iana.org>",
        "((((nested))))test@iana.org",
        "test@iana.org)",
        "(test@iana.org",
    ),
    *_no(
        "space",
        "first last@iana.org",
        "test @iana.org",
        "test@ iana.org",
        "test@iana .org",
        "test@iana.org x",
    ),
    *_no(
        "angle_brackets",
        "<test@iana.org",
        "test@iana.org>",
        "<<test@iana.org>>",
        "<test@iana.org><evil@example.com>",
        "<test@iana.org> x",
        "Ana <test@iana.org> SIZE=1",
        "<test@iana.org> NOTIFY=NEVER",
        "<>test@iana.org",
        '"a>b"@iana.org',
        '"test@iana.org> BODY=8BITMIME <x"@iana.org',
        '"<script>"@iana.org',
    ),
    # Quotes and backslashes that do not hold.
    *_no(
        "quote_unclosed",
        '"test@iana.org',
        'test"@iana.org',
        '"test\\"@iana.org',
        '"""@iana.org',
        'Ana" <a@b>',
    ),
    *_no(
        "local_quotes",
        'te"st"@iana.org',
        '"te"st@iana.org',
        '"first"."last"@iana.org',
        '"first".last@iana.org',
        '"a""b"@iana.org',
        'test@"iana.org"',
    ),
    *_no("needs_quotes", "te\\st@iana.org", "te\\@iana.org", "[test]@iana.org", "Contoso [x] <a@b>"),
    # Encoded words: whoever decodes them has another address (RFC 2047 §5 (3)).
    *_no(
        "encoded_word",
        "!#$%&'*+/=?^_`{|}~-@iana.org",  # a dot-atom, which has the two signs in it
        "=?utf-8?q?test=40iana.org?=@example.com",
        "=?x?q?collab=40psres.net=3e=00?=foo@example.com",
        '"=?iso-8859-1?q?=61?="@iana.org',
    ),
    # What no mailbox can have: invisible, private or unassigned characters, lookalikes of the signs.
    *_no(
        "local_character",
        "te\u202est@iana.org",
        "te\u200bst@iana.org",
        "te\u00a0st@iana.org",
        "te\u3000st@iana.org",
        "te\u2060st@iana.org",
        "\ufefftest@iana.org",
        "te\ue000st@iana.org",
        "te\U000e0041st@iana.org",
        "a﹫b@iana.org",
        "a＠b@iana.org",
        "a﹤b@iana.org",
        "a；b@iana.org",
        "a，b@iana.org",
        "\u0301test@iana.org",
    ),
    # Line ends and control characters, in every place: none of them is an address any more.
    *_no(
        "control_character",
        "test\r\n@iana.org",
        "\r\ntest@iana.org",
        "test@iana.org\r\n",
        "test@iana.org\n",
        "test@iana.org\r",
        "test@iana.org>\r\nRCPT TO:<evil@example.com",
        "test@iana.org\r\nDATA\r\nSubject: x\r\n\r\nx\r\n.\r\n",
        "test@iana.org\r\n.\r\nQUIT",
        "Ana\r\nBcc: evil@example.com <test@iana.org>",
        '"Ana\r\n Silva" <test@iana.org>',
        '"te\r\n st"@iana.org',
        "test@iana\r\n .org",
        "te\tst@iana.org",
        "te\x7fst@iana.org",
        "te\x1bst@iana.org",
        "te\x85st@iana.org",
        "te\u2028st@iana.org",
        "te\u2029st@iana.org",
        "test@iana.org\x0bBcc: evil@example.com",
        "test@ia\x01na.org",
    ),
    *_no("nul", "test\0@iana.org", "test@iana.org\0evil@example.com", "Ana\0 <test@iana.org>"),
    *_no("lone_surrogate", "te\ud800st@iana.org", "test@\udfffiana.org", "Ana\ud83d <test@iana.org>"),
)
