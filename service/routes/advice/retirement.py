"""When Microsoft 365 stops taking passwords for SMTP AUTH, and what each kind of route has to do.

Exchange team blog, "Updated Exchange Online SMTP AUTH Basic Authentication Deprecation Timeline"
(January 2026), and message center post MC786329: until the end of December 2026 nothing changes; then
passwords are off by default for existing tenants, and an administrator can allow them again;
tenants made after that do not have them; the date of their end is announced in the second half
of 2027. The day within December 2026 is not published, so the last one stands here, as unverified.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

from service.routes.advice.powershell import quoted
from service.routes.route import Account, BasicLogin, Route, RouteKind

#: From this day on passwords are off unless an administrator has allowed them again.
OFF_BY_DEFAULT = date(2026, 12, 31)

#: Not before this day the date of the end is announced.
END_ANNOUNCED = date(2027, 7, 1)

SOURCE = "Exchange team blog: Updated Exchange Online SMTP AUTH Basic Authentication Deprecation Timeline"


@dataclass(frozen=True, slots=True, kw_only=True)
class Milestone:
    """One date of the retirement."""

    code: str
    on: date
    text: str
    mark: str  # how well the date is known
    days_left: int  # 0 from that day on


def milestones(today: date) -> tuple[Milestone, ...]:
    """List the dates, with the days that are left."""
    dates = (
        (
            "off_by_default",
            OFF_BY_DEFAULT,
            "Passwords are off by default; an administrator can allow them again.",
            "verified; the day within December 2026 is unverified",
        ),
        (
            "new_tenants_without",
            OFF_BY_DEFAULT,
            "Tenants made from now on do not have passwords by default; OAuth is their method.",
            "verified; the day within December 2026 is unverified",
        ),
        (
            "end_announced",
            END_ANNOUNCED,
            "In the second half of 2027 Microsoft announces when passwords end for good.",
            "verified; the date of the end itself is not known",
        ),
    )
    return tuple(
        Milestone(code=code, on=on, text=text, mark=mark, days_left=max(0, (on - today).days))
        for code, on, text, mark in dates
    )


def works_by_default(today: date) -> bool:
    """Say whether a password still works where no administrator has done anything about it."""
    return today < OFF_BY_DEFAULT


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What the retirement means for one login."""

    affected: bool  # it stops working unless somebody acts
    verdict: str
    steps: tuple[str, ...]  # never empty; where nobody must act, it says so


def judge(kind: RouteKind | None, *, mailbox: str, client_id: str | None, today: date) -> Judgement:
    """Say what a password on a route of this kind has before it; `kind` is None where the route is gone."""
    match kind:
        case RouteKind.CLIENT_SUBMISSION:
            return Judgement(
                affected=True,
                verdict="It stops working at the end of December 2026 unless an administrator allows passwords again."
                if works_by_default(today)
                else "It works only where an administrator has allowed passwords again, and only until Microsoft ends them.",
                steps=tuple(to_oauth(mailbox, client_id)),
            )
        case RouteKind.HIGH_VOLUME_EMAIL:
            return Judgement(
                affected=False,
                verdict="High Volume Email keeps taking passwords for now (an earlier announcement said until 2028: unverified).",
                steps=(
                    "Nobody has to act now. It takes OAuth too: an application with Mail.Send, which `Add-HVEAppAccess` lets in.",
                ),
            )
        case RouteKind.AZURE_COMMUNICATION_SERVICES:
            return Judgement(
                affected=False,
                verdict="The password is an Entra application's secret; the retirement does not concern it.",
                steps=("Nobody has to act for this. Renew the application's secret before it expires.",),
            )
        case RouteKind.SMARTHOST:
            return Judgement(
                affected=False,
                verdict="The mail server is not Microsoft's; what it takes as login is its owner's decision.",
                steps=("Nobody has to act for this.",),
            )
        case _:
            return Judgement(
                affected=False,
                verdict="The configuration has no such route any more.",
                steps=("Nobody has to act, unless a worker with an older configuration still runs.",),
            )


def register(permission: str) -> str:
    """Tell how an application gets an identity, a permission of Exchange Online and a credential."""
    return (
        "Entra admin center → App registrations → New registration; API permissions → APIs my organization uses → Office 365 "
        f"Exchange Online → Application permissions → {permission} → Grant admin consent; Certificates & secrets → make a client "
        "secret, or upload a certificate."
    )


#: For client submission; High Volume Email wants Mail.Send.
REGISTER = register("SMTP.SendAsApp")


def oauth_commands(mailbox: str, client_id: str | None) -> Iterator[str]:
    """Give the PowerShell lines that let an application log in for a mailbox (client credentials).

    "Authenticate an IMAP, POP or SMTP connection using OAuth" on learn.microsoft.com.
    """
    yield (
        f"New-ServicePrincipal -AppId {client_id or '<client id>'} -ObjectId <object id of the enterprise application>"
        "  # not the object id that App registrations shows"
    )
    yield "Get-ServicePrincipal | Format-List DisplayName,AppId,ObjectId,Identity  # Identity is the service principal id"
    yield (
        f"Add-MailboxPermission -Identity {quoted(mailbox)} -User <service principal id> -AccessRights FullAccess"
    )
    # The switch refuses OAuth logins as well as passwords.
    yield f"Set-CASMailbox -Identity {quoted(mailbox)} -SmtpClientAuthenticationDisabled $false"


def to_oauth(mailbox: str, client_id: str | None) -> Iterator[str]:
    """Tell how a mailbox changes from a password to OAuth."""
    yield REGISTER
    yield from oauth_commands(mailbox, client_id)
    yield (
        f"In Postroom's configuration, for the mailbox {mailbox}: login: {{method: oauth, "
        f"client_id: {client_id or '<client id>'}, client_secret_file: <file>}}; and set entra.tenant_id."
    )


def password_accounts(route: Route) -> Iterator[Account]:
    """List the mailboxes of a route that log in with a password."""
    return (account for account in route.accounts if isinstance(account.login, BasicLogin))
