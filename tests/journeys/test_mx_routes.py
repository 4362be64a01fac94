"""Routes that know their host by an MX record, from POST to the peer's log."""

from pathlib import Path
from typing import Any

from cryptography import x509

from tests.house import a_house
from tests.peer import ScriptedPeer, authority
from tests.routes.nameserver import NameServer

MAIL = "contoso-com.a-v1.mx.microsoft"


def direct_send(peer: ScriptedPeer, **changes: Any) -> dict[str, Any]:
    host, port = peer.as_peer().connect_to or ("127.0.0.1", 0)
    return {
        "name": "direct",
        "kind": "direct_send",
        "mx_of": "contoso.com",
        "connect_to": f"{host}:{port}",
        "ehlo_name": "postroom.contoso.com",
        **changes,
    }


def asking(dns: NameServer) -> dict[str, Any]:
    return {"dns": {"nameservers": [f"127.0.0.1:{dns.port}"], "timeout": "2s"}}


async def test_the_mx_host_is_found_and_named(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """The session bears the name out of the DNS, and each recipient domain gets a transaction of its own."""
    async with NameServer() as dns, ScriptedPeer() as peer:
        dns.has("contoso.com", "MX", f"10 {MAIL}.")
        organization = {"organization": {"accepted_domains": ["contoso.com", "fabrikam.com"]}}
        async with a_house(
            database_url,
            redis_url,
            routes=[direct_send(peer)],
            folder=tmp_path,
            settings_changes=asking(dns) | organization,
        ) as house:
            message = await house.submit(to=["ana@contoso.com", "bob@fabrikam.com", "eve@contoso.com"])
            await house.in_state(message, "sent")
            attempts = await house.attempts(message)

        assert {attempt["session"]["host"] for attempt in attempts} == {MAIL}
        assert sorted(taken.rcpts for taken in peer.taken) == [
            ("ana@contoso.com", "eve@contoso.com"),
            ("bob@fabrikam.com",),
        ]


async def test_without_an_mx_record_the_message_waits(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """Nothing is dialled while the domain names no host, and its own address does not stand in."""
    async with NameServer() as dns, ScriptedPeer() as peer:
        dns.has("contoso.com", "A", "52.101.73.2")
        async with a_house(
            database_url,
            redis_url,
            routes=[direct_send(peer, mx_of="contoso.com")],
            folder=tmp_path,
            settings_changes=asking(dns),
        ) as house:
            message = await house.submit(to=["ana@contoso.com"])
            await house.in_state(message, "deferred")
            [attempt, *_] = await house.attempts(message)

            assert attempt["phase"] == "connect"
            assert attempt["session"] is None
            assert "has no MX record" in attempt["error"]["detail"]
            assert peer.sessions == 0


async def test_a_relay_shows_its_certificate_to_the_mx_host(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """Relay by certificate verifies the name out of the DNS and is let in with its own certificate."""
    async with NameServer() as dns, ScriptedPeer(tls=True, ask_client_certificate=True) as peer:
        given = peer.as_peer()
        dns.has("contoso.com", "MX", f"10 {given.host}.")
        host, port = given.connect_to or ("127.0.0.1", 0)
        certificate, key = authority().client_files("relay.contoso.com")
        route = {
            "name": "connector",
            "kind": "smtp_relay",
            "mx_of": "contoso.com",
            "connect_to": f"{host}:{port}",
            "authenticate_by": "certificate",
            "client_certificate": {"certificate_file": str(certificate), "private_key_file": str(key)},
            "ca_file": str(given.ca_file),
            "ehlo_name": "postroom.contoso.com",
        }
        async with a_house(
            database_url,
            redis_url,
            routes=[route],
            folder=tmp_path,
            settings_changes=asking(dns),
        ) as house:
            message = await house.submit(to=["ana@example.com"])
            await house.in_state(message, "sent")
            [attempt] = await house.attempts(message)

        assert attempt["session"]["host"] == given.host
        assert attempt["session"]["tls"]["verified"] is True
        [shown] = peer.client_certificates
        assert x509.load_der_x509_certificate(shown) == x509.load_pem_x509_certificate(
            certificate.read_bytes()
        )
