"""What the parts of a running sandbox share: the tenant's state.

Everything runs on one event loop, and no method here waits, so each of them is one step.
"""

import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

from service.sandbox.behaviours import Tries, behaviour_of
from service.sandbox.config import (
    DoorName,
    Moment,
    SandboxConfig,
    SandboxConnector,
    SandboxHveAccount,
    SandboxMailbox,
    Switches,
)
from service.sandbox.limits import DAY, AcsMeter, Meter, Stranger, Window
from service.sandbox.mailroom import Journal, Mailroom
from service.sandbox.replies import Reply
from service.sandbox.reports import Reports


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
        self.reports = Reports()
        self.transactions = Journal(keep=config.keep_messages)
        self.logins = Journal(keep=1000)
        self.tries = Tries()
        self.token_faults_given: Counter[str] = Counter()
        self.sessions = 0  # open connections on all doors
        self.external = Window(span=DAY)  # pairs of message and external recipient
        self.onmicrosoft = Window(span=DAY)
        self._domains = {domain.lower() for domain in config.accepted_domains}
        self._hve_accounts = {account.address.lower(): account for account in config.hve_accounts}
        listed = {address.lower() for address in config.recipients or ()}
        self._recipients = None if config.recipients is None else listed
        self._strangers: dict[str, Stranger] = {}
        self._staged: Counter[int] = Counter()  # how often each of `Switches.replies` was said
        self._mailboxes = {mailbox.address.lower(): mailbox for mailbox in config.mailboxes}
        self._meters: dict[str, Meter] = {}
        self.acs_meters: dict[str, AcsMeter] = {}  # by the resource's name

    def mailbox(self, address: str) -> SandboxMailbox | None:
        """Return a mailbox by its address, whose case does not matter at Microsoft."""
        return self._mailboxes.get(address.lower())

    def hve_account(self, address: str) -> SandboxHveAccount | None:
        """Return an account of High Volume Email by its address."""
        return self._hve_accounts.get(address.lower())

    @property
    def connectors(self) -> tuple[SandboxConnector, ...]:
        """The inbound connectors as they stand."""
        switched = self.switches.connectors
        return self.config.connectors if switched is None else switched

    def accepts_domain(self, domain: str) -> bool:
        """Whether a domain is one of the tenant's accepted domains."""
        return domain.lower() in self._domains

    def owns(self, address: str) -> bool:
        """Whether an address lies in an accepted domain."""
        return self.accepts_domain(address.rpartition("@")[2])

    def knows(self, address: str) -> bool:
        """Whether there is such a recipient in the tenant; addresses that ask for something exist."""
        plain = address.lower()
        if plain in self._mailboxes or plain in self._hve_accounts or behaviour_of(plain) is not None:
            return True
        local, _, domain = plain.rpartition("@")
        if self._recipients is not None:
            return f"{local.partition('+')[0]}@{domain}" in self._recipients or plain in self._recipients
        return not local.startswith(("unknown", "nobody"))

    def external_among(self, recipients: Iterable[str]) -> list[str]:
        """Return those outside the tenant."""
        return [recipient for recipient in recipients if not self.owns(recipient)]

    def stranger(self, address: str) -> Stranger:
        """Return what is counted for a client's address that no connector knows."""
        return self._strangers.setdefault(address, Stranger())

    def staged(self, at: Moment, door: DoorName) -> Reply | None:
        """Return the reply that `Switches.replies` has for this moment, and count it."""
        for number, staged in enumerate(self.switches.replies):
            if staged.at != at or staged.door not in {None, door}:
                continue
            if staged.times is None or self._staged[number] < staged.times:
                self._staged[number] += 1
                return Reply(line=staged.text, verbatim=True)
        return None

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
        if "replies" in changes:
            self._staged.clear()

    def forget_limits(self) -> None:
        """Start every count anew; open sessions stay where they are."""
        for name, meter in self._meters.items():
            fresh = Meter()
            fresh.sessions = meter.sessions
            self._meters[name] = fresh
        self.external, self.onmicrosoft = Window(span=DAY), Window(span=DAY)
        self._strangers.clear()
        self.acs_meters.clear()
        self.tries.clear()

    @staticmethod
    def now() -> float:
        """Seconds of the clock by which limits are counted."""
        return time.monotonic()
