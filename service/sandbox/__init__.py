"""The sandbox: a simulated Microsoft 365, so that sending can be rehearsed without a tenant.

It is a real server on real sockets. An application, a newcomer or a test logs in at it as at
smtp.office365.com, and the recipient's local part chooses what happens: mail to
`deferred@contoso.com` is put off twice, mail to `drop-after-dot@contoso.com` is taken and never
answered. What was taken can be read back over HTTP.

The way of one message through this room:

    server.py       opens the listeners and hands each new connection to a dialogue
    wire.py         one client's connection: octets in, octets out, STARTTLS
    tls.py          TLS over these octets, with a look at the client's certificate
    smtp.py         the dialogue: grammar and order of the commands (RFC 5321)
    grammar.py      what is a command, a path, an address
    door.py         what a service decides, with the rules that all of them share
    submission.py   smtp.office365.com: login, Send As, limits
    mx.py           the tenant's MX: Direct Send, and relay through connectors
    trust.py        who a client is by its certificate or address, and which connector that makes it
    high_volume.py  High Volume Email
    communication_services.py   Azure Communication Services
    behaviours.py   what a recipient's local part asks for, as data, and HELP
    replies.py      the words, as Microsoft writes them
    content.py      the octets of a message: dot-stuffing, the few header fields that count
    limits.py       the rolling windows
    external.py     the tenant's external recipients of a day
    mailroom.py     what was taken, the newest messages first in memory, then on disk
    reports.py      what came back after it had been taken: non-delivery reports

Beside it:

    config.py       the tenant: domains, mailboxes, connectors, applications, and the switches
    tenant.py       what the parts share while it runs
    certificates.py the sandbox's own certificate authority
    tokens.py       Entra ID's token endpoint
    authorize.py    its page for people, and their codes
    signing.py      the keys that it signs with
    http.py         reading back, and the switches

This room imports no other room on purpose. A double that parsed and composed with the product's
own code would share its mistakes and never show them.
"""

from service.sandbox.behaviours import HELP
from service.sandbox.config import (
    BadSandbox,
    SandboxAcsResource,
    SandboxApi,
    SandboxApplication,
    SandboxConfig,
    SandboxConnector,
    SandboxHveAccount,
    SandboxMailbox,
    SandboxPerson,
    StagedReply,
    Switches,
    TokenFault,
    contoso,
)
from service.sandbox.mailroom import Taken
from service.sandbox.reports import Report
from service.sandbox.server import Sandbox, SandboxBusy, run_sandbox

__all__ = [
    "HELP",
    "BadSandbox",
    "Report",
    "Sandbox",
    "SandboxAcsResource",
    "SandboxApi",
    "SandboxApplication",
    "SandboxBusy",
    "SandboxConfig",
    "SandboxConnector",
    "SandboxHveAccount",
    "SandboxMailbox",
    "SandboxPerson",
    "StagedReply",
    "Switches",
    "Taken",
    "TokenFault",
    "contoso",
    "run_sandbox",
]
