"""How certificates are read and their chains walked, for `service.routes.certificates`, which says what they are for.

The only module of the routes' rules that needs cryptography, loaded where a route has a certificate.
"""

import ssl
import warnings
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID

from service.mail.address import BadAddress, domain_name
from service.routes.certificates import BadCertificate, Presented

_MOST_OCTETS = 4 * 1024 * 1024  # a bundle of all public authorities has a quarter of a megabyte
_LONGEST_CHAIN = 10


def check_application_certificate(certificate: Path, private_key: Path, *, now: datetime) -> datetime:
    """See `certificates.check_application_certificate`."""
    leaf = _leaf_with_key(certificate, private_key, now=now)[0]
    if not isinstance(leaf.public_key(), RSAPublicKey):
        raise BadCertificate(
            "Entra ID takes RSA keys only for applications. Make an RSA key and upload its certificate.",
            field="certificate_file",
        )
    return leaf.not_valid_after_utc


def check_client_certificate(
    certificate: Path,
    private_key: Path,
    *,
    ca_file: Path | None,
    domains: Sequence[str] | None,
    now: datetime,
) -> Presented:
    """See `certificates.check_client_certificate`."""
    chain = _leaf_with_key(certificate, private_key, now=now)
    if not isinstance(chain[0].public_key(), RSAPublicKey | EllipticCurvePublicKey):
        raise BadCertificate(
            "its key is neither RSA nor of an elliptic curve (ECDSA), which is all that TLS peers know in common. "
            "Get a certificate for such a key.",
            field="certificate_file",
        )
    if domains is not None and chain[0].issuer == chain[0].subject:
        raise BadCertificate(_why_untrusted(chain[:1]), field="certificate_file")
    path, public = _check_chain(chain, ca_file, now=now)
    if domains is not None and not any(_covers(name, domains) for name in _names(chain[0])):
        raise BadCertificate(
            "neither its common name nor an alternative name covers one of organization.accepted_domains (the guide). "
            "Use a certificate for a name in one of them, such as *.contoso.com.",
            field="certificate_file",
        )
    return Presented(
        ends_at=min(each.not_valid_after_utc for each in path),
        public=public,
        for_clients=_for_clients(chain[0]),
    )


def _leaf_with_key(certificate: Path, private_key: Path, *, now: datetime) -> list[x509.Certificate]:
    chain = read_certificates(certificate)
    try:
        key = serialization.load_pem_private_key(_read(private_key, "private_key_file"), password=None)
    except TypeError:
        raise BadCertificate(
            "the private key is encrypted. Decrypt it (openssl pkey) and guard the file instead.",
            field="private_key_file",
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise BadCertificate(
            "has no private key in PEM form. Name the file that has it.", field="private_key_file"
        ) from None
    if _public(key.public_key()) != _public(chain[0].public_key()):
        raise BadCertificate(
            "is not the key of the first certificate in certificate_file. Put the certificate itself first, "
            "its authorities after it, or name the right key.",
            field="private_key_file",
        )
    _check_time(chain[:1], now)
    return chain


def _check_chain(
    chain: Sequence[x509.Certificate], ca_file: Path | None, *, now: datetime
) -> tuple[list[x509.Certificate], bool]:
    """Walk from the certificate up to an authority that is trusted.

    Returns the certificates on the way, and whether a public authority stands at its end.
    """
    given = read_certificates(ca_file) if ca_file else []
    path = [chain[0]]
    for _ in range(_LONGEST_CHAIN):
        current = path[-1]
        if any(_issued(current, by=root) for root in _system_authorities(current)):
            return path, True
        if any(_issued(current, by=root) for root in given):
            return path, False
        above = next((other for other in chain[1:] if other not in path and _issued(current, by=other)), None)
        if above is None:
            break
        _check_time([above], now)
        path.append(above)
    raise BadCertificate(_why_untrusted(path), field="certificate_file")


def _why_untrusted(path: Sequence[x509.Certificate]) -> str:
    if path[-1].issuer != path[-1].subject:
        return (
            "the chain is not complete: the certificate of an authority in between is missing. "
            "Append what the authority gave with it (often called chain or fullchain)."
        )
    if len(path) == 1:
        return (
            "is self-signed, and Microsoft takes certificates of public authorities only. Get one from such an "
            "authority."
        )
    return (
        "its chain ends in an authority that nobody knows, and Microsoft takes public authorities only. "
        "Get a certificate from one, or name the authority's own certificate in ca_file."
    )


def _issued(certificate: x509.Certificate, *, by: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(by)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _system_authorities(certificate: x509.Certificate) -> Iterator[x509.Certificate]:
    """Find the authorities of this machine that may have issued a certificate."""
    issuer = certificate.issuer.public_bytes()
    for der in ssl.create_default_context().get_ca_certs(binary_form=True):
        if issuer in der:
            with warnings.catch_warnings():
                # Some old authorities have serial numbers that RFC 5280 no longer allows.
                warnings.simplefilter("ignore")
                yield x509.load_der_x509_certificate(der)


def _check_time(certificates: Iterable[x509.Certificate], now: datetime) -> None:
    for certificate in certificates:
        if now > certificate.not_valid_after_utc:
            raise BadCertificate(
                f"expired at {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC. Renew it.",
                field="certificate_file",
            )
        if now < certificate.not_valid_before_utc:
            raise BadCertificate(
                f"is valid from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC only. "
                "Look at this machine's clock, or use the one before it.",
                field="certificate_file",
            )


def _names(certificate: x509.Certificate) -> Iterator[str]:
    for attribute in certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME):
        yield str(attribute.value)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return
    yield from names.get_values_for_type(x509.DNSName)


def _for_clients(certificate: x509.Certificate) -> bool:
    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (x509.ExtensionNotFound, ValueError):
        return True
    wanted = {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}
    return not wanted.isdisjoint(usages)


def _covers(name: str, domains: Sequence[str]) -> bool:
    """Say whether a certificate's name is an accepted domain, or lies below one."""
    try:
        plain = domain_name(name.removeprefix("*."))
    except BadAddress:
        return False  # a common name may be any text
    return any(plain == domain or plain.endswith(f".{domain}") for domain in domains)


def _public(key: object) -> bytes:
    assert hasattr(key, "public_bytes")
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return bytes(key.public_bytes(serialization.Encoding.DER, form))


def read_certificates(path: Path) -> list[x509.Certificate]:
    """Read all certificates of a file in PEM form; raises BadCertificate."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return x509.load_pem_x509_certificates(_read(path, "certificate_file"))
    except ValueError:
        raise BadCertificate(
            "has no certificate in PEM form. Name the file that has it.", field="certificate_file"
        ) from None


def _read(path: Path, field: Literal["certificate_file", "private_key_file"]) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MOST_OCTETS)
    except (OSError, ValueError) as fault:
        reason = fault.strerror if isinstance(fault, OSError) else "not a path"
        raise BadCertificate(
            f"cannot be read ({reason}). Correct the path or its permissions.", field=field
        ) from None
