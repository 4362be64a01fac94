"""TLS towards a peer: the context for the handshake, and the facts about what came of it.

Where TLS is required, the certificate is verified against the peer's name and the system's
authorities, or those of the peer's `ca_file` alone. Opportunistic TLS protects against
listeners only (RFC 7435): the certificate is written down and not judged.

What can go wrong: files that cannot be read (`tls_files_unusable`). A certificate that the
facts cannot be read out of is described by its digest alone; it never breaks a session that
OpenSSL found good.
"""

from __future__ import annotations

import hashlib
import ssl
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from service.smtp.faults import TlsRefused
from service.smtp.peer import Peer, TlsMode
from service.smtp.phase import Phase
from service.smtp.reply import readable

if TYPE_CHECKING:
    from cryptography import x509

_NAMES_KEPT = 100
_NAME_CHARACTERS = 1_024


def context_for(peer: Peer) -> ssl.SSLContext:
    """Give the context for a handshake with this peer; made anew when one of its files changed.

    Raises `TlsRefused` (`tls_files_unusable`).
    """
    files = (peer.ca_file, peer.client_certificate, peer.client_key)
    try:
        changed = tuple(file.stat().st_mtime_ns if file else None for file in files)
        return _context(peer.tls is TlsMode.REQUIRED, peer.minimum_tls, *files, changed)
    except (OSError, ValueError) as trouble:  # ssl.SSLError is an OSError
        raise TlsRefused(
            "tls_files_unusable",
            phase=Phase.CONNECT,
            detail=f"The files for TLS cannot be used: {_reason(trouble)}.",
        ) from trouble


@lru_cache(maxsize=64)
def _context(
    verified: bool,
    minimum: ssl.TLSVersion,
    ca_file: Path | None,
    certificate: Path | None,
    key: Path | None,
    changed: tuple[int | None, ...],
) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    context.minimum_version = minimum
    if not verified:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate:
        # A key with a passphrase would ask on the terminal; an empty one makes it an error.
        context.load_cert_chain(certificate, key, password="")
    return context


def refusal(trouble: ssl.SSLError) -> TlsRefused:
    """Say why a handshake failed, in the peer's or in OpenSSL's words."""
    if isinstance(trouble, ssl.SSLCertVerificationError):
        detail = f"The certificate is not the peer's: {readable(trouble.verify_message)}."
        return TlsRefused("certificate_invalid", phase=Phase.STARTTLS, detail=detail)
    detail = f"The TLS handshake failed: {_reason(trouble)}."
    return TlsRefused("tls_handshake_failed", phase=Phase.STARTTLS, detail=detail)


def tls_facts(connection: ssl.SSLObject, peer: Peer, *, verified: bool) -> dict[str, object]:
    """Describe an established connection as the ledger keeps it.

    `own_certificate` is the one that is shown to a peer that asks for one: by it Exchange Online knows a relay.
    """
    der = connection.getpeercert(binary_form=True)
    cipher = connection.cipher()
    return {
        "version": connection.version(),
        "cipher": cipher[0] if cipher else None,
        "verified": verified,
        "certificate": certificate_facts(der) if der else None,
        "own_certificate": _own_certificate(peer),
    }


def _own_certificate(peer: Peer) -> dict[str, object] | None:
    if peer.client_certificate is None:
        return None
    try:
        pem = peer.client_certificate.read_text(encoding="ascii", errors="replace")
        end = pem.index(ssl.PEM_FOOTER) + len(ssl.PEM_FOOTER)
        return certificate_facts(ssl.PEM_cert_to_DER_cert(pem[pem.index(ssl.PEM_HEADER) : end]))
    except (OSError, ValueError):
        return None  # replaced in this moment; the context has the one before


def certificate_facts(der: bytes) -> dict[str, object]:
    """Describe a certificate: subject, issuer, names, end of validity (UTC), SHA-256 of its DER.

    Names are the DNS names and IP addresses it is valid for (RFC 6125 §6.4). What cannot be
    read is None; the digest is always there.
    """
    from cryptography import x509

    facts: dict[str, object] = {"subject": None, "issuer": None, "names": [], "not_after": None}
    try:
        certificate = x509.load_der_x509_certificate(der)
        facts["subject"] = readable(certificate.subject.rfc4514_string())[:_NAME_CHARACTERS]
        facts["issuer"] = readable(certificate.issuer.rfc4514_string())[:_NAME_CHARACTERS]
        facts["not_after"] = certificate.not_valid_after_utc.isoformat()
        facts["names"] = _names(certificate)
    except ValueError:
        pass  # a certificate that only OpenSSL can read: the facts found so far, and the digest
    facts["sha256"] = hashlib.sha256(der).hexdigest()
    return facts


def _names(certificate: x509.Certificate) -> list[str]:
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    found = [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]
    return [readable(name)[:_NAME_CHARACTERS] for name in found[:_NAMES_KEPT]]


def _reason(trouble: Exception) -> str:
    if isinstance(trouble, ssl.SSLError) and trouble.reason:
        return trouble.reason.replace("_", " ").lower()
    if isinstance(trouble, OSError) and trouble.strerror:
        return trouble.strerror
    return type(trouble).__name__
