"""Secrets that are told apart from everything else, and where they are looked for.

A secret may leak as it is, as URLs have it, or in base64 with whatever stands before it: three alignments, in
both alphabets.
"""

import base64
import secrets
from collections.abc import Iterator, Mapping
from urllib.parse import quote, quote_plus


def canary(name: str) -> str:
    """Make a secret that nothing else looks like, with characters that URLs and base64 write otherwise."""
    return f"{name}/+{secrets.token_urlsafe(24)}=&{name}"


def forms(secret: str) -> Iterator[bytes]:
    """Give every form in which a secret may stand somewhere."""
    octets = secret.encode()
    yield octets
    yield quote(secret, safe="").encode()
    yield quote(secret).encode()
    yield quote_plus(secret).encode()
    for before in range(3):
        for alphabet in (base64.b64encode, base64.urlsafe_b64encode):
            # What depends on the octets before and behind is left out.
            yield alphabet(b"\0" * before + octets)[-(-before * 8 // 6) : (before + len(octets)) * 8 // 6]


def found(haystack: bytes, wanted: Mapping[str, str]) -> set[str]:
    """Name the secrets that stand in this in any form."""
    return {name for name, secret in wanted.items() if any(form in haystack for form in forms(secret))}
