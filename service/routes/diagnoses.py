"""What a reply or a fault means, who must act, and the remedy: a catalogue, as data.

The first digit of a reply is not enough at Microsoft: some 5yz are throttles, some 4yz never
heal, and one number can have two meanings. So an entry is matched by code, enhanced status,
words and phase together, the special before the general, and the first match wins. Words
are matched without regard to case, and only those that have stayed the same over the years.

Each entry has a class, which is what dispatch acts upon:

    T1   passing trouble of the service: again soon
    T2   a throttle: slow down, again in minutes
    T3   a window is used up: again when it frees
    A    an administrator must act; more tries make it worse
    PM   this message will never be taken          PR   this recipient never
    CFG  our own settings or dialogue are wrong

Sources: "Fix issues with printers, scanners, and LOB applications that send email using
Microsoft 365", "Email non-delivery reports and SMTP errors in Exchange Online", "Improvements
in SMTP client submission" and "Authenticate an IMAP, POP or SMTP connection using OAuth" on
learn.microsoft.com; RFC 5321, RFC 3463 and RFC 1047.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from service.smtp.faults import SmtpFault
from service.smtp.phase import Phase
from service.smtp.reply import Reply

Who = Literal["application", "exchange_admin", "entra_admin", "network", "operator", "nobody"]


class Class(StrEnum):
    """What dispatch has to do about it."""

    T1 = "T1"
    T2 = "T2"
    T3 = "T3"
    A = "A"
    PM = "PM"
    PR = "PR"
    CFG = "CFG"


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """One entry. `{mailbox}`, `{sender}`, `{recipient}`, `{host}` stand for the real names."""

    id: str
    title: str
    explanation: str
    who: Who
    remedy: tuple[str, ...]  # never empty; where nobody must act: what happens by itself
    kind: Class
    source: str
    codes: frozenset[int] = frozenset()  # empty: any
    enhanced: str | None = None  # a regular expression for the whole enhanced status
    words: str | None = None  # a regular expression, searched in the text
    phases: frozenset[Phase] = frozenset()  # empty: any
    faults: frozenset[str] = frozenset()  # codes of SmtpFault instead of a reply

    @property
    def code(self) -> str:
        """The stable name in errors: the id without its family."""
        return self.id.split(".", 1)[1]

    def matches(self, reply: Reply, phase: Phase) -> bool:
        """Say whether this entry speaks of the reply."""
        if self.faults:
            return False
        if self.codes and reply.code not in self.codes:
            return False
        if self.phases and phase not in self.phases:
            return False
        if self.enhanced and not re.fullmatch(self.enhanced, reply.enhanced or ""):
            return False
        return not self.words or re.search(self.words, reply.text, re.IGNORECASE) is not None

    def as_json(self, names: Mapping[str, str]) -> dict[str, object]:
        """Write the diagnosis with the real names filled in."""
        return {
            "id": self.id,
            "title": _filled(self.title, names),
            "explanation": _filled(self.explanation, names),
            "who": self.who,
            "remedy": [_filled(step, names) for step in self.remedy],
            "source": self.source,
        }


def _filled(template: str, names: Mapping[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda match: names.get(match[1]) or f"<{match[1]}>", template)


_OPENING = frozenset({Phase.CONNECT, Phase.GREETING, Phase.EHLO, Phase.STARTTLS})
_FIX = "Microsoft: Fix issues with printers, scanners, and LOB applications"
_NDR = "Microsoft: Email non-delivery reports and SMTP errors in Exchange Online"
_SUBMISSION = "Microsoft: Improvements in SMTP client submission"
_OAUTH = "Microsoft: Authenticate an IMAP, POP or SMTP connection using OAuth"
_DIGITS = "RFC 5321, section 4.2.1"

_WAITS = "Nobody has to act: Postroom tries again by itself until the message expires."

CATALOGUE: tuple[Diagnosis, ...] = (
    # -- login ---------------------------------------------------------------------------
    Diagnosis(
        id="exo.smtp_auth_disabled_for_tenant",
        title="SMTP AUTH is switched off for the organisation",
        explanation="The tenant refuses authenticated SMTP and {mailbox} has no exception. "
        "The switch refuses OAuth logins as well as passwords.",
        who="exchange_admin",
        remedy=("Set-CASMailbox -Identity {mailbox} -SmtpClientAuthenticationDisabled $false",),
        kind=Class.A,
        source=_FIX,
        words=r"SmtpClientAuthentication is disabled for the Tenant",
    ),
    Diagnosis(
        id="exo.smtp_auth_disabled_for_mailbox",
        title="SMTP AUTH is switched off for {mailbox}",
        explanation="The mailbox's own switch refuses authenticated SMTP, OAuth included.",
        who="exchange_admin",
        remedy=("Set-CASMailbox -Identity {mailbox} -SmtpClientAuthenticationDisabled $false",),
        kind=Class.A,
        source=_FIX,
        words=r"SmtpClientAuthentication is disabled for the Mailbox",
    ),
    Diagnosis(
        id="exo.basic_auth_disabled",
        title="Logins with a password are switched off",
        explanation="Basic authentication for SMTP AUTH is disabled here: by a policy of the tenant, "
        "or by Microsoft's retirement of it.",
        who="exchange_admin",
        remedy=(
            "Change the mailbox's login in Postroom to `method: oauth`.",
            ("Until then: New-AuthenticationPolicy -Name AllowSmtp -AllowBasicAuthSmtp; "
            "Set-User -Identity {mailbox} -AuthenticationPolicy AllowSmtp"),
        ),
        kind=Class.A,
        source=_FIX,
        words=r"basic authentication is (disabled|not supported)",
    ),
    Diagnosis(
        id="entra.security_defaults",
        title="Security defaults of Microsoft Entra refuse this login",
        explanation="Security defaults block every login with a password over SMTP.",
        who="entra_admin",
        remedy=(
            "Change the mailbox's login in Postroom to `method: oauth`.",
            "Or switch security defaults off: Entra ID, Properties, Manage security defaults.",
        ),
        kind=Class.A,
        source=_FIX,
        words=r"locked by your organization.s security defaults",
    ),
    Diagnosis(
        id="entra.conditional_access",
        title="A Conditional Access policy refuses this login",
        explanation="The login did not meet the criteria of a policy: often one that blocks legacy "
        "authentication or asks for a second factor.",
        who="entra_admin",
        remedy=(
            ("Exclude {mailbox} from the policy that blocks legacy authentication, "
            "or change its login in Postroom to `method: oauth`."),
        ),
        kind=Class.A,
        source=_FIX,
        words=r"did not meet the criteria to be authenticated",
    ),
    Diagnosis(
        id="exo.authentication_unsuccessful",
        title="Exchange Online refused the login of {mailbox}",
        explanation="The password or token is wrong, the application has no permission on the mailbox, "
        "or its service principal was registered with the wrong object id.",
        who="exchange_admin",
        remedy=(
            ("OAuth: New-ServicePrincipal with the object id of the enterprise application, then "
            "Add-MailboxPermission -Identity {mailbox} -User <service principal> -AccessRights FullAccess"),
            "Check that the application has SMTP.SendAsApp with admin consent, and its client secret.",
            "Get-CASMailbox {mailbox} | fl SmtpClientAuthenticationDisabled",
        ),
        kind=Class.A,
        source=_OAUTH,
        codes=frozenset({535}),
    ),
    Diagnosis(
        id="smtp.not_authenticated",
        title="The server wants a login first",
        explanation="The server refused the sender because the session is not logged in.",
        who="operator",
        remedy=("Give the route a login, or choose a route that needs none.",),
        kind=Class.A,
        source=_FIX,
        codes=frozenset({530}),
        enhanced=r"5\.7\.(1|57)",
    ),
    Diagnosis(
        id="smtp.starttls_needed",
        title="The server wants STARTTLS",
        explanation="The server takes mail over TLS only. This does not heal by itself, whatever its code says.",
        who="operator",
        remedy=("Set `tls: required` on the route.",),
        kind=Class.CFG,
        source="RFC 3207, section 4",
        words=r"STARTTLS (command first|is required)",
    ),
    Diagnosis(
        id="smtp.temporary_login_failure",
        title="The server could not check the login at the moment",
        explanation="Trouble at the server, not a refusal.",
        who="nobody",
        remedy=(_WAITS,),
        kind=Class.T1,
        source="RFC 4954, section 6",
        codes=frozenset({454, 451, 421, 432}),
        phases=frozenset({Phase.AUTH}),
    ),
    Diagnosis(
        id="smtp.login_refused",
        title="The server refused the login",
        explanation="The user name, the password or the mechanism is not accepted.",
        who="operator",
        remedy=("Check the login of the route in Postroom's configuration.",),
        kind=Class.A,
        source="RFC 4954, section 6",
        phases=frozenset({Phase.AUTH}),
    ),
    # -- limits --------------------------------------------------------------------------
    Diagnosis(
        id="exo.concurrent_connections",
        title="Too many connections at once for {mailbox}",
        explanation="Exchange Online allows three SMTP connections for a mailbox; something else uses some of them.",
        who="nobody",
        remedy=(_WAITS, "Is another program sending with this mailbox? Lower `limits.connections` of the route."),
        kind=Class.T1,
        source=_SUBMISSION,
        words=r"concurrent connections? limit exceeded|sender thread limit exceeded",
    ),
    Diagnosis(
        id="exo.recipient_quota",
        title="{mailbox} has used its recipients of the last 24 hours",
        explanation="A mailbox may address 10,000 recipients in 24 hours. The 5yz code is a throttle.",
        who="nobody",
        remedy=(_WAITS, "Spread the load over more mailboxes, or use High Volume Email for internal recipients."),
        kind=Class.T3,
        source=_SUBMISSION,
        words=r"SubmissionQuotaExceeded|daily limit for message recipients|Submission quota exceeded",
    ),
    Diagnosis(
        id="exo.sender_throttled",
        title="Exchange Online has blocked {mailbox} for repeated errors",
        explanation="The same error was repeated too often; now good mail is refused too, for hours.",
        who="exchange_admin",
        remedy=("Mend the cause that the text names; the block ends by itself, in about 24 hours.",),
        kind=Class.T3,
        source=_NDR,
        words=r"Sender throttled due to continuous",
    ),
    Diagnosis(
        id="exo.tenant_recipient_rate",
        title="The tenant has used its external recipients of the last 24 hours",
        explanation="The tenant external recipient rate limit is used up; internal mail still goes.",
        who="exchange_admin",
        remedy=(_WAITS, "Get-LimitsEnforcementStatus shows the counter; Azure Communication Services is not counted."),
        kind=Class.T3,
        source="Microsoft: Tenant external recipient rate limit",
        enhanced=r"5\.7\.23[236]",
    ),
    Diagnosis(
        id="exo.server_busy",
        title="The server asks us to slow down",
        explanation="The address or the sender is throttled.",
        who="nobody",
        remedy=(_WAITS,),
        kind=Class.T2,
        source="Microsoft: 4.7.500-699 server busy",
        words=r"server busy|excessive message rate|temporarily rate limited|submission rate for this client",
    ),
    # -- permissions ---------------------------------------------------------------------
    Diagnosis(
        id="exo.send_as_denied",
        title="{mailbox} may not send as {sender}",
        explanation="The mailbox that logged in has no Send As permission for the sender's address. Exchange "
        "Online says so only after the content. Repeating it gets the mailbox throttled for good mail too.",
        who="exchange_admin",
        remedy=("Add-RecipientPermission {sender} -AccessRights SendAs -Trustee {mailbox}",),
        kind=Class.PM,
        source=_FIX,
        words=r"SendAsDenied|not allowed to send as|permissions to send as this sender",
    ),
    Diagnosis(
        id="exo.sender_mailbox_full",
        title="The mailbox {mailbox} is full",
        explanation="The copy for Sent Items does not fit any more, so Exchange Online refuses the message.",
        who="exchange_admin",
        remedy=("Set-Mailbox {mailbox} -MessageCopyForSMTPClientSubmissionEnabled $false", "Empty the mailbox."),
        kind=Class.PM,
        source=_SUBMISSION,
        words=r"mailbox full; STOREDRV\.Submission",
    ),
    Diagnosis(
        id="exo.outbound_spam",
        title="{mailbox} is blocked for sending spam",
        explanation="Exchange Online judged the mailbox's mail to be spam.",
        who="exchange_admin",
        remedy=("Defender portal, Review, Restricted entities: release the mailbox.",),
        kind=Class.A,
        source=_NDR,
        words=r"bad outbound sender|OutboundSpamException",
    ),
    # -- recipients ----------------------------------------------------------------------
    Diagnosis(
        id="exo.recipient_not_found",
        title="{recipient} does not exist",
        explanation="The recipient's organisation knows no such address. \"Access denied\" is not an IP block here.",
        who="application",
        remedy=("Correct the address.",),
        kind=Class.PR,
        source=_NDR,
        words=r"Recipient address rejected|RecipientNotFound|recipient not found|user unknown|no such user",
        phases=frozenset({Phase.RCPT}),
    ),
    Diagnosis(
        id="exo.relay_denied",
        title="The server does not relay to {recipient}",
        explanation="No connector matches this sender, or the recipient's domain is not this server's.",
        who="exchange_admin",
        remedy=("Check the inbound connector, or choose another route for this recipient.",),
        kind=Class.PR,
        source=_NDR,
        words=r"relay access denied|unable to relay|TenantAttribution",
        phases=frozenset({Phase.RCPT}),
    ),
    Diagnosis(
        id="smtp.too_many_recipients",
        title="Too many recipients in one transaction",
        explanation="The server took the first ones; the others follow at once in a transaction of their own.",
        who="nobody",
        remedy=("Nobody has to act: the rest is sent at once.",),
        kind=Class.T1,
        source="RFC 5321, section 4.5.3.1.10",
        codes=frozenset({452, 552}),
        phases=frozenset({Phase.RCPT}),
        words=r"too many recipients",
    ),
    Diagnosis(
        id="smtp.recipient_deferred",
        title="The server does not take {recipient} at the moment",
        explanation="A passing refusal of this recipient: greylisting, a busy or full mailbox.",
        who="nobody",
        remedy=(_WAITS,),
        kind=Class.T1,
        source=_DIGITS,
        codes=frozenset(range(400, 500)) - {421},
        phases=frozenset({Phase.RCPT}),
    ),
    Diagnosis(
        id="smtp.recipient_refused",
        title="The server refused {recipient}",
        explanation="A final refusal of this recipient; its text says why.",
        who="application",
        remedy=("Read the reply's text; correct the address or ask the recipient's administrator.",),
        kind=Class.PR,
        source=_DIGITS,
        codes=frozenset(range(500, 600)),
        phases=frozenset({Phase.RCPT}),
    ),
    # -- content -------------------------------------------------------------------------
    Diagnosis(
        id="smtp.message_too_large",
        title="The message is too large for the server",
        explanation="The server's limit is smaller than the message. Attachments grow by a third in base64.",
        who="application",
        remedy=("Send a smaller message, or a link.", "Set-Mailbox {mailbox} -MaxSendSize 150MB"),
        kind=Class.PM,
        source="RFC 1870",
        codes=frozenset({552, 554, 550}),
        words=r"(message|header) size exceeds|too (large|big)|SendSizeLimit",
    ),
    Diagnosis(
        id="smtp.content_refused",
        title="The server refused the message",
        explanation="A final refusal after the content; its text says why.",
        who="application",
        remedy=("Read the reply's text; change the message or ask the administrator of the server.",),
        kind=Class.PM,
        source=_DIGITS,
        codes=frozenset(range(500, 600)),
        phases=frozenset({Phase.DATA, Phase.BODY, Phase.DOT, Phase.REPLY}),
    ),
    Diagnosis(
        id="smtp.sender_refused",
        title="The server refused the sender {sender}",
        explanation="A final refusal of the sender; its text says why.",
        who="operator",
        remedy=("Read the reply's text; check the sender's address and the route's rules.",),
        kind=Class.PM,
        source=_DIGITS,
        codes=frozenset(range(500, 600)),
        phases=frozenset({Phase.MAIL}),
    ),
    # -- service -------------------------------------------------------------------------
    Diagnosis(
        id="smtp.service_unavailable",
        title="{host} is not available at the moment",
        explanation="The server is shutting down, overloaded or draining.",
        who="nobody",
        remedy=(_WAITS,),
        kind=Class.T1,
        source="RFC 5321, section 3.8",
        codes=frozenset({421}),
    ),
    Diagnosis(
        id="smtp.service_trouble",
        title="{host} has trouble at the moment",
        explanation="The server says that it cannot work right now.",
        who="nobody",
        remedy=(_WAITS,),
        kind=Class.T1,
        source="RFC 3463, section 3.4",
        enhanced=r"4\.3\.[12]",
    ),
    Diagnosis(
        id="smtp.session_refused",
        title="{host} refuses to talk to us",
        explanation="The server refused the session before any message.",
        who="operator",
        remedy=("Read the reply's text; check the route's host, its EHLO name and our address.",),
        kind=Class.A,
        source=_DIGITS,
        codes=frozenset(range(500, 600)),
        phases=_OPENING,
    ),
    Diagnosis(
        id="smtp.passing_refusal",
        title="{host} cannot take the message at the moment",
        explanation="A passing refusal.",
        who="nobody",
        remedy=(_WAITS,),
        kind=Class.T1,
        source=_DIGITS,
        codes=frozenset(range(400, 500)),
    ),
    # -- no reply at all -----------------------------------------------------------------
    Diagnosis(
        id="smtp.unreachable",
        title="{host} cannot be reached",
        explanation="No connection came about: the name has no address, or nobody answers there.",
        who="network",
        remedy=(
            "Nobody has to act if it is short: the route is probed until it answers.",
            "If it lasts: check DNS, the firewall and the port (`postroom check`).",
        ),
        kind=Class.T1,
        source="RFC 5321, section 4.5.4.1",
        faults=frozenset({
            "name_not_found", "resolver_failed", "resolve_timeout", "connection_refused", "connect_timeout",
            "network_unreachable", "connect_failed",
        }),
    ),
    Diagnosis(
        id="smtp.starttls_missing",
        title="{host} does not offer STARTTLS",
        explanation="The route demands TLS. A server that used to offer it may be impersonated.",
        who="network",
        remedy=("Find out who answers at this address; no login and no message was sent.",),
        kind=Class.A,
        source="RFC 3207, section 6",
        faults=frozenset({"starttls_not_offered", "starttls_refused", "tls_required_for_login"}),
    ),
    Diagnosis(
        id="smtp.tls_failed",
        title="TLS with {host} failed",
        explanation="The handshake broke, or the certificate is not one that we trust for this name.",
        who="network",
        remedy=("Check the certificate of {host}, or the route's `ca_file`; no login and no message was sent.",),
        kind=Class.A,
        source="RFC 3207, section 4.1",
        faults=frozenset({"tls_handshake_failed", "certificate_invalid", "tls_files_unusable"}),
    ),
    Diagnosis(
        id="smtp.mechanism_not_offered",
        title="{host} does not offer our way to log in",
        explanation="The mechanism of the route's login is not in the server's list.",
        who="operator",
        remedy=("Change the login's `method` of the route.",),
        kind=Class.A,
        source="RFC 4954, section 3",
        faults=frozenset({"mechanism_not_offered"}),
    ),
    Diagnosis(
        id="smtp.connection_lost",
        title="The connection to {host} was lost",
        explanation="It ended before the final dot, so the message was not taken.",
        who="nobody",
        remedy=(_WAITS,),
        kind=Class.T1,
        source="RFC 5321, section 3.8",
        faults=frozenset({"connection_lost", "session_expired"}),
    ),
    Diagnosis(
        id="smtp.timeout",
        title="{host} did not answer in time",
        explanation="Silence before the final dot; the message was not taken.",
        who="nobody",
        remedy=(_WAITS,),
        kind=Class.T1,
        source="RFC 5321, section 4.5.3.2",
        faults=frozenset({"timeout"}),
    ),
    Diagnosis(
        id="smtp.garbled",
        title="{host} does not speak SMTP properly",
        explanation="What came is not the reply that was due; we closed the connection without the final dot.",
        who="operator",
        remedy=("Look at the transcript: a proxy or a broken server may answer in its place.", _WAITS),
        kind=Class.T1,
        source="RFC 5321, section 4.2",
        faults=frozenset({
            "bad_digits", "mixed_codes", "line_too_long", "reply_too_long", "unexpected_octets",
            "unexpected_code", "early_reply",
        }),
    ),
    Diagnosis(
        id="smtp.extension_missing",
        title="{host} cannot carry this message",
        explanation="The message needs an extension that the server does not offer: an address outside ASCII "
        "(SMTPUTF8), eight-bit content, or its size.",
        who="application",
        remedy=("Use an ASCII address, a smaller or a seven-bit message, or another route.",),
        kind=Class.PM,
        source="RFC 6531, section 3.2; RFC 6152; RFC 1870",
        faults=frozenset({"smtputf8_not_offered", "eightbitmime_not_offered", "size_exceeded"}),
    ),
    Diagnosis(
        id="postroom.content_unfit",
        title="The stored content is not fit for SMTP",
        explanation="Its line ends are not canonical; Postroom should never have accepted it.",
        who="operator",
        remedy=("Report this with the message's id: it is a bug of Postroom.",),
        kind=Class.PM,
        source="RFC 5321, section 2.3.8",
        faults=frozenset({"content_not_canonical"}),
    ),
    # -- our own -------------------------------------------------------------------------
    Diagnosis(
        id="smtp.uncertain",
        title="{host} may have the message or not",
        explanation="The final dot was sent and no usable reply came. With `on_uncertain: resend` the same octets "
        "go again later, and Exchange drops a second copy with the same Message-ID; with `hold` a person decides.",
        who="nobody",
        remedy=(
            "With `resend` nobody has to act.",
            "With `hold`: look into the message trace for the Message-ID, then settle the recipient.",
        ),
        kind=Class.T1,
        source="RFC 1047",
        faults=frozenset({"uncertain"}),
    ),
    Diagnosis(
        id="postroom.lease_lost",
        title="The worker that had the message in hand is gone",
        explanation="Its lease ran out before the final dot, so nothing was sent.",
        who="nobody",
        remedy=("Nobody has to act: another worker sends it at once.",),
        kind=Class.T1,
        source="decision record 0001",
        faults=frozenset({"lease_lost"}),
    ),
    Diagnosis(
        id="postroom.lease_lost_after_dot",
        title="The worker that had the message in hand is gone",
        explanation="Its lease ran out after the final dot: the peer may have the message or not.",
        who="nobody",
        remedy=(
            "With `resend` nobody has to act.",
            "With `hold`: look into the message trace for the Message-ID, then settle the recipient.",
        ),
        kind=Class.T1,
        source="RFC 1047",
        faults=frozenset({"lease_lost_after_dot"}),
    ),
    Diagnosis(
        id="postroom.crashed_repeatedly",
        title="Workers died over this message again and again",
        explanation="It was carried alone, and three times the worker did not come back.",
        who="operator",
        remedy=("Look into the workers' logs for this message's id before you release it.",),
        kind=Class.A,
        source="decision record 0001",
        faults=frozenset({"crashed_repeatedly"}),
    ),
    Diagnosis(
        id="postroom.expired",
        title="The message expired before it could be sent",
        explanation="Its `expires_at` passed; the attempts show what stood in the way.",
        who="application",
        remedy=("Send it again, when the reason of the last attempt is gone.",),
        kind=Class.PM,
        source="RFC 5321, section 4.5.4.1",
        faults=frozenset({"expired"}),
    ),
    Diagnosis(
        id="postroom.aborted",
        title="Postroom was stopped before the message was sent",
        explanation="A planned restart; nothing was sent, and it counts as no try.",
        who="nobody",
        remedy=("Nobody has to act: it goes on with the next worker.",),
        kind=Class.T1,
        source="decision record 0001",
        faults=frozenset({"aborted"}),
    ),
    Diagnosis(
        id="postroom.ledger_unavailable",
        title="The ledger could not be read",
        explanation="PostgreSQL was not available at that moment, and nothing is sent without it.",
        who="operator",
        remedy=("Nobody has to act if it is short. If it lasts: look after PostgreSQL.",),
        kind=Class.T1,
        source="decision record 0001",
        faults=frozenset({"ledger_unavailable"}),
    ),
    Diagnosis(
        id="entra.token_unavailable",
        title="Microsoft Entra gives no token at the moment",
        explanation="The token endpoint did not answer, or asked us to come back later.",
        who="nobody",
        remedy=(_WAITS, "If it lasts: check that {host} can be reached from the workers."),
        kind=Class.T1,
        source=_OAUTH,
        faults=frozenset({"token_unavailable"}),
    ),
    Diagnosis(
        id="entra.token_refused",
        title="Microsoft Entra refuses a token for {mailbox}",
        explanation="The application's secret or certificate is wrong or expired, or the application, its tenant "
        "or its permission does not exist.",
        who="entra_admin",
        remedy=(
            ("Entra ID, App registrations, the application, Certificates & secrets: make a new one and "
            "put it into the mailbox's login."),
            "API permissions: Office 365 Exchange Online, SMTP.SendAsApp, with admin consent.",
        ),
        kind=Class.A,
        source=_OAUTH,
        faults=frozenset({"token_refused"}),
    ),
    Diagnosis(
        id="postroom.internal",
        title="Postroom failed over this message",
        explanation="A bug; the worker's log has the details under this attempt's id.",
        who="operator",
        remedy=("Report it with the attempt's id.", _WAITS),
        kind=Class.T1,
        source="decision record 0001",
        faults=frozenset({"internal"}),
    ),
)  # fmt: skip

_UNKNOWN = Diagnosis(
    id="smtp.unexpected_reply",
    title="A reply that says nothing about success or failure",
    explanation="The digits of this reply do not belong here.",
    who="operator",
    remedy=("Look at the transcript.", _WAITS),
    kind=Class.T1,
    source=_DIGITS,
)

_BY_FAULT = {fault: entry for entry in CATALOGUE for fault in entry.faults}


def of_reply(reply: Reply, phase: Phase) -> Diagnosis:
    """Find what a reply means in the phase in which it came."""
    return next((entry for entry in CATALOGUE if entry.matches(reply, phase)), _UNKNOWN)


def of_code(code: str) -> Diagnosis:
    """Find what a fault of this code means."""
    return _BY_FAULT.get(code, _BY_FAULT["internal"])


def of_fault(fault: SmtpFault) -> Diagnosis:
    """Find what a broken dialogue means: the peer's own words first, where there are any."""
    if fault.reply is not None and fault.reply.code >= 400:
        return of_reply(fault.reply, fault.phase)
    return of_code(fault.code)


def error(
    diagnosis: Diagnosis,
    *,
    phase: str | None,
    reply: Reply | None,
    retryable: bool,
    names: Mapping[str, str],
    detail: str | None = None,
) -> dict[str, object]:
    """Write an error as the ledger keeps it and the API shows it."""
    return {
        "code": diagnosis.code,
        "phase": phase,
        "reply": None if reply is None else reply.as_json(),
        "retryable": retryable,
        "detail": detail,
        "diagnosis": diagnosis.as_json(names),
    }
