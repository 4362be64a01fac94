"""The PowerShell lines of each way.

They are composed from the documentation of their parameters ("Exchange PowerShell" on
learn.microsoft.com, August 2026); none was run against a tenant.
"""

from collections.abc import Callable, Mapping
from ipaddress import IPv4Address
from typing import Final

from service.routes.advice.names import DOMAIN, Names
from service.routes.advice.options import Option
from service.routes.advice.powershell import quoted
from service.routes.advice.retirement import oauth_commands

_MAY_STAY_OFF: Final = (
    "Get-TransportConfig | Format-List SmtpClientAuthenticationDisabled"
    "  # may stay True: the mailbox's own switch goes before it"
)


def _submission_by_oauth(names: Names) -> list[str]:
    return [
        _MAY_STAY_OFF,
        *oauth_commands(names.address, names.client_id),
        _send_as("<service principal id>"),
    ]


def _send_as(trustee: str) -> str:
    return (
        f"Add-RecipientPermission <other address> -AccessRights SendAs -Trustee {trustee}"
        "  # for each further sender"
    )


def _submission_by_password(names: Names) -> list[str]:
    user = quoted(names.address)
    return [
        _MAY_STAY_OFF,
        f"Set-CASMailbox -Identity {user} -SmtpClientAuthenticationDisabled $false",
        "New-AuthenticationPolicy -Name AllowSmtp -AllowBasicAuthSmtp",
        f"Set-User -Identity {user} -AuthenticationPolicy AllowSmtp",
        f"Set-User -Identity {user} -STSRefreshTokensValidFrom ([DateTime]::UtcNow)",
        _send_as(user),
    ]


def _direct_send(names: Names) -> list[str]:
    return [
        "Get-OrganizationConfig | Format-List RejectDirectSend  # has to be False",
        "Set-OrganizationConfig -RejectDirectSend $false  # only where it is True; takes up to 30 minutes",
    ]


def _relay_by_certificate(names: Names) -> list[str]:
    subject = quoted(f"*.{names.domain}" if names.domain else DOMAIN)
    return [
        (
            'New-InboundConnector -Name "Postroom (certificate)" -ConnectorType OnPremises -SenderDomains * '
            f"-RequireTls $true -TlsSenderCertificateName {subject}"
        ),
        "Get-InboundConnector | Format-List Name,ConnectorType,Enabled,TlsSenderCertificateName",
    ]


def _relay_by_ip(names: Names) -> list[str]:
    # Connectors take IPv4 only, single addresses or /24 to /32.
    ips = ",".join(f"{ip}/32" for ip in names.ips if isinstance(ip, IPv4Address))
    return [
        (
            'New-InboundConnector -Name "Postroom (address)" -ConnectorType OnPremises -SenderDomains * '
            f"-SenderIPAddresses {ips or '<static public IPv4 address>'}"
        ),
        "Get-InboundConnector | Format-List Name,ConnectorType,Enabled,SenderIPAddresses",
    ]


def _high_volume(names: Names) -> list[str]:
    account = quoted(names.address)
    return [
        (
            f"New-MailUser -HVEAccount -Name {quoted(names.sender.local if names.sender else '<name>')} "
            f"-PrimarySmtpAddress {account} -Password (Read-Host -AsSecureString)"
        ),
        "Get-BillingPolicy -ResourceType HVE",
        f"Set-HVEAccountBillingPolicy -Identity {account} -BillingPolicyId <billing policy id>",
        f"Get-HVEAccountBillingPolicy -Identity {account}  # BillingPolicyValid",
        f"Add-HVEAppAccess -Identity {account} -AppIds <object id of the enterprise application>  # for OAuth only",
    ]


def _graph(names: Names) -> list[str]:
    return [
        (
            f"New-ServicePrincipal -AppId {names.client_id or '<client id>'} "
            "-ObjectId <object id of the enterprise application>"
        ),
        (
            "New-ManagementScope -Name Postroom -RecipientRestrictionFilter "
            f"\"MemberOfGroup -eq '<distinguished name of a group with {names.address.replace(chr(39), chr(39) * 2)}>'\""
        ),
        (
            "New-ManagementRoleAssignment -Role 'Application Mail.Send' "
            f"-App {names.client_id or '<client id>'} -CustomResourceScope Postroom"
        ),
    ]


def _none(names: Names) -> list[str]:
    return []


#: The lines of each way, from the names that are known.
COMMANDS: Mapping[Option, Callable[[Names], list[str]]] = {
    Option.CLIENT_SUBMISSION_OAUTH: _submission_by_oauth,
    Option.CLIENT_SUBMISSION_BASIC: _submission_by_password,
    Option.DIRECT_SEND: _direct_send,
    Option.SMTP_RELAY_CERTIFICATE: _relay_by_certificate,
    Option.SMTP_RELAY_IP: _relay_by_ip,
    Option.HIGH_VOLUME_EMAIL: _high_volume,
    Option.AZURE_COMMUNICATION_SERVICES: _none,
    Option.GRAPH: _graph,
    Option.OWN_MAIL_SERVER: _none,
    Option.SPECIALISED_PROVIDER: _none,
}
