"""Windows that are used up, and calls to slow down: of the mailbox, the tenant, our address.

Many are said with a code that calls itself permanent.
"""

from service.routes.diagnoses.entry import (
    ACS,
    AZURE,
    BUSY,
    HIGH_VOLUME,
    HOUR,
    IMPROVEMENTS,
    LATE,
    MINUTE,
    MX,
    NDR,
    SEEN,
    SMARTHOST,
    TERRL,
    WAITS_BY_ITSELF,
    Class,
    Diagnosis,
    Scope,
    Waits,
    also,
)

_NO_MAILBOX = HIGH_VOLUME | AZURE | MX | SMARTHOST

THROTTLES: tuple[Diagnosis, ...] = (
    Diagnosis(
        id="exo.concurrent_connections",
        title="{host} finds our connections too many",
        explanation="The other side takes fewer connections at once than the route {route} opens, or something else uses some "
        "of them. It publishes no number.",
        who="nobody",
        remedy=(WAITS_BY_ITSELF, "If it comes again: lower `limits.connections` of the route {route}."),
        kind=Class.T1,
        source=IMPROVEMENTS,
        doubt="whether this reply comes anywhere but at client submission",
        words=r"concurrent connections? limit exceeded|sender thread limit exceeded",
        kinds=_NO_MAILBOX,
        touches=Scope.LANE,
        waits=Waits(first=20.0, cap=15 * MINUTE),
    ),
    Diagnosis(
        id="exo.concurrent_connections",
        title="Too many connections at once for {mailbox}",
        explanation="Exchange Online allows three SMTP connections for a mailbox; something else uses some of them.",
        who="nobody",
        remedy=(
            WAITS_BY_ITSELF,
            "Is another program sending with {mailbox}? Lower `limits.connections` of {route}.",
        ),
        kind=Class.T1,
        source=IMPROVEMENTS,
        words=r"concurrent connections? limit exceeded|sender thread limit exceeded",
        touches=Scope.LANE,
        waits=Waits(first=20.0, cap=15 * MINUTE),
    ),
    *also(
        Diagnosis(
            id="exo.recipient_quota",
            title="{mailbox} has used its recipients of the last 24 hours",
            explanation="A mailbox may address 10,000 recipients in 24 hours. The code says permanent, but it is a throttle.",
            who="nobody",
            remedy=(
                WAITS_BY_ITSELF,
                "Spread the load over more mailboxes, or use High Volume Email for internal recipients.",
            ),
            kind=Class.T3,
            source=IMPROVEMENTS,
            words=r"SubmissionQuotaExceeded|daily limit for message recipients|submission quota exceeded|submission quota was exceeded",
        ),
        enhanced=r"5\.1\.90",
    ),
    *also(
        Diagnosis(
            id="exo.onmicrosoft_recipient_rate",
            title="The tenant's onmicrosoft.com senders have used their external recipients of the last 24 hours",
            explanation="Senders in onmicrosoft.com have 100 external recipients in 24 hours for the whole organisation. The "
            "code says permanent, but it is a throttle.",
            who="exchange_admin",
            remedy=("Send from an address of a domain of your own instead of {sender}.", WAITS_BY_ITSELF),
            kind=Class.T3,
            source=TERRL,
            words=r"from your tenant.s onmicrosoft\.com domains",
            touches=Scope.SENDER,
        ),
        enhanced=r"5\.7\.236",
    ),
    *also(
        Diagnosis(
            id="exo.tenant_recipient_rate",
            title="The tenant has used its external recipients of the last 24 hours",
            explanation="The tenant's external recipient rate limit is used up. The code says permanent, but it is a throttle; "
            "mail within the organisation still goes.",
            who="exchange_admin",
            remedy=(
                (
                    "Get-LimitsEnforcementStatus shows the counter; Exchange admin center, Reports, Mail flow, Tenant Outbound "
                    "External Recipients, its history."
                ),
                (
                    "Set organization.licences (or organization.external_recipients_per_day) so that Postroom keeps within it; "
                    "Azure Communication Services is not counted."
                ),
                WAITS_BY_ITSELF,
            ),
            kind=Class.T3,
            source=TERRL,
            enhanced=r"5\.7\.23[23]",
            doubt=f"{LATE}; most of it is seen in reports",
            touches=Scope.EXTERNAL,
        ),
        words=r"tenant external recipient rate limit|daily limit for sending email to external recipients",
    ),
    *also(
        Diagnosis(
            id="acs.message_rate",
            title="Azure Communication Services asks us to slow down",
            explanation="The subscription's messages a minute or an hour are used up; after a large overrun a block of about an "
            "hour was seen.",
            who="nobody",
            remedy=(
                WAITS_BY_ITSELF,
                "For more: a custom domain, and a support request for higher limits; then set the route's `limits`.",
            ),
            kind=Class.T2,
            source=ACS,
            words=r"excessive message rate from sender",
            waits=Waits(first=MINUTE, factor=4.0, cap=HOUR),
        ),
        enhanced=r"4\.5\.127",
    ),
    Diagnosis(
        id="exo.address_volume",
        title="Our address sends more than its reputation allows",
        explanation='It says "too many recipients", but it is about the address {address}: Microsoft blocks it for an hour.',
        who="exchange_admin",
        remedy=(
            WAITS_BY_ITSELF,
            (
                "For good: a connector that knows us gets much more through. "
                "New-InboundConnector -Name Postroom -ConnectorType OnPremises -SenderDomains * -SenderIPAddresses {address}"
            ),
        ),
        kind=Class.T2,
        source=BUSY,
        words=r"AS780090",
        waits=Waits(first=HOUR, factor=1.0, cap=HOUR),
    ),
    Diagnosis(
        id="exo.address_rate_limited",
        title="Our address is slowed down for its reputation",
        explanation="The address {address} is rate limited, mostly towards consumer mailboxes.",
        who="exchange_admin",
        remedy=(
            WAITS_BY_ITSELF,
            "Look at sendersupport.olc.protection.outlook.com/snds for {address}, and send less at first.",
        ),
        kind=Class.T2,
        source="Microsoft: Outlook.com postmaster, 4.7.650 and 4.7.651",
        words=r"temporarily rate limited due to IP reputation",
    ),
    *also(
        Diagnosis(
            id="exo.server_busy",
            title="{host} asks us to slow down",
            explanation="Microsoft throttles an address that it does not know, or that has changed. It clears in hours to days; "
            "mail that a connector knows is not held up so.",
            who="exchange_admin",
            remedy=(
                WAITS_BY_ITSELF,
                (
                    "For good: New-InboundConnector -Name Postroom -ConnectorType OnPremises -SenderDomains * "
                    "-SenderIPAddresses {address}"
                ),
            ),
            kind=Class.T2,
            source=BUSY,
            enhanced=r"4\.7\.(5\d\d|6\d\d|8[5-9]\d)",
        ),
        words=r"server busy\. please try again later|access denied, please try again later",
    ),
    Diagnosis(
        id="exo.ipv6_over_limit",
        title="Our IPv6 range sends too much",
        explanation="The code says permanent, but it is a throttle on the IPv6 range.",
        who="operator",
        remedy=(
            "Set the route to an IPv4 egress: Postroom dials the MX over IPv4 already; look at NAT and `connect_to`.",
        ),
        kind=Class.T2,
        source=NDR,
        enhanced=r"5\.7\.508",
    ),
    *also(
        Diagnosis(
            id="exo.ipv6_not_taken",
            title="{host} does not take our mail over IPv6",
            explanation="Over IPv6 Microsoft wants a PTR record and SPF or DKIM, or takes nothing at all.",
            who="operator",
            remedy=(
                "Leave the network by IPv4: look at what stands at `connect_to`, or at the network's translation.",
            ),
            kind=Class.CFG,
            source=NDR,
            words=r"over IPv6|IPv6",
            enhanced=r"5\.7\.(510|25|1)|4\.7\.2[56]|4\.7\.1",
        ),
        enhanced=r"5\.7\.510",
    ),
    Diagnosis(
        id="other.no_reverse_dns",
        title="Our address has no proper name in the DNS",
        explanation="The server wants the address {address} to have a reverse DNS record whose name leads back to it.",
        who="network",
        remedy=(
            "Let the provider of {address} set its PTR record to this machine's name, and publish that name.",
        ),
        kind=Class.A,
        source=SEEN,
        enhanced=r"5\.7\.25",
    ),
)
