"""The keys with which the sandbox's Entra ID signs, and how they roll.

The first key lies in the state folder, so that a token outlives a restart. `roll` signs with a new one from
then on, and goes on publishing the one before, as Microsoft does; the key before that is gone. Rolled
keys are gone with the process.
"""

import hashlib
from base64 import urlsafe_b64encode
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

_PUBLISHED = 2


class SigningKeys:
    """The keys that are published, the newest first; it signs."""

    def __init__(self, first: rsa.RSAPrivateKey) -> None:
        """Begin with one key."""
        self._keys: dict[str, rsa.RSAPrivateKey] = {_name(first): first}

    def roll(self) -> None:
        """Sign with a new key from now on."""
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._keys = dict([(_name(key), key), *self._keys.items()][:_PUBLISHED])

    def sign(self, claims: dict[str, Any]) -> str:
        """Write a token."""
        name, key = next(iter(self._keys.items()))
        return jwt.encode(claims, key, algorithm="RS256", headers={"kid": name})

    def key_of(self, token: str) -> rsa.RSAPublicKey | None:
        """Find the key that a token names; None where it is not published."""
        key = self._keys.get(str(jwt.get_unverified_header(token).get("kid")))
        return None if key is None else key.public_key()

    def published(self) -> dict[str, Any]:
        """Write the set of public keys (RFC 7517)."""
        return {"keys": [_public(name, key) for name, key in self._keys.items()]}


def base64(octets: bytes) -> str:
    """Write octets as tokens do (RFC 7515 §2)."""
    return urlsafe_b64encode(octets).rstrip(b"=").decode()


def _name(key: rsa.RSAPrivateKey) -> str:
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64(hashlib.sha256(public).digest()[:20])


def _public(name: str, key: rsa.RSAPrivateKey) -> dict[str, str]:
    numbers = key.public_key().public_numbers()
    return {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": name,
            "n": _number(numbers.n), "e": _number(numbers.e)}  # fmt: skip


def _number(value: int) -> str:
    return base64(value.to_bytes((value.bit_length() + 7) // 8, "big"))
