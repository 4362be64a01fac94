"""What to know before one goes a way: a table of warnings and of things that are easily overlooked."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from service.routes.advice.feasibility import Case
from service.routes.advice.needs import Hosting, Senders
from service.routes.advice.options import Option
from service.routes.advice.retirement import OFF_BY_DEFAULT, works_by_default


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A reason or a note: a stable code, and a sentence."""

    code: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """One note: for which ways, when, and what it says."""

    code: str
    options: frozenset[Option]
    when: Callable[[Case], bool]
    text: Callable[[Case], str]


_SUBMISSION = frozenset({Option.CLIENT_SUBMISSION_OAUTH, Option.CLIENT_SUBMISSION_BASIC})
_RELAY = frozenset({Option.SMTP_RELAY_CERTIFICATE, Option.SMTP_RELAY_IP})
_MX = _RELAY | {Option.DIRECT_SEND}
_BUDGETED = _SUBMISSION | _RELAY | {Option.GRAPH, Option.OWN_MAIL_SERVER}
_ALL = frozenset(Option)


def notes(option: Option | None, case: Case) -> Iterator[Said]:
    """List the notes that belong to this way in this case; the urgent ones first."""
    for note in NOTES:
        if (option in note.options or (option is None and note.options == _ALL)) and note.when(case):
            yield Said(code=note.code, text=note.text(case))


def _note(
    code: str,
    options: frozenset[Option] | Option,
    text: str | Callable[[Case], str],
    when: Callable[[Case], bool] = lambda _: True,
) -> Note:
    said = text if callable(text) else lambda _: str(text)
    return Note(
        code=code,
        options=frozenset({options}) if isinstance(options, Option) else options,
        when=when,
        text=said,
    )


def _password_ends(case: Case) -> str:
    if works_by_default(case.today):
        left = (OFF_BY_DEFAULT - case.today).days
        when = (
            f"Microsoft switches passwords off by default at the end of December 2026, in about {left} days"
        )
    else:
        when = (
            "Passwords are off by default since the end of December 2026 and work only while "
            "an administrator allows them"
        )
    return (
        f"WARNING: {when} (the day is unverified), and announces their end in the second half of 2027. "
        "Change to OAuth as soon as you can."
    )


def _budget(case: Case) -> str:
    known = (
        ""
        if case.organization.external_budget is not None
        else " at least; set organization.licences to know it"
    )
    return (
        "External recipients count towards the tenant's budget (TERRL): "
        f"{case.organization.least_budget:,} in 24 hours{known}."
    )


NOTES: tuple[Note, ...] = (
    _note("password_ends", Option.CLIENT_SUBMISSION_BASIC, _password_ends),
    _note(
        "not_a_route",
        Option.GRAPH,
        "Graph is not a route of this version of Postroom; of the alternatives, take the first that is.",
    ),
    _note(
        "paced",
        _SUBMISSION,
        "Postroom keeps to 30 messages a minute, 10,000 recipients in 24 hours and 3 connections "
        "for the mailbox; copies fill its Sent Items.",
    ),
    _note(
        "raise_size",
        _SUBMISSION | {Option.GRAPH},
        "A mailbox sends 35 MB at most until MaxSendSize is raised; base64 makes a file a third larger.",
        lambda case: case.needs.max_message_mb > 35,
    ),
    _note(
        "port_25_in_the_cloud",
        _MX,
        "Azure and other clouds block port 25 towards the internet for most subscriptions; try it first.",
        lambda case: case.needs.hosting is Hosting.THIRD_PARTY_CLOUD,
    ),
    _note(
        "guide_says_no",
        Option.SMTP_RELAY_CERTIFICATE,
        "The guide's comparison says that relay does not work from a third party's cloud. By certificate "
        "the source address does not matter, so it should (inferred, not verified).",
        lambda case: case.needs.hosting is Hosting.THIRD_PARTY_CLOUD,
    ),
    _note(
        "may_be_spam",
        Option.DIRECT_SEND,
        "Direct send is anonymous: the spam filter applies, groups and people that take mail from inside only "
        "refuse it, and the tenant may switch it off (RejectDirectSend).",
    ),
    _note(
        "address_may_be_blocked",
        Option.DIRECT_SEND,
        "Dynamic and shared addresses often stand on Microsoft's block list (550 5.7.606).",
        lambda case: case.needs.hosting is not Hosting.OWN_STATIC_IP or case.needs.ip_shared,
    ),
    _note(
        "without_tls",
        Option.SMTP_RELAY_IP,
        "STARTTLS is used where both sides can do it (below TLS 1.2: unverified).",
        lambda case: not case.needs.tls12,
    ),
    _note(
        "own_account",
        Option.HIGH_VOLUME_EMAIL,
        "The sender becomes the account's own address, in the envelope and in From; "
        "50 recipients and 10 MB a message; billed by recipient.",
    ),
    _note(
        "security_defaults_may_matter",
        Option.HIGH_VOLUME_EMAIL,
        "Security defaults and authentication policies may refuse the account's password; "
        "how they treat High Volume Email is unverified.",
        lambda case: case.needs.security_defaults and not case.needs.oauth,
    ),
    _note(
        "raise_quota",
        Option.AZURE_COMMUNICATION_SERVICES,
        "A custom domain starts with 30 messages a minute and 100 an hour; more is a support request.",
    ),
    _note("external_budget", _BUDGETED, _budget, lambda case: case.needs.external),
    _note(
        "reverse_path",
        _MX,
        "Non-delivery reports go to the envelope sender; an address without a mailbox loses them.",
        lambda case: case.needs.senders is not Senders.ONE_MAILBOX,
    ),
    _note(
        "legacy_tls",
        _ALL,
        "Without TLS 1.2 there is also the host smtp-legacy.office365.com, after `Set-TransportConfig "
        "-AllowLegacyTLSClients $true`; Postroom does not use it, and its state at the end of 2026 is unverified.",
        lambda case: not case.needs.tls12,
    ),
)
