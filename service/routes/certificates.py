"""Rules for the certificates that we present, and for those that we trust.

A connector of Exchange Online recognises us by a client certificate: its subject's common name
or one of its alternative names has to cover an accepted domain, and the whole chain has to be
sent (550 5.7.64 otherwise). Microsoft takes public authorities only; a chain that ends in the
route's own `ca_file` is for a test against something else.

An application of Entra ID proves itself by a certificate that was uploaded there, so nothing is
asked of its chain: only that the key belongs to it and that its time has not passed.

Everything here looks at files and says what is wrong with them as a `BadCertificate`: which of
the two files, which rule, what to do.

How it looks stands in `chains`, loaded with the first certificate: with cryptography, 8 MB.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from cryptography import x509


class BadCertificate(Exception):
    """A file with a certificate or a key breaks a rule. The text says which, and the remedy."""

    def __init__(self, detail: str, *, field: Literal["certificate_file", "private_key_file"]) -> None:
        self.field = field
        super().__init__(detail)


@dataclass(frozen=True, slots=True, kw_only=True)
class Presented:
    """What is worth knowing of a certificate that breaks no rule."""

    ends_at: datetime  # the first end of the certificate and the authorities that are sent with it
    public: bool  # its chain ends in an authority of this machine, not in `ca_file` alone
    for_clients: bool  # it says that it may be used by a client (RFC 5280 §4.2.1.12), or says nothing


def check_application_certificate(certificate: Path, private_key: Path, *, now: datetime) -> datetime:
    """See that an application can sign with its key: it belongs to the certificate, is RSA, and in date.

    Returns when the certificate ends. Raises `BadCertificate`.
    """
    from service.routes import chains

    return chains.check_application_certificate(certificate, private_key, now=now)


def check_client_certificate(
    certificate: Path,
    private_key: Path,
    *,
    ca_file: Path | None,
    domains: Sequence[str] | None,
    now: datetime,
) -> Presented:
    """See that a client certificate is complete and, where domains are given, covers one of them.

    Raises `BadCertificate`.
    """
    from service.routes import chains

    return chains.check_client_certificate(
        certificate, private_key, ca_file=ca_file, domains=domains, now=now
    )


def read_authorities(path: Path) -> "list[x509.Certificate]":
    """Read the certificates of a `ca_file`. Raises `BadCertificate`."""
    from service.routes import chains

    return chains.read_certificates(path)
