"""Client certificates and the files that hold them."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from service.routes.certificates import (
    BadCertificate,
    check_application_certificate,
    check_client_certificate,
    read_authorities,
)

NOW = datetime(2026, 11, 23, tzinfo=UTC)
DOMAINS = ("contoso.com",)


class Files:
    """A certificate from an authority below another one, and the files of a route."""

    def __init__(
        self, folder: Path, *, names: tuple[str, ...] = ("mail.contoso.com",), ends: datetime | None = None
    ) -> None:
        self.root = trustme.CA()
        self.issuer = self.root.create_child_ca()
        self.issued = self.issuer.issue_cert(*names, not_after=ends)
        self.certificate, self.key, self.ca = folder / "c.pem", folder / "c.key", folder / "ca.pem"
        self.write(*(blob.bytes() for blob in self.issued.cert_chain_pems))
        self.issued.private_key_pem.write_to_path(str(self.key))
        self.root.cert_pem.write_to_path(str(self.ca))

    def write(self, *certificates: bytes) -> None:
        self.certificate.write_bytes(b"".join(certificates))

    def check(
        self, *, domains: tuple[str, ...] | None = DOMAINS, trusted: bool = True, now: datetime = NOW
    ) -> None:
        check_client_certificate(
            self.certificate, self.key, ca_file=self.ca if trusted else None, domains=domains, now=now
        )


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_a_full_chain_is_right(files: Files) -> None:
    """A certificate with the authorities in between, up to one in ca_file, is taken."""
    files.check()


def test_the_chain_has_to_be_complete(files: Files) -> None:
    """Without the certificate of the authority in between, Exchange Online would not know us."""
    files.write(files.issued.cert_chain_pems[0].bytes())

    with pytest.raises(BadCertificate, match="chain is not complete") as bad:
        files.check()
    assert bad.value.field == "certificate_file"


def test_the_order_of_the_authorities_does_not_matter(files: Files) -> None:
    """The certificate itself comes first; what follows is sorted out by who issued whom."""
    leaf, issuer = (blob.bytes() for blob in files.issued.cert_chain_pems)
    files.write(leaf, files.root.cert_pem.bytes(), issuer)

    files.check()


def test_an_authority_that_nobody_knows(files: Files) -> None:
    """A chain that is complete but ends in a private authority is refused, unless ca_file has it."""
    files.write(*(blob.bytes() for blob in files.issued.cert_chain_pems), files.root.cert_pem.bytes())

    with pytest.raises(BadCertificate, match="public authorities only"):
        files.check(trusted=False)
    files.check()


@pytest.mark.parametrize(
    ("names", "covered"),
    [
        (("contoso.com",), True),
        (("mail.contoso.com",), True),
        (("*.contoso.com",), True),
        (("example.net", "mail.contoso.com"), True),
        (("notcontoso.com",), False),
        (("contoso.com.example.net",), False),
        (("203.0.113.10",), False),
    ],
)
def test_a_name_has_to_cover_an_accepted_domain(
    tmp_path: Path, names: tuple[str, ...], covered: bool
) -> None:
    """A name covers a domain when it equals it or lies below it."""
    files = Files(tmp_path, names=names)

    if covered:
        files.check()
    else:
        with pytest.raises(BadCertificate, match="accepted_domains"):
            files.check()


def test_the_common_name_counts_too(tmp_path: Path) -> None:
    """An accepted domain in the subject's common name is enough."""
    files = Files(tmp_path)
    files.issued = files.issuer.issue_cert("elsewhere.example", common_name="relay.contoso.com")
    files.write(*(blob.bytes() for blob in files.issued.cert_chain_pems))
    files.issued.private_key_pem.write_to_path(str(files.key))

    files.check()


def test_another_mail_server_has_its_own_idea_of_names(tmp_path: Path) -> None:
    """Where no domains are given, names are not looked at."""
    Files(tmp_path, names=("elsewhere.example",)).check(domains=None)


def test_dates(tmp_path: Path) -> None:
    """An expired certificate is refused, and one whose time has not come."""
    files = Files(tmp_path, ends=NOW + timedelta(days=1))

    files.check()
    with pytest.raises(BadCertificate, match="expired at 2026-11-24 00:00 UTC"):
        files.check(now=NOW + timedelta(days=2))
    with pytest.raises(BadCertificate, match="valid from"):
        files.check(now=datetime(1999, 1, 1, tzinfo=UTC))


def test_the_key_has_to_belong_to_it(files: Files) -> None:
    """Another key than the certificate's is refused at the key's own setting."""
    trustme.CA().issue_cert("x").private_key_pem.write_to_path(str(files.key))

    with pytest.raises(BadCertificate, match="is not the key of the first certificate") as bad:
        check_application_certificate(files.certificate, files.key, now=NOW)
    assert bad.value.field == "private_key_file"


def test_an_encrypted_key_is_refused(files: Files) -> None:
    """Nobody is there to type a passphrase."""
    key = serialization.load_pem_private_key(files.issued.private_key_pem.bytes(), password=None)
    files.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"passphrase"),
        )
    )

    with pytest.raises(BadCertificate, match="encrypted"):
        check_application_certificate(files.certificate, files.key, now=NOW)


def test_files_that_are_not_there_or_something_else(files: Files, tmp_path: Path) -> None:
    """A missing file, a folder and a text are each told as what they are."""
    with pytest.raises(BadCertificate, match=r"cannot be read \(No such file"):
        read_authorities(tmp_path / "missing")
    with pytest.raises(BadCertificate, match=r"cannot be read \(Is a directory"):
        read_authorities(tmp_path)
    for content in (b"", b"hello", b"\xff\xfe", files.key.read_bytes()):
        files.certificate.write_bytes(content)
        with pytest.raises(BadCertificate, match="no certificate in PEM form"):
            read_authorities(files.certificate)


def test_a_key_in_the_certificates_file(files: Files) -> None:
    """One file may have both."""
    files.write(files.key.read_bytes(), *(blob.bytes() for blob in files.issued.cert_chain_pems))

    files.key = files.certificate
    files.check()


def test_an_applications_key_is_rsa(files: Files, tmp_path: Path) -> None:
    """Entra ID knows RSA signatures only, so another key is refused before it is used."""
    with pytest.raises(BadCertificate, match="RSA keys only"):
        check_application_certificate(files.certificate, files.key, now=NOW)

    issued = trustme.CA().issue_cert("app", key_type=trustme.KeyType.RSA)
    issued.cert_chain_pems[0].write_to_path(str(files.certificate))
    issued.private_key_pem.write_to_path(str(files.key))
    check_application_certificate(files.certificate, files.key, now=NOW)


def self_signed(files: Files, key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> None:
    """Write a certificate that nobody but itself vouches for."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mail.contoso.com")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=90))
        .sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
    )
    files.write(certificate.public_bytes(serialization.Encoding.PEM))
    files.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    files.ca.write_bytes(files.certificate.read_bytes())


def test_a_self_signed_certificate_is_no_relays(files: Files) -> None:
    """Microsoft refuses it, also where ca_file has it; an own mail server may know it by ca_file."""
    self_signed(files, ec.generate_private_key(ec.SECP256R1()))

    with pytest.raises(BadCertificate, match="is self-signed"):
        files.check()
    with pytest.raises(BadCertificate, match="is self-signed"):
        files.check(domains=None, trusted=False)
    files.check(domains=None)


def test_a_key_that_tls_peers_do_not_know(files: Files) -> None:
    """A key that is neither RSA nor ECDSA is refused before a handshake fails for it."""
    self_signed(files, ed25519.Ed25519PrivateKey.generate())

    with pytest.raises(BadCertificate, match="neither RSA nor of an elliptic curve"):
        files.check()


def test_what_is_worth_knowing_of_a_good_one(tmp_path: Path) -> None:
    """The first end in the chain is told, whether a public authority stands behind it, and the usage."""
    ends = NOW + timedelta(days=30)
    files = Files(tmp_path, ends=ends)

    presented = check_client_certificate(
        files.certificate, files.key, ca_file=files.ca, domains=DOMAINS, now=NOW
    )

    assert (presented.ends_at, presented.public, presented.for_clients) == (ends, False, True)


def test_when_an_applications_certificate_ends(files: Files) -> None:
    """The check of an application's certificate gives its end."""
    ends = NOW + timedelta(days=30)
    issued = trustme.CA().issue_cert("app", key_type=trustme.KeyType.RSA, not_after=ends)
    issued.cert_chain_pems[0].write_to_path(str(files.certificate))
    issued.private_key_pem.write_to_path(str(files.key))

    assert check_application_certificate(files.certificate, files.key, now=NOW) == ends
