"""Who a client is by its certificate: what counts, and what only makes a stranger of it."""

import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from service.sandbox import Sandbox, SandboxConnector, contoso
from service.sandbox.trust import ClientCertificate, Untrusted, covers, judge, matching
from tests.sandbox import broken
from tests.sandbox.client import Pair, connected, met, rcpt
from tests.sandbox.entra import signed_in_log

OUTSIDE = "ana@fabrikam.com"


async def test_a_certificate_with_its_chain_opens_the_connector(sandbox: Sandbox) -> None:
    """The mail may leave the tenant, and what was taken names connector and certificate."""
    async with met(sandbox, shows=broken.right(sandbox)) as client:
        assert (await client.send(OUTSIDE)).code == 250

    (taken,) = sandbox.taken
    (entry,) = await signed_in_log(sandbox)
    assert (taken.door, taken.method, taken.connector) == ("mx", "certificate", "By certificate")
    assert taken.client_certificate == "CN=relay.contoso.com"
    assert taken.tls == "TLSv1.2"
    assert (entry["succeeded"], entry["mailbox"]) == (True, "CN=relay.contoso.com")


WRONG: dict[str, tuple[Callable[[Sandbox, Path], Pair], str]] = {
    "expired": (broken.expired, "has expired"),
    "not yet valid": (broken.not_yet_valid, "is not valid yet"),
    "without its intermediate": (broken.without_intermediate, "the chain is incomplete"),
    "self-signed": (lambda _, folder: broken.self_signed(folder), "self-signed"),
    "of a foreign authority": (lambda _, folder: broken.of_a_foreign_authority(folder), "is not trusted"),
}


@pytest.mark.parametrize("what", WRONG)
async def test_a_certificate_that_does_not_count_makes_a_stranger(
    sandbox: Sandbox, tmp_path: Path, what: str
) -> None:
    """The handshake goes well, mail to the tenant too; only the way out is closed, and the log says why."""
    make, reason = WRONG[what]

    async with met(sandbox, shows=make(sandbox, tmp_path)) as client:
        assert str(await rcpt(client, OUTSIDE)).startswith(
            "550 5.7.64 TenantAttribution; Relay Access Denied ["
        )
        assert (await client.send("ana@contoso.com")).code == 250

    (entry,) = await signed_in_log(sandbox)
    assert (entry["method"], entry["succeeded"]) == ("certificate", False)
    assert reason in entry["reason"]
    assert (sandbox.taken[0].method, sandbox.taken[0].client_certificate) == ("anonymous", None)


async def test_who_signs_without_being_an_authority_signs_nothing(sandbox: Sandbox, tmp_path: Path) -> None:
    """The holder of a good certificate makes no further one: TLS refuses it, and the judgement would too."""
    shows = broken.by_a_leaf(sandbox, tmp_path)

    with pytest.raises(ssl.SSLError):
        async with met(sandbox, shows=shows):
            pass

    (authority,) = x509.load_pem_x509_certificates(sandbox.ca_file.read_bytes())
    chain = [one.public_bytes(Encoding.DER) for one in x509.load_pem_x509_certificates(shows[0].read_bytes())]
    with pytest.raises(Untrusted, match="the chain is incomplete"):
        judge(chain, trusted=[authority], now=datetime.now(UTC))


@pytest.mark.parametrize("shown", [[b"no certificate"], [b""]])
def test_what_is_no_certificate_says_nothing(shown: list[bytes]) -> None:
    """Octets that cannot be read are a reason, not an accident."""
    with pytest.raises(Untrusted, match="cannot be read"):
        judge(shown, trusted=[], now=datetime.now(UTC))


async def test_a_good_certificate_of_another_domain_matches_no_connector(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    """It counts, but it is not what the connector asks for."""
    async with met(sandbox, shows=broken.wrong_name(sandbox, tmp_path)) as client:
        assert (await rcpt(client, OUTSIDE)).text.startswith("5.7.64")
        await client.send("ana@contoso.com")

    assert sandbox.taken[0].client_certificate == "CN=relay.fabrikam.com"
    assert sandbox.taken[0].connector is None


async def test_a_certificate_without_the_clients_usage_counts(sandbox: Sandbox, tmp_path: Path) -> None:
    """Public authorities are dropping that usage; whether Microsoft wants it is unknown."""
    shows = broken.issued(sandbox, tmp_path, usage=ExtendedKeyUsageOID.SERVER_AUTH)

    async with met(sandbox, shows=shows) as client:
        assert (await rcpt(client, OUTSIDE)).code == 250


async def test_the_common_name_is_enough(sandbox: Sandbox, tmp_path: Path) -> None:
    """A certificate without SAN is known by its CN."""
    async with met(sandbox, shows=broken.issued(sandbox, tmp_path, names=())) as client:
        assert (await rcpt(client, OUTSIDE)).code == 250


async def test_no_certificate_is_fine(sandbox: Sandbox) -> None:
    """It is asked for, not demanded."""
    async with connected(sandbox, "mx") as client:
        await client.say("EHLO client.example")
        await client.starttls()
        assert (await client.send("ana@contoso.com")).code == 250

    assert await signed_in_log(sandbox) == []


async def test_a_certificate_without_its_key_opens_nothing(sandbox: Sandbox, tmp_path: Path) -> None:
    """Whoever shows a certificate has to prove that it is the holder's."""
    shown, _ = broken.right(sandbox)
    _, other_key = broken.self_signed(tmp_path)

    async with connected(sandbox, "mx") as client:
        await client.say("EHLO client.example")
        with pytest.raises(ssl.SSLError):
            await client.starttls(shows=(shown, other_key))


async def test_further_authorities_can_be_trusted(state: Path, tmp_path: Path) -> None:
    """A certificate that one already has works as well, with its authority configured."""
    certificate, key = broken.of_a_foreign_authority(tmp_path)
    *_, authority = x509.load_pem_x509_certificates(certificate.read_bytes())
    (tmp_path / "foreign.pem").write_bytes(authority.public_bytes(Encoding.PEM))

    async with (
        Sandbox(contoso(state, client_cas=(tmp_path / "foreign.pem",))) as sandbox,
        met(sandbox, shows=(certificate, key)) as client,
    ):
        assert (await rcpt(client, OUTSIDE)).code == 250


async def test_only_the_mx_asks_for_a_certificate(sandbox: Sandbox) -> None:
    """The other doors speak TLS 1.3 and let a certificate be."""
    async with connected(sandbox) as client:
        await client.say("EHLO client.example")
        await client.starttls(shows=broken.right(sandbox))
        secured = client.writer.get_extra_info("ssl_object")

    assert secured.version() == "TLSv1.3"
    assert await signed_in_log(sandbox) == []


@pytest.mark.parametrize(
    ("wanted", "name", "fits"),
    [
        ("contoso.com", "contoso.com", True),
        ("contoso.com", "Contoso.COM", True),
        ("contoso.com", "relay.contoso.com", False),
        ("*.contoso.com", "relay.contoso.com", True),
        ("*.contoso.com", "a.b.contoso.com", True),
        ("*.contoso.com", "*.contoso.com", True),
        ("*.contoso.com", "contoso.com", False),
        ("*.contoso.com", "evilcontoso.com", False),
        ("relay.contoso.com", "*.contoso.com", True),
        ("a.b.contoso.com", "*.contoso.com", False),
        ("contoso.com", "*.contoso.com", False),
    ],
)
def test_names_of_connectors_and_certificates(wanted: str, name: str, fits: bool) -> None:
    """A connector's wildcard takes what lies below, a certificate's stands for one label."""
    assert covers(wanted, name) is fits


@pytest.mark.parametrize(
    ("address", "connector"),
    [
        ("203.0.113.10", "One"), ("203.0.113.11", None), ("198.51.100.0", "Many"), ("198.51.100.255", "Many"),
        ("198.51.101.0", None), ("2001:db8::1", None),
    ],
)  # fmt: skip
def test_addresses_of_connectors(address: str, connector: str | None) -> None:
    """One address or a network; IPv6 fits none."""
    known = (
        SandboxConnector(name="One", addresses=("203.0.113.10",)),
        SandboxConnector(name="Many", addresses=("198.51.100.0/24",)),
    )

    found = matching(known, certificate=None, address=address)

    assert (found.name if found else None) == connector


def test_a_connector_by_certificate_is_preferred() -> None:
    """Where both know the client, the certificate decides, in whatever order they stand."""
    by_ip = SandboxConnector(name="IP", addresses=("203.0.113.10",))
    by_certificate = SandboxConnector(name="Certificate", certificate="*.contoso.com")
    shown = ClientCertificate(subject="CN=relay.contoso.com", names=("relay.contoso.com",))

    found = matching((by_ip, by_certificate), certificate=shown, address="203.0.113.10")

    assert found == by_certificate
