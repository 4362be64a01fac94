"""Addresses and mailboxes: parsed strictly, compared as Microsoft compares, printed safely.

An address is a local part and a domain (RFC 5321 §4.1.2). A mailbox is an address with or
without a display name (RFC 5322 §3.4). A text is exactly one of these or it is refused:
comments, groups, source routes, lists and encoded words are each a way in which two parsers
read two different addresses out of one text, so that the one that was checked is not the one
that gets the mail.

A value that exists is valid: the constructors check, so that what is read from a database row
is as safe to print into a command or a header as what was parsed.

Domains are kept as lower-case A-labels (IDNA 2008 with the mapping of UTS 46). Local parts stay
as they were given, without the quotes: `"ana"@contoso.com` and `ana@contoso.com` are one address.

What can go wrong is a `BadAddress`; its code is stable, and its detail never repeats the input.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from functools import lru_cache

import idna

LOCAL_OCTETS = 64  # RFC 5321 §4.5.3.1.1
DOMAIN_OCTETS = 255  # RFC 5321 §4.5.3.1.2
ADDRESS_OCTETS = 254  # RFC 5321 §4.5.3.1.3: a path has 256, and two of them are the angle brackets
NAME_CHARACTERS = 320  # ours: encoding costs time for each character, and readers show some forty
TEXT_CHARACTERS = 998  # RFC 5322 §2.1.1: nothing longer fits a line

# RFC 5322 §3.2.3, with the characters beyond ASCII that RFC 6532 §3.2 adds.
_ATEXT = r"A-Za-z0-9!#$%&'*+/=?^_`{|}~\-\u0080-\U0010ffff"
_DOT_ATOM = re.compile(rf"[{_ATEXT}]+(?:\.[{_ATEXT}]+)*")
_ATOMS = re.compile(rf"[{_ATEXT}.]+(?: +[{_ATEXT}.]+)*")
_ADDR_SPEC = re.compile(
    rf'(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[{_ATEXT}.]*))@(?P<domain>\[[^@]*|[^]@<>(),;:\\" []*)'
)
# Closed or not, so that one quote that is never closed costs one look at the rest, and not one from
# each quote behind it.
_QUOTED = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*("?)', re.DOTALL)
_WORD = re.compile(r'"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<atom>[^ "]+)')
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")

# What an unquoted character says about the text around it, for the sentence in the refusal.
_MEANINGS = {
    "(": ("comment", "Comments in parentheses are not accepted; put the text in double quotes."),
    ")": ("comment", "Comments in parentheses are not accepted; put the text in double quotes."),
    ":": ("group", "Groups and source routes are not accepted; give one address."),
    ";": ("group", "Groups and lists are not accepted; give one address."),
    ",": ("several", "A comma stands outside quotes: give one address, or put the name in double quotes."),
    "@": ("several_at", 'There is more than one "@" outside quotes.'),
    "<": ("angle_brackets", "Angle brackets belong around one address, at the end."),
    ">": ("angle_brackets", "Angle brackets belong around one address, at the end."),
    "[": ("needs_quotes", "Square brackets are accepted in a name in double quotes only."),
    "]": ("needs_quotes", "Square brackets are accepted in a name in double quotes only."),
    "\\": ("needs_quotes", "A backslash is accepted in double quotes only."),
    " ": ("space", "An address has no spaces outside quotes."),
}


class BadAddress(ValueError):
    """A text is not one address, or not one mailbox.

    `code` is a stable name. `detail` is a sentence for the caller that does not repeat the input.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail

    def __str__(self) -> str:
        return self.detail


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """One mail address (RFC 5321 §4.1.2)."""

    local: str  # without quotes and escapes
    domain: str  # lower-case A-labels
    #: The form to compare by: Exchange ignores case, composition and needless quotes.
    key: str = field(init=False, repr=False, compare=False)
    _text: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_local(self.local)
        _check_labels(self.domain)
        text = f"{_quoted_if_needed(self.local)}@{self.domain}"
        # Both are asked for again and again, and the value is frozen.
        object.__setattr__(self, "_text", text)
        object.__setattr__(self, "key", f"{_folded(self.local)}@{self.domain}")
        octets = len(text.encode())
        if octets - len(f"@{self.domain}") > LOCAL_OCTETS:
            raise BadAddress("local_too_long", f"The part before the @ is longer than {LOCAL_OCTETS} octets.")
        if octets > ADDRESS_OCTETS:
            raise BadAddress("too_long", f"An address has at most {ADDRESS_OCTETS} octets.")

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read exactly one addr-spec, with nothing around it.

        Raises `BadAddress`. A quoted local part is accepted (RFC 5321 §4.1.2), a domain literal
        (`[192.0.2.1]`) is not: no route of ours delivers to it.
        """
        return _address(text)

    def __str__(self) -> str:
        """Print as it goes between the angle brackets of a command or a header."""
        return self._text

    @property
    def smtputf8(self) -> bool:
        """Whether the transaction needs SMTPUTF8 for this address (RFC 6531 §3.3)."""
        return not self.local.isascii()


@dataclass(frozen=True, slots=True, kw_only=True)
class Mailbox:
    """An address and the name that readers show for it (RFC 5322 §3.4)."""

    address: Address
    name: str | None  # plain text, not yet encoded or quoted; never empty

    def __post_init__(self) -> None:
        if self.name is None:
            return
        if len(self.name) > NAME_CHARACTERS:
            raise BadAddress("name_too_long", f"A display name has at most {NAME_CHARACTERS} characters.")
        _check_characters(self.name)

    @classmethod
    def parse(cls, text: str) -> Mailbox:
        """Read `a@b`, `<a@b>`, `Name <a@b>` or `"Na, me" <a@b>`.

        Spaces around it are ignored. Raises `BadAddress`.
        """
        return _mailbox(text)

    @classmethod
    def parse_list(cls, text: str) -> tuple[Mailbox, ...]:
        """Read the value of an unfolded From or To header: mailboxes with commas between them."""
        commas = [at for at, char in enumerate(_outside_quotes(text)) if char == ","]
        starts = [0, *(at + 1 for at in commas)]
        return tuple(cls.parse(text[start:end]) for start, end in zip(starts, [*commas, None], strict=True))

    @classmethod
    def of(cls, *, email: str, name: str | None) -> Mailbox:
        """Build from an address and a name that is plain text. A blank name is no name.

        Raises `BadAddress`.
        """
        return cls(address=Address.parse(email), name=(name or "").strip(" ") or None)

    def __str__(self) -> str:
        """Print for people, in a form that `parse` reads back."""
        if self.name is None:
            return str(self.address)
        name = self.name if _ATOMS.fullmatch(self.name) and "  " not in self.name else quoted(self.name)
        return f"{name} <{self.address}>"


# An application sends from few addresses, and each address is read more than once on its way.
@lru_cache(maxsize=512)
def _address(text: str) -> Address:
    _check_characters(text)
    match = _ADDR_SPEC.fullmatch(text)
    if match is None:
        raise _why_no_address(text)
    if match["quoted"] is not None:
        local = _unescaped(match["quoted"])
    else:
        local = match["plain"]
        if local and not _DOT_ATOM.fullmatch(local):
            raise BadAddress("local_dots", "The part before the @ has a dot at an end, or two in a row.")
    return Address(local=local, domain=domain_name(match["domain"]))


@lru_cache(maxsize=512)
def _mailbox(text: str) -> Mailbox:
    _check_characters(text)
    text = text.strip(" ")
    outside = _outside_quotes(text)
    if "<" not in outside and ">" not in outside:
        return Mailbox(address=Address.parse(text), name=None)
    # The text ends with its only ">", so the only "<" stands before it.
    if not outside.count("<") == outside.count(">") == 1 or not outside.endswith(">"):
        raise BadAddress(*_MEANINGS["<"])
    opening = outside.index("<")
    return Mailbox(
        address=_inside_brackets(text[opening + 1 : -1]),
        name=_display_name(text[:opening].strip(" ")),
    )


@lru_cache(maxsize=1024)
def domain_name(text: str) -> str:
    """Bring a domain into the form in which it is kept and compared: lower-case A-labels.

    Raises `BadAddress`. Labels beyond ASCII follow IDNA 2008 after the mapping of UTS 46, labels
    that are already encoded are decoded to see that they say something (RFC 5891 §4.4).
    """
    if len(text) > DOMAIN_OCTETS:
        raise BadAddress("domain_too_long", f"A domain has at most {DOMAIN_OCTETS} octets.")
    _check_characters(text)
    if text.startswith("["):
        raise BadAddress("domain_literal", "The domain is a name, not an IP address in brackets.")
    domain = text.lower()
    if not domain.isascii() or "xn--" in domain:
        domain = _a_labels(domain)
    _check_labels(domain)
    return domain


def quoted(text: str) -> str:
    """Print a text as a quoted-string (RFC 5322 §3.2.4)."""
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'


def _a_labels(domain: str) -> str:
    try:
        return idna.encode(domain, uts46=True).decode("ascii")
    except UnicodeError:  # the root of the library's own errors
        raise BadAddress("domain_idna", "The domain is not a valid internationalised name.") from None


@lru_cache(maxsize=1024)
def _check_labels(domain: str) -> None:
    if not domain:
        raise BadAddress("domain_empty", "The domain after the @ is missing.")
    if len(domain) > DOMAIN_OCTETS:
        raise BadAddress("domain_too_long", f"A domain has at most {DOMAIN_OCTETS} octets.")
    labels = domain.split(".")
    if not all(_LABEL.fullmatch(label) for label in labels):
        raise BadAddress(
            "domain_syntax",
            "A domain is labels of letters, digits and inner hyphens, with single dots between them.",
        )
    if labels[-1].isdigit():
        raise BadAddress("domain_literal", "The domain is a name, not an IP address.")


def _check_local(local: str) -> None:
    if not local:
        raise BadAddress("local_empty", "The part before the @ is missing.")
    _check_characters(local)
    # Readers decode an encoded word wherever they see one, and have another address then.
    if "=?" in local:
        raise BadAddress("encoded_word", 'The part before the @ may not contain "=?".')
    # Between quotes these are allowed (RFC 5321 §4.1.2), but servers exist that take the first ">"
    # for the end of the path: the rest would be parameters of the command.
    if "<" in local or ">" in local:
        raise BadAddress("angle_brackets", "The part before the @ may not contain angle brackets.")
    if local.isascii():
        return
    # Separators and unassigned, private or invisible characters have no place in a mailbox's name
    # (RFC 8264 §9.17), nor does a combining mark with nothing before it.
    # Lookalikes of the signs that divide an address ("﹫") are for deceiving only.
    beyond = "".join(char for char in local if not char.isascii())
    kinds = {unicodedata.category(char)[0] for char in beyond}
    lookalikes = set(unicodedata.normalize("NFKC", beyond)) & set(_MEANINGS)
    if kinds & {"Z", "C"} or lookalikes or unicodedata.category(local[0]).startswith("M"):
        raise BadAddress("local_character", "The part before the @ has a character that no mailbox can have.")


def _check_characters(text: str) -> None:
    """Refuse what can end a line, hide in it, or not be encoded at all."""
    if len(text) > TEXT_CHARACTERS:
        raise BadAddress("too_long", f"The text is longer than {TEXT_CHARACTERS} characters.")
    if text.isprintable():  # none of what is refused below; nearly all texts end here
        return
    if _SURROGATE.search(text):
        raise BadAddress("surrogate", "The text has half of a surrogate pair, which is no character.")
    if _CONTROL.search(text):
        raise BadAddress("control_character", "The text has a control character or a line break.")


def _outside_quotes(text: str) -> str:
    """Overwrite quoted strings with double quotes: what is left stands outside, where it stood."""
    if '"' not in text:
        return text

    def overwritten(found: re.Match[str]) -> str:
        if not found[1]:
            raise BadAddress("quote_unclosed", "A double quote is opened and not closed.")
        return '"' * len(found[0])

    return _QUOTED.sub(overwritten, text)


def _why_no_address(text: str) -> BadAddress:
    outside = _outside_quotes(text)
    if not text:
        return BadAddress("empty", "The address is empty.")
    for char, meaning in _MEANINGS.items():
        if char in outside and (char != "@" or outside.count("@") > 1):
            return BadAddress(*meaning)
    if "@" not in outside:
        return BadAddress("no_at", 'An address has the form "name@domain".')
    return BadAddress("local_quotes", "The part before the @ is quoted as a whole or not at all.")


def _inside_brackets(text: str) -> Address:
    if text.startswith("@"):
        raise BadAddress("source_route", "Source routes are not accepted; give the address alone.")
    return Address.parse(text)


def _display_name(phrase: str) -> str | None:
    """Read the words before the angle bracket (RFC 5322 §3.2.5), which may be quoted one by one."""
    words = []
    for match in _WORD.finditer(phrase):
        if match["quoted"] is not None:
            words.append(_unescaped(match["quoted"]))
        elif _ATOMS.fullmatch(match["atom"]):
            words.append(match["atom"])
        else:
            raise next(BadAddress(*_MEANINGS[char]) for char in match["atom"] if char in _MEANINGS)
    return " ".join(words).strip(" ") or None


def _unescaped(content: str) -> str:
    return re.sub(r"\\(.)", r"\1", content)


def _folded(local: str) -> str:
    if local.isascii():
        return local.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", local).casefold())


def _quoted_if_needed(local: str) -> str:
    return local if _DOT_ATOM.fullmatch(local) else quoted(local)
