"""What speaks of the sender, our address, or the tenant: permissions, blocks, reputations, limits.

These replies come at MAIL, at RCPT or only after the content, so words decide and not phases.
"""

from service.routes.diagnoses.entry import (
    ACS,
    ATTR35,
    BUSY,
    CONTINUOUS,
    DIRECT_SEND,
    EXCHANGE,
    FIX,
    HOUR,
    HVE,
    IMPROVEMENTS,
    LATE,
    MINUTE,
    NDR,
    REJECT_DIRECT_SEND,
    RELAY_RULES,
    SEEN,
    SMARTHOST,
    TERRL,
    WAITS_BY_ITSELF,
    Class,
    Diagnosis,
    Scope,
    Waits,
    also,
    phases,
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
    # -- windows and throttles -------------------------------------------------------------------
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
    # -- relaying, Direct Send -------------------------------------------------------------------
    *also(
        Diagnosis(
            id="exo.direct_send_rejected",
            title="The tenant rejects Direct Send",
            explanation="RejectDirectSend is on: anonymous mail from an accepted domain is taken only where a connector knows us.",
            who="exchange_admin",
            remedy=(
                "Set-OrganizationConfig -RejectDirectSend $false (takes up to 30 minutes; it lets in everybody else, too)",
                (
                    "Or make it a relay that a connector knows, with `kind: smtp_relay` in Postroom: by address, "
                    "New-InboundConnector -Name Postroom -ConnectorType OnPremises -SenderDomains * -SenderIPAddresses {address}"
                ),
                (
                    "Or by certificate: New-InboundConnector -Name Postroom -ConnectorType Partner -SenderDomains {domain} "
                    "-RequireTls $true -TlsSenderCertificateName *.{domain} -RestrictDomainsToCertificate $true"
                ),
            ),
            kind=Class.A,
            source=REJECT_DIRECT_SEND,
            words=r"Direct Send not allowed",
        ),
        enhanced=r"5\.7\.68",
    ),
    Diagnosis(
        id="exo.no_exchange_subscription",
        title="The recipient's tenant has no Exchange Online subscription",
        explanation="The tenant is there, but no subscription with mail (ATTR5). Code and status disagree, and it does not "
        "heal by itself.",
        who="exchange_admin",
        remedy=("Buy or renew a subscription with Exchange Online, or take the domain out of the tenant.",),
        kind=Class.A,
        source="Microsoft: In-region routing in Exchange Online",
        words=r"no mail-enabled subscriptions|ATTR5\b",
    ),
    *also(
        Diagnosis(
            id="exo.wrong_region",
            title="The MX is not the one of this tenant",
            explanation="Mail was sent to another region's host, or external mail matches no connector (ATTR35). The code says "
            "passing, but it does not heal.",
            who="exchange_admin",
            remedy=(
                "Set the route's `mx_of` to an accepted domain, or `host` to the MX that the Microsoft 365 admin center shows.",
                "For mail to the outside: Get-InboundConnector | fl Name,Enabled,TlsSenderCertificateName,SenderIPAddresses",
            ),
            kind=Class.A,
            source=ATTR35,
            words=r"wrong Office 365 region|ATTR35",
            codes=frozenset({451, 450}),
        ),
        enhanced=r"4\.4\.62",
    ),
    Diagnosis(
        id="exo.domain_not_served",
        title="{host} does not serve the domain of {recipient}",
        explanation="The server takes no mail for this domain.",
        who="operator",
        remedy=(
            "Check the accepted domains and the route's `host` or `mx_of`, or choose another route for this recipient.",
        ),
        kind=Class.PR,
        source=NDR,
        enhanced=r"5\.4\.1",
        words=r"relay access denied",
    ),
    *also(
        Diagnosis(
            id="exo.relay_denied_direct_send",
            title="Direct Send leads to your own recipients only; {recipient} is none",
            explanation="No connector knows us, so Microsoft takes mail for the tenant's own recipients only.",
            who="operator",
            remedy=(
                "Choose a route that leads outside: client submission or a connector; put it into `route_order`.",
            ),
            kind=Class.PR,
            source=RELAY_RULES,
            words=r"relay access denied|unable to relay|TenantAttribution",
            codes=frozenset(range(500, 600)),
            kinds=DIRECT_SEND,
        ),
        enhanced=r"5\.7\.(64|54)",
    ),
    Diagnosis(
        id="smtp.relay_refused",
        title="{host} does not relay to {recipient}",
        explanation="The organisation's mail server takes no mail from us for this recipient's domain.",
        who="operator",
        remedy=(
            "Ask the server's administrator to let this machine relay, or give the route {route} a login.",
            "Or choose another route for this recipient.",
        ),
        kind=Class.PR,
        source="RFC 5321, section 3.6.2",
        words=r"relay(ing)? (access )?(denied|not permitted|not allowed)|unable to relay",
        codes=frozenset(range(500, 600)),
        kinds=SMARTHOST,
    ),
    *also(
        Diagnosis(
            id="exo.relay_denied",
            title="No connector lets us relay",
            explanation="Microsoft found no inbound connector of type OnPremises that matches our certificate or the address "
            "{address}, or neither the certificate's domain nor the sender's is an accepted domain (the header From does not "
            "count since November 2023). A certificate without its full chain is refused in the same words.",
            who="exchange_admin",
            remedy=(
                "postroom check --route {route}",
                "Get-InboundConnector | fl Name,Enabled,ConnectorType,TlsSenderCertificateName,SenderIPAddresses",
                (
                    "By certificate: New-InboundConnector -Name Postroom -ConnectorType OnPremises -SenderDomains * "
                    "-RequireTls $true -TlsSenderCertificateName *.{domain}"
                ),
                (
                    "By address: New-InboundConnector -Name Postroom -ConnectorType OnPremises -SenderDomains * "
                    "-SenderIPAddresses {address}"
                ),
            ),
            kind=Class.A,
            source=RELAY_RULES,
            words=r"relay access denied|unable to relay|TenantAttribution",
            codes=frozenset(range(500, 600)),
        ),
        enhanced=r"5\.7\.(64|54)",
    ),
    Diagnosis(
        id="exo.attribution_trouble",
        title="{host} could not find out whose mail this is",
        explanation="Trouble with the directory at Microsoft, or with the attribution to a tenant.",
        who="nobody",
        remedy=(
            WAITS_BY_ITSELF,
            "If it lasts: look at the service's health in the Microsoft 365 admin center.",
        ),
        kind=Class.T1,
        source=SEEN,
        touches=Scope.LANE,
        words=r"ATTR\d+|unable to relay",
        codes=frozenset(range(400, 500)),
    ),
    *also(
        Diagnosis(
            id="exo.connector_blocked",
            title="Microsoft has blocked our connector",
            explanation="The inbound connector was judged to be compromised.",
            who="exchange_admin",
            remedy=(
                "Get-BlockedConnector",
                "Remove-BlockedConnector -ConnectorId <connector id> (takes up to an hour), when the cause is found.",
            ),
            kind=Class.A,
            source=NDR,
            doubt=LATE,
            words=r"bad inbound connector|AS\(2204\)",
        ),
        enhanced=r"5\.7\.711",
    ),
    *also(
        Diagnosis(
            id="exo.unregistered_domains",
            title="The tenant is blocked for sending from domains that are not its own",
            explanation="Too much mail was relayed with senders outside the accepted domains.",
            who="exchange_admin",
            remedy=(
                "Add {domain} to the accepted domains: New-AcceptedDomain -Name {domain} -DomainName {domain}",
                "Or relay by a connector with certificate; then open a case with Microsoft support.",
            ),
            kind=Class.A,
            source=NDR,
            doubt=LATE,
            words=r"unregistered domains",
        ),
        enhanced=r"5\.7\.750",
    ),
    Diagnosis(
        id="exo.mailbox_not_accessible",
        title="The mailbox {mailbox} cannot be used",
        explanation="The login was understood, but there is no mailbox behind it: no licence, disabled, or being moved.",
        who="exchange_admin",
        remedy=(
            "Get-Mailbox {mailbox} | fl RecipientTypeDetails,AccountDisabled,SkuAssigned",
            "Give it a licence with Exchange Online: Microsoft 365 admin center, Users, Active users.",
        ),
        kind=Class.A,
        source=SEEN,
        words=r"mailbox cannot be accessed",
        phases=phases("auth"),
    ),
    # -- blocks ------------------------------------------------------------------------------
    Diagnosis(
        id="smtp.sender_domain_unknown",
        title="{host} finds no domain of the name {domain}",
        explanation="The domain of the sender's address has no record in the DNS, so nobody could answer or be told.",
        who="application",
        remedy=("Correct the sender's address, or publish an MX or address record for {domain}.",),
        kind=Class.PM,
        source="RFC 5321, section 3.6.2",
        words=r"sender address rejected: .{0,20}domain not found|domain of sender address .{0,255} does not (exist|resolve)",
        codes=frozenset(range(500, 600)),
    ),
    *also(
        Diagnosis(
            id="exo.outbound_spam",
            title="{mailbox} is blocked for sending spam",
            explanation="Exchange Online judged the mailbox's mail to be spam.",
            who="exchange_admin",
            remedy=(
                "Defender portal, Review, Restricted entities: release {mailbox} (takes hours), when the cause is found.",
                "Change its password or the application's secret if you do not know that mail.",
            ),
            kind=Class.A,
            source=NDR,
            doubt=LATE,
            words=r"bad outbound sender|OutboundSpamException|WASCL UserAction",
        ),
        enhanced=r"5\.1\.8",
        codes=frozenset({550}),
    ),
    Diagnosis(
        id="exo.sender_banned",
        title="The account or sender {sender} is banned for spam",
        explanation="Microsoft suspects the account of sending spam, or of being compromised.",
        who="exchange_admin",
        remedy=("Check the credentials, clear the account, then open a case with Microsoft support.",),
        kind=Class.A,
        source=NDR,
        doubt=LATE,
        enhanced=r"5\.7\.50[123]",
    ),
    Diagnosis(
        id="exo.tenant_blocked",
        title="Microsoft has blocked the whole tenant",
        explanation="The tenant sent spam, or its subscription was renewed within the last day.",
        who="exchange_admin",
        remedy=("Find the source in the Defender portal, then open a case with Microsoft support.",),
        kind=Class.A,
        source=NDR,
        doubt=LATE,
        enhanced=r"5\.7\.705",
    ),
    Diagnosis(
        id="exo.address_not_trusted",
        title="Microsoft takes no mail from our address at the moment",
        explanation="The address has a low reputation; trial tenants see it most.",
        who="exchange_admin",
        remedy=("Open a case with Microsoft support; a paid subscription ends it in many cases.",),
        kind=Class.A,
        source=NDR,
        doubt=LATE,
        enhanced=r"5\.7\.708",
    ),
    Diagnosis(
        id="exo.address_banned_for_good",
        title="Our address is banned, and the delisting portal does not help",
        explanation="Microsoft has banned the address {address}.",
        who="network",
        remedy=(
            "Write to delist@microsoft.com with the whole reply and the address, or use another address.",
        ),
        kind=Class.A,
        source=NDR,
        enhanced=r"5\.7\.511",
    ),
    Diagnosis(
        id="exo.address_banned",
        title="Our address is on Microsoft's block list",
        explanation="Microsoft takes nothing from the address {address}: typical for dynamic ranges and new servers.",
        who="network",
        remedy=(
            "Ask for removal at https://sender.office.com/ for {address}.",
            "Or send by client submission, which does not depend on the address.",
        ),
        kind=Class.A,
        source=NDR,
        enhanced=r"5\.7\.6[0-4]\d",
    ),
    Diagnosis(
        id="exo.sender_domain_on_block_list",
        title="The domain of {sender} is on a block list",
        explanation="A list outside Microsoft names the sender's domain; the reply says which one.",
        who="network",
        remedy=("Ask that list to remove {domain}, and find out why it was listed.",),
        kind=Class.A,
        source=SEEN,
        words=r"mailfrom domain .{0,40}listed",
        touches=Scope.SENDER,
    ),
    Diagnosis(
        id="exo.network_on_block_list",
        title="Outlook.com blocks the network of our address",
        explanation="Microsoft's consumer service (Outlook.com, Hotmail) takes nothing from this part of the provider's network.",
        who="network",
        remedy=(
            "Ask for removal of {address} at https://olcsupport.office.com/, or let the provider of the address do so.",
            "Or send by client submission, which does not depend on the address.",
        ),
        kind=Class.A,
        source=SEEN,
        words=r"network is on our block ?list|messages from \[.{0,50}\] weren.t sent",
    ),
    Diagnosis(
        id="smtp.client_refused",
        title="{host} takes no mail from this machine",
        explanation="The server's own rules refuse the address {address}, whoever the recipient is.",
        who="operator",
        remedy=("Ask the server's administrator to allow this machine, or give the route {route} a login.",),
        kind=Class.A,
        source="RFC 5321, section 7.9",
        words=r"client host rejected",
        codes=frozenset(range(500, 600)),
    ),
    Diagnosis(
        id="smtp.sender_not_owned",
        title="The login may not send as {sender}",
        explanation="The server allows the user that logged in other senders than this one.",
        who="operator",
        remedy=(
            "Ask the server's administrator to allow the login {mailbox} the sender {sender}, or use another sender.",
        ),
        kind=Class.A,
        source="RFC 6409, section 6.1",
        words=r"sender address rejected: not (owned by user|logged in)",
        codes=frozenset(range(500, 600)),
        touches=Scope.SENDER,
    ),
    Diagnosis(
        id="exo.address_on_block_list",
        title="Our address is on a block list",
        explanation="A list outside Microsoft names our address; the reply says which one.",
        who="network",
        remedy=("Ask that list for removal, and find out why it was listed.",),
        kind=Class.A,
        source=SEEN,
        words=r"client host .{0,60} blocked using|blocked using (spamhaus|customer block ?list at)",
    ),
    *also(
        Diagnosis(
            id="exo.dmarc_rejected",
            title="The domain of {sender} fails DMARC",
            explanation="The sender's domain asks to reject what does not pass, and our mail has neither aligned SPF nor DKIM.",
            who="network",
            remedy=(
                "postroom check --route {route} (it judges the SPF record of the sender's domain)",
                "Add our public address to the SPF record of {domain}, or sign with DKIM.",
            ),
            kind=Class.A,
            source=NDR,
            words=r"does not pass DMARC",
            touches=Scope.SENDER,
        ),
        enhanced=r"5\.7\.509",
    ),
    *also(
        Diagnosis(
            id="exo.spf_failed",
            title="The SPF record of {domain} does not name us",
            explanation="The sender's domain does not allow our address to send for it.",
            who="network",
            remedy=(
                (
                    "Add our public address {address} to the SPF record of {domain}: "
                    "v=spf1 ip4:{address} include:spf.protection.outlook.com ~all"
                ),
            ),
            kind=Class.A,
            source=NDR,
            words=r"sender policy framework|SPF (check|violation)",
            touches=Scope.SENDER,
        ),
        enhanced=r"5\.7\.23",
    ),
    Diagnosis(
        id="other.unauthenticated_mail",
        title="A recipient's provider wants SPF or DKIM for {domain}",
        explanation="This reply comes from other providers (Gmail writes it), also inside a report of Exchange Online.",
        who="network",
        remedy=("Publish SPF and DKIM for {domain}.",),
        kind=Class.A,
        source=SEEN,
        doubt="which providers write it, and when",
        enhanced=r"5\.7\.(26|515)",
        touches=Scope.SENDER,
    ),
    Diagnosis(
        id="exo.sender_address_invalid",
        title="The sender's address {sender} is not valid",
        explanation="The server does not take this address as a sender.",
        who="application",
        remedy=("Correct the sender's address.",),
        kind=Class.PM,
        source=EXCHANGE,
        enhanced=r"5\.1\.[79]",
        codes=frozenset({501, 550, 553}),
    ),
)
