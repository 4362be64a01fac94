"""Which way an application should take: ordered rules, of which the first one that holds decides.

The order is the guide's, extended by the ways that are younger than it: an own mail server
before all; bulk mail and more external recipients than a tenant may have out of Exchange Online;
then the easiest way that fits, direct send before relay unless somebody is outside. A rule only
ever names a way of which every condition holds (`feasibility.py`), so the recommendation can
always be carried out. Where no rule names one, the first way that is feasible at all is taken.

The result says why, and for every other way which of its conditions fail.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date

from service.routes.advice.feasibility import Case, Condition, failed
from service.routes.advice.needs import MAILBOX_A_DAY, Needs, Organization
from service.routes.advice.notes import Said, notes
from service.routes.advice.options import JUDGED, Option


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """A way that was not taken, with the conditions that speak against it; none: it would do as well."""

    option: Option
    failed: tuple[Condition, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """What to do, and why."""

    option: Option | None  # None: nothing fits
    rule: int | None  # the number of the rule that decided, from 1
    reasons: tuple[Said, ...]
    notes: tuple[Said, ...]  # what to know before one goes this way
    alternatives: tuple[Alternative, ...]  # those that would do first
    microsoft: "Recommendation | None" = (
        None  # where it leads to another server: the way from there to Microsoft 365
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One line of the decision: when it applies, what it names, and why."""

    number: int
    option: Option
    applies: Callable[[Case], bool]
    code: str
    reason: str


#: What may keep client submission from working though the mailbox itself would do.
_IN_THE_WAY = {"smtp_auth_off", "port_blocked", "port_not_offered"}


def _too_much_for_exchange(case: Case) -> bool:
    needs = case.needs
    if not needs.external:
        return False
    return needs.bulk or needs.external_per_day > min(MAILBOX_A_DAY, needs.external_share)


def _internal_volume(case: Case) -> bool:
    return not case.needs.external and case.needs.high_volume


def _submission_is_in_the_way(case: Case) -> bool:
    return {condition.code for condition in failed(Option.CLIENT_SUBMISSION_OAUTH, case)} <= _IN_THE_WAY


def _always(case: Case) -> bool:
    return True


RULES: tuple[Rule, ...] = (
    Rule(
        number=1,
        option=Option.OWN_MAIL_SERVER,
        applies=lambda case: case.needs.own_mail_server,
        code="own_mail_server",
        reason="There is a mail server of your own; the guide says to consider it strongly before anything else.",
    ),
    Rule(
        number=2,
        option=Option.AZURE_COMMUNICATION_SERVICES,
        applies=_too_much_for_exchange,
        code="not_for_exchange",
        reason="Exchange Online is not for bulk mail or this many external recipients; "
        "Azure Communication Services is, and does not use the tenant's budget.",
    ),
    Rule(
        number=2,
        option=Option.SPECIALISED_PROVIDER,
        applies=_too_much_for_exchange,
        code="not_for_exchange",
        reason="Exchange Online is not for bulk mail or this many external recipients, and Azure Communication Services "
        "cannot be used; the guide points to providers that specialise in it.",
    ),
    Rule(
        number=3,
        option=Option.HIGH_VOLUME_EMAIL,
        applies=_internal_volume,
        code="internal_volume",
        reason="More than a mailbox may send, and to your own recipients only: "
        "High Volume Email has no rate limits and logs in.",
    ),
    Rule(
        number=4,
        option=Option.DIRECT_SEND,
        applies=_internal_volume,
        code="internal_volume",
        reason="More than a mailbox may send, to your own recipients only, and High Volume Email cannot be used: "
        "direct send takes large volumes (the guide), with the risk of being taken for spam.",
    ),
    Rule(
        number=5,
        option=Option.CLIENT_SUBMISSION_OAUTH,
        applies=_always,
        code="easiest",
        reason="It is within a mailbox's limits: client submission is the easiest way, "
        "reaches anybody and works from anywhere.",
    ),
    Rule(
        number=6,
        option=Option.GRAPH,
        applies=_submission_is_in_the_way,
        code="smtp_not_possible",
        reason="A mailbox would do, but SMTP AUTH is off or its ports are closed: "
        "Graph needs neither, only HTTPS and OAuth.",
    ),
    Rule(
        number=7,
        option=Option.CLIENT_SUBMISSION_BASIC,
        applies=lambda case: not case.needs.oauth,
        code="password_for_now",
        reason="It is within a mailbox's limits and OAuth is not possible: a password works, for now.",
    ),
    Rule(
        number=8,
        option=Option.DIRECT_SEND,
        applies=lambda case: not case.needs.external,
        code="internal_without_mailbox",
        reason="Your own recipients only, and client submission does not suit: "
        "direct send needs neither mailbox nor login.",
    ),
    Rule(
        number=9,
        option=Option.SMTP_RELAY_CERTIFICATE,
        applies=lambda case: case.needs.external,
        code="external_without_mailbox",
        reason="Somebody is outside, and client submission does not suit: "
        "relay through a connector, which Microsoft recommends by certificate.",
    ),
    Rule(
        number=10,
        option=Option.SMTP_RELAY_IP,
        applies=lambda case: case.needs.external,
        code="external_without_certificate",
        reason="Somebody is outside, client submission does not suit and there is no client certificate: "
        "relay through a connector by your own static address.",
    ),
    Rule(
        number=11,
        option=Option.HIGH_VOLUME_EMAIL,
        applies=lambda case: not case.needs.external and not case.needs.oauth,
        code="internal_password",
        reason="Your own recipients only and no OAuth: High Volume Email still takes passwords.",
    ),
    # Nothing before fits: what can be gone at all, with the password last because it ends first.
    *(
        Rule(
            number=12,
            option=option,
            applies=_always,
            code="only_way_left",
            reason="No way that is usually better is possible here; this one is.",
        )
        for option in (
            Option.SMTP_RELAY_CERTIFICATE,
            Option.SMTP_RELAY_IP,
            Option.HIGH_VOLUME_EMAIL,
            Option.AZURE_COMMUNICATION_SERVICES,
            Option.GRAPH,
            Option.CLIENT_SUBMISSION_BASIC,
        )
    ),
)

_NOTHING = Said(
    code="nothing_fits",
    text="No way out fits; the alternatives say which conditions fail for each.",
)


def recommend(needs: Needs, organization: Organization, *, today: date) -> Recommendation:
    """Say which way to take on this day, why, and what speaks against each other way."""
    case = Case(needs=needs, organization=organization, today=today)
    rule = next((rule for rule in RULES if rule.applies(case) and not failed(rule.option, case)), None)
    option = None if rule is None else rule.option
    reasons = (_NOTHING,) if rule is None else (Said(code=rule.code, text=rule.reason),)
    return Recommendation(
        option=option,
        rule=None if rule is None else rule.number,
        reasons=reasons,
        notes=tuple(notes(option, case)),
        alternatives=_alternatives(option, case),
        microsoft=_behind(option, needs, organization, today),
    )


def _alternatives(taken: Option | None, case: Case) -> tuple[Alternative, ...]:
    others = [
        Alternative(option=option, failed=failed(option, case)) for option in JUDGED if option is not taken
    ]
    return tuple(sorted(others, key=lambda other: len(other.failed)))


def _behind(
    option: Option | None, needs: Needs, organization: Organization, today: date
) -> Recommendation | None:
    """Say how the organisation's own server should reach Microsoft 365."""
    if option is not Option.OWN_MAIL_SERVER:
        return None
    return recommend(replace(needs, own_mail_server=False), organization, today=today)
