"""Refused logins: SMTP AUTH switches, policies, passwords, tokens, High Volume Email, Azure's applications."""

from service.routes.diagnoses.entry import (
    ACS_LOGIN,
    AZURE,
    EXCHANGE,
    FIX,
    HIGH_VOLUME,
    HVE,
    OAUTH,
    ONE_SOURCE,
    SEEN,
    SMARTHOST,
    USE_OAUTH,
    WAITS_BY_ITSELF,
    Class,
    Diagnosis,
    Scope,
    Waits,
    also,
    phases,
)

_AUTH = phases("auth")

LOGIN: tuple[Diagnosis, ...] = (
    # -- Azure Communication Services: no mailbox, no switch, no policy of Exchange ----------------
    Diagnosis(
        id="acs.application_refused",
        title="Azure Communication Services refused the login of {mailbox}",
        explanation="The password is no valid secret of the Entra application, the application has no role on the "
        "Communication Services resource, or the user name does not lead to both.",
        who="entra_admin",
        remedy=(
            (
                "Entra ID, App registrations, the application, Certificates & secrets: where its secret has ended, make a new "
                "one; set the secret's value (not its id) as the login's `password`."
            ),
            (
                "Azure portal, the Communication Services resource, Access control (IAM): give the application the role "
                "“Communication and Email Service Owner”, or one of your own with "
                "Microsoft.Communication/CommunicationServices/Read, Microsoft.Communication/CommunicationServices/Write and "
                "Microsoft.Communication/EmailServices/write."
            ),
            (
                "Compare the login's `username`: the resource's name, the application (client) id and the directory (tenant) "
                "id, with | between them; or the name of an SMTP username that this resource has (Azure portal, the resource, "
                "SMTP Usernames), linked to the application."
            ),
        ),
        kind=Class.A,
        source=ACS_LOGIN,
        doubt="the wording of the reply, which is known from a log of somebody else",
        codes=frozenset({535}),
        kinds=AZURE,
    ),
    Diagnosis(
        id="exo.smtp_auth_disabled_for_tenant",
        title="SMTP AUTH is switched off for the organisation",
        explanation="The tenant refuses authenticated SMTP and {mailbox} has no exception. The switch refuses OAuth "
        "logins as well as passwords.",
        who="exchange_admin",
        remedy=(
            "Set-CASMailbox -Identity {mailbox} -SmtpClientAuthenticationDisabled $false",
            "Or: Microsoft 365 admin center, Users, Active users, {mailbox}, Mail, Manage email apps, Authenticated SMTP.",
        ),
        kind=Class.A,
        source=FIX,
        words=r"SmtpClientAuthentication is disabled for the Tenant",
    ),
    Diagnosis(
        id="exo.smtp_auth_disabled_for_mailbox",
        title="SMTP AUTH is switched off for {mailbox}",
        explanation="The mailbox's own switch refuses authenticated SMTP, OAuth included.",
        who="exchange_admin",
        remedy=(
            "Set-CASMailbox -Identity {mailbox} -SmtpClientAuthenticationDisabled $false",
            "Or: Microsoft 365 admin center, Users, Active users, {mailbox}, Mail, Manage email apps, Authenticated SMTP.",
        ),
        kind=Class.A,
        source=FIX,
        words=r"SmtpClientAuthentication is disabled for the Mailbox",
    ),
    *also(
        Diagnosis(
            id="exo.basic_auth_retired",
            title="Microsoft has ended logins with a password for client submission",
            explanation="The reply that Microsoft announced for the end of basic authentication. No switch brings it back "
            "once that is final.",
            who="exchange_admin",
            remedy=(USE_OAUTH, "Or take another route: `POST /routes/recommend` says which one fits."),
            kind=Class.A,
            source=FIX,
            doubt="the reply was announced, and has not been seen yet",
            words=r"basic authentication is not supported",
        ),
        enhanced=r"5\.7\.30",
    ),
    Diagnosis(
        id="exo.basic_auth_disabled",
        title="Logins with a password are switched off",
        explanation="Basic authentication for SMTP AUTH is disabled here: by an authentication policy of the tenant, or "
        "by Microsoft's switch of the end of December 2026, which an administrator can still turn back.",
        who="exchange_admin",
        remedy=(
            USE_OAUTH,
            (
                "Until then: New-AuthenticationPolicy -Name AllowSmtp -AllowBasicAuthSmtp; "
                "Set-User -Identity {mailbox} -AuthenticationPolicy AllowSmtp"
            ),
        ),
        kind=Class.A,
        source=FIX,
        words=r"basic authentication is disabled",
    ),
    Diagnosis(
        id="entra.security_defaults",
        title="Security defaults of Microsoft Entra refuse this login",
        explanation="Security defaults block every login with a password over SMTP.",
        who="entra_admin",
        remedy=(
            USE_OAUTH,
            "Or switch security defaults off: Entra ID, Properties, Manage security defaults.",
        ),
        kind=Class.A,
        source=FIX,
        words=r"locked by your organization.s security defaults",
    ),
    Diagnosis(
        id="entra.conditional_access",
        title="A Conditional Access policy refuses this login",
        explanation="The login did not meet the criteria of a policy: often one that blocks legacy authentication or "
        "asks for a second factor.",
        who="entra_admin",
        remedy=(
            (
                "Exclude {mailbox} from the policy that blocks legacy authentication, or change its login in Postroom to "
                "`method: oauth`."
            ),
        ),
        kind=Class.A,
        source=FIX,
        words=r"did not meet the criteria to be authenticated",
    ),
    Diagnosis(
        id="exo.password_incorrect",
        title="The password of {mailbox} is wrong",
        explanation="Microsoft says that the user's credentials were incorrect.",
        who="operator",
        remedy=("Put the mailbox's present password into Postroom's configuration.", USE_OAUTH),
        kind=Class.A,
        source=ONE_SOURCE,
        words=r"user credentials were incorrect",
    ),
    Diagnosis(
        id="exo.authentication_not_allowed",
        title="The organisation's configuration does not allow this login",
        explanation="Security defaults or an authentication policy stand against the account's login with a password.",
        who="exchange_admin",
        remedy=(
            USE_OAUTH,
            (
                "Or: New-AuthenticationPolicy -Name AllowSmtp -AllowBasicAuthSmtp; "
                "Set-User -Identity {mailbox} -AuthenticationPolicy AllowSmtp; switch security defaults off."
            ),
        ),
        kind=Class.A,
        source=HVE,
        words=r"organization configuration does not allow this authentication",
    ),
    Diagnosis(
        id="entra.account_trouble",
        title="Microsoft Entra has something against the account {mailbox}",
        explanation="The account may be disabled, blocked, at risk, or waiting for its owner at a sign-in page.",
        who="entra_admin",
        remedy=(
            "Entra ID, Monitoring, Sign-in logs: look for {mailbox}; the entry says what is wrong with the account.",
            "Check that it is enabled: Get-MgUser -UserId {mailbox} -Property AccountEnabled",
        ),
        kind=Class.A,
        source=SEEN,
        words=r"account has an issue",
    ),
    Diagnosis(
        id="exo.mailbox_logon_failure",
        title="The application may not open the mailbox {mailbox}",
        explanation="The login was taken, but the mailbox cannot be opened when the message is stored: the application lacks "
        "FullAccess, or the permission has not arrived everywhere yet (up to an hour). The code says passing.",
        who="exchange_admin",
        remedy=(
            "Add-MailboxPermission -Identity {mailbox} -User <service principal id> -AccessRights FullAccess",
            "If it was given a moment ago, nobody has to act: Postroom tries again by itself.",
        ),
        kind=Class.A,
        source=SEEN,
        words=r"mailbox logon failure|MapiExceptionLogonFailed",
    ),
    Diagnosis(
        id="entra.federation_insecure",
        title="The organisation's sign-in service has no HTTPS",
        explanation="The login is federated, and the URL of the on-premises sign-in service does not support HTTPS.",
        who="entra_admin",
        remedy=("Give the federation service (AD FS) a valid certificate and TLS 1.2.", USE_OAUTH),
        kind=Class.A,
        source=FIX,
        words=r"STS URL does not support HTTPS",
    ),
    Diagnosis(
        id="entra.federation_unreachable",
        title="The organisation's sign-in service cannot be reached",
        explanation="The login is federated, and Microsoft could not reach the on-premises sign-in service.",
        who="entra_admin",
        remedy=("Nobody has to act if it is short. If it lasts: look after the federation service (AD FS).",),
        kind=Class.T2,
        source=FIX,
        words=r"STS service was unreachable",
    ),
    # -- High Volume Email -----------------------------------------------------------------------
    Diagnosis(
        id="hve.token_expiring",
        title="The access token is about to end, or has ended",
        explanation="High Volume Email wants a token that lives as long as the session. Postroom asks for a new one.",
        who="nobody",
        remedy=("Nobody has to act: Postroom logs in again with a fresh token.",),
        kind=Class.T1,
        source=HVE,
        enhanced=r"5\.7\.14[23]",
        touches=Scope.LANE,
        waits=Waits(first=5.0, cap=300.0),
    ),
    Diagnosis(
        id="hve.permission_missing",
        title="The application lacks Mail.Send for High Volume Email",
        explanation="The token has no permission that High Volume Email takes.",
        who="entra_admin",
        remedy=(
            (
                "Entra ID, App registrations, {application_id}, API permissions: Office 365 Exchange Online, Mail.Send, "
                "with admin consent."
            ),
        ),
        kind=Class.A,
        source=HVE,
        enhanced=r"5\.7\.144",
    ),
    Diagnosis(
        id="hve.application_not_allowed",
        title="The application may not use the account {mailbox}",
        explanation="An account of High Volume Email has a list of at most ten applications, and ours is not on it.",
        who="exchange_admin",
        remedy=("Add-HVEAppAccess -Identity {mailbox} -AppIds <object id of the enterprise application>",),
        kind=Class.A,
        source=HVE,
        enhanced=r"5\.7\.240",
    ),
    Diagnosis(
        id="hve.not_an_account",
        title="{mailbox} is not an account of High Volume Email",
        explanation="Only accounts that were made for High Volume Email may log in here.",
        who="exchange_admin",
        remedy=(
            "New-MailUser -HVEAccount -Name <name> -PrimarySmtpAddress {mailbox}",
            "Or correct the account's address.",
        ),
        kind=Class.A,
        source=HVE,
        enhanced=r"5\.2\.240",
    ),
    Diagnosis(
        id="hve.login_malformed",
        title="The login is malformed",
        explanation="The server could not read the user, the word Bearer or the token in our XOAUTH2 login.",
        who="operator",
        remedy=(
            "Check the account's address in Postroom's configuration; if it is right, report this as a bug of Postroom.",
        ),
        kind=Class.CFG,
        source=HVE,
        codes=frozenset({501}),
        enhanced=r"5\.5\.12[1-6]",
    ),
    # -- the general forms -----------------------------------------------------------------------
    *also(
        Diagnosis(
            id="smtp.mechanism_unknown",
            title="{host} does not know our way to log in",
            explanation="The server refused the mechanism. Exchange Online takes LOGIN and XOAUTH2 only.",
            who="operator",
            remedy=(
                "Set the login's `method` to `oauth` or `basic`, and check that `host` is the right one.",
            ),
            kind=Class.CFG,
            source=EXCHANGE,
            codes=frozenset({504, 538, 534, 535}),
            words=r"unrecognized authentication type|(authentication|auth) (type|mechanism)",
        ),
        enhanced=r"5\.7\.4",
    ),
    Diagnosis(
        id="smtp.temporary_login_failure",
        title="The server could not check the login at the moment",
        explanation="Trouble at the server, not a refusal.",
        who="nobody",
        remedy=(WAITS_BY_ITSELF,),
        kind=Class.T1,
        source="RFC 4954, section 6",
        words=r"temporary authentication failure",
        touches=Scope.LANE,
    ),
    Diagnosis(
        id="exo.hve_authentication_unsuccessful",
        title="High Volume Email refused the login of {mailbox}",
        explanation="The password or token is wrong, or the application is not allowed for the account.",
        who="exchange_admin",
        remedy=(
            (
                "Entra ID, App registrations, {application_id}, API permissions: Office 365 Exchange Online, Mail.Send, "
                "with admin consent."
            ),
            "Add-HVEAppAccess -Identity {mailbox} -AppIds <object id of the enterprise application>",
            "With a password: put the account's present one into Postroom's configuration.",
        ),
        with_password=(
            "Put the present password of the account {mailbox} into Postroom's configuration.",
            (
                "If it is right: Get-User -Identity {mailbox} | fl AuthenticationPolicy shows whether a policy refuses passwords; "
                "security defaults refuse them, too."
            ),
            "Or change the account's login in Postroom to `method: oauth`.",
        ),
        kind=Class.A,
        source=HVE,
        codes=frozenset({535}),
        kinds=HIGH_VOLUME,
    ),
    Diagnosis(
        id="smtp.login_refused",
        title="{host} refused the login",
        explanation="The organisation's mail server does not accept the user name or the password.",
        who="operator",
        remedy=(
            "Check `login` of the route {route} in Postroom's configuration, and with the server's administrator.",
            "Where {host} is Exchange Online itself: use `kind: client_submission`, which knows more about its refusals.",
        ),
        kind=Class.A,
        source="RFC 4954, section 6",
        codes=frozenset({535}),
        enhanced=r"5\.7\.3|5\.7\.8",
        kinds=SMARTHOST,
    ),
    *also(
        Diagnosis(
            id="exo.authentication_unsuccessful",
            title="Exchange Online refused the login of {mailbox}",
            explanation="The password or token is wrong, the mailbox does not exist, the application has no permission on "
            "it, or its service principal was registered with the wrong object id.",
            who="exchange_admin",
            remedy=(
                "New-ServicePrincipal -AppId {application_id} -ObjectId <object id of the enterprise application>",
                "Add-MailboxPermission -Identity {mailbox} -User <service principal id> -AccessRights FullAccess",
                "Check that the application has SMTP.SendAsApp with admin consent: `postroom check` shows the token's roles.",
                "Get-CASMailbox {mailbox} | fl SmtpClientAuthenticationDisabled",
                "With a password: put the present one into Postroom's configuration, or change the login to `method: oauth`.",
            ),
            with_password=(
                (
                    "Log in as {mailbox} by hand (https://outlook.office.com). If that works, put this password into the "
                    "mailbox's login in Postroom; otherwise have it reset."
                ),
                "Get-CASMailbox {mailbox} | fl SmtpClientAuthenticationDisabled",
                USE_OAUTH,
            ),
            kind=Class.A,
            source=OAUTH,
            codes=frozenset({535}),
            words=r"authentication unsuccessful|unable to proxy authenticated session",
        ),
        enhanced=r"5\.7\.(3|139)",
        codes=frozenset({535}),
    ),
    Diagnosis(
        id="smtp.login_refused",
        title="{host} refused the login",
        explanation="The user name, the password or the mechanism is not accepted.",
        who="operator",
        remedy=("Check the login of the route in Postroom's configuration.",),
        kind=Class.A,
        source="RFC 4954, section 6",
        codes=frozenset({535, 534, 538}),
    ),
    *also(
        Diagnosis(
            id="smtp.not_authenticated",
            title="The server wants a login first",
            explanation="The server refused the sender because the session is not logged in.",
            who="operator",
            remedy=("Give the route a login, or choose a route that needs none.",),
            kind=Class.CFG,
            source=FIX,
            codes=frozenset({530, 550, 554}),
            words=r"client (was )?not authenticated|^(smtp; )?not authenticated|authentication (is )?required",
        ),
        enhanced=r"5\.7\.57",
    ),
    Diagnosis(
        id="smtp.login_required",
        title="{host} wants a login first",
        explanation="The server takes this command after a login only.",
        who="operator",
        remedy=("Give the route {route} a login, or choose a route that needs none.",),
        kind=Class.CFG,
        source="RFC 4954, section 6",
        codes=frozenset({530}),
    ),
    Diagnosis(
        id="smtp.login_failed_for_now",
        title="{host} could not log us in at the moment",
        explanation="A passing refusal of the login.",
        who="nobody",
        remedy=(WAITS_BY_ITSELF,),
        kind=Class.T1,
        source="RFC 4954, section 6",
        codes=frozenset(range(400, 500)),
        phases=_AUTH,
        touches=Scope.LANE,
    ),
    Diagnosis(
        id="smtp.login_impossible",
        title="{host} refused the login",
        explanation="A final refusal of the login; its text says why.",
        who="operator",
        remedy=("Check the login of the route in Postroom's configuration.",),
        kind=Class.A,
        source="RFC 4954, section 6",
        codes=frozenset(range(500, 600)),
        phases=_AUTH,
    ),
)
