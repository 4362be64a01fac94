"""What has to hold for each way out: a table of conditions, all of which have to be met.

The conditions are those of the guide, of "Exchange Online limits", "Manage high volume emails
for Microsoft 365" and "Service limits for Azure Communication Services", as they stood in
November 2026. The hard ones (an external recipient never by direct send, a shared address never
for relay by IP, …) are ordinary conditions here; there is no way round them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date

from service.routes.advice.needs import (
    MAILBOX_A_DAY,
    MAILBOX_A_MINUTE,
    ONMICROSOFT_A_DAY,
    Hosting,
    Needs,
    Organization,
    Senders,
)
from service.routes.advice.options import Option
from service.routes.advice.retirement import works_by_default
from service.routes.kinds import CLOUDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is to be decided."""

    needs: Needs
    organization: Organization
    today: date


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One thing that has to hold for a way; `detail` says what it is when it does not."""

    code: str
    holds: Callable[[Case], bool]
    detail: str


def failed(option: Option, case: Case) -> tuple[Condition, ...]:
    """List the conditions of a way that do not hold; none: it can be gone."""
    return tuple(condition for condition in CONDITIONS.get(option, ()) if not condition.holds(case))


def _on(code: str, holds: Callable[[Needs], bool], detail: str) -> Condition:
    return Condition(code=code, holds=lambda case: holds(case.needs), detail=detail)


def _asked_port(*ports: int) -> Condition:
    offered = " or ".join(str(port) for port in ports)
    return _on(
        "port_not_offered",
        lambda needs: needs.port is None or needs.port in ports,
        f"It takes connections on port {offered} only. Port 465 is for TLS from the first octet, which Microsoft 365 "
        "does not offer: it wants STARTTLS.",
    )


_INTERNAL_ONLY = _on(
    "recipients_external",
    lambda needs: not needs.external,
    "It leads to recipients of the organisation only, and some of yours are outside.",
)
_PORT_SUBMISSION = _on(
    "port_blocked",
    lambda needs: needs.port587_out or needs.port25_out,
    "It needs port 587 or 25 open towards the internet.",
)
_PORT_587 = _on(
    "port_blocked", lambda needs: needs.port587_out, "It needs port 587 open towards the internet."
)
_PORT_25 = _on("port_blocked", lambda needs: needs.port25_out, "It needs port 25 open towards the internet.")
_HTTPS = _on(
    "https_blocked",
    lambda needs: needs.https_out,
    "It needs HTTPS (port 443) towards Microsoft's token service.",
)
_TLS = _on("tls_too_old", lambda needs: needs.tls12, "It needs TLS 1.2 or newer.")
_OAUTH = _on("no_oauth", lambda needs: needs.oauth, "It needs a login with OAuth.")
_NOT_RETIRED = Condition(
    code="basic_retired",
    holds=lambda case: works_by_default(case.today) or case.needs.basic_reenabled,
    detail="Passwords are off by default from the end of December 2026 (the day is unverified); "
    "an administrator has to allow them again.",
)
_NO_SECURITY_DEFAULTS = _on(
    "security_defaults",
    lambda needs: not needs.security_defaults,
    "The security defaults of Entra ID refuse logins with a password.",
)
_SMTP_AUTH = _on(
    "smtp_auth_off",
    lambda needs: needs.smtp_auth_allowed,
    "SMTP AUTH has to be on for the mailbox; the switch refuses OAuth as well as passwords.",
)
_LICENCE = _on("no_licence", lambda needs: needs.licence, "It needs a licensed mailbox.")
_ONE_MAILBOX = _on(
    "not_one_mailbox",
    lambda needs: needs.senders is Senders.ONE_MAILBOX,
    "It sends as one mailbox and the addresses that this has Send As for; Send As for everybody is not supported.",
)
_DAY = _on(
    "above_mailbox_day",
    lambda needs: needs.per_day <= MAILBOX_A_DAY,
    f"A mailbox may have {MAILBOX_A_DAY:,} recipients in 24 hours.",
)
_MINUTE = _on(
    "above_mailbox_minute",
    lambda needs: needs.per_minute <= MAILBOX_A_MINUTE,
    f"A mailbox may send {MAILBOX_A_MINUTE} messages a minute.",
)
_NOT_BULK = _on(
    "bulk", lambda needs: not needs.bulk, "A mailbox is not for newsletters and other bulk mail (the guide)."
)
_RELAY_NOT_BULK = _on(
    "bulk", lambda needs: not needs.bulk, "Relay must not be used for bulk mail (the guide)."
)
_BUDGET = _on(
    "above_external_share",
    lambda needs: needs.external_per_day <= needs.external_share,
    "It uses the tenant's budget of external recipients (TERRL), and your share of it is smaller.",
)
_ONMICROSOFT = _on(
    "onmicrosoft_sender",
    lambda needs: not _from_onmicrosoft(needs) or needs.external_per_day <= ONMICROSOFT_A_DAY,
    f"From an onmicrosoft.com address a tenant reaches {ONMICROSOFT_A_DAY} external recipients in 24 hours; "
    "send from a domain of your own.",
)
_ACCEPTED_SENDER = Condition(
    code="sender_not_accepted",
    holds=lambda case: (
        case.needs.sender is None
        or not case.organization.accepted_domains
        or case.needs.sender.domain in case.organization.accepted_domains
    ),
    detail="The From address has to be one of an accepted domain of the organisation.",
)
_SENT_ITEMS = _on(
    "no_sent_items", lambda needs: not needs.sent_items_needed, "It leaves no copy in Sent Items."
)
_SIZE_150 = _on(
    "message_too_large", lambda needs: needs.max_message_mb <= 150, "A message may have 150 MB at most."
)
_SIZE_10 = _on(
    "message_too_large", lambda needs: needs.max_message_mb <= 10, "A message may have 10 MB at most."
)
_DIRECT_SEND_OPEN = _on(
    "reject_direct_send",
    lambda needs: not needs.reject_direct_send,
    "The tenant refuses direct send (RejectDirectSend).",
)
_IPV4 = _on(
    "ipv6_only",
    lambda needs: not needs.ipv6_only,
    "It needs a way out over IPv4: connectors know IPv4 only, and mail over IPv6 meets harder rules.",
)
_CERTIFICATE = _on(
    "no_client_certificate",
    lambda needs: needs.client_cert,
    "It needs a client certificate from a public authority with an accepted domain in its CN or SAN, "
    "and its full chain.",
)
_STATIC = _on(
    "no_static_ip",
    lambda needs: needs.hosting is Hosting.OWN_STATIC_IP,
    "It needs a static public IPv4 address of your own; neither a dynamic one nor one of a third party's cloud.",
)
_UNSHARED = _on(
    "ip_shared",
    lambda needs: not needs.ip_shared,
    "The address must not be shared with another organisation: two tenants on one address cannot be told apart.",
)
_NOT_MANY = _on(
    "not_one_sender",
    lambda needs: needs.senders is not Senders.MANY,
    "It sends as its own account only, in the envelope and in From.",
)
_BILLING = _on(
    "no_hve_billing",
    lambda needs: needs.hve_billing,
    "It needs a valid billing policy; without one the account cannot send.",
)
_NOT_CHINA = _on(
    "not_in_this_cloud",
    lambda needs: CLOUDS[needs.cloud].high_volume is not False,
    "It is not offered in this cloud (from one source).",
)
_AZURE = _on(
    "no_azure_subscription",
    lambda needs: needs.azure_subscription,
    "It needs an Azure subscription with an email resource and a verified domain.",
)

_MAILBOX = (
    _LICENCE,
    _ONE_MAILBOX,
    _NOT_BULK,
    _DAY,
    _MINUTE,
    _BUDGET,
    _ONMICROSOFT,
    _ACCEPTED_SENDER,
    _SIZE_150,
)
_SUBMISSION = (_PORT_SUBMISSION, _asked_port(587, 25), _TLS, _SMTP_AUTH, *_MAILBOX)
_RELAY = (
    _PORT_25,
    _asked_port(25),
    _RELAY_NOT_BULK,
    _BUDGET,
    _ONMICROSOFT,
    _SENT_ITEMS,
    _SIZE_150,
)

CONDITIONS: Mapping[Option, tuple[Condition, ...]] = {
    Option.CLIENT_SUBMISSION_OAUTH: (_OAUTH, _HTTPS, *_SUBMISSION),
    Option.CLIENT_SUBMISSION_BASIC: (_NOT_RETIRED, _NO_SECURITY_DEFAULTS, *_SUBMISSION),
    Option.DIRECT_SEND: (
        _INTERNAL_ONLY,
        _PORT_25,
        _asked_port(25),
        _DIRECT_SEND_OPEN,
        _IPV4,
        _ACCEPTED_SENDER,
        _SENT_ITEMS,
        _SIZE_150,
    ),
    Option.SMTP_RELAY_CERTIFICATE: (_CERTIFICATE, _TLS, *_RELAY),
    Option.SMTP_RELAY_IP: (_STATIC, _UNSHARED, _IPV4, _ACCEPTED_SENDER, *_RELAY),
    Option.HIGH_VOLUME_EMAIL: (
        _INTERNAL_ONLY,
        _NOT_CHINA,
        _PORT_587,
        _asked_port(587),
        _TLS,
        _BILLING,
        _NOT_MANY,
        _ACCEPTED_SENDER,
        _SENT_ITEMS,
        _SIZE_10,
    ),
    Option.AZURE_COMMUNICATION_SERVICES: (
        _AZURE,
        _PORT_SUBMISSION,
        _asked_port(587, 25),
        _TLS,
        _SENT_ITEMS,
        _SIZE_10,
    ),
    Option.GRAPH: (_OAUTH, _HTTPS, _TLS, *_MAILBOX),
}


def _from_onmicrosoft(needs: Needs) -> bool:
    domain = "" if needs.sender is None else needs.sender.domain
    return domain == "onmicrosoft.com" or domain.endswith(".onmicrosoft.com")
