"""Logging in: AUTH LOGIN and AUTH XOAUTH2, one mechanism, one try.

aiosmtplib would go on to the next mechanism after a 535: two failed logins where one was
meant, and failed logins lock mailboxes. So the dialogue is led here.

XOAUTH2 (Microsoft, "Authenticate an IMAP, POP or SMTP connection using OAuth"): a short
response goes on the AUTH line, a long one after an empty 334. Exchange Online refuses with
535 at once; Gmail-like servers send a 334 with a JSON status first and wait for an empty
line before they say 535.

The caller has made sure that TLS is on and verified.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable

from service.smtp.faults import LoginRefused, PeerGarbled, PeerRefused
from service.smtp.peer import Login
from service.smtp.phase import Phase
from service.smtp.reply import Reply
from service.smtp.transcript import Strikeout
from service.smtp.wire import Wire

# Longer command lines are beyond what RFC 5321 §4.5.3.1.4 promises (512 octets with CRLF).
_ONE_LINE_OCTETS = 500


async def log_in(
    wire: Wire, login: Login, *, offered: Iterable[str], strikeout: Strikeout, within: float
) -> None:
    """Prove who we are. Each step may take `within` seconds.

    Raises `LoginRefused`, `PeerRefused` for a 421, or what breaks the dialogue.
    """
    mechanism = login.method.upper()
    if mechanism not in {name.upper() for name in offered}:
        detail = f"The peer does not offer AUTH {mechanism}; it offers: {' '.join(offered) or 'none'}."
        raise LoginRefused("mechanism_not_offered", phase=Phase.AUTH, detail=detail)
    strikeout.add(login.secret)
    if login.method == "login":
        reply = await _login(wire, login, within=within)
    else:
        reply = await _xoauth2(wire, login, strikeout=strikeout, within=within)
    _judge(reply, mechanism)


async def _login(wire: Wire, login: Login, *, within: float) -> Reply:
    """AUTH LOGIN: the peer asks twice with a 334, whatever words it uses for it."""
    reply = await wire.ask("AUTH LOGIN", within=within)
    for answer in (login.username, login.secret):
        if reply.code != 334:
            return reply
        reply = await wire.ask(_base64(answer), within=within)
    return reply


async def _xoauth2(wire: Wire, login: Login, *, strikeout: Strikeout, within: float) -> Reply:
    response = _base64(f"user={login.username}\x01auth=Bearer {login.secret}\x01\x01")
    strikeout.add(response)
    command = f"AUTH XOAUTH2 {response}"
    if len(command) <= _ONE_LINE_OCTETS:
        reply = await wire.ask(command, within=within)
    else:
        reply = await wire.ask("AUTH XOAUTH2", within=within)
        if reply.code != 334:
            return reply
        reply = await wire.ask(response, within=within)
    if reply.code == 334:
        wire.transcript.note(Phase.AUTH, f"the peer's challenge says: status {challenge_status(reply.text)}")
        reply = await wire.ask("", within=within)
    return reply


def challenge_status(text: str) -> str:
    """Read the status out of a Gmail-like server's challenge, `unknown` where there is none.

    Only digits are given back: the rest of the JSON is the server's and may repeat secrets.
    """
    try:
        challenge = json.loads(base64.b64decode(text, validate=True))
        status = str(challenge["status"])
    except (binascii.Error, ValueError, KeyError, TypeError, RecursionError):
        return "unknown"
    return status if status.isascii() and status.isdigit() and len(status) <= 3 else "unknown"


def _judge(reply: Reply, mechanism: str) -> None:
    if reply.positive():
        return
    if reply.code == 421:
        raise PeerRefused("closing", phase=Phase.AUTH, detail="The peer ends the session.", reply=reply)
    if reply.intermediate():
        detail = "The peer goes on asking after the login was complete."
        # Without the reply: a challenge may hold what we sent, in a form that nobody struck out.
        raise PeerGarbled("unexpected_code", phase=Phase.AUTH, detail=detail)
    code = "login_deferred" if reply.transient() else "login_refused"
    raise LoginRefused(code, phase=Phase.AUTH, detail=f"The peer refused AUTH {mechanism}.", reply=reply)


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
