"""Client certificates that are wrong in one way each, beside the right one that the sandbox makes.

Each function writes a certificate (with its chain) and a key into a folder and returns the two files.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from service.sandbox import Sandbox
from tests.sandbox.client import Pair

_NOW = datetime.now(UTC)
_NAME = "relay.contoso.com"


def right(sandbox: Sandbox) -> Pair:
    """Return the sandbox's own, which relays."""
    return sandbox.client_certificate, sandbox.client_key


def expired(sandbox: Sandbox, folder: Path) -> Pair:
    """Return one whose time was over yesterday."""
    return issued(sandbox, folder, until=_NOW - timedelta(days=1))


def not_yet_valid(sandbox: Sandbox, folder: Path) -> Pair:
    """Return one whose time begins tomorrow."""
    return issued(sandbox, folder, since=_NOW + timedelta(days=1))


def wrong_name(sandbox: Sandbox, folder: Path) -> Pair:
    """Return one that is in order, but of another domain."""
    return issued(sandbox, folder, name="relay.fabrikam.com")


def without_intermediate(sandbox: Sandbox, folder: Path) -> Pair:
    """Return the sandbox's own without its issuer's certificate."""
    own, *_ = x509.load_pem_x509_certificates(sandbox.client_certificate.read_bytes())
    (folder / "alone.pem").write_bytes(own.public_bytes(Encoding.PEM))
    return folder / "alone.pem", sandbox.client_key


def self_signed(folder: Path, *, name: str = _NAME) -> Pair:
    """Return one that nobody but itself stands behind."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _named(name)
    certificate = _certificate(subject, issuer=subject, key=key, names=(name,)).sign(key, SHA256())
    return _written(folder, key, certificate)


def of_a_foreign_authority(folder: Path) -> Pair:
    """Return one with a whole chain that nobody trusts; the last file of the chain is the authority."""
    key, own_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca = _authority(key)
    own = _certificate(_named(_NAME), issuer=ca.subject, key=own_key, names=(_NAME,)).sign(key, SHA256())
    return _written(folder, own_key, own, ca)


def by_a_leaf(sandbox: Sandbox, folder: Path) -> Pair:
    """Return one that the holder of an ordinary certificate signed, who is no authority."""
    leaf, *above = x509.load_pem_x509_certificates(sandbox.client_certificate.read_bytes())
    leaf_key = _key(sandbox.client_key)
    key = ec.generate_private_key(ec.SECP256R1())
    own = _certificate(
        _named("other.contoso.com"), issuer=leaf.subject, key=key, names=("other.contoso.com",)
    ).sign(leaf_key, SHA256())
    return _written(folder, key, own, leaf, *above)


def issued(
    sandbox: Sandbox,
    folder: Path,
    *,
    name: str = _NAME,
    names: tuple[str, ...] | None = None,
    usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH,
    since: datetime = _NOW - timedelta(days=30),
    until: datetime = _NOW + timedelta(days=30),
) -> Pair:
    """Return one from the sandbox's intermediate; `names` are its SAN, `name` alone unless given."""
    state = sandbox.ca_file.parent
    between = x509.load_pem_x509_certificate((state / "intermediate.pem").read_bytes())
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _certificate(
        _named(name),
        issuer=between.subject,
        key=key,
        names=(name,) if names is None else names,
        usage=usage,
        since=since,
        until=max(until, since + timedelta(days=1)),
    ).sign(_key(state / "intermediate.key"), SHA256())
    return _written(folder, key, certificate, between)


def authority(*, may_have_intermediates: bool = True) -> bytes:
    """Return the certificate (PEM) of a new authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    return _authority(key, path_length=1 if may_have_intermediates else 0).public_bytes(Encoding.PEM)


def _authority(key: ec.EllipticCurvePrivateKey, *, path_length: int = 0) -> x509.Certificate:
    name = _named("An authority that nobody trusts")
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_NOW - timedelta(days=30))
        .not_valid_after(_NOW + timedelta(days=365))
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .sign(key, SHA256())
    )


def _certificate(
    subject: x509.Name,
    *,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    names: tuple[str, ...],
    usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH,
    since: datetime = _NOW - timedelta(days=30),
    until: datetime = _NOW + timedelta(days=30),
) -> x509.CertificateBuilder:
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(since)
        .not_valid_after(until)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    )
    if not names:
        return builder
    alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
    return builder.add_extension(alternatives, critical=False)


def _written(folder: Path, key: ec.EllipticCurvePrivateKey, *chain: x509.Certificate) -> Pair:
    serial = chain[0].serial_number
    certificate_file, key_file = folder / f"{serial}.pem", folder / f"{serial}.key"
    certificate_file.write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in chain))
    key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return certificate_file, key_file


def _key(file: Path) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(file.read_bytes(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
