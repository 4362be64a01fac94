"""What the door needs to tell applications: where webhooks may lead, the seal of their secrets, the streams."""

from service.ledger import Ledger
from service.ledger.sealing import Seal
from service.routes.targets import Targets
from service.submission.feed.streams import Streams


class Telling:
    """One for each process."""

    def __init__(self, ledger: Ledger, *, targets: Targets, seal: Seal) -> None:
        self.targets = targets
        self.seal = seal
        self.streams = Streams(ledger)
