"""Replies as they are met in the field: most of them read in public logs, issues and reports.

Names and addresses are replaced, and where a log had cut a trailer or the end of a sentence off, it is
completed; the rows of smarthosts have the usual wordings of Postfix and others. They show what the
wordings look like in real life, with Microsoft's codes, links and trailers behind them.
"""

import pytest

from service.routes import diagnoses
from service.routes.diagnoses import CATALOGUE, Class
from service.routes.diagnoses.content import GENERAL
from service.routes.route import RouteKind
from service.smtp.phase import Phase
from service.smtp.reply import Reply

SUB, DS, REL = RouteKind.CLIENT_SUBMISSION, RouteKind.DIRECT_SEND, RouteKind.SMTP_RELAY
OWN, ACS = RouteKind.SMARTHOST, RouteKind.AZURE_COMMUNICATION_SERVICES
GREETING, EHLO, AUTH, MAIL, RCPT, REPLY = (
    Phase.GREETING,
    Phase.EHLO,
    Phase.AUTH,
    Phase.MAIL,
    Phase.RCPT,
    Phase.REPLY,
)

#: reply, phase, kind of route, id, class, scope, who must act
Row = tuple[str, Phase | None, RouteKind, str, str, str, str]

_DIAGNOSTICS = (
    "0.35250:1F009983, 1.36674:0A000000, 1.61250:00000000, 1.45378:02000000, 1.44866:3C7C0000, 16.55847:E70F0000, "
    "17.43559:0000000024020000000000000000000000000000, 20.52176:140F7999190010100C000000, "
) * 10

LOGINS: list[Row] = [
    ("535 5.7.3 Authentication unsuccessful [DB6P18901CA0015.EURP189.PROD.OUTLOOK.COM]", AUTH, SUB, "exo.authentication_unsuccessful", "A", "lane", "exchange_admin"),
    ("535 5.7.3 Authentication unsuccessful [SGXP274CA0016.SGPP274.PROD.OUTLOOK.COM 2025-03-20T11:25:21.972Z 08DD66EDEFB0DFDF]", AUTH, SUB, "exo.authentication_unsuccessful", "A", "lane", "exchange_admin"),
    ("535 5.7.3 Unable to proxy authenticated session because either the backend does not support it or failed to resolve the user [AM0PR01CA0092.eurprd01.prod.exchangelabs.com]", AUTH, SUB, "exo.authentication_unsuccessful", "A", "lane", "exchange_admin"),
    ("535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant. Visit https://aka.ms/smtp_auth_disabled for more information. [TY1PR01CA0183.jpnprd01.prod.outlook.com]", AUTH, SUB, "exo.smtp_auth_disabled_for_tenant", "A", "lane", "exchange_admin"),
    ("535 5.7.139 Authentication unsuccessful, account has an issue. Contact your administrator. [AM8P190CA0003.EURP190.PROD.OUTLOOK.COM 2024-10-04T07:21:07.773Z 08DCE3FEF68EE81B]", AUTH, SUB, "entra.account_trouble", "A", "lane", "entra_admin"),
    ("530 5.7.57 Client not authenticated to send mail. Error: 535 5.7.139 Authentication unsuccessful, account has an issue. Contact your administrator. [AM8P190CA0003.EURP190.PROD.OUTLOOK.COM 2024-10-04T07:21:07.773Z 08DCE3FEF68EE81B]", MAIL, SUB, "entra.account_trouble", "A", "lane", "entra_admin"),
    ("530 5.7.57 Client not authenticated to send mail. Error: 535 5.7.139 Authentication unsuccessful, the request did not meet the criteria to be authenticated successfully. Contact your administrator. [CH0PR08CA0021.namprd08.prod.outlook.com 2026-01-09T16:12:30.678Z 08DE4F6D4916B5B3]", MAIL, SUB, "entra.conditional_access", "A", "lane", "entra_admin"),
    ("530 5.7.57 Client not authenticated to send mail. Error: 535 5.7.139 Authentication unsuccessful, basic authentication is disabled. [YT3PR01CA0122.CANPRD01.PROD.OUTLOOK.COM 2025-01-22T03:07:00.315Z 08DD393115E98C2B]", MAIL, SUB, "exo.basic_auth_disabled", "A", "lane", "exchange_admin"),
    ("530 5.7.57 Client not authenticated to send mail. Error: 535 5.7.3 Authentication unsuccessful [FR3P281CA0113.DEUP281.PROD.OUTLOOK.COM 2024-05-03T07:54:23.031Z 08DC6AD071D7DE27]", MAIL, SUB, "exo.authentication_unsuccessful", "A", "lane", "exchange_admin"),
    ("530 5.7.57 SMTP; Client was not authenticated to send anonymous mail during MAIL FROM [AM6PR0732CA0065.eurprd07.prod.outlook.com]", MAIL, SUB, "smtp.not_authenticated", "CFG", "lane", "operator"),
    ("550 5.2.1 Mailbox cannot be accessed [CWXP265CA0023.GBRP265.PROD.OUTLOOK.COM]", AUTH, SUB, "exo.mailbox_not_accessible", "A", "lane", "exchange_admin"),
    ("421 4.7.66 TLS 1.0 and 1.1 are not supported. Please upgrade/update your client to support TLS 1.2. Visit https://aka.ms/smtp_auth_tls. [MAXPR0101CA0021.INDPRD01.PROD.OUTLOOK.COM]", AUTH, SUB, "exo.tls_too_old", "CFG", "lane", "operator"),
    ("421 4.3.2 Service not active [TYAPR01CA0229.jpnprd01.prod.outlook.com]", AUTH, SUB, "exo.service_trouble", "T1", "lane", "nobody"),
    ("451 4.7.0 Temporary server error. Please try again later. PRX4 [AM5PR0701CA0008.eurprd07.prod.outlook.com]", AUTH, SUB, "exo.proxy_trouble", "T1", "lane", "nobody"),
]  # fmt: skip

SUBMISSIONS: list[Row] = [
    ("430 4.2.0 STOREDRV; mailbox logon failure; Failed to process message due to a transient exception with message [BeginDiagnosticData]Cannot open mailbox. 16.55847:00000000 MapiExceptionLogonFailed[EndDiagnosticData] [Hostname=VI1PR01MB0001.EURPRD01.PROD.OUTLOOK.COM]", REPLY, SUB, "exo.mailbox_logon_failure", "A", "lane", "exchange_admin"),
    ("554 5.2.252 SendAsDenied; noreply@example.com not allowed to send as security@example.com; STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied; Failed to process message due to a permanent exception with message [BeginDiagnosticData]Cannot submit message. " + _DIAGNOSTICS + "[EndDiagnosticData] [Hostname=SYBP282MB2635.AUSP282.PROD.OUTLOOK.COM]", REPLY, SUB, "exo.send_as_denied", "A", "sender", "exchange_admin"),
    ("554 5.2.0 STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied; Failed to process message due to a permanent exception with message Cannot submit message. " + _DIAGNOSTICS, REPLY, SUB, "exo.send_as_denied", "A", "sender", "exchange_admin"),
    ("554 5.2.0 STOREDRV.Submission.Exception:OutboundSpamException; Failed to process message due to a permanent exception with message [BeginDiagnosticData]WASCL UserAction verdict is not None. Actual verdict is RefuseQuota. OutboundSpamException: WASCL UserAction verdict is not None. Actual verdict is RefuseQuota.[EndDiagnosticData] [Hostname=AM9P192MB0935.EURP192.PROD.OUTLOOK.COM]", REPLY, SUB, "exo.outbound_spam", "A", "lane", "exchange_admin"),
    ("554 5.2.2 mailbox full; STOREDRV.Submission.Exception:QuotaExceededException.MapiExceptionShutoffQuotaExceeded; Failed to process message due to a permanent exception with message Cannot submit message.", REPLY, SUB, "exo.sender_mailbox_full", "A", "lane", "exchange_admin"),
    ("432 4.3.2 Concurrent connections limit exceeded. Visit https://aka.ms/concurrent_sending for more information. [Hostname=P212MB1321.PROD.OUTLOOK.COM]", REPLY, SUB, "exo.concurrent_connections", "T1", "lane", "nobody"),
    ("451 4.3.111 Temporary server error. Please try again later MRH1 [Hostname=GVXP192MB1782.EURP192.PROD.OUTLOOK.COM]", REPLY, SUB, "exo.service_trouble", "T1", "lane", "nobody"),
    ("450 4.7.0 Message not proxied [PAVP264CA0001.FRAP264.PROD.OUTLOOK.COM 2025-10-01T06:00:00.000Z 08DDFE6F5A7B0001]", REPLY, SUB, "exo.proxy_trouble", "T1", "lane", "nobody"),
    ("451 4.7.0 Temporary server error. Please try again later. PRX9 RemoteHost: PH7P222CA0012. ErrorCode 10054 [SA2PEPF000015C7.namprd03.prod.outlook.com 2024-07-31T13:33:32.734Z 08DCAFDD636EC8D7]", REPLY, SUB, "exo.proxy_trouble", "T1", "lane", "nobody"),
    ("451 4.4.22 Message failed to be replicated: no healthy peers found [Hostname=DU0PR01MB0001.eurprd01.prod.exchangelabs.com]", REPLY, SUB, "exo.service_trouble", "T1", "lane", "nobody"),
    ("451 4.4.25 Message failed to be replicated: No healthy secondary server available to accept replica at this time.", REPLY, REL, "exo.service_trouble", "T1", "lane", "nobody"),
    ("554 5.2.0 STOREDRV.Submission.Exception:MessageSubmissionExceededException.MapiExceptionMaxSubmissionExceeded; Failed to process message due to a permanent exception with message", REPLY, SUB, "exo.send_size_limit", "PM", "message", "application"),
    ("554 5.6.211 Invalid MIME Content: Number of MimePart objects (1001) exceeded allowed maximum (1000).", REPLY, REL, "smtp.message_malformed", "PM", "message", "application"),
    ("550 5.2.254 Sender throttled due to continuous invalid recipients errors [Hostname=TYZPR06MB6239.apcprd06.prod.outlook.com]", REPLY, SUB, "exo.sender_throttled_invalid_recipients", "T3", "lane", "exchange_admin"),
]  # fmt: skip

MX_REPLIES: list[Row] = [
    ("550 5.4.1 [nobody@example.com]: Recipient address rejected: Access denied [BN3NAM04FT027.eop-NAM04.prod.protection.outlook.com]", RCPT, DS, "exo.recipient_not_found", "PR", "recipient", "application"),
    ("550 5.4.1 Recipient address rejected: Access denied. AS(201806281) [DB5EUR01FT088.eop-EUR01.prod.protection.outlook.com 2023-06-22T08:26:31.592Z 08DB72B25E50380B]", RCPT, DS, "exo.recipient_not_found", "PR", "recipient", "application"),
    ("550 5.5.0 Requested action not taken: mailbox unavailable. [BN8NAM12FT001.eop-nam12.prod.protection.outlook.com]", RCPT, DS, "exo.recipient_not_found", "PR", "recipient", "application"),
    ("550 5.7.64 TenantAttribution; Relay Access Denied [AM5EUR02FT025.eop-EUR02.prod.protection.outlook.com]", RCPT, REL, "exo.relay_denied", "A", "lane", "exchange_admin"),
    ("550 5.7.64 TenantAttribution; Relay Access Denied [SN1PEPF000252A1.namprd05.prod.outlook.com]", RCPT, DS, "exo.relay_denied_direct_send", "PR", "recipient", "operator"),
    ("550 5.7.68 TenantInboundAttribution; Direct Send not allowed for this organization", RCPT, DS, "exo.direct_send_rejected", "A", "lane", "exchange_admin"),
    ("450 4.7.1 Unable to Relay. ATTR14", RCPT, REL, "exo.attribution_trouble", "T1", "lane", "nobody"),
    ("451 4.4.3 Temporary server error. Please try again later ATTR2 [BN2PEPF00004FBF.namprd04.prod.outlook.com 2024-07-31T21:10:49.094Z 08DCAFC4626DA37A]", RCPT, REL, "exo.attribution_trouble", "T1", "lane", "nobody"),
    ("451 4.4.62 Mail sent to the wrong Office 365 region. ATTR35. For more information please go to https://go.microsoft.com/fwlink/?linkid=865268 [VE1EUR03FT001.eop-EUR03.prod.protection.outlook.com]", RCPT, REL, "exo.wrong_region", "A", "lane", "exchange_admin"),
    ("451 4.4.4 Mail received as unauthenticated, incoming to a recipient domain configured in a hosted tenant which has no mail-enabled subscriptions. ATTR5 [BN1PEPF0000468D.namprd05.prod.outlook.com 2026-08-13T13:12:35.600Z 08DEF8E545D8505D]", RCPT, DS, "exo.no_exchange_subscription", "A", "lane", "exchange_admin"),
    ("550 5.7.1 Service unavailable, Client host [203.0.113.9] blocked using Spamhaus. To request removal from this list see https://www.spamhaus.org/query/ip/203.0.113.9 AS(1450) [LO1PEPF000022FC.GBRP265.PROD.OUTLOOK.COM 2024-08-08T21:41:59.031Z 08DCB37616E26EE1]", RCPT, DS, "exo.address_on_block_list", "A", "lane", "network"),
    ("550 5.7.1 Service unavailable, Client host [203.0.113.9] blocked using Spamhaus. To request removal from this list see http://www.spamhaus.org/lookup.lasso (AS16012611) [AM5EUR03FT045.eop-EUR03.prod.protection.outlook.com]", RCPT, REL, "exo.address_on_block_list", "A", "lane", "network"),
    ("550 5.7.1 Service unavailable, MailFrom domain is listed in Spamhaus. To request removal from this list see https://www.spamhaus.org/query/lookup/ (S8002) [CO1NAM11FT001.eop-nam11.prod.protection.outlook.com]", MAIL, DS, "exo.sender_domain_on_block_list", "A", "sender", "network"),
    ("550 5.7.1 Unfortunately, messages from [203.0.113.9] weren't sent. Please contact your Internet service provider since part of their network is on our block list (S3150). You can also refer your provider to http://mail.live.com/mail/troubleshooting.aspx#errors. [Name=Protocol Filter Agent][AGT=PFA][MxId=11BCB2B2FC28272C] [SA3PEPF00002BF1.namprd02.prod.outlook.com 2026-01-24T07:00:10.851Z 07DD451350B34C54]", MAIL, DS, "exo.network_on_block_list", "A", "lane", "network"),
    ("550 5.7.1 Unfortunately, messages from [203.0.113.9] weren't sent. Please contact your Internet service provider since part of their network is on our block list (AS3150). You can also refer your provider to http://mail.live.com/mail/troubleshooting.aspx#errors.", RCPT, DS, "exo.network_on_block_list", "A", "lane", "network"),
    ("550 5.7.606 Access denied, banned sending IP [203.0.113.9]. To request removal from this list please visit https://sender.office.com/ and follow the directions. For more information please go to  http://go.microsoft.com/fwlink/?LinkID=526655 (AS16012609) [DM3NAM06FT006.Eop-nam06.prod.protection.outlook.com]", RCPT, DS, "exo.address_banned", "A", "lane", "network"),
    ("451 4.7.500 Server busy. Please try again later from [203.0.113.9]. (AS761)", RCPT, DS, "exo.server_busy", "T2", "lane", "exchange_admin"),
    ("451 4.7.500 Server busy. Please try again later from [203.0.113.9]. (S77719) [BL6PEPF0001AB50.namprd04.prod.outlook.com 2024-07-14T14:44:43.083Z 08DCA36F759CD546]", RCPT, DS, "exo.server_busy", "T2", "lane", "exchange_admin"),
    ("451 4.7.650 The mail server [203.0.113.9] has been temporarily rate limited due to IP reputation. For e-mail delivery information, see https://aka.ms/postmaster (S775) [Name=Protocol Filter Agent][AGT=PFA][MxId=11BCD825A78A8D0B] [AMS0EPF000001A7.eurprd05.prod.outlook.com 2026-02-25T11:12:39.245Z 08DE6C12E206EF5D]", MAIL, DS, "exo.address_rate_limited", "T2", "lane", "exchange_admin"),
    ("451 4.7.651 The mail server [203.0.113.9] has been temporarily rate limited due to IP reputation. For e-mail delivery information, see https://postmaster.live.com (S3114)", MAIL, DS, "exo.address_rate_limited", "T2", "lane", "exchange_admin"),
    ("452 4.5.3 Too many recipients (AS780090) [TO1CAN01FT005.eop-CAN01.prod.protection.outlook.com]", RCPT, REL, "exo.address_volume", "T2", "lane", "exchange_admin"),
    ("550 5.7.509 Access denied, sending domain example.com does not pass DMARC verification and has a DMARC policy of reject.", REPLY, DS, "exo.dmarc_rejected", "A", "sender", "network"),
    ("550 5.7.708 Service unavailable. Access denied, traffic not accepted from this IP. For more information please go to http://go.microsoft.com/fwlink/?LinkId=526653 AS(8561) [BN8NAM12FT012.eop-nam12.prod.protection.outlook.com 2026-09-29T10:00:00.000Z 08DDFE6F5A7B0002]", REPLY, SUB, "exo.address_not_trusted", "A", "lane", "exchange_admin"),
    ("554 5.4.14 Hop count exceeded - possible mail loop ATTR34 [DS1PEPF00017090.namprd03.prod.outlook.com 2025-11-06T22:03:23.333Z 08DE1D1FC98F0792]", REPLY, REL, "exo.mail_loop", "A", "message", "exchange_admin"),
]  # fmt: skip

REPORTS: list[Row] = [
    ("550 5.7.233 - Your message can't be sent because your tenant has exceeded its daily limit for sending email to external recipients (tenant external recipient rate limit). For more information see https://aka.ms/EXONdrs.", REPLY, SUB, "exo.tenant_recipient_rate", "T3", "external", "exchange_admin"),
    ("550 5.7.124 RESOLVER.RST.RestrictedToGroupPermission; not authorized; Delivery restriction check failed because the sender is not in the allowed senders list of this group", REPLY, SUB, "exo.recipient_restricted", "PR", "recipient", "exchange_admin"),
    ("550 5.7.129 RESOLVER.RST.RestrictedToRecipientsPermission; not authorized; Delivery restriction check failed", REPLY, SUB, "exo.recipient_restricted", "PR", "recipient", "exchange_admin"),
    ("550 5.7.133 RESOLVER.RST.SenderNotAuthenticatedForGroup; authentication required; Delivery restriction check failed because the sender was not authenticated when sending to this group", REPLY, DS, "exo.recipient_restricted", "PR", "recipient", "exchange_admin"),
    ("550 5.7.134 RESOLVER.RST.SenderNotAuthenticatedForMailbox; authentication required; Delivery restriction check failed", REPLY, DS, "exo.recipient_restricted", "PR", "recipient", "exchange_admin"),
    ("550 5.7.1 RESOLVER.RST.AuthRequired; authentication required", REPLY, DS, "exo.recipient_restricted", "PR", "recipient", "exchange_admin"),
    ("550 5.2.121 Recipient's per hour message receive limit from specific sender exceeded", REPLY, SUB, "exo.recipient_over_rate", "T2", "recipient", "nobody"),
    ("554 5.2.0 STOREDRV.Deliver.Exception:QuotaExceededException.MapiExceptionShutoffQuotaExceeded; Failed to process message due to a permanent exception with message", REPLY, SUB, "exo.recipient_mailbox_full", "PR", "recipient", "application"),
    ("554 5.2.2 mailbox full; STOREDRV.Deliver.Exception:QuotaExceededException.MapiExceptionShutoffQuotaExceeded", REPLY, SUB, "exo.recipient_mailbox_full", "PR", "recipient", "application"),
    ("500 5.2.11 RESOLVER.RST.SendSizeLimit.Sender; message too large for this sender", REPLY, SUB, "exo.send_size_limit", "PM", "message", "application"),
    ("550 5.2.12 RESOLVER.RST.SendSizeLimit.Org; message too large for this organization", REPLY, SUB, "exo.send_size_limit", "PM", "message", "application"),
    ("550 5.1.1 RESOLVER.ADR.ExRecipNotFound; not found", REPLY, SUB, "exo.recipient_not_found", "PR", "recipient", "application"),
    ("550 4.4.7 QUEUE.Expired; message expired", None, SUB, "report.expired_on_the_way", "PM", "message", "application"),
    ("450 4.4.316 Connection refused [Message=Socket error code 10061] [LastAttemptedServerName=mail.example.com] [LastAttemptedServerIP=203.0.113.25:25]", None, SUB, "report.remote_unreachable", "PR", "recipient", "application"),
    ("450 4.4.312 DNS query failed [Message=ErrorRetry] [LastAttemptedServerName=example.net]", None, SUB, "report.remote_unreachable", "PR", "recipient", "application"),
    ("550 5.4.310 DNS domain example.invalid does not exist [Message=InfoDomainNonexistent]", REPLY, SUB, "report.domain_missing", "PR", "recipient", "application"),
    ("550 5.0.350 Remote server returned an error -> 550 5.7.1 TRANSPORT.RULES.RejectMessage; the message was rejected by organization policy", REPLY, SUB, "report.refused_elsewhere", "PM", "message", "exchange_admin"),
    ("550 5.7.515 Access denied, sending domain example.com does not meet the required authentication level", REPLY, SUB, "other.unauthenticated_mail", "A", "sender", "network"),
    ("550-5.7.26 This email has been blocked because the sender is unauthenticated.\n550-5.7.26 Gmail requires all senders to authenticate with either SPF or DKIM.\n550 5.7.26 https://support.google.com/mail/answer/81126 - gsmtp", REPLY, OWN, "other.unauthenticated_mail", "A", "sender", "network"),
]  # fmt: skip

OTHER_SERVERS: list[Row] = [
    ("554 5.7.1 <ana@example.net>: Relay access denied", RCPT, OWN, "smtp.relay_refused", "PR", "recipient", "operator"),
    ("550 5.7.1 Relaying denied", RCPT, OWN, "smtp.relay_refused", "PR", "recipient", "operator"),
    ("454 4.7.1 <ana@example.net>: Relay access denied", RCPT, OWN, "smtp.recipient_deferred", "T1", "recipient", "nobody"),
    ("504 5.5.2 <postroom>: Helo command rejected: need fully-qualified hostname", RCPT, OWN, "smtp.ehlo_name_refused", "CFG", "lane", "operator"),
    ("554 5.7.1 <unknown[203.0.113.9]>: Client host rejected: Access denied", RCPT, OWN, "smtp.client_refused", "A", "lane", "operator"),
    ("553 5.7.1 <billing@example.com>: Sender address rejected: not owned by user postroom", RCPT, OWN, "smtp.sender_not_owned", "A", "sender", "operator"),
    ("550 5.1.1 <ana@example.net>: Recipient address rejected: User unknown in virtual mailbox table", RCPT, OWN, "exo.recipient_not_found", "PR", "recipient", "application"),
    ("550 5.1.1 <ana@example.net>... User Unknown", RCPT, OWN, "exo.recipient_not_found", "PR", "recipient", "application"),
    ("550-5.1.1 The email account that you tried to reach does not exist. Please try\n550-5.1.1 double-checking the recipient's email address for typos or\n550 5.1.1 unnecessary spaces. - gsmtp", RCPT, OWN, "exo.recipient_not_found", "PR", "recipient", "application"),
    ("552 5.2.2 The email account that you tried to reach is over quota.", RCPT, OWN, "exo.recipient_mailbox_full", "PR", "recipient", "application"),
    ("452 4.2.2 Mailbox full", RCPT, OWN, "smtp.recipient_deferred", "T1", "recipient", "nobody"),
    ("450 4.1.1 <ana@example.net>: Recipient address rejected: unverified address: connect to mail.example.net[203.0.113.7]:25: Connection timed out", RCPT, OWN, "smtp.recipient_deferred", "T1", "recipient", "nobody"),
    ("451 4.7.1 <ana@example.net>: Recipient address rejected: Greylisted for 5 minutes", RCPT, OWN, "smtp.recipient_deferred", "T1", "recipient", "nobody"),
    ("552 5.3.4 Message size exceeds fixed limit", MAIL, OWN, "smtp.message_too_large", "PM", "message", "application"),
    ("451 4.3.0 <ana@example.net>: Temporary lookup failure", RCPT, OWN, "smtp.recipient_deferred", "T1", "recipient", "nobody"),
    ("452 4.3.1 Insufficient system storage", MAIL, OWN, "smtp.system_trouble", "T1", "lane", "nobody"),
    ("554 mx.example.net ESMTP not accepting connections", GREETING, OWN, "smtp.session_refused", "A", "lane", "operator"),
    ("550 5.7.1 Message rejected as spam by Content Filtering.", REPLY, OWN, "smtp.content_refused", "PM", "message", "application"),
]  # fmt: skip

ROWS = LOGINS + SUBMISSIONS + MX_REPLIES + REPORTS + OTHER_SERVERS


@pytest.mark.parametrize(("text", "phase", "kind", "id_", "class_", "scope", "who"), ROWS)
def test_a_reply_from_the_field_is_understood(
    text: str, phase: Phase | None, kind: RouteKind, id_: str, class_: str, scope: str, who: str
) -> None:
    """Each row: the entry, its class, what it touches, and who must act."""
    diagnosis = diagnoses.of_reply(Reply.from_text(text), phase, kind)

    assert diagnosis.id == id_
    assert (diagnosis.kind.value, diagnosis.scope.value, diagnosis.who) == (class_, scope, who)


@pytest.mark.parametrize("text", [row[0] for row in LOGINS + SUBMISSIONS + MX_REPLIES])
def test_the_meaning_does_not_hang_on_phase_and_route(text: str) -> None:
    """A reply of Microsoft's that somebody pastes without its context is recognised by its words."""
    known = diagnoses.of_reply(Reply.from_text(text), None)

    assert known.id not in {entry.id for entry in GENERAL}


def test_a_third_of_the_catalogue_has_been_seen() -> None:
    """The field knows more than this table, but it is no handful either."""
    entries = {entry.id for entry in CATALOGUE if not entry.faults}
    assert len({row[3] for row in ROWS}) * 3 > len(entries)


def test_what_an_administrator_must_mend_names_a_step() -> None:
    """Where somebody must act, the remedy is more than patience."""
    for text, phase, kind, *_ in ROWS:
        diagnosis = diagnoses.of_reply(Reply.from_text(text), phase, kind)
        if diagnosis.kind in {Class.A, Class.CFG}:
            assert diagnosis.who != "nobody"
            assert any("Nobody has to act" not in step for step in diagnosis.remedy)
