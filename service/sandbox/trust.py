"""Who a client is by its certificate, and which connector that makes it.

A certificate counts when its chain, as the client sent it, ends in a trusted authority and every part
of it is in date. What does not count is no reason to hang up: the client is a stranger then.

Names follow the rules of `TlsSenderCertificateName` ("New-InboundConnector" in Microsoft's PowerShell
reference). Whether `*.contoso.com` also covers the bare `contoso.com` is unverified; here it does not.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Address, ip_address, ip_network

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.x509.oid import NameOID

from service.sandbox.config import SandboxConnector

_LONGEST = 10  # certificates of a chain


class Untrusted(Exception):
    """The certificate says nothing about the client; `reason` says why."""

    def __init__(self, reason: str) -> None:
        """`reason` is for the sandbox's sign-in log."""
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCertificate:
    """A certificate that counts."""

    subject: str  # RFC 4514
    names: tuple[str, ...]  # DNS names of SAN, then the CN; lower case


def judge(shown: Sequence[bytes], *, trusted: Iterable[x509.Certificate], now: datetime) -> ClientCertificate:
    """Return whose certificate it is. Raises Untrusted.

    `shown` is DER, the client's own certificate first; `trusted` are the authorities.
    """
    authorities = tuple(trusted)
    try:
        own, *others = (x509.load_der_x509_certificate(der) for der in shown)
        _follow(own, others=others, authorities=authorities, now=now)
        return ClientCertificate(subject=own.subject.rfc4514_string(), names=_names(own))
    except (ValueError, UnsupportedAlgorithm):
        raise Untrusted("the certificate cannot be read") from None


def matching(
    connectors: Iterable[SandboxConnector], *, certificate: ClientCertificate | None, address: str
) -> SandboxConnector | None:
    """Return the connector that knows this client: by certificate first, then by address."""
    known = tuple(connectors)
    names = certificate.names if certificate is not None else ()
    for connector in known:
        wanted = connector.certificate
        if wanted is not None and any(covers(wanted, name) for name in names):
            return connector
    client = ip_address(address)
    if isinstance(client, IPv4Address):
        for connector in known:
            if any(client in network for network in connector.networks):
                return connector
    return None


def covers(wanted: str, name: str) -> bool:
    """Whether a connector's name fits a name of a certificate; either may begin with `*.`."""
    wanted, name = wanted.lower(), name.lower()
    if wanted == name:
        return True
    if wanted.startswith("*."):
        return name.removeprefix("*").endswith(wanted[1:])
    # RFC 6125 §6.4.3: a certificate's wildcard stands for exactly one label
    return name.startswith("*.") and wanted.partition(".")[2] == name[2:]


def is_banned(address: str, *, banned: Iterable[str]) -> bool:
    """Whether an address lies in one of the networks."""
    client = ip_address(address)
    return any(client in ip_network(network) for network in banned)


def _follow(
    own: x509.Certificate,
    *,
    others: Sequence[x509.Certificate],
    authorities: Sequence[x509.Certificate],
    now: datetime,
) -> None:
    """Walk from a certificate to the authority that stands behind it. Raises Untrusted."""
    current = own
    for _ in range(_LONGEST):
        _check_date(current, now=now)
        if current in authorities:
            return
        issuer = next((one for one in authorities if _issued(current, by=one)), None)
        if issuer is not None:
            _check_date(issuer, now=now)
            return
        if current.issuer == current.subject:
            raise Untrusted("the certificate is self-signed, or its authority is not trusted")
        issuer = next((one for one in others if _issued(current, by=one) and _is_authority(one)), None)
        if issuer is None:
            raise Untrusted(
                "the chain is incomplete: the issuer's certificate was not sent, and is not trusted"
            )
        current = issuer
    raise Untrusted("the chain is too long")


def _check_date(certificate: x509.Certificate, *, now: datetime) -> None:
    if now > certificate.not_valid_after_utc:
        raise Untrusted("a certificate of the chain has expired")
    if now < certificate.not_valid_before_utc:
        raise Untrusted("a certificate of the chain is not valid yet")


def _issued(certificate: x509.Certificate, *, by: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(by)
    except (
        ValueError,
        TypeError,
        InvalidSignature,
    ):  # other names, a foreign kind of key, another's signature
        return False
    return True


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = alternatives.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        found = []
    common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    names = [*found, *(str(attribute.value) for attribute in common)]
    return tuple(dict.fromkeys(name.lower() for name in names))
