"""Facts about kinds, clouds and the tenant's budget."""

import pytest

from service.routes.kinds import (
    CLOUDS,
    CONFIGURATION,
    KINDS,
    MICROSOFT_DOMAINS,
    MX_DOMAINS,
    Cloud,
    is_below,
    sources_of,
    tenant_external_recipients,
)
from service.routes.route import Limits, RouteKind


@pytest.mark.parametrize(
    ("licences", "recipients"),
    [(1, 10_000), (25, 14_259), (100, 22_059), (500, 48_248), (1_000, 72_446), (10_000, 324_979)],
)
def test_the_tenants_external_recipients(licences: int, recipients: int) -> None:
    """The budget grows with the licences as Microsoft's table says."""
    assert tenant_external_recipients(licences) == recipients


def test_a_trial_has_less() -> None:
    """A trial tenant's budget does not depend on its licences."""
    assert {tenant_external_recipients(licences, trial=True) for licences in (1, 1000)} == {5000}


@pytest.mark.parametrize("cloud", Cloud)
def test_each_cloud_is_microsofts(cloud: Cloud) -> None:
    """Hosts of every cloud are known as Microsoft's, and what is unverified is a fact that there is."""
    facts = CLOUDS[cloud]

    assert is_below(facts.submission_host, MICROSOFT_DOMAINS)
    assert not is_below(facts.submission_host, MX_DOMAINS)
    assert all(hasattr(facts, name) for name in facts.unverified)


def test_a_domain_is_told_by_whole_labels() -> None:
    """A name that only ends in the same letters is somebody else's."""
    assert is_below("contoso-com.mail.protection.outlook.com", MX_DOMAINS)
    assert is_below("mx.microsoft", MX_DOMAINS)
    assert not is_below("evilmx.microsoft", MX_DOMAINS)
    assert not is_below("mx.microsoft.example.net", MX_DOMAINS)


def test_where_limits_come_from() -> None:
    """What the configuration gave is its own, also where it lifted a limit; the rest is the kind's."""
    kind = KINDS[RouteKind.CLIENT_SUBMISSION]
    limits = Limits(messages_per_minute=10, connections=3)

    sources = sources_of(limits, given=frozenset({"messages_per_minute", "recipients_per_day"}), kind=kind)

    assert sources == {
        "messages_per_minute": CONFIGURATION,
        "recipients_per_day": CONFIGURATION,
        "connections": kind.sources["connections"],
    }
