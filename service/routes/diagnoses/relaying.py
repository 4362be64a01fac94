"""Whose mail it is: Direct Send, connectors, the attribution to a tenant."""

from service.routes.diagnoses.entry import (
    ATTR35,
    DIRECT_SEND,
    LATE,
    NDR,
    REJECT_DIRECT_SEND,
    RELAY_RULES,
    SEEN,
    SMARTHOST,
    WAITS_BY_ITSELF,
    Class,
    Diagnosis,
    Scope,
    also,
    phases,
)

RELAYING: tuple[Diagnosis, ...] = (
    *also(
        Diagnosis(
            id="exo.direct_send_rejected",
            title="The tenant rejects Direct Send",
            explanation="RejectDirectSend is on: anonymous mail from an accepted domain is taken only where a connector knows us.",
            who="exchange_admin",
            remedy=(
                "Set-OrganizationConfig -RejectDirectSend $false (takes up to 30 minutes; it lets in everybody else, too)",
                (
                    "Or a connector of type Partner that knows our address: your own recipients stay reachable, the outside does "
                    "not, and the route stays `kind: direct_send`. It refuses mail of {domain} from every other address. "
                    "New-InboundConnector -Name Postroom -ConnectorType Partner -SenderDomains {domain} "
                    "-SenderIPAddresses {address} -RestrictDomainsToIPAddresses $true"
                ),
                (
                    "Or a connector of type OnPremises, which relays to the outside, too, and `kind: smtp_relay` in Postroom. By "
                    "address: New-InboundConnector -Name Postroom -ConnectorType OnPremises -SenderDomains * "
                    "-SenderIPAddresses {address}"
                ),
                (
                    "The same by certificate: New-InboundConnector -Name Postroom -ConnectorType OnPremises -SenderDomains * "
                    "-RequireTls $true -TlsSenderCertificateName *.{domain}"
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
)
