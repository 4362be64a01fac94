"""The sandbox: a simulated Microsoft 365, so that sending can be rehearsed without a tenant.

It is a real server on real sockets. An application, a newcomer or a test logs in at it as at
smtp.office365.com, and the recipient's local part chooses what happens: mail to
`deferred@contoso.com` is put off twice, mail to `drop-after-dot@contoso.com` is taken and never
answered. What was taken can be read back over HTTP.

The way of one message through this room:

    server.py       opens the listeners and hands each new connection to a dialogue
    wire.py         one client's connection: octets in, octets out, STARTTLS
    smtp.py         the dialogue: grammar and order of the commands (RFC 5321)
    grammar.py      what is a command, a path, an address
    submission.py   the rules of smtp.office365.com: login, Send As, limits; a `door.Door`
    behaviours.py   what a recipient's local part asks for, as data, and HELP
    replies.py      the words, as Microsoft writes them
    content.py      the octets of a message: dot-stuffing, the few header fields that count
    limits.py       the rolling windows of a mailbox
    mailroom.py     what was taken, the newest messages first in memory, then on disk

Beside it:

    config.py       the tenant: domains, mailboxes, applications, and the switches
    tenant.py       what the parts share while it runs
    certificates.py the sandbox's own certificate authority
    tokens.py       Entra ID's token endpoint
    http.py         reading back, and the switches

The tenant's MX, High Volume Email and Azure Communication Services are further doors: a class
beside `Submission`, and one more listener in server.py.

This room imports no other room on purpose. A double that parsed and composed with the product's
own code would share its mistakes and never show them.
"""

from service.sandbox.behaviours import HELP
from service.sandbox.config import (
    BadSandbox,
    SandboxApplication,
    SandboxConfig,
    SandboxMailbox,
    Switches,
    TokenFault,
    contoso,
)
from service.sandbox.mailroom import Taken
from service.sandbox.server import Sandbox, SandboxBusy, run_sandbox

__all__ = [
    "HELP",
    "BadSandbox",
    "Sandbox",
    "SandboxApplication",
    "SandboxBusy",
    "SandboxConfig",
    "SandboxMailbox",
    "Switches",
    "Taken",
    "TokenFault",
    "contoso",
    "run_sandbox",
]
