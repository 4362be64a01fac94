"""The sandbox's own certificate authority."""

import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509

from service.sandbox import Sandbox, contoso
from service.sandbox.certificates import prepare
from tests.sandbox.broken import authority
from tests.sandbox.client import connected


@pytest.mark.parametrize(
    "name",
    ["smtp.office365.com", "outlook.office365.com", "localhost", "127.0.0.1", "contoso-com.mail.protection.outlook.com",
     "contoso-onmicrosoft-com.mail.protection.outlook.com", "smtp.hve.mx.microsoft", "smtp.azurecomm.net",
     "smtp.office365.us", "sandbox.mail.svc"],
)  # fmt: skip
async def test_the_certificate_has_the_names_of_the_service(state: Path, name: str) -> None:
    """A strict client finds the real name, the tenant's MX and what was configured besides."""
    async with Sandbox(contoso(state, names=("sandbox.mail.svc",))) as sandbox, connected(sandbox) as client:
        trust = ssl.create_default_context(cafile=sandbox.ca_file)
        trust.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
        await client.say("EHLO client.example")
        await client.say("STARTTLS")

        await client.writer.start_tls(trust, server_hostname=name)

        assert (await client.say("EHLO client.example")).code == 250


async def test_nobody_else_is_trusted_or_named(sandbox: Sandbox) -> None:
    """Without its authority, or for another name, a client refuses the sandbox."""
    own = ssl.create_default_context(cafile=sandbox.ca_file)
    for trust, name in ((ssl.create_default_context(), "localhost"), (own, "smtp.example")):
        async with connected(sandbox) as client:
            await client.say("EHLO client.example")
            await client.say("STARTTLS")
            with pytest.raises(ssl.SSLCertVerificationError):
                await client.writer.start_tls(trust, server_hostname=name)


async def test_tls_before_1_2_is_refused(sandbox: Sandbox) -> None:
    """Microsoft speaks TLS 1.2 and newer only."""
    old = ssl.create_default_context(cafile=sandbox.ca_file)
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1 is deprecated"):
        old.minimum_version = ssl.TLSVersion.TLSv1_1
    with pytest.warns(DeprecationWarning, match="TLSv1_1 is deprecated"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1

    async with connected(sandbox) as client:
        await client.say("EHLO client.example")
        await client.say("STARTTLS")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await client.writer.start_tls(old, server_hostname="localhost")


def test_keys_are_secret_and_kept(tmp_path: Path) -> None:
    """Keys are readable by their owner only; a second start makes nothing new."""
    prepare(tmp_path, names=("one.example",))
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    prepare(tmp_path, names=("one.example",))

    assert before == {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert sorted(before) == [
        "ca.key", "ca.pem", "client.key", "client.pem", "intermediate.key", "intermediate.pem", "server.key",
        "server.pem", "token.key",
    ]  # fmt: skip
    assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in before if name.endswith(".key")} == {
        0o600
    }


def test_a_new_name_gets_a_new_certificate_of_the_same_authority(tmp_path: Path) -> None:
    """Clients that trust the authority go on trusting."""
    first = prepare(tmp_path, names=()).certificate_file.read_bytes()
    authority = (tmp_path / "ca.pem").read_bytes()

    second = prepare(tmp_path, names=("two.example",)).certificate_file.read_bytes()

    assert first != second
    assert authority == (tmp_path / "ca.pem").read_bytes()


def test_a_lost_authority_takes_its_certificates_along(tmp_path: Path) -> None:
    """With a new authority the server's certificate is made anew as well."""
    prepare(tmp_path, names=())
    (tmp_path / "ca.pem").unlink()

    certificates = prepare(tmp_path, names=())

    assert certificates.certificate_file.read_bytes().endswith((tmp_path / "ca.pem").read_bytes())


def test_an_authority_of_an_earlier_version_is_replaced(tmp_path: Path) -> None:
    """One that may have no intermediates cannot stand behind the client's certificate."""
    prepare(tmp_path, names=())
    old = authority(may_have_intermediates=False)
    (tmp_path / "ca.pem").write_bytes(old)

    prepare(tmp_path, names=())

    assert (tmp_path / "ca.pem").read_bytes() != old


def test_the_client_certificate_comes_with_its_intermediate(tmp_path: Path) -> None:
    """The file holds the full chain below the authority, for the name and for clients."""
    certificates = prepare(tmp_path, names=(), client="relay.fabrikam.com")

    own, between = x509.load_pem_x509_certificates(certificates.client_certificate.read_bytes())
    (above,) = x509.load_pem_x509_certificates(certificates.ca_file.read_bytes())
    own.verify_directly_issued_by(between)
    between.verify_directly_issued_by(above)
    names = own.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["relay.fabrikam.com"]
    assert stat.S_IMODE(certificates.client_key.stat().st_mode) == 0o600
