"""What the parts of a running sandbox share: the tenant's state.

Everything runs on one event loop, and no method here waits, so each of them is one step.
"""

import time
from collections import Counter
from typing import Any

from service.sandbox.behaviours import Tries
from service.sandbox.config import SandboxConfig, SandboxMailbox, Switches
from service.sandbox.limits import Meter
from service.sandbox.mailroom import Journal, Mailroom


class Tenant:
    """One simulated tenant while it runs."""

    def __init__(self, config: SandboxConfig) -> None:
        """Begin with the configured switches, nothing taken and nothing counted."""
        self.config = config
        self.switches: Switches = config.switches
        self.mailroom = Mailroom(
            folder=config.state / "spool",
            keep_messages=config.keep_messages,
            keep_octets=config.keep_octets,
            memory_octets=config.memory_octets,
        )
        self.transactions = Journal(keep=config.keep_messages)
        self.logins = Journal(keep=1000)
        self.tries = Tries()
        self.token_faults_given: Counter[str] = Counter()
        self.sessions = 0  # open connections on all doors
        self._mailboxes = {mailbox.address.lower(): mailbox for mailbox in config.mailboxes}
        self._meters: dict[str, Meter] = {}

    def mailbox(self, address: str) -> SandboxMailbox | None:
        """Return a mailbox by its address, whose case does not matter at Microsoft."""
        return self._mailboxes.get(address.lower())

    def meter(self, mailbox: SandboxMailbox) -> Meter:
        """Return what is counted for a mailbox."""
        return self._meters.setdefault(mailbox.address.lower(), Meter())

    def smtp_auth(self, mailbox: SandboxMailbox) -> bool | None:
        """Return the mailbox's own setting, None where the organisation's holds."""
        switched = {address.lower(): on for address, on in self.switches.smtp_auth_mailboxes.items()}
        return switched.get(mailbox.address.lower(), mailbox.smtp_auth)

    def switch(self, changes: dict[str, Any]) -> None:
        """Change switches; BadSandbox where one of them cannot be so."""
        self.switches = self.switches.changed(changes)
        if "token_faults" in changes:
            self.token_faults_given.clear()

    def forget_limits(self) -> None:
        """Start every count anew; open sessions stay where they are."""
        for name, meter in self._meters.items():
            fresh = Meter()
            fresh.sessions = meter.sessions
            self._meters[name] = fresh
        self.tries.clear()

    @staticmethod
    def now() -> float:
        """Seconds of the clock by which limits are counted."""
        return time.monotonic()
