"""The words of Microsoft's services, as they write them.

Sources are Microsoft's pages on non-delivery reports and on SMTP AUTH client submission, its
support articles, and transcripts that users published between 2022 and 2026. Where the wording
changed, `old` keeps the earlier one. `{names}` are filled in when the reply is given.

Microsoft ends a refusal with ` [host time session]` since 2023, before that with ` [host]`.
The trailer is put on by the dialogue, not here.

Microsoft publishes no words for some refusals of High Volume Email and of Azure Communication
Services; those below that say "a guess" have only their number from a source, or not even that.
"""

import string
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One line as it goes over the wire, without its trailer and line end."""

    line: str
    old: str | None = None  # the wording before it changed
    blunder: bool = False  # the client broke the protocol; a few of these end the session
    verbatim: bool = False  # said as it stands: nothing is filled in and no trailer follows

    @property
    def code(self) -> int:
        """The three digits."""
        return int(self.line[:3])

    @property
    def positive(self) -> bool:
        """Whether it says yes: 2yz or 3yz."""
        return self.code < 400

    def worded(self, wording: Literal["new", "old"], **names: str) -> str:
        """Return the line in one of the wordings, its names filled in and safe on one line."""
        if self.verbatim:
            return self.line
        line = self.old if wording == "old" and self.old is not None else self.line
        return _one_line(string.Formatter().vformat(line, (), names))


def _one_line(text: str) -> str:
    """Replace what a client could have smuggled in to make a second line of it."""
    return "".join(char if char.isprintable() else "?" for char in text)


def _say(line: str, old: str | None = None) -> Reply:
    return Reply(line=line, old=old)


def _blunder(line: str) -> Reply:
    return Reply(line=line, blunder=True)


# The dialogue
SENDER_OK = _say("250 2.1.0 Sender OK")
RECIPIENT_OK = _say("250 2.1.5 Recipient OK")
START_INPUT = _say("354 Start mail input; end with <CRLF>.<CRLF>")
CHUNK_OK = _say("250 2.6.0 CHUNK received OK, {octets} octets")
RESETTING = _say("250 2.0.0 Resetting")
NOTHING_DONE = _say("250 2.0.0 OK")
CANNOT_VERIFY = _say("252 2.1.5 Cannot VRFY user")
COMMANDS = _say("214 This server supports the following commands: HELO EHLO STARTTLS RCPT DATA RSET MAIL "
                "QUIT HELP AUTH BDAT")  # fmt: skip
GOODBYE = _say("221 2.0.0 Service closing transmission channel")
READY_FOR_TLS = _say("220 2.0.0 SMTP server ready")
ACCEPTED = _say("250 2.0.0 OK {message_id} [Hostname={backend}]")
QUEUED = _say("250 2.6.0 {message_id} [InternalId={internal_id}, Hostname={backend}] {size} bytes in 0.125, "
              "{rate} KB/sec Queued mail for delivery")  # fmt: skip

# Connecting, and losing patience
NOT_AVAILABLE = _say("421 4.3.2 Service not available")
TOO_MANY_SESSIONS = _say("421 4.3.2 The maximum number of concurrent server connections has exceeded a limit, "
                         "closing transmission channel")  # fmt: skip
TOO_MANY_ERRORS = _say("421 4.7.0 Too many errors on this connection, closing transmission channel")
SESSION_TOO_LONG = _say("421 4.4.1 Connection timed out")
IDLE_TOO_LONG = _say("451 4.7.0 Timeout waiting for client input")
TLS_RATE = _say("454 4.7.0 Cannot accept TLS as maximum TLS rate exceeded for server")

# Blunders of the client
COMMAND_TOO_LONG = _blunder("500 5.5.2 Command too long")
UNRECOGNIZED = _blunder("500 5.3.3 Unrecognized command")
NOT_IMPLEMENTED = _blunder("502 5.3.3 Command not implemented")
BAD_SEQUENCE = _blunder("503 5.5.1 Bad sequence of commands")
HELLO_FIRST = _blunder("503 5.5.2 Send hello first")
MAIL_FIRST = _blunder("503 5.5.2 Need mail command")
RCPT_FIRST = _blunder("503 5.5.2 Need rcpt command")
SENDER_ALREADY = _blunder("503 5.5.2 Sender already specified")
ONE_STARTTLS = _blunder("503 5.5.2 Only one STARTTLS command can be issued per session")
INVALID_ARGUMENTS = _blunder("501 5.5.4 Invalid arguments")
UNKNOWN_PARAMETER = _blunder("501 5.5.4 Unrecognized parameter")
UNKNOWN_BODY = _blunder("501 5.5.4 Unsupported BODY type")
INVALID_DOMAIN = _blunder("501 5.5.4 Invalid domain name")
DOMAIN_MISSING = _blunder("501 5.0.0 EHLO requires domain address")
STARTTLS_FIRST = _blunder("530 5.7.0 Must issue a STARTTLS command first")

# AUTH
LOGGED_IN = _say("235 2.7.0 Authentication successful")
UNKNOWN_MECHANISM = _blunder("504 5.7.4 Unrecognized authentication type")
LOGIN_FAILED = _say("535 5.7.3 Authentication unsuccessful")
LOGIN_BUSY = _say("454 4.7.0 Temporary authentication failure")
_LOGIN_139 = "535 5.7.139 Authentication unsuccessful, "
_VISIT = "Visit https://aka.ms/smtp_auth_disabled for more information."
SMTP_AUTH_OFF_TENANT = _say(f"{_LOGIN_139}SmtpClientAuthentication is disabled for the Tenant. {_VISIT}")
SMTP_AUTH_OFF_MAILBOX = _say(f"{_LOGIN_139}SmtpClientAuthentication is disabled for the Mailbox. {_VISIT}")
BASIC_DISABLED = _say(f"{_LOGIN_139}basic authentication is disabled.")
BASIC_RETIRED = _say("550 5.7.30 Basic authentication is not supported for Client Submission.")
SECURITY_DEFAULTS = _say(f"{_LOGIN_139}user is locked by your organization's security defaults policy. "
                         "Contact your administrator.")  # fmt: skip
CONDITIONAL_ACCESS = _say(f"{_LOGIN_139}the request did not meet the criteria to be authenticated successfully. "
                          "Contact your administrator.")  # fmt: skip
LOGIN_NEEDED = _say("530 5.7.57 Client not authenticated to send mail.",
                    "530 5.7.57 SMTP; Client was not authenticated to send anonymous mail during MAIL FROM")  # fmt: skip
LOGIN_NEEDED_BECAUSE = _say("530 5.7.57 Client not authenticated to send mail. Error: {because}",
                            "530 5.7.57 SMTP; Client was not authenticated to send anonymous mail during MAIL "
                            "FROM. Error: {because}")  # fmt: skip

# AUTH of High Volume Email
ORGANIZATION_FORBIDS = _say(f"{_LOGIN_139}the organization configuration does not allow this authentication")
NO_HVE_ACCOUNT = _say(
    "535 5.2.240 Authentication unsuccessful, the account is no High Volume Email account"
)  # a guess
APPLICATION_NOT_ALLOWED = _say(
    "550 5.7.240 The application is not allowed for this High Volume Email account"
)
_XOAUTH2 = "Invalid XOAUTH2 argument"
XOAUTH2_NO_BASE64 = _say(f"501 5.5.121 {_XOAUTH2}")
XOAUTH2_NO_USER = _say(f"501 5.5.122 {_XOAUTH2}, user is missing")
XOAUTH2_EMPTY_USER = _say(f"501 5.5.123 {_XOAUTH2}, user is empty")
XOAUTH2_NO_AUTH = _say(f"501 5.5.124 {_XOAUTH2}, auth is missing")
XOAUTH2_NO_BEARER = _say(f"501 5.5.125 {_XOAUTH2}, Bearer is missing")
XOAUTH2_NO_TOKEN = _say(f"501 5.5.126 {_XOAUTH2}, the token is missing")
TOKEN_EXPIRES_SOON = _say("535 5.7.142 Authentication unsuccessful, the access token will expire soon")
TOKEN_EXPIRED = _say("535 5.7.143 Authentication unsuccessful, the access token has expired")
TOKEN_WITHOUT_ROLE = _say("535 5.7.144 Authentication unsuccessful, Invalid API permissions")

# Envelope
BAD_SENDER = _say("501 5.1.7 Invalid address")
SENDER_NEEDS_UTF8 = _say("501 5.1.9 UTF-8 addresses not supported")
BAD_RECIPIENT = _say("501 5.1.3 Invalid address")
RECIPIENT_NEEDS_UTF8 = _say("501 5.1.8 UTF-8 addresses not supported")
TOO_MANY_RECIPIENTS = _say("452 4.5.3 Too many recipients")
NOT_THIS_SENDER = _say("550 5.7.60 SMTP; Client does not have permissions to send as this sender")
HVE_OTHER_SENDER = _say(
    "550 5.7.62 Client does not have permissions to send as this sender"
)  # words: a guess
HVE_OTHER_AUTHOR = _say(
    "550 5.6.241 The From address is not the High Volume Email account's"
)  # words: a guess
HVE_EXTERNAL = _say("550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain")  # a guess
HVE_NO_BILLING = _say(
    "550 5.7.1 Access denied, the account has no valid billing policy ({billing})"
)  # a guess
TOO_LARGE = _say("552 5.3.4 Message size exceeds fixed maximum message size")

# Content
HEADER_TOO_LARGE = _say("552 5.3.4 Header size exceeds fixed maximum size")
BARE_LINE_FEEDS = _say("550 5.6.11 Invalid message content; message contains bare linefeeds",
                       "554 5.6.0 Invalid message content; message contains bare linefeeds")  # fmt: skip
FROM_MISSING = _say("550 5.7.512 Access denied, message must be RFC 5322 section 3.6.2 compliant and include a "
                    "valid From address")  # fmt: skip
SENDER_MISSING = _say("550 5.1.20 Multiple From addresses are not allowed without Sender address")

# The tenant's MX
STARTTLS_REQUIRED = _say("451 5.7.3 STARTTLS is required to send mail")
WRONG_REGION = _say("451 4.4.62 Mail sent to the wrong Office 365 region. ATTR35")
NO_SUBSCRIPTION = _say("550 4.4.4 Mail received as unauthenticated, incoming to a recipient domain configured in a "
                       "hosted tenant which has no mail-enabled subscriptions. ATTR5")  # fmt: skip
RELAY_DENIED = _say(
    "550 5.7.64 TenantAttribution; Relay Access Denied", "550 5.7.64 Relay Access Denied ATTR36"
)
DIRECT_SEND_REJECTED = _say("550 5.7.68 TenantInboundAttribution; Direct Send not allowed for this organization "
                            "from unauthorized sources")  # fmt: skip
BANNED_IP = _say("550 5.7.606 Access denied, banned sending IP [{client}]. To request removal from this list please "
                 "visit https://sender.office.com/ and follow the directions. AS(1430)")  # fmt: skip
OVER_VOLUME = _say("452 4.5.3 Too many recipients (AS780090)")
BAD_CONNECTOR = _say("550 5.7.711 Access denied, bad inbound connector. AS(2204)")
UNREGISTERED_DOMAIN = _say(
    "550 5.7.750 Service unavailable. Client blocked from sending from unregistered domains"
)
EXCESSIVE_RATE = _say("450 4.5.127 Message rejected. Excessive message rate from sender. For more information see "
                      "https://aka.ms/EXOSmtpErrors.")  # fmt: skip

# Limits and permissions, told after the final dot
_MORE_CONNECTIONS = "Visit https://aka.ms/concurrent_sending for more information."
CONCURRENT = _say(
    f"432 4.3.2 Concurrent connections limit exceeded. {_MORE_CONNECTIONS} [Hostname={{backend}}]",
    "432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded",
)
RATE_EXCEEDED = _say("421 4.4.2 Message submission rate for this client has exceeded the configured limit")
_SUBMISSION = "STOREDRV.Submission.Exception:"
_PERMANENT = "Failed to process message due to a permanent exception with message"
QUOTA_EXCEEDED = _say(
    f"554 5.2.0 {_SUBMISSION}SubmissionQuotaExceededException; {_PERMANENT} The message can't be submitted because "
    "the sender's submission quota was exceeded. [Hostname={backend}]"
)
MAILBOX_FULL = _say(
    f"554 5.2.2 mailbox full; {_SUBMISSION}QuotaExceededException.MapiException(Shutoff)QuotaExceeded; {_PERMANENT} "
    "Cannot submit message. [Hostname={backend}]"
)
RECIPIENT_LIMIT = _say("550 5.5.3 RESOLVER.ADR.RecipLimit; too many recipients")
SEND_SIZE = _say("550 5.2.3 RESOLVER.RST.SendSizeLimit.Sender; message too large for this sender")

# A real one is about 2,000 octets on one line, far beyond the 512 of RFC 5321 §4.5.3.1.5. A
# client that reads lines of limited length falls out of step here, so it has to be as long.
_DIAGNOSTICS = ", ".join(
    f"{i}.{20_000 + i * 977 % 45_000}:{i * 2_654_435_761 % 2**32:08X}" for i in range(90)
)
_DENIED = (
    f"{_SUBMISSION}SendAsDeniedException.MapiExceptionSendAsDenied; {_PERMANENT} [BeginDiagnosticData]Cannot "
    f"submit message. {_DIAGNOSTICS}[EndDiagnosticData] [Hostname={{backend}}]"
)
SEND_AS_DENIED = _say(
    f"554 5.2.252 SendAsDenied; {{login}} not allowed to send as {{sender}}; {_DENIED}",
    f"554 5.2.0 {_DENIED}",
)

_THROTTLED = "Sender throttled due to continuous"
SENDER_THROTTLED = {
    "mailbox full": _say(f"550 5.2.251 {_THROTTLED} mailbox full errors"),
    "send as denied": _say(f"550 5.2.252 {_THROTTLED} send as denied errors"),
    "too many recipients": _say(f"550 5.2.254 {_THROTTLED} too many recipients errors"),
    "invalid recipients": _say(f"550 5.2.255 {_THROTTLED} invalid recipients errors"),
}

# Chosen by a recipient's local part only
_EXO_ERRORS = "For more information see https://aka.ms/EXOSmtpErrors"
RECIPIENT_NOT_FOUND = _say(
    "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient {recipient} not found by SMTP address lookup"
)
ACCESS_DENIED = _say(
    f"550 5.4.1 Recipient address rejected: Access denied. {_EXO_ERRORS}",
    "550 5.4.1 Recipient address rejected: Access denied. AS(201806281)",
)
TRY_LATER = _say("451 4.3.2 Temporary server error. Please try again later ATTR18")
SERVER_BUSY = _say("451 4.7.500 Server busy. Please try again later from [{client}]. (S77714)")
PROXY_FAILED = _say("451 4.7.0 Temporary server error. Please try again later. PRX4 NextHop:{backend}")
NO_RESOURCES = _say("452 4.3.1 Insufficient system resources")
BAD_OUTBOUND_SENDER = _say("550 5.1.8 Access denied, bad outbound sender AS(42004)")
TENANT_BLOCKED = _say("550 5.7.705 Access denied, tenant has exceeded threshold")
RECIPIENT_BLOCKED = _say(
    "550 5.7.703 Your message can't be delivered because one or more recipients are blocked by your organization "
    "using Tenant Allow Block List"
)
DAILY_LIMIT = _say(
    "550 5.1.90 Your message can't be sent because you've reached your daily limit for message recipients"
)
_EXCEEDED = (
    "exceeded its daily limit for sending email to external recipients (tenant external recipient rate limit)"
)
EXTERNAL_LIMIT = _say(f"550 5.7.233 Your message can't be sent because your tenant {_EXCEEDED}")
EXTERNAL_LIMIT_TRIAL = _say(f"550 5.7.232 Your message can't be sent because your trial tenant {_EXCEEDED}")
ONMICROSOFT_LIMIT = _say(
    "550 5.7.236 Your message can't be sent because you've exceeded the daily limit for sending email to external "
    "recipients from your tenant's onmicrosoft.com domains"
)
POLICY_REJECTED = _say(
    "550 5.7.1 TRANSPORT.RULES.RejectMessage; the message was rejected by organization policy"
)
OUTBOUND_SPAM = _say(
    f"554 5.2.0 {_SUBMISSION}OutboundSpamException; {_PERMANENT} WASCL UserAction verdict is not None. Actual "
    "verdict is Suspend, ShowTierUpgrade. [Hostname={backend}]"
)
LOW_REPUTATION = _say("550 5.7.708 Access denied, traffic not accepted from this IP")
DMARC_FAILED = _say(
    "550 5.7.509 Access denied, sending domain [{domain}] does not pass DMARC verification and has a DMARC policy of "
    "reject"
)
SPF_FAILED = _say("550 5.7.23 The message was rejected because of Sender Policy Framework violation")
MAIL_LOOP = _say("554 5.4.6 Hop count exceeded - possible mail loop")
INVALID_LICENSE = _say(f"550 5.2.253 {_THROTTLED} invalid license errors")

# Only in reports, after the 250
RETURNED_FULL = _say("554 5.2.2 mailbox full; STOREDRV.Deliver; the mailbox of the recipient is full")
RETURNED_EXPIRED = _say("550 5.4.300 Message expired -> 421 4.4.7 Queue expired; message expired")
RETURNED_RESTRICTED = _say(
    "550 5.7.133 RESOLVER.RST.SenderNotAuthenticatedForGroup; authentication required; Delivery restriction check "
    "failed because the sender was not authenticated when sending to this group"
)
RETURNED_BUSY = _say(
    "550 5.2.122 The recipient has exceeded their limit for the number of messages they can receive per hour"
)
RETURNED_DANE = _say("550 5.7.323 tlsa-invalid: The domain failed DANE validation")
RETURNED_REFUSED = _say("550 5.0.350 Remote server returned an error -> 550 no such user here")
