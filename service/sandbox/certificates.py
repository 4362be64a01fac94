"""The sandbox's own certificate authority, and the keys it lives with.

Made once and kept in the state folder, so that a client that trusts `ca.pem` goes on trusting after
a restart. The server's certificate covers the real names (smtp.office365.com and its like), since a
client connects to the sandbox but checks the name of the service that it plays. Nothing else should
ever trust this authority.

Files: `ca.pem`, `server.pem` (readable), `ca.key`, `server.key`, `token.key` (mode 0600).
"""

import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
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
)  # fmt: skip

_CA_LIFE = timedelta(days=3650)
_SERVER_LIFE = timedelta(days=365)
_RENEW_BEFORE = timedelta(days=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """Where the files are, and the key that signs tokens."""

    ca_file: Path
    certificate_file: Path
    key_file: Path
    token_key: rsa.RSAPrivateKey


def mx_name(domain: str) -> str:
    """Return the classic MX name of an accepted domain."""
    return f"{domain.lower().replace('.', '-')}.mail.protection.outlook.com"


def prepare(state: Path, *, names: Iterable[str]) -> Certificates:
    """Return the certificates in `state`, making what is missing, expires soon or lacks a name."""
    ca_file, ca_key_file = state / "ca.pem", state / "ca.key"
    if not _usable(ca_file, ca_key_file, names=()):
        _make_authority(ca_file, ca_key_file)
        (state / "server.pem").unlink(missing_ok=True)  # the old authority signed it
    wanted = tuple(dict.fromkeys(name.lower() for name in (*REAL_NAMES, *names)))
    certificate_file, key_file = state / "server.pem", state / "server.key"
    if not _usable(certificate_file, key_file, names=wanted):
        _make_server(certificate_file, key_file, authority=(ca_file, ca_key_file), names=wanted)
    return Certificates(
        ca_file=ca_file,
        certificate_file=certificate_file,
        key_file=key_file,
        token_key=_token_key(state / "token.key"),
    )


def _make_authority(certificate_file: Path, key_file: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Postroom sandbox {secrets.token_hex(4)}")])
    certificate = (
        _builder(subject=name, issuer=name, key=key, life=_CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .sign(key, SHA256())
    )
    _write(key_file, _private(key), mode=0o600)
    _write(certificate_file, certificate.public_bytes(Encoding.PEM), mode=0o644)


def _make_server(
    certificate_file: Path, key_file: Path, *, authority: tuple[Path, Path], names: tuple[str, ...]
) -> None:
    ca = x509.load_pem_x509_certificate(authority[0].read_bytes())
    ca_key = load_pem_private_key(authority[1].read_bytes(), password=None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey), "we made it ourselves"
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    certificate = (
        _builder(subject=subject, issuer=ca.subject, key=key, life=_SERVER_LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        .add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
        .sign(ca_key, SHA256())
    )
    _write(key_file, _private(key), mode=0o600)
    chain = certificate.public_bytes(Encoding.PEM) + authority[0].read_bytes()
    _write(certificate_file, chain, mode=0o644)


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
        key = load_pem_private_key(file.read_bytes(), password=None)
        if isinstance(key, rsa.RSAPrivateKey):
            return key
    fresh = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    _write(file, _private(fresh), mode=0o600)
    return fresh


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
