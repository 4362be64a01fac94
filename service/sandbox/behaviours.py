"""What the recipient's local part asks for, as data.

`deferred@contoso.com`, `deferred+ana@fabrikam.com` and `deferred-2026-11-24@contoso.com` all ask
for `deferred`; the longest name that fits wins. A tag or a suffix makes an address unique, so that
two tests do not count each other's tries.

`tries` is how often it happens to the same message before it goes well, after which the count
starts anew. Up to DATA the same message means the same pair of reverse-path and recipient; after
the dot, the same Message-ID. Where a transaction has several such recipients, RCPT behaviours hold
for each recipient alone, the others for the whole message: the first one in the envelope decides.
"""

import textwrap
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from enum import StrEnum

from service.sandbox import replies
from service.sandbox.replies import Reply


class When(StrEnum):
    """The moment at which something happens."""

    RCPT = "at RCPT"
    DATA = "at DATA"
    BODY = "in the middle of the content"
    DOT = "after the final dot"
    LATER = "later, in a report to the sender"


class Act(StrEnum):
    """What is done then."""

    REPLY = "reply"  # say `reply`
    HANG_UP = "hang up"  # say `reply` if there is one, and close
    RESET = "reset"  # a TCP reset
    SILENCE = "silence"  # say nothing until the client leaves
    WAIT = "wait"  # Switches.slow_seconds, then go on
    BABBLE = "babble"  # send `babble` as it is
    FAREWELL = "farewell"  # go on as usual, then say 421 and close
    RETURN = "return"  # take the message, then report that it came back with `reply`


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """One local part and what it does."""

    name: str
    meaning: str  # for people; the reply, where there is one, is shown beside it
    when: When
    act: Act = Act.REPLY
    reply: Reply | None = None
    babble: bytes = b""
    tries: int | None = None  # None: every time
    takes: bool = False  # the message is taken, whatever the client is told

    @property
    def refuses(self) -> bool:
        """Whether the message is not taken at this moment."""
        return not self.takes and self.act not in {Act.WAIT, Act.FAREWELL, Act.RETURN}


BEHAVIOURS = (
    # One recipient
    Behaviour(name="bounced", meaning="there is no such recipient", when=When.RCPT,
              reply=replies.RECIPIENT_NOT_FOUND),
    Behaviour(name="unknown", meaning="there is no such recipient, as the tenant's edge says it", when=When.RCPT,
              reply=replies.ACCESS_DENIED),
    Behaviour(name="invalid", meaning="the address is refused as malformed", when=When.RCPT,
              reply=replies.BAD_RECIPIENT),
    Behaviour(name="deferred", meaning="put off twice, then taken", when=When.RCPT, reply=replies.TRY_LATER, tries=2),
    Behaviour(name="always-deferred", meaning="put off for ever", when=When.RCPT, reply=replies.TRY_LATER),
    Behaviour(name="server-busy", meaning="our address is throttled twice, then taken", when=When.RCPT,
              reply=replies.SERVER_BUSY, tries=2),
    Behaviour(name="blocked-sender", meaning="the mailbox is blocked for spam", when=When.RCPT,
              reply=replies.BAD_OUTBOUND_SENDER),
    Behaviour(name="tenant-blocked", meaning="the whole tenant is blocked", when=When.RCPT,
              reply=replies.TENANT_BLOCKED),
    Behaviour(name="relay-denied", meaning="nothing allows this client to relay", when=When.RCPT,
              reply=replies.RELAY_DENIED),
    Behaviour(name="direct-send-rejected", meaning="the tenant refuses Direct Send", when=When.RCPT,
              reply=replies.DIRECT_SEND_REJECTED),
    Behaviour(name="banned-ip", meaning="our address is on Microsoft's block list", when=When.RCPT,
              reply=replies.BANNED_IP),
    Behaviour(name="over-volume", meaning="our address sends too much for its reputation, twice", when=When.RCPT,
              reply=replies.OVER_VOLUME, tries=2),
    Behaviour(name="too-many-recipients", meaning="one recipient too many, twice", when=When.RCPT,
              reply=replies.TOO_MANY_RECIPIENTS, tries=2),
    Behaviour(name="bad-connector", meaning="our connector is taken for compromised", when=When.RCPT,
              reply=replies.BAD_CONNECTOR),
    Behaviour(name="unregistered-domain", meaning="too much mail from domains that are not the tenant's",
              when=When.RCPT, reply=replies.UNREGISTERED_DOMAIN),
    Behaviour(name="no-subscription", meaning="the tenant has no mail-enabled subscription: a 5yz with 4.4.4",
              when=When.RCPT, reply=replies.NO_SUBSCRIPTION),
    Behaviour(name="low-reputation", meaning="traffic from our address is not accepted", when=When.RCPT,
              reply=replies.LOW_REPUTATION),
    Behaviour(name="slow-rcpt", meaning="answered late", when=When.RCPT, act=Act.WAIT),
    Behaviour(name="goodbye-at-rcpt", meaning="the server goes down, twice", when=When.RCPT, act=Act.HANG_UP,
              reply=replies.NOT_AVAILABLE, tries=2),
    Behaviour(name="drop-at-rcpt", meaning="the connection is lost, twice", when=When.RCPT, act=Act.HANG_UP, tries=2),
    # The message, before its dot
    Behaviour(name="refused-data", meaning="no resources, twice", when=When.DATA, reply=replies.NO_RESOURCES,
              tries=2),
    Behaviour(name="drop-in-data", meaning="the connection is lost, twice", when=When.BODY, act=Act.HANG_UP, tries=2),
    Behaviour(name="goodbye-in-data", meaning="the server goes down, twice", when=When.BODY, act=Act.HANG_UP,
              reply=replies.NOT_AVAILABLE, tries=2),
    # The message, refused after its dot
    Behaviour(name="throttled", meaning="too many connections, twice", when=When.DOT, reply=replies.CONCURRENT,
              tries=2),
    Behaviour(name="proxy-error", meaning="the back end cannot be reached, twice", when=When.DOT,
              reply=replies.PROXY_FAILED, tries=2),
    Behaviour(name="goodbye-after-dot", meaning="the server goes down, twice", when=When.DOT, act=Act.HANG_UP,
              reply=replies.NOT_AVAILABLE, tries=2),
    Behaviour(name="send-as-denied", meaning="Send As is missing", when=When.DOT, reply=replies.SEND_AS_DENIED),
    Behaviour(name="rejected", meaning="a mail-flow rule refuses it", when=When.DOT, reply=replies.POLICY_REJECTED),
    Behaviour(name="blocked-recipient", meaning="the tenant's block list has the recipient; the whole message fails",
              when=When.DOT, reply=replies.RECIPIENT_BLOCKED),
    Behaviour(name="too-large", meaning="it is too large", when=When.DOT, reply=replies.TOO_LARGE),
    Behaviour(name="mailbox-full", meaning="the sender's mailbox is full", when=When.DOT, reply=replies.MAILBOX_FULL),
    Behaviour(name="quota-exceeded", meaning="10,000 recipients a day are used up", when=When.DOT,
              reply=replies.QUOTA_EXCEEDED),
    Behaviour(name="daily-limit", meaning="the same, in other words", when=When.DOT, reply=replies.DAILY_LIMIT),
    Behaviour(name="external-limit", meaning="the tenant's external recipients of the day are used up",
              when=When.DOT, reply=replies.EXTERNAL_LIMIT),
    Behaviour(name="external-limit-trial", meaning="the same for a trial tenant", when=When.DOT,
              reply=replies.EXTERNAL_LIMIT_TRIAL),
    Behaviour(name="onmicrosoft-limit", meaning="100 external recipients a day from onmicrosoft.com are used up",
              when=When.DOT, reply=replies.ONMICROSOFT_LIMIT),
    Behaviour(name="excessive-rate", meaning="Azure Communication Services' rate, twice", when=When.DOT,
              reply=replies.EXCESSIVE_RATE, tries=2),
    Behaviour(name="dmarc", meaning="the sender's domain fails DMARC", when=When.DOT, reply=replies.DMARC_FAILED),
    Behaviour(name="spf", meaning="the sender's domain fails SPF", when=When.DOT, reply=replies.SPF_FAILED),
    Behaviour(name="loop", meaning="too many hops", when=When.DOT, reply=replies.MAIL_LOOP),
    Behaviour(name="no-licence", meaning="the mailbox has no licence, often enough to be closed", when=When.DOT,
              reply=replies.INVALID_LICENSE),
    Behaviour(name="sender-throttled", meaning="earlier errors closed the mailbox for good mail too", when=When.DOT,
              reply=replies.SENDER_THROTTLED["invalid recipients"]),
    Behaviour(name="spam", meaning="taken for spam", when=When.DOT, reply=replies.OUTBOUND_SPAM),
    # The message, with its fate unknown or its answer odd
    Behaviour(name="drop-after-dot", meaning="taken, then the connection is lost, once", when=When.DOT,
              act=Act.HANG_UP, tries=1, takes=True),
    Behaviour(name="reset-after-dot", meaning="taken, then the connection is reset, once", when=When.DOT,
              act=Act.RESET, tries=1, takes=True),
    Behaviour(name="silent-after-dot", meaning="taken, but never answered, once", when=When.DOT, act=Act.SILENCE,
              tries=1, takes=True),
    Behaviour(name="lost-after-dot", meaning="not taken, and the connection is lost, once", when=When.DOT,
              act=Act.HANG_UP, tries=1),
    Behaviour(name="garbled-reply", meaning="taken, then answered with `2_0 OK`, once", when=When.DOT,
              act=Act.BABBLE, babble=b"2_0 OK\r\n", tries=1, takes=True),
    Behaviour(name="mixed-reply", meaning="taken, then answered yes and no in one reply, once", when=When.DOT,
              act=Act.BABBLE, babble=b"550-5.7.1 Not taken\r\n250 2.0.0 OK\r\n", tries=1, takes=True),
    Behaviour(name="slow-reply", meaning="taken, answered late", when=When.DOT, act=Act.WAIT),
    Behaviour(name="goodbye", meaning="taken and answered; then the server says 421 and closes", when=When.DOT,
              act=Act.FAREWELL),
    # The message, taken and sent back
    Behaviour(name="returned", meaning="there is no such recipient", when=When.LATER, act=Act.RETURN,
              reply=replies.RECIPIENT_NOT_FOUND),
    Behaviour(name="returned-full", meaning="the recipient's mailbox is full", when=When.LATER, act=Act.RETURN,
              reply=replies.RETURNED_FULL),
    Behaviour(name="returned-expired", meaning="a day went by without success", when=When.LATER, act=Act.RETURN,
              reply=replies.RETURNED_EXPIRED),
    Behaviour(name="returned-restricted", meaning="the group takes mail of authenticated senders only",
              when=When.LATER, act=Act.RETURN, reply=replies.RETURNED_RESTRICTED),
    Behaviour(name="returned-busy", meaning="the recipient gets too much mail", when=When.LATER, act=Act.RETURN,
              reply=replies.RETURNED_BUSY),
    Behaviour(name="returned-dane", meaning="the other side's DANE record is wrong", when=When.LATER,
              act=Act.RETURN, reply=replies.RETURNED_DANE),
    Behaviour(name="returned-refused", meaning="the other side refuses it", when=When.LATER, act=Act.RETURN,
              reply=replies.RETURNED_REFUSED),
)  # fmt: skip

_BY_NAME = {behaviour.name: behaviour for behaviour in BEHAVIOURS}
_LONGEST_FIRST = sorted(_BY_NAME, key=len, reverse=True)


def behaviour_of(address: str) -> Behaviour | None:
    """Return what the address asks for, or None where it is an ordinary one."""
    local = address.rpartition("@")[0].strip('"').lower()
    for name in _LONGEST_FIRST:
        if local == name or local.startswith((f"{name}-", f"{name}+")):
            return _BY_NAME[name]
    return None


class Tries:
    """Counts how often something was tried, of the newest ten thousand things."""

    def __init__(self, *, keep: int = 10_000) -> None:
        """Start with nothing tried."""
        self._counts: OrderedDict[Hashable, int] = OrderedDict()
        self._keep = keep

    def happens(self, behaviour: Behaviour, thing: Hashable) -> bool:
        """Say whether `behaviour` happens to this thing now, and count the try."""
        if behaviour.tries is None:
            return True
        key = (behaviour.name, thing)
        count = self._counts.pop(key, 0)
        if count >= behaviour.tries:
            return False
        self._counts[key] = count + 1
        if len(self._counts) > self._keep:
            self._counts.popitem(last=False)
        return True

    def clear(self) -> None:
        """Forget every try."""
        self._counts.clear()


def _help() -> str:
    lines = [
        "Postroom's sandbox: a simulated Microsoft 365.",
        "",
        "The recipient's local part chooses what happens; the domain does not matter. A tag or a suffix",
        "makes an address unique: deferred+ana@contoso.com, deferred-42@contoso.com. Every other address",
        "takes mail; at an accepted domain, all but nobody…@ and unknown…@ exist. To see a message that goes",
        "well in part, write to one of each.",
    ]
    for when in When:
        lines += ["", f"{when.value[0].upper()}{when.value[1:]}:"]
        for behaviour in BEHAVIOURS:
            if behaviour.when is when:
                lines += _help_lines(behaviour)
    lines += [
        "",
        "Over HTTP:",
        "  GET    /messages?to=&message_id=&limit=&after=   what was taken, newest first",
        "  GET    /messages/{id} · /messages/{id}/content   one message · its octets as they came",
        "  DELETE /messages                                 forget them",
        "  GET    /reports?to= · /reports/{id}/content      what came back, as mail to the sender",
        "  GET    /doors                                    host and port of each service, and its credentials",
        "  GET    /transactions · /logins · /token-requests what was asked and answered, newest first",
        "  GET    /switches · PUT /switches                 the tenant's settings and the service's moods",
        "  DELETE /limits                                   forget what was counted",
        "  POST   /tokens/revoke                            refuse every token issued so far",
        "  POST   /tokens/roll                              sign tokens with a new key",
        "  GET    /ca.pem · /help                           the certificate authority · this page",
        "",
        "Any reply can be staged: PUT /switches with",
        '  {"replies": [{"at": "rcpt", "text": "550 5.7.708 Access denied", "times": 2, "door": "mx"}]}',
        "",
    ]
    return "\n".join(lines)


def _help_lines(behaviour: Behaviour) -> list[str]:
    reply = behaviour.reply.line if behaviour.reply else ""
    shown = textwrap.shorten(reply, width=72, placeholder=" …")
    return [f"  {behaviour.name + '@':<20} {behaviour.meaning}", *([f"{'':<23}{shown}"] if shown else [])]


#: What `GET /help` and `postroom sandbox` show.
HELP = _help()
