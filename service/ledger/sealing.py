"""Secrets of others at rest: sealed with AES-256-GCM where the configuration has a key.

What is sealed reads `sealed:v1:<base64 of nonce and ciphertext>`, and opens only for the purpose (the id of
its owner) that it was sealed for: a row's secret is of no use in another row. Without a key secrets are kept
as they are; they open later too, when there is a key. A secret that cannot be opened is a `CannotOpen`: the
key of the configuration is not the one that it was sealed with.
"""

import base64
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_MARK = "sealed:v1:"
_NONCE = 12  # octets, as NIST SP 800-38D §8.2 has it


class CannotOpen(Exception):
    """This was sealed with another key than the configuration has now."""


class Seal:
    """Seals and opens."""

    def __init__(self, key: bytes | None) -> None:
        """Take 32 octets, or None to keep secrets as they are."""
        self._cipher = None if key is None else _cipher(key)

    def close(self, secret: str, *, purpose: str) -> str:
        """Make of a secret what may be stored."""
        if self._cipher is None:
            return secret
        nonce = os.urandom(_NONCE)
        sealed = nonce + self._cipher.encrypt(nonce, secret.encode(), purpose.encode())
        return _MARK + base64.b64encode(sealed).decode()

    def open(self, stored: str, *, purpose: str) -> str:
        """Give the secret back; raises CannotOpen."""
        if not stored.startswith(_MARK):
            return stored
        if self._cipher is None:
            raise CannotOpen
        from cryptography.exceptions import InvalidTag

        sealed = base64.b64decode(stored.removeprefix(_MARK))
        try:
            return self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], purpose.encode()).decode()
        except InvalidTag:
            raise CannotOpen from None


def _cipher(key: bytes) -> "AESGCM":
    # Loaded where there is a key: cryptography takes 8 MB.
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)
