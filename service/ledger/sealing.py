"""Seals: what is kept in the database and not for everybody who can read it, with AES-256-GCM.

Where the configuration has an `encryption_key`, the secrets of webhooks and the contents of messages are sealed
before they are written. What is sealed opens only for the purpose (the id of its owner) that it was sealed for: a
row's octets are of no use in another row. Without a key everything is kept as it is, and opens later too, when there
is a key.

A key is changed without a pause: the new one becomes `encryption_key`, the old one `previous_encryption_key`. What
is written from then on is sealed with the new one, what the old one sealed still opens, and the workers seal it anew
(`resealing`). What neither opens is a `CannotOpen`.

    a secret    sealed:v1:<base64 of nonce and ciphertext>
    a content   00 "sealed1" <4 octets of the key's SHA-256> <nonce> <ciphertext>    (no message begins with NUL)
"""

import base64
import hashlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_MARK = "sealed:v1:"
_MARK_OF_OCTETS = b"\0sealed1"
_NAME = 4  # octets of a key's name
_NONCE = 12  # octets, as NIST SP 800-38D §8.2 has it


class CannotOpen(Exception):
    """This was sealed with another key than the configuration has now."""


class Seal:
    """Seals and opens."""

    def __init__(self, key: bytes | None, *, previous: bytes | None = None) -> None:
        """Take 32 octets each, or None: without `key` nothing is sealed; `previous` only opens."""
        self._keys = [_Key(each) for each in (key, previous) if each is not None]
        self._current = None if key is None else self._keys[0]

    @property
    def name(self) -> str | None:
        """A name of the key that seals, which does not tell the key; None where there is none."""
        return None if self._current is None else self._current.name.hex()

    def close(self, secret: str, *, purpose: str) -> str:
        """Make of a secret what may be stored."""
        if self._current is None:
            return secret
        return _MARK + base64.b64encode(self._current.close(secret.encode(), purpose)).decode()

    def open(self, stored: str, *, purpose: str) -> str:
        """Give the secret back; raises CannotOpen."""
        if not stored.startswith(_MARK):
            return stored
        sealed = base64.b64decode(stored.removeprefix(_MARK))
        for key in self._keys:
            opened = key.open(sealed, purpose)
            if opened is not None:
                return opened.decode()
        raise CannotOpen

    def close_octets(self, octets: bytes, *, purpose: str) -> bytes:
        """Make of a content what may be stored."""
        if self._current is None:
            return octets
        return b"".join((_MARK_OF_OCTETS, self._current.name, self._current.close(octets, purpose)))

    def open_octets(self, stored: bytes, *, purpose: str) -> bytes:
        """Give the content back; raises CannotOpen."""
        if not stored.startswith(_MARK_OF_OCTETS):
            return stored
        at = len(_MARK_OF_OCTETS)
        name, sealed = stored[at : at + _NAME], stored[at + _NAME :]
        for key in self._keys:
            if key.name == name and (opened := key.open(sealed, purpose)) is not None:
                return opened
        raise CannotOpen

    def is_current(self, stored: bytes) -> bool:
        """Say whether a content is stored as it would be stored now."""
        if self._current is None:
            return not stored.startswith(_MARK_OF_OCTETS)
        return stored.startswith(_MARK_OF_OCTETS + self._current.name)


class _Key:
    """One key and its cipher."""

    def __init__(self, key: bytes) -> None:
        self.name = hashlib.sha256(key).digest()[:_NAME]
        self._cipher = _cipher(key)

    def close(self, octets: bytes, purpose: str) -> bytes:
        nonce = os.urandom(_NONCE)
        return nonce + self._cipher.encrypt(nonce, octets, purpose.encode())

    def open(self, sealed: bytes, purpose: str) -> bytes | None:
        from cryptography.exceptions import InvalidTag

        try:
            return self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], purpose.encode())
        except InvalidTag:
            return None


def _cipher(key: bytes) -> "AESGCM":
    # Loaded where there is a key: cryptography takes 8 MB.
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)


#: What seals nothing.
UNSEALED = Seal(None)
