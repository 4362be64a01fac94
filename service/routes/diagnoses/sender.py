"""What speaks of the sender: blocks after repeated errors, and who may send as whom.

These replies come at MAIL, at RCPT or only after the content, so words decide and not phases.
"""

from service.routes.diagnoses.entry import (
    ACS_LOGIN,
    AZURE,
    CONTINUOUS,
    FIX,
    HIGH_VOLUME,
    HOUR,
    HVE,
    Class,
    Diagnosis,
    Scope,
    Waits,
    also,
)

_DAY = 24 * HOUR
_BLOCKED_FOR_A_DAY = Waits(first=_DAY, factor=1.0, cap=4 * HOUR)


def _throttled_sender(what: str, words: str, remedy: tuple[str, ...]) -> Diagnosis:
    """One of the blocks that follow repeated errors: told apart by words, because the numbers differ in the field."""
    return Diagnosis(
        id=f"exo.sender_throttled_{what}",
        title="Exchange Online has blocked {mailbox} for repeated errors",
        explanation="The same error was repeated too often, and now good mail of the mailbox is refused too. Microsoft "
        "decides how long (24 hours were reported); support cannot lift it.",
        who="exchange_admin",
        remedy=(
            *remedy,
            "The block ends by itself; Postroom tries after 24 hours, and then every four hours.",
        ),
        kind=Class.T3,
        source=CONTINUOUS,
        words=words,
        waits=_BLOCKED_FOR_A_DAY,
    )


SENDERS: tuple[Diagnosis, ...] = (
    _throttled_sender(
        "mailbox_full",
        r"sender throttled due to continuous mailbox full",
        (
            "Set-Mailbox {mailbox} -MessageCopyForSMTPClientSubmissionEnabled $false",
            "Empty the mailbox {mailbox}.",
        ),
    ),
    _throttled_sender(
        "send_as_denied",
        r"sender throttled due to continuous send ?as denied",
        ("Add-RecipientPermission {sender} -AccessRights SendAs -Trustee {mailbox}",),
    ),
    _throttled_sender(
        "invalid_license",
        r"sender throttled due to continuous invalid licen[sc]e",
        ("Give {mailbox} a licence with Exchange Online: Microsoft 365 admin center, Users, Active users.",),
    ),
    _throttled_sender(
        "too_many_recipients",
        r"sender throttled due to continuous too many recipients",
        (
            "Set-Mailbox {mailbox} -RecipientLimits 1000",
            "Or lower `limits.recipients_per_message` of the route {route}.",
        ),
    ),
    _throttled_sender(
        "invalid_recipients",
        r"sender throttled due to continuous invalid recipients?",
        ("Take the addresses that bounce out of the applications' lists.",),
    ),
    *also(
        _throttled_sender(
            "other",
            r"sender throttled due to continuous",
            ("Mend the cause that the text of the reply names.",),
        ),
        enhanced=r"5\.2\.25[1345]",
    ),
    *also(
        Diagnosis(
            id="acs.sender_not_linked",
            title="Azure Communication Services does not take {sender} as a sender",
            explanation="The sender's domain is not verified, not connected to the Communication Services resource, or has no "
            "such MailFrom address.",
            who="operator",
            remedy=(
                "Azure portal, the Communication Services resource, Email, Domains: connect the domain {domain}.",
                "Azure portal, the Email Communication Service, {domain}, MailFrom addresses: add {sender}.",
            ),
            kind=Class.A,
            source=ACS_LOGIN,
            doubt="the wording of the reply, which is known from a log of somebody else",
            words=r"sender domain has not been linked",
            touches=Scope.SENDER,
        ),
        enhanced=r"5\.7\.60|5\.2\.252",
        kinds=AZURE,
    ),
    *also(
        Diagnosis(
            id="hve.sender_not_account",
            title="High Volume Email takes the account itself as sender only",
            explanation="The reverse-path or the From header is not the address of the account that logged in.",
            who="application",
            remedy=("Send from {mailbox}; answers can go elsewhere by `reply_to`.",),
            kind=Class.CFG,
            source=HVE,
            enhanced=r"5\.7\.62|5\.6\.241",
            touches=Scope.SENDER,
        ),
        enhanced=r"5\.7\.60|5\.2\.252",
        kinds=HIGH_VOLUME,
    ),
    *also(
        Diagnosis(
            id="exo.send_as_denied",
            title="{mailbox} may not send as {sender}",
            explanation="The mailbox that logged in has no Send As permission for the sender's address. Exchange Online says "
            "so only after the content. Repeating it gets the mailbox throttled for good mail too.",
            who="exchange_admin",
            remedy=(
                "Add-RecipientPermission {sender} -AccessRights SendAs -Trustee {mailbox}",
                "Or send from {mailbox}; new permissions take up to an hour.",
            ),
            kind=Class.A,
            source=FIX,
            words=r"SendAsDenied|not allowed to send as|permissions? to send as this sender",
            touches=Scope.SENDER,
        ),
        enhanced=r"5\.7\.60|5\.2\.252",
    ),
    Diagnosis(
        id="hve.no_billing",
        title="High Volume Email has no valid billing policy",
        explanation="Without one an account cannot send.",
        who="exchange_admin",
        remedy=(
            "Get-HVEAccountBillingPolicy -Identity {mailbox}",
            "Set-HVEAccountBillingPolicy -Identity {mailbox} -BillingPolicyId <billing policy id>",
        ),
        kind=Class.A,
        source=HVE,
        words=r"billing ?policy|NoProperBillingPolicy|SubscriptionIsNotActive",
        doubt="the wording of the reply",
    ),
)
