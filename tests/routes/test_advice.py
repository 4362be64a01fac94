"""Which way is recommended, and why: every rule, every hard condition, and that it can be gone."""

from dataclasses import replace
from datetime import date
from ipaddress import ip_address
from typing import Any, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.mail.address import Address
from service.routes.advice import (
    Hosting,
    Needs,
    Option,
    Organization,
    Recipients,
    Senders,
    recommend,
)
from service.routes.advice.feasibility import Case, failed
from service.routes.advice.options import JUDGED
from service.routes.kinds import Cloud

BEFORE, FROM_THEN = date(2026, 12, 30), date(2026, 12, 31)
CONTOSO = Organization(
    accepted_domains=("contoso.com", "contoso.onmicrosoft.com"),
    external_budget=33_351,
    static_ips=(ip_address("203.0.113.10"),),
)

#: A mailbox that sends a little to anybody, where everything is possible that the tenant has by default.
USUAL = Needs(
    recipients=Recipients.MIXED,
    per_day=1_000,
    per_minute=10,
    external_per_day=500,
    external_share=20_000,
    bulk=False,
    senders=Senders.ONE_MAILBOX,
    sender=Address.parse("noreply@contoso.com"),
    hosting=Hosting.OWN_STATIC_IP,
    ip_shared=False,
    ipv6_only=False,
    port25_out=True,
    port587_out=True,
    https_out=True,
    port=None,
    tls12=True,
    oauth=True,
    client_cert=False,
    smtp_auth_allowed=True,
    security_defaults=False,
    basic_reenabled=False,
    licence=True,
    reject_direct_send=False,
    sent_items_needed=False,
    max_message_mb=5,
    own_mail_server=False,
    azure_subscription=False,
    hve_billing=False,
    cloud=Cloud.WORLDWIDE,
)
INTERNAL: dict[str, Any] = {"recipients": Recipients.INTERNAL, "external_per_day": 0}
MANY: dict[str, Any] = {"senders": Senders.MANY}


def needs(*groups: dict[str, Any], **changes: Any) -> Needs:
    for group in groups:
        changes = group | changes
    return replace(USUAL, **changes)


RULES: list[tuple[str, Needs, Option | None, int | None]] = [
    ("an own server goes first", needs(own_mail_server=True, bulk=True), Option.OWN_MAIL_SERVER, 1),
    ("bulk to outside, with Azure", needs(bulk=True, azure_subscription=True), Option.AZURE_COMMUNICATION_SERVICES, 2),
    ("bulk to outside, without Azure", needs(bulk=True), Option.SPECIALISED_PROVIDER, 2),
    (
        "bulk to outside, too large for Azure",
        needs(bulk=True, azure_subscription=True, max_message_mb=11),
        Option.SPECIALISED_PROVIDER,
        2,
    ),
    (
        "more external recipients than a mailbox has",
        needs(per_day=10_001, external_per_day=10_001, azure_subscription=True),
        Option.AZURE_COMMUNICATION_SERVICES,
        2,
    ),
    (
        "as many external recipients as a mailbox has",
        needs(per_day=10_000, external_per_day=10_000, azure_subscription=True),
        Option.CLIENT_SUBMISSION_OAUTH,
        5,
    ),
    ("above the share of the budget", needs(external_per_day=501, external_share=500), Option.SPECIALISED_PROVIDER, 2),
    ("at the share of the budget", needs(external_per_day=500, external_share=500), Option.CLIENT_SUBMISSION_OAUTH, 5),
    ("internal volume a day", needs(INTERNAL, per_day=10_001, hve_billing=True), Option.HIGH_VOLUME_EMAIL, 3),
    ("internal volume a minute", needs(INTERNAL, per_minute=31, hve_billing=True), Option.HIGH_VOLUME_EMAIL, 3),
    ("at the rate of a mailbox", needs(INTERNAL, per_minute=30, hve_billing=True), Option.CLIENT_SUBMISSION_OAUTH, 5),
    ("internal volume without billing", needs(INTERNAL, per_day=10_001), Option.DIRECT_SEND, 4),
    ("internal volume of many", needs(INTERNAL, MANY, per_minute=31, hve_billing=True), Option.DIRECT_SEND, 4),
    (
        "internal volume, large messages",
        needs(INTERNAL, per_minute=31, hve_billing=True, max_message_mb=11),
        Option.DIRECT_SEND,
        4,
    ),
    ("the usual case", USUAL, Option.CLIENT_SUBMISSION_OAUTH, 5),
    ("port 25 will do for submission", needs(port587_out=False), Option.CLIENT_SUBMISSION_OAUTH, 5),
    ("SMTP AUTH off", needs(smtp_auth_allowed=False), Option.GRAPH, 6),
    ("SMTP AUTH off, recipients inside", needs(INTERNAL, smtp_auth_allowed=False), Option.GRAPH, 6),
    ("ports closed", needs(port25_out=False, port587_out=False), Option.GRAPH, 6),
    ("port 465 asked", needs(port=465), Option.GRAPH, 6),
    ("no OAuth, before the end", needs(oauth=False), Option.CLIENT_SUBMISSION_BASIC, 7),
    ("many of your own people", needs(INTERNAL, MANY), Option.DIRECT_SEND, 8),
    ("an address without mailbox", needs(INTERNAL, senders=Senders.NO_MAILBOX), Option.DIRECT_SEND, 8),
    ("SMTP AUTH off and no OAuth", needs(INTERNAL, smtp_auth_allowed=False, oauth=False), Option.DIRECT_SEND, 8),
    ("bulk to your own people", needs(INTERNAL, bulk=True), Option.DIRECT_SEND, 8),
    ("old TLS, inside", needs(INTERNAL, tls12=False), Option.DIRECT_SEND, 8),
    ("many, to outside, by certificate", needs(MANY, client_cert=True), Option.SMTP_RELAY_CERTIFICATE, 9),
    (
        "a certificate in a cloud",
        needs(MANY, client_cert=True, hosting=Hosting.THIRD_PARTY_CLOUD),
        Option.SMTP_RELAY_CERTIFICATE,
        9,
    ),
    ("many, to outside, by address", needs(MANY), Option.SMTP_RELAY_IP, 10),
    ("old TLS, outside", needs(tls12=False, client_cert=True), Option.SMTP_RELAY_IP, 10),
    (
        "no OAuth, inside, direct send refused",
        needs(INTERNAL, oauth=False, security_defaults=True, reject_direct_send=True, hve_billing=True),
        Option.HIGH_VOLUME_EMAIL,
        11,
    ),
    (
        "inside, direct send refused, a certificate",
        needs(INTERNAL, MANY, reject_direct_send=True, client_cert=True),
        Option.SMTP_RELAY_CERTIFICATE,
        12,
    ),
    (
        "a small message from a cloud, with Azure only",
        needs(MANY, hosting=Hosting.THIRD_PARTY_CLOUD, azure_subscription=True),
        Option.AZURE_COMMUNICATION_SERVICES,
        12,
    ),
    ("nothing", needs(MANY, port25_out=False), None, None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "option", "rule"), [row[1:] for row in RULES], ids=[row[0] for row in RULES]
)
def test_the_first_rule_that_holds_decides(asked: Needs, option: Option | None, rule: int | None) -> None:
    """Each rule, on both sides of its numbers."""
    found = recommend(asked, CONTOSO, today=BEFORE)

    assert (option, rule) == (found.option, found.rule)
    assert found.reasons


@pytest.mark.parametrize(
    ("today", "reenabled", "option"),
    [
        (BEFORE, False, Option.CLIENT_SUBMISSION_BASIC),
        (FROM_THEN, False, None),
        (FROM_THEN, True, Option.CLIENT_SUBMISSION_BASIC),
        (date(2027, 8, 1), True, Option.CLIENT_SUBMISSION_BASIC),
    ],
)
def test_a_password_works_until_the_end_of_december_2026(
    today: date, reenabled: bool, option: Option | None
) -> None:
    """After it only where an administrator has allowed it again; always with a loud warning."""
    asked = needs(oauth=False, basic_reenabled=reenabled, hosting=Hosting.OWN_DYNAMIC_IP)

    found = recommend(asked, CONTOSO, today=today)

    assert option is found.option
    if option is not None:
        (warning,) = [note.text for note in found.notes if note.code == "password_ends"]
        assert warning.startswith("WARNING")
        assert "unverified" in warning


HARD: list[tuple[Option, str, Needs]] = [
    (Option.CLIENT_SUBMISSION_OAUTH, "port_not_offered", needs(port=465)),
    (Option.CLIENT_SUBMISSION_BASIC, "port_not_offered", needs(port=465)),
    (Option.CLIENT_SUBMISSION_OAUTH, "smtp_auth_off", needs(smtp_auth_allowed=False)),
    (Option.CLIENT_SUBMISSION_OAUTH, "no_oauth", needs(oauth=False)),
    (Option.CLIENT_SUBMISSION_OAUTH, "https_blocked", needs(https_out=False)),
    (Option.CLIENT_SUBMISSION_OAUTH, "port_blocked", needs(port25_out=False, port587_out=False)),
    (Option.CLIENT_SUBMISSION_OAUTH, "tls_too_old", needs(tls12=False)),
    (Option.CLIENT_SUBMISSION_OAUTH, "no_licence", needs(licence=False)),
    (Option.CLIENT_SUBMISSION_OAUTH, "not_one_mailbox", needs(MANY)),
    (Option.CLIENT_SUBMISSION_OAUTH, "above_mailbox_day", needs(per_day=10_001)),
    (Option.CLIENT_SUBMISSION_OAUTH, "above_mailbox_minute", needs(per_minute=31)),
    (Option.CLIENT_SUBMISSION_OAUTH, "bulk", needs(bulk=True)),
    (Option.CLIENT_SUBMISSION_OAUTH, "message_too_large", needs(max_message_mb=151)),
    (Option.CLIENT_SUBMISSION_BASIC, "security_defaults", needs(security_defaults=True)),
    (Option.DIRECT_SEND, "recipients_external", USUAL),
    (Option.DIRECT_SEND, "recipients_external", needs(recipients=Recipients.EXTERNAL)),
    (Option.DIRECT_SEND, "reject_direct_send", needs(INTERNAL, reject_direct_send=True)),
    (Option.DIRECT_SEND, "ipv6_only", needs(INTERNAL, ipv6_only=True)),
    (Option.DIRECT_SEND, "port_blocked", needs(INTERNAL, port25_out=False)),
    (Option.DIRECT_SEND, "no_sent_items", needs(INTERNAL, sent_items_needed=True)),
    (Option.SMTP_RELAY_CERTIFICATE, "no_client_certificate", USUAL),
    (Option.SMTP_RELAY_CERTIFICATE, "tls_too_old", needs(client_cert=True, tls12=False)),
    (Option.SMTP_RELAY_IP, "no_static_ip", needs(hosting=Hosting.OWN_DYNAMIC_IP)),
    (Option.SMTP_RELAY_IP, "no_static_ip", needs(hosting=Hosting.THIRD_PARTY_CLOUD)),
    (Option.SMTP_RELAY_IP, "ip_shared", needs(ip_shared=True)),
    (Option.SMTP_RELAY_IP, "ipv6_only", needs(ipv6_only=True)),
    (Option.SMTP_RELAY_IP, "bulk", needs(bulk=True)),
    (Option.SMTP_RELAY_IP, "above_external_share", needs(external_per_day=600, external_share=500)),
    (Option.HIGH_VOLUME_EMAIL, "recipients_external", needs(hve_billing=True)),
    (Option.HIGH_VOLUME_EMAIL, "message_too_large", needs(INTERNAL, hve_billing=True, max_message_mb=11)),
    (Option.HIGH_VOLUME_EMAIL, "no_hve_billing", needs(INTERNAL)),
    (Option.HIGH_VOLUME_EMAIL, "not_in_this_cloud", needs(INTERNAL, hve_billing=True, cloud=Cloud.CHINA)),
    (Option.HIGH_VOLUME_EMAIL, "port_blocked", needs(INTERNAL, hve_billing=True, port587_out=False)),
    (Option.AZURE_COMMUNICATION_SERVICES, "message_too_large", needs(azure_subscription=True, max_message_mb=11)),
    (Option.AZURE_COMMUNICATION_SERVICES, "no_azure_subscription", USUAL),
    (Option.GRAPH, "https_blocked", needs(https_out=False)),
    (Option.GRAPH, "no_licence", needs(licence=False)),
    (
        Option.SMTP_RELAY_IP,
        "onmicrosoft_sender",
        needs(sender=Address.parse("app@contoso.onmicrosoft.com"), external_per_day=101),
    ),
    (Option.DIRECT_SEND, "sender_not_accepted", needs(INTERNAL, sender=Address.parse("app@example.com"))),
]  # fmt: skip


@pytest.mark.parametrize(("option", "code", "asked"), HARD)
def test_a_hard_condition_closes_a_way(option: Option, code: str, asked: Needs) -> None:
    """It is never recommended then, and the alternative names the condition."""
    found = recommend(asked, CONTOSO, today=BEFORE)

    (closed,) = [other for other in found.alternatives if other.option is option]
    assert code in {condition.code for condition in closed.failed}


def test_an_onmicrosoft_sender_reaches_a_hundred_outside() -> None:
    """Up to the cap it is a way like any other."""
    asked = needs(sender=Address.parse("app@contoso.onmicrosoft.com"), external_per_day=100)

    assert Option.CLIENT_SUBMISSION_OAUTH is recommend(asked, CONTOSO, today=BEFORE).option


def test_an_own_server_is_told_its_way_to_microsoft() -> None:
    """The recommendation for the own server holds the one that it should follow itself."""
    found = recommend(needs(MANY, own_mail_server=True), CONTOSO, today=BEFORE)

    assert found.microsoft is not None
    assert Option.SMTP_RELAY_IP is found.microsoft.option


def test_graph_is_said_to_be_no_route() -> None:
    """Where Graph is the better way, the answer says that Postroom does not go it."""
    found = recommend(needs(smtp_auth_allowed=False), CONTOSO, today=BEFORE)

    assert "not_a_route" in {note.code for note in found.notes}


_FEW: dict[str, list[Any]] = {
    "per_day": [0, 1, 10_000, 10_001],
    "per_minute": [0, 30, 31],
    "external_per_day": [0, 100, 101, 10_001],
    "external_share": [0, 100, 20_000],
    "max_message_mb": [0, 10, 11, 150, 151],
    "port": [None, 25, 465, 587],
    "sender": [None, Address.parse("a@contoso.com"), Address.parse("a@x.onmicrosoft.com")],
}


@st.composite
def any_needs(draw: st.DrawFn) -> Needs:
    """Every combination of needs, with numbers on both sides of the limits."""
    values: dict[str, Any] = {}
    for name, hint in get_type_hints(Needs).items():
        if name in _FEW:
            values[name] = draw(st.sampled_from(_FEW[name]))
        else:
            values[name] = draw(st.booleans() if hint is bool else st.sampled_from(list(hint)))
    return Needs(**values)


@settings(max_examples=1000, deadline=None)
@given(asked=any_needs(), today=st.sampled_from([BEFORE, FROM_THEN]))
def test_the_recommended_way_can_be_gone(asked: Needs, today: date) -> None:
    """Whatever is asked, the recommendation meets all its conditions; nothing is said only where nothing can be gone."""
    found = recommend(asked, CONTOSO, today=today)
    case = Case(needs=asked, organization=CONTOSO, today=today)

    if found.option is None:
        assert all(failed(option, case) for option in JUDGED)
    else:
        assert failed(found.option, case) == ()
        assert not _impossible(found.option, asked)
    assert {other.option for other in found.alternatives} == set(JUDGED) - {found.option}
    for other in found.alternatives:
        assert other.failed == failed(other.option, case)


def _impossible(option: Option, asked: Needs) -> bool:
    """Say the guide's hardest conditions again, in other words than the table."""
    match option:
        case Option.DIRECT_SEND:
            return asked.external or asked.reject_direct_send or not asked.port25_out
        case Option.HIGH_VOLUME_EMAIL:
            return asked.external or asked.max_message_mb > 10 or not asked.hve_billing
        case Option.AZURE_COMMUNICATION_SERVICES:
            return asked.max_message_mb > 10 or not asked.azure_subscription
        case Option.SMTP_RELAY_IP:
            return asked.ip_shared or asked.ipv6_only or asked.hosting is not Hosting.OWN_STATIC_IP
        case Option.SMTP_RELAY_CERTIFICATE:
            return not (asked.client_cert and asked.tls12 and asked.port25_out)
        case Option.CLIENT_SUBMISSION_OAUTH | Option.CLIENT_SUBMISSION_BASIC:
            return asked.port == 465 or asked.per_day > 10_000 or asked.bulk or not asked.smtp_auth_allowed
        case Option.GRAPH:
            return not (asked.oauth and asked.https_out and asked.licence)
        case _:
            return False
