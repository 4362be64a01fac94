"""The settings of the door: access tokens, trusted proxies, connections and bodies."""

from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from service import wiring
from tests.test_settings import TENANT, Place, smarthost

CLIENT = "AAAAAAAA-2222-3333-4444-555555555555"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A folder for a configuration."""
    return Place(tmp_path)


def entra(**api: Any) -> dict[str, Any]:
    return {"tenant_id": TENANT.upper(), "api": {"audience": ["api://postroom"], **api}}


def test_no_token_is_taken_unless_an_audience_is_set(place: Place) -> None:
    """A tenant alone, which routes need, opens no door."""
    assert wiring.entra_api(place.load(entra={"tenant_id": TENANT})) is None


def test_an_application_of_the_directory_gets_its_name_and_rights(place: Place) -> None:
    """Ids are compared in lower case, as claims have them; rights come into the form that keys have."""
    given = {
        "client_id": CLIENT, "name": "billing", "test": True, "senders": "a@Contoso.com,@B.example",
        "routes": ["house", "sandbox"], "networks": "10.0.0.0/8", "messages_per_day": "7",
    }  # fmt: skip
    api = wiring.entra_api(place.load(routes=[smarthost()], entra=entra(applications=[given])))

    assert api is not None
    assert api.entra.tenant_id == TENANT.lower()
    application = api.applications[CLIENT.lower()]
    assert (application.name, application.test) == ("billing", True)
    assert application.senders == ("a@contoso.com", "@b.example")
    assert application.restrictions == {
        "routes": ["house", "sandbox"], "networks": ["10.0.0.0/8"], "messages_per_day": 7,
    }  # fmt: skip


def test_each_mistake_about_callers_has_a_line(place: Place) -> None:
    """The setting, the rule and the remedy; never the value."""
    applications = [
        {"client_id": CLIENT, "name": "a", "routes": ["nowhere"], "networks": ["10.0.0.1/8"]},
        {"client_id": CLIENT.lower(), "name": "b", "senders": ["canary"], "recipient_domains": ["a b"]},
    ]
    given = {"tenant_id": "contoso.com", "api": {"audience": "api://postroom", "applications": applications}}

    lines = place.mistakes(entra=given)

    assert [line.split(":")[0] for line in lines] == [
        "entra.tenant_id",
        "entra.api.applications[0].routes[0]",
        "entra.api.applications[0].networks[0]",
        "entra.api.applications[1].client_id",
        "entra.api.applications[1].senders[0]",
        "entra.api.applications[1].recipient_domains[0]",
    ]
    assert "canary" not in "".join(lines)


@pytest.mark.parametrize(
    ("application", "name"),
    [({"client_id": "x", "name": "a"}, "client_id"), ({"client_id": CLIENT, "name": "a\nb"}, "name")],
)
def test_an_application_has_an_id_and_a_name(place: Place, application: dict[str, str], name: str) -> None:
    """A client id is a GUID, a name has no control characters."""
    (line,) = place.mistakes(entra=entra(applications=[application]))

    assert line.startswith(f"entra.api.applications[0].{name}")


def test_the_doors_limits_come_from_the_settings(place: Place) -> None:
    """Bodies in hand, proxies, connections and heads; nobody is trusted unless said."""
    usual = wiring.submission_limits(place.load())
    place.env["POSTROOM_API__TRUSTED_PROXIES"] = "10.0.0.0/8,2001:db8::/32"
    settings = place.load(api={"bodies_in_flight": "100MB", "connections": 50, "head_timeout": "3s"})
    limits = wiring.submission_limits(settings)

    assert (usual.bodies_octets, usual.trusted_proxies) == (256 * 1024 * 1024, ())
    assert limits.bodies_octets == 100 * 1024 * 1024
    assert limits.trusted_proxies == (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"))
    assert (settings.api.connections, settings.api.head_timeout.total_seconds()) == (50, 3.0)
