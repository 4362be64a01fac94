"""The sandbox's own certificate authority, and the keys it lives with.

Made once and kept in the state folder, so that a client that trusts `ca.pem` goes on trusting after
a restart. The server's certificate covers the real names (smtp.office365.com and its like), since a
client connects to the sandbox but checks the name of the service that it plays. Nothing else should
ever trust this authority.

For relay by certificate it issues `client.pem`, the certificate of relay.contoso.com (in general:
relay and the first accepted domain) with the intermediate that signed it: the full chain, as a
client has to send it. The sandbox's MX trusts it as it would trust one of a public authority.

Files: `ca.pem`, `server.pem`, `intermediate.pem`, `client.pem` (readable), `ca.key`, `server.key`,
`intermediate.key`, `client.key`, `token.key` (mode 0600).
"""

import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

#: Names that every sandbox answers to.
REAL_NAMES = (
    "smtp.office365.com", "outlook.office365.com", "login.microsoftonline.com", "localhost", "127.0.0.1", "::1",
    "smtp.office365.us", "outlook-dod.office365.us", "smtp.partner.outlook.cn", "smtp.hve.mx.microsoft",
    "smtp-hve.office365.com", "smtp.azurecomm.net",
)  # fmt: skip

_CA_LIFE = timedelta(days=3650)
_LEAF_LIFE = timedelta(days=365)
_RENEW_BEFORE = timedelta(days=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """Where the files are, and the key that signs tokens."""

    ca_file: Path
    certificate_file: Path
    key_file: Path
    client_certificate: Path  # with its intermediate
    client_key: Path
    token_key: rsa.RSAPrivateKey


def mx_name(domain: str) -> str:
    """Return the classic MX name of an accepted domain."""
    return f"{domain.lower().replace('.', '-')}.mail.protection.outlook.com"


def prepare(state: Path, *, names: Iterable[str], client: str = "relay.contoso.com") -> Certificates:
    """Return the certificates in `state`, making what is missing, expires soon or lacks a name."""
    ca_file, ca_key_file = state / "ca.pem", state / "ca.key"
    if not _usable(ca_file, ca_key_file, names=()) or not _may_have_intermediates(ca_file):
        _make_authority(ca_file, ca_key_file)
        for signed in ("server.pem", "intermediate.pem", "client.pem"):  # by the old authority
            (state / signed).unlink(missing_ok=True)
    wanted = tuple(dict.fromkeys(name.lower() for name in (*REAL_NAMES, *names)))
    certificate_file, key_file = state / "server.pem", state / "server.key"
    if not _usable(certificate_file, key_file, names=wanted):
        _make_leaf(certificate_file, key_file, authority=(ca_file, ca_key_file), names=wanted)
    _prepare_client(state, authority=(ca_file, ca_key_file), name=client)
    return Certificates(
        ca_file=ca_file,
        certificate_file=certificate_file,
        key_file=key_file,
        client_certificate=state / "client.pem",
        client_key=state / "client.key",
        token_key=_token_key(state / "token.key"),
    )


def _prepare_client(state: Path, *, authority: tuple[Path, Path], name: str) -> None:
    between = (state / "intermediate.pem", state / "intermediate.key")
    own = (state / "client.pem", state / "client.key")
    if not _usable(*between, names=()):
        _make_authority(*between, signed_by=authority)
        own[0].unlink(missing_ok=True)
    if not _usable(*own, names=(name,)):
        _make_leaf(*own, authority=between, names=(name,), usage=ExtendedKeyUsageOID.CLIENT_AUTH)


def _may_have_intermediates(authority: Path) -> bool:
    certificate = x509.load_pem_x509_certificate(authority.read_bytes())
    return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length != 0


def _make_authority(
    certificate_file: Path, key_file: Path, *, signed_by: tuple[Path, Path] | None = None
) -> None:
    """Make an authority: the one that all trust, or the one in between."""
    key = ec.generate_private_key(ec.SECP256R1())
    kind = "sandbox" if signed_by is None else "sandbox intermediate"
    name = _named(f"Postroom {kind} {secrets.token_hex(4)}")
    above, above_key = (name, key) if signed_by is None else _authority(signed_by)
    builder = (
        _builder(subject=name, issuer=above, key=key, life=_CA_LIFE)
        .add_extension(
            x509.BasicConstraints(ca=True, path_length=1 if signed_by is None else 0), critical=True
        )
        .add_extension(_usage(authority=True), critical=True)
    )
    if signed_by is not None:
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(above_key.public_key()), critical=False
        )
    _write(key_file, _private(key), mode=0o600)
    _write(certificate_file, builder.sign(above_key, SHA256()).public_bytes(Encoding.PEM), mode=0o644)


def _make_leaf(
    certificate_file: Path,
    key_file: Path,
    *,
    authority: tuple[Path, Path],
    names: tuple[str, ...],
    usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
) -> None:
    """Make a certificate for `names`; its file ends with the authority's own."""
    issuer, issuer_key = _authority(authority)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        _builder(subject=_named(names[0]), issuer=issuer, key=key, life=_LEAF_LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
        )
        .add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
        .sign(issuer_key, SHA256())
    )
    _write(key_file, _private(key), mode=0o600)
    chain = certificate.public_bytes(Encoding.PEM) + authority[0].read_bytes()
    _write(certificate_file, chain, mode=0o644)


def _authority(files: tuple[Path, Path]) -> tuple[x509.Name, ec.EllipticCurvePrivateKey]:
    certificate = x509.load_pem_x509_certificate(files[0].read_bytes())
    key = load_pem_private_key(files[1].read_bytes(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey), "we made it ourselves"
    return certificate.subject, key


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(
    *, subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, life: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))  # clocks differ
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _token_key(file: Path) -> rsa.RSAPrivateKey:
    if file.exists():
        key = _loaded(file.read_bytes())
        if isinstance(key, rsa.RSAPrivateKey):
            return key
    fresh = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    _write(file, _private(fresh), mode=0o600)
    return fresh


@lru_cache(maxsize=1)
def _loaded(pem: bytes) -> PrivateKeyTypes:
    """Read a key; OpenSSL then proves that its primes are some, which takes as long as the rest of a start."""
    return load_pem_private_key(pem, password=None)


def _usable(certificate_file: Path, key_file: Path, *, names: tuple[str, ...]) -> bool:
    if not certificate_file.exists() or not key_file.exists():
        return False
    certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
    if certificate.not_valid_after_utc - datetime.now(UTC) < _RENEW_BEFORE:
        return False
    if not names:
        return True
    covered = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {_general(name) for name in names} <= set(covered)


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _private(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(file: Path, octets: bytes, *, mode: int) -> None:
    """Write a file whole or not at all, with its mode from the first octet on."""
    draft = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as out:
        out.write(octets)
    draft.replace(file)
