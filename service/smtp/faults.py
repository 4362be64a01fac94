"""The ways in which a dialogue breaks.

A refused recipient and a refused message are replies, and travel as values in the report.
A fault is what the story cannot go on with. Each class is something that the caller can
treat differently; `code` is a stable name for the ledger and the diagnosis catalogue,
`phase` says how far the dialogue came, `reply` is what the peer said, where it said
something, and `detail` is one sentence for people. No fault carries a secret.

| class | codes |
|---|---|
| `CannotResolve` | `name_not_found` `resolver_failed` `resolve_timeout` `mx_missing` `mx_null` `mx_private` |
| `CannotConnect` | `connection_refused` `connect_timeout` `network_unreachable` `connect_failed` |
| `TlsRefused` | `tls_required_for_login` `starttls_not_offered` `starttls_refused` `tls_handshake_failed` `certificate_invalid` `tls_files_unusable` |
| `LoginRefused` | `login_refused` `login_deferred` `mechanism_not_offered` |
| `PeerRefused` | `greeting_refused` `ehlo_refused` `mail_refused` `data_refused` `refused_in_content` `closing` |
| `PeerLost` | `connection_lost` `session_expired` `session_ended_behind` |
| `PeerSilent` | `timeout` |
| `PeerGarbled` | `bad_digits` `mixed_codes` `line_too_long` `reply_too_long` `unexpected_octets` `unexpected_code` `early_reply` |
| `ExtensionMissing` | `smtputf8_not_offered` `eightbitmime_not_offered` `size_exceeded` |
| `ContentUnfit` | `content_not_canonical` |
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.smtp.opening import SessionFacts
    from service.smtp.phase import Phase
    from service.smtp.reply import Reply


class SmtpFault(Exception):
    """A dialogue broke. `facts` is set by `open_session`: what was learnt before it broke."""

    def __init__(self, code: str, *, phase: Phase, detail: str, reply: Reply | None = None) -> None:
        super().__init__(code, phase, detail)
        self.code = code
        self.phase = phase
        self.detail = detail
        self.reply = reply
        self.facts: SessionFacts | None = None

    def __str__(self) -> str:
        said = f" ({self.reply})" if self.reply else ""
        return f"{self.code} in phase {self.phase.word}: {self.detail}{said}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.code!r}, phase={self.phase.word!r}, reply={self.reply!r})"

    def as_json(self) -> dict[str, object]:
        """Give the fault in the form that the ledger keeps."""
        return {
            "code": self.code,
            "phase": self.phase.word,
            "detail": self.detail,
            "reply": self.reply.as_json() if self.reply else None,
        }


class CannotResolve(SmtpFault):
    """The peer's name has no address, or nobody could say so. Nothing was sent."""


class CannotConnect(SmtpFault):
    """No address of the peer took the connection. Nothing was sent."""


class TlsRefused(SmtpFault):
    """TLS was required and did not come about, or its certificate is not the peer's.

    No login and no message was sent.
    """


class LoginRefused(SmtpFault):
    """The peer refused our login, or does not offer its mechanism.

    One mechanism is tried once: a second wrong try brings the mailbox closer to a lock.
    """


class PeerRefused(SmtpFault):
    """The peer answered, and the answer was no; `reply` holds it. The message was not taken."""


class PeerLost(SmtpFault):
    """The connection ended. In phase `dot` the peer may have the message (RFC 1047)."""


class PeerSilent(SmtpFault):
    """No reply within the phase's limit. In phase `dot` the peer may have the message (RFC 1047)."""


class PeerGarbled(SmtpFault):
    """The peer's octets are not the reply that was due, and we do not guess what they mean."""


class ExtensionMissing(SmtpFault):
    """The message needs an extension that this peer does not offer. Nothing of it was sent."""


class ContentUnfit(SmtpFault):
    """The content is not canonical: a bare CR or LF, or no CRLF at its end. No dot was sent."""
