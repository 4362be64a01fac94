"""What people really paste: lines of logs, exceptions, reports and questions, found in public places.

Each text is as it was found but for names, addresses and numbers of customers; the kind of place
stands above it. None of them was made for the catalogue. The reply has to be found in what is around
it, and must mean what it meant to whoever asked.
"""

import pytest

from service.routes.diagnoses import CATALOGUE
from service.routes.diagnoses.explain import explain
from service.smtp.phase import Phase

#: text, code, enhanced status, id, class
Row = tuple[str, int | None, str | None, str, str]

LOGINS: list[Row] = [
    # an issue of a mail package for R
    ("DEBUG SMTP: AUTH LOGIN failed\njavax.mail.AuthenticationFailedException: 535 5.7.139 Authentication unsuccessful, basic authentication is disabled. [BM1P287CA0015.INDP287.PROD.OUTLOOK.COM]\n\n\tat java.mail/com.sun.mail.smtp.SMTPTransport$Authenticator.authenticate(SMTPTransport.java:965)\n\tat java.mail/com.sun.mail.smtp.SMTPTransport.authenticate(SMTPTransport.java:876)", 535, "5.7.139", "exo.basic_auth_disabled", "A"),
    # an issue of a .NET mail library
    ("MailKit.Net.Smtp.SmtpCommandException: 5.7.3 Authentication unsuccessful\nStackTrace: MailKit.Net.Smtp.SmtpClient.AuthenticateAsync(Encoding encoding, ICredentials credentials, CancellationToken cancellationToken)", None, "5.7.3", "exo.authentication_unsuccessful", "A"),
    # a comment in a C# program
    ("As of 2025-01-21 22:07:00 started getting this error:\n      The SMTP server requires a secure connection or the client was not authenticated. The server response was: 5.7.57 Client not authenticated to send mail. Error: 535 5.7.139 Authentication unsuccessful, basic authentication is disabled. [YT3PR01CA0122.CANPRD01.PROD.OUTLOOK.COM 2025-01-22T03:07:00.315Z 08DD393115E98C2B]\n      Going to this link           go to https://account.live.com/proofs/Manage/additional?mkt=en-us", 535, "5.7.139", "exo.basic_auth_disabled", "A"),
    # a table of errors in a SQL dump, in Spanish
    ("VALUES (5, N'El servidor SMTP requiere una conexión segura o el cliente no se autenticó. La respuesta del servidor fue: 5.7.57 Client not authenticated to send mail. Error: 535 5.7.139 Authentication unsuccessful, the request did not meet the criteria to be authenticated successfully. Contact your administrator. [BN9PR03CA0716.namprd03.prod.outlook.com 2026-07-01T01:57:31.695Z 08DED6A3FAA75B29]', CAST(N'2026-06-30T19:57:42.030' AS DateTime), N'RecuperarAcceso', 0)", 535, "5.7.139", "entra.conditional_access", "A"),
    # a manufacturer's blog, with its markup
    (r"_An error occurred while sending the test mail: The SMTP server requires a secure connection, or the client was not authenticated. The server response was: 5.7.57 Client not authenticated to send mail. Error: 535 5.7.139 **Authentication unsuccessful**, **SmtpClientAuthentication is disabled for the Mailbox.** Visit https://aka.ms/smtp\_auth\_disabled for more information. HResult: -2146233088._", 535, "5.7.139", "exo.smtp_auth_disabled_for_mailbox", "A"),
    # the changelog of a Django application
    ("- **Issue**: OAuth2 sending failed with \"(530, b'5.7.57 Client not authenticated to send mail. Error: 535 5.7.3 Authentication unsuccessful\"\n    - **Root Cause**: Incorrect SMTP authentication method", 530, "5.7.57", "exo.authentication_unsuccessful", "A"),
    # a log of a .NET service: the stack on the same line
    ("System.Net.Mail.SmtpException: The SMTP server requires a secure connection or the client was not authenticated. The server response was: 5.7.57 Client not authenticated to send mail. Error: 535 5.7.3 Authentication unsuccessful [FR0P281CA0108.DEUP281.PROD.OUTLOOK.COM]     at System.Net.Mail.MailCommand.CheckResponse(SmtpStatusCode statusCode, String response)     at System.Net.Mail.MailCommand.Send(SmtpConnection conn, Byte[] command, MailAddress from, Boolean allowUnicode)", 535, "5.7.3", "exo.authentication_unsuccessful", "A"),
    # a queue's column of errors, wrapped by the one who wrote it down
    ("530 5.7.57 Client not authenticated to send mail.\n535 5.7.139 Authentication unsuccessful, the request did not meet the criteria\nto be authenticated successfully. Contact your administrator.", 535, "5.7.139", "entra.conditional_access", "A"),
    # a tutorial of JavaMail, in Chinese
    ('如果用户名或口令错误，会导致`535`登录失败：\n\nDEBUG SMTP: AUTH LOGIN failed\nException in thread "main" javax.mail.AuthenticationFailedException: 535 5.7.3 Authentication unsuccessful [HK0PR03CA0105.apcprd03.prod.outlook.com]', 535, "5.7.3", "exo.authentication_unsuccessful", "A"),
    # a setup guide of a firm
    ("If backend logs show `SMTPAuthenticationError: 535 5.7.139 Authentication unsuccessful, the user credentials were incorrect`:", 535, "5.7.139", "exo.password_incorrect", "A"),
    # a program's comment beside its call of nodemailer
    ("//Invalid login: 451 4.7.0 Temporary server error. Please try again later. PRX2  \n            //this erreur apard in case when i put it here", 451, "4.7.0", "exo.proxy_trouble", "T1"),
]  # fmt: skip

RECIPIENTS: list[Row] = [
    # a Postfix log in the notes of an administrator
    ("Jun 22 08:26:31 smtp-7d69ff5b88-qrwqn postfix/smtp[380470]: 4D489100508D: to=<no-reply-unknown@example.com>, relay=example-com.mail.protection.outlook.com[203.0.113.36]:25, delay=0.38, delays=0.02/0.01/0.22/0.13, dsn=5.4.1, status=bounced (host example-com.mail.protection.outlook.com[203.0.113.9] said: 550 5.4.1 Recipient address rejected: Access denied. AS(201806281) [DB5EUR01FT088.eop-EUR01.prod.protection.outlook.com 2023-06-22T08:26:31.592Z 08DB72B25E50380B] (in reply to RCPT TO command))", 550, "5.4.1", "exo.recipient_not_found", "PR"),
    # a patch on a mailing list of an emulator, quoting Gmail's report
    ("  ** Message blocked **\n\n  Your message to ana@example.com has been blocked. See technical details below for more information.\n\n  The response from the remote server was:\n  550 5.4.1 Recipient address rejected: Access denied. AS(201806281) [DBAEUR03FT030.eop-EUR03.prod.protection.outlook.com]\n\nTo avoid unmaintained code, I feel forced to merge this code", 550, "5.4.1", "exo.recipient_not_found", "PR"),
    # an answer on a kernel list: quoted, and broken in the middle of the reply
    ('On Thu, Apr 06, 2023 at 10:47:50PM +0200, Ana Example wrote:\n> Mails to Ben Example bounce ("550 5.4.1 Recipient address rejected:\n> Access denied. AS(201806281)").\n> \n> Signed-off-by: Ana Example <ana@example.com>', 550, "5.4.1", "exo.recipient_not_found", "PR"),
    # a kernel commit
    ("Emails to ben@example.com bounce permanently:\n\n  Remote Server returned '550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup'\n\nso replace him with Cleo Example.", 550, "5.1.10", "exo.recipient_not_found", "PR"),
    # a student's notes of a non-delivery report
    ("Status code: 550 5.1.10\n\nOriginal Message Details\nCreated Date:       9/16/2026 9:18:00 PM\nSender Address:     testuser01@example.com\n\nError Details\nError:               550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient ben@example.com not found by SMTP address lookup\nMessage rejected by: SA1PR18MB4661.namprd18.prod.outlook.com", 550, "5.1.10", "exo.recipient_not_found", "PR"),
    # the documentation of a parser of reports
    ('"diagnosticcode": "Error Details Reported error: 550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup DSN generated by: NEKO0022.apcprd01.prod.exchangelabs.com","softbounce": 0', 550, "5.1.10", "exo.recipient_not_found", "PR"),
    # a test of a provider of mail in Britain: a gateway's own format
    ("2023-06-20 14:30:21.339Z - 5.7.133|failed|smtp;550 5.7.133 RESOLVER.RST.SenderNotAuthenticatedForGroup; authentication required; Delivery restriction check failed because the sender was not authenticated when sending to this group", 550, "5.7.133", "exo.recipient_restricted", "PR"),
    # a sales team's question, from the report of its mailing provider
    ("Soft bounced\n\nRejected by recipient's email security filter\n\nSENDING_DOMAIN_MISCONFIGURATION smtp;550 5.7.133 RESOLVER.RST.SenderNotAuthenticatedForGroup; authentication required; Delivery restriction check failed because the sender was not authenticated when sending to this group", 550, "5.7.133", "exo.recipient_restricted", "PR"),
    # Gmail's report of a delay
    ("** Delivery incomplete **\n\nThere was a temporary problem delivering your message to cleo@example.com. Gmail will retry for 46 more hours.\n\nThe response from the remote server was:\n451 4.4.4 Mail received as unauthenticated, incoming to a recipient domain configured in a hosted tenant which has no mail-enabled subscriptions. ATTR5 [BN1PEPF0000468D.namprd05.prod.outlook.com 2026-08-13T13:12:35.600Z 08DEF8E545D8505D]\n\nReporting-MTA: dns; googlemail.com", 451, "4.4.4", "exo.no_exchange_subscription", "A"),
    # a list of kernel patches, quoted-printable as it was archived
    ('Updated the Mail address as "ben@example.com" is=20\nreturned with below error\n\nError Details\nError:\t550 5.0.350 Remote server returned an error -> 550 account closed - =\nplease contact info@example.com instead=20\n\nMessage rejected by:\tmetis.example.com', 550, "5.0.350", "report.refused_elsewhere", "PM"),
    # the help pages of an issue tracker
    ("When hitting the error\n\n`550 5.7.520 Access denied, Your organization does not allow external forwarding. Please contact your administrator for further assistance. AS(7555)`\n\nMicrosoft 365 (Outlook) by default blocks automatic forwarding", 550, "5.7.520", "report.refused_elsewhere", "PM"),
]  # fmt: skip

RELAYS: list[Row] = [
    # a comment below a tutorial of an ERP system
    ("Mail delivery failed via SMTP server 'None'.\nSMTPRecipientsRefused: {'ana@example.com': (550, b'5.7.64 TenantAttribution; Relay Access Denied [xxxxxxxxxxxx.prod.protection.outlook.com]')}", 550, "5.7.64", "exo.relay_denied", "A"),
    # the documentation of a mail server, in German
    ("Mails, die an eine Mailbox im Internet gesendet werden, können nicht zugestellt werden. Non Delivery Report mit Fehler `550 5.7.64 TenantAttribution; Relay Access Denied`  \n**Mögliche Lösung:**", 550, "5.7.64", "exo.relay_denied", "A"),
    # a question on Microsoft's forum
    ('On the on premises Exchange Server message trace I always see a FAIL with the error message "550 5.7.64 TenantAttribution: Relay Access Denied".\n\nWhy is that happening?', 550, "5.7.64", "exo.relay_denied", "A"),
    # a session by hand, in a student's notes
    (">> MAIL FROM:<foo@example.com>\n250 2.1.0 Sender OK\n>> RCPT TO:<ana@example.net>\n550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain", 550, "5.7.54", "exo.relay_denied", "A"),
    # a non-delivery report in a question on Microsoft's forum
    ("EXCHANGE.local-domain.local gave this error:  \n\nSMTP; Unable to relay recipient in non-accepted domain  \n\nDiagnostic information for administrators:  \n\nGenerating server: EXCHANGE.local-domain.local  \n\nRemote Server returned '550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain'  \n\nOriginal message headers:  \n\nReceived: from EXCHANGE.local-domain.local (192.168.4.17) by EXCHANGE.local-domain.local (192.168.4.17) with Microsoft SMTP Server id 15.2.1118.7; Sat, 25 Mar", 550, "5.7.54", "exo.relay_denied", "A"),
    # a comment in a C# program
    (r"System.Net.Mail.SmtpFailedRecipientException: Mailbox unavailable. The server response was: 5.7.54 SMTP; Unable to relay recipient in non-accepted domain\r\n   at System.Net.Mail.SmtpTransport.SendMail(MailAddress sender, MailAddressCollection recipients)", None, "5.7.54", "exo.relay_denied", "A"),
    # a question on Microsoft's forum
    ("Customer is attempting to configure SMTP settings in a third-party application and receiving the following error:  451 4.4.62 Mail sent to the wrong Office 365 region, ATTR35.  As part of troubleshooting, we reviewed the KB article", 451, "4.4.62", "exo.wrong_region", "A"),
    # the notes of a developer, with another code than Microsoft's pages have
    ("- `421 4.4.62 Mail sent to the wrong Office 365 region` — Use\n  `smtp.office365.com` (not the regional variant)", 421, "4.4.62", "exo.wrong_region", "A"),
    # a shell script's sample of a gateway's log
    ('"451-4.4.3 Temporary server error. Please try again later ATTR2 [BN2PEPF00004FBF.namprd04.prod.outlook.com 2024-07-31T21:10:49.094Z 08DCAFC4626DA37A]"', 451, "4.4.3", "exo.attribution_trouble", "T1"),
]  # fmt: skip

THROTTLES: list[Row] = [
    # the parser of a log collector
    ("\t53C2C140E40: host smtp.office365.com[203.0.113.1] said: 432 4.3.2 Concurrent connections limit exceeded. Visit https://aka.ms/concurrent_sending for more information. [Hostname=P212321.PROD.OUTLOOK.COM] (in reply to end of DATA command)", 432, "4.3.2", "exo.concurrent_connections", "T1"),
    # the log of a cloud function
    ("2025-09-30T08:30:12Z [Error] Failed to send email to Message failed: 432 4.3.2 \nConcurrent connections limit exceeded.\n\nVisit https://aka.ms/concurrent_sending for more information. [Hostname=B]", 432, "4.3.2", "exo.concurrent_connections", "T1"),
    # a comment in a PHP program
    ('# Expected response code 250 but got code "432", with message "432 4.3.2 Concurrent connections limit exceeded. Visit https://aka.ms/concurrent_sending for more information.', 432, "4.3.2", "exo.concurrent_connections", "T1"),
    # a comment in a parser of bounces: a Postfix log, wrapped
    ("#  - status=deferred (host hotmail-com.olc.protection.outlook.com[192.0.2.1] said:\n            451 4.7.500 Server busy. Please try again later from [192.0.2.2]. (AS761) (in reply\n            to RCPT TO command))", 451, "4.7.500", "exo.server_busy", "T2"),
    # the queue of a university, as JSON
    ('"delay_reason": "host eur.olc.protection.outlook.com[203.0.113.27] said: 451 4.7.650 The mail server [203.0.113.6] has been temporarily rate limited due to IP reputation. For e-mail delivery information, see https://aka.ms/postmaster (S775) [Name=Protocol Filter Agent][AGT=PFA][MxId=11BCD825A78A8D0B] [AMS0EPF000001A7.eurprd05.prod.outlook.com 2026-02-25T11:12:39.245Z 08DE6C12E206EF5D] (in reply to MAIL FROM command)"', 451, "4.7.650", "exo.address_rate_limited", "T2"),
    # a blog: the words without any number
    ('The receiving system sends back an error message, something like, "The mail server [203.0.113.4] has been temporarily rate limited due to IP reputation. For e-mail delivery information, see https://postmaster.live.com".', None, None, "exo.address_rate_limited", "T2"),
    # a comment in a Visual Basic program, in French
    ("'Evite l erreur suivante\n                    '4.5.3 Too many recipients (AS780090) [TO1CAN01FT005.eop-CAN01.prod.protection.outlook.com]\n                    'Donc les mail sont envoyer de facon individuel", None, "4.5.3", "exo.address_volume", "T2"),
    # the log of an appointment system
    ("[WRN] SendAppointmentEmailJob: SMTP delivery failed to ana@example.com.\nMailKit.Net.Smtp.SmtpCommandException: 4.5.127 Message rejected.\n       Excessive message rate from sender. For more information see https://aka.ms/EXOSmtpErrors.", None, "4.5.127", "acs.message_rate", "T2"),
    # the notes of a developer: the words without the number beside them
    ("If you see the error: `Sender throttled due to continuous invalid recipients errors`:\n\n1.  **Stop Sending**: Microsoft has temporarily blocked the account", None, None, "exo.sender_throttled_invalid_recipients", "T3"),
    # an issue of a .NET mail library
    ("SmtpSender: Error sending message MailKit.Net.Smtp.SmtpCommandException: 4.4.1 Connection timed out\n   at MailKit.Net.Smtp.SmtpClient.ProcessMailFromResponse(SmtpResponse response, MailboxAddress mailbox)", None, "4.4.1", "smtp.idle_too_long", "T1"),
    # a question on Microsoft's forum: Exim's log
    ("SMTP error from remote mail server after end of data: host 192.168.200.45 [192.168.200.45]: 451 4.7.0 Temporary server error. Please try again later. PRX4", 451, "4.7.0", "exo.proxy_trouble", "T1"),
    # a field report of an outage
    ("451 4.7.0 Temporary server error. Please try again later. PRX5\nTLS negotiation failed with error UnknownCredentials\n\nApp-side (varies by stack):\n\nSystem.Net.Mail.SmtpException: Unable to read data from the transport connection", 451, "4.7.0", "exo.proxy_trouble", "T1"),
]  # fmt: skip

BLOCKS: list[Row] = [
    # OpenSMTPD's log in a guide
    ('Mar 22 17:56:37 mercury smtpd[45037]: 8f4864084ecc48f4 mta event=delivery evpid=7077717e797a776e from=<puffy@example.com> to=<bill@hotmail.com> rcpt=<-> source="203.0.113.1" relay="203.0.113.33 (203.0.113.33)" delay=1s result="PermFail" stat="550 5.7.1 Unfortunately, messages from [203.0.113.1] weren\'t sent. Please contact your Internet service provider since part of their network is on our block list (AS3150). You can also refer your provider to http://mail.live.com/mail/troubleshooting.aspx#errors. [BL2NAM02FT031.eop-nam02.prod.protection.outlook.com]"', 550, "5.7.1", "exo.network_on_block_list", "A"),
    # a test of a forwarding service: the subject of an alert
    ("Code Bug: Error - Mail command failed: 550 5.7.1 Unfortunately, messages from [203.0.113.200] weren't sent. Please contact your Internet service provider since part of their network is on our block list (S3150). You can also refer your provider to http://mail.live.com/mail/troubleshooting.aspx#errors. [Name=Protocol Filter Agent][AGT=PFA][MxId=11B989991C72A5F2] [BL6PEPF00022571.namprd02.prod.outlook.com 2024-08-25T23:54:32.568Z 08DCC4CC8ECEBA56] (66cbc438d0090cee7c346279)", 550, "5.7.1", "exo.network_on_block_list", "A"),
    # a guide for mail from home
    ("to outlook.com:  550 5.7.1 Service unavailable, Client host [203.0.113.7]\n                 blocked using Spamhaus\nto gmail.com:    accepted, filed as spam", 550, "5.7.1", "exo.address_on_block_list", "A"),
    # a comment in a Go program: the status without its code
    ("5.7.1 Service unavailable, Client host [203.0.113.110] blocked using Spamhaus. To request removal from this list see https://www.spamhaus.org/query/ip/203.0.113.110 (AS3130). [BN8NAM12FT053.eop-nam12.prod.protection.outlook.com]", None, "5.7.1", "exo.address_on_block_list", "A"),
    # Microsoft's help, in Danish: a range of numbers
    ("Hvis du f.eks. modtager følgende NDR: `550 5.7.606-649 Access denied, banned sending IP [x.x.x.x]; To request removal from this list please visit https://sender.office.com/ and follow the directions.`", 550, "5.7.606", "exo.address_banned", "A"),
    # a non-delivery report of a new tenant
    ("Delivery has failed to these recipients or groups:\n\nana@example.com<mailto:ana@example.com>\nYour message wasn't delivered. Please try resending the message.\n\nDiagnostic information for administrators:\n\nGenerating server: YT6PR01MB8229.CANPRD01.PROD.OUTLOOK.COM\n\nana@example.com\nRemote server returned '550 5.7.708 Service unavailable. Access denied, traffic not accepted from this IP. For more information please go to http://go.microsoft.com/fwlink/?LinkId=526653 AS(7230)'\n\nOriginal message headers:\n\nFrom: ben@example.net", 550, "5.7.708", "exo.address_not_trusted", "A"),
    # a question about a Python program, in Spanish
    ("Me da este fallo:\nSMTPDataError\nsmtplib.SMTPDataError: (554, b'5.2.0 STOREDRV.Submission.Exception:OutboundSpamException; Failed to process message due to a permanent exception with message [BeginDiagnosticData]WASCL UserAction verdict is not None. Actual verdict is Suspend. OutboundSpamException: WASCL UserAction verdict is not None. Actual verdict is Suspend.[EndDiagnosticData] [Hostname=AM8P192MB1009.EURP192.PROD.OUTLOOK.COM]')", 554, "5.2.0", "exo.outbound_spam", "A"),
    # the queue of a CakePHP application in a SQL dump
    (r"'Cake\\Network\\Exception\\SocketException: SMTP Error: 554 5.2.0 STOREDRV.Submission.Exception:OutboundSpamException; Failed to process message due to a permanent exception with message WASCL UserAction verdict is not None. Actual verdict is HipNotify, ShowTierUpgrade. [Hostname=DBAPR05MB7016.eurprd05.prod.outlook.com]\n#0 C:\\vendor\\cakephp\\cakephp\\src\\Mailer\\Transport\\SmtpTransport.php(412)'", 554, "5.2.0", "exo.outbound_spam", "A"),
    # a comment in a Java program, wrapped by hand
    ("com.sun.mail.smtp.SMTPSendFailedException:\n    554 5.2.0 STOREDRV.Submission.Exception:OutboundSpamException; \n    Failed to process message due to a permanent exception with message WASCL \n    UserAction verdict is not None. Actual verdict is RefuseQuota, ShowTierUpgrade.\n    [Hostname=KL1PR04MB1686.apcprd04.prod.outlook.com]", 554, "5.2.0", "exo.outbound_spam", "A"),
    # a comment in a Ruby library: an answer of the old REST interface
    (r'send: 554 {\"error\":{\"code\":\"ErrorMessageSubmissionBlocked\",\"message\":\"Cannot send mail. Follow the instructions in your Inbox to verify your account., WASCL UserAction verdict is not None. Actual verdict is HipSend, ShowTierUpgrade.\"}}', None, None, "exo.outbound_spam", "A"),
    # the manual of a messaging provider: two lines of one status
    ("- 5.7.515|failed|smtp; 550-5.7.515 Access denied, sending domain [SendingDomain] does  \n  not meet the required authentication level.", 550, "5.7.515", "other.unauthenticated_mail", "A"),
]  # fmt: skip

SENDERS: list[Row] = [
    # a manufacturer's knowledge base
    ("The following error message displays: \n\n554 error: 554 5.2.0 STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied; Failed to process message due to a permanent exception with message Cannot submit message.\n\n### Release", 554, "5.2.0", "exo.send_as_denied", "A"),
    # a blog about an ERP system, in Chinese
    ("【问题4】office365企业邮箱\n\nMail Delivery Failed Mail delivery failed via SMTP server 'None'. SMTPDataError: 554 5.2.0 STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied; Failed to process message due to a permanent exception with message Cannot submit", 554, "5.2.0", "exo.send_as_denied", "A"),
    # a forum of a workflow product, in Portuguese, with its escapes
    (r"Erro 554 ao enviar email: : com.sun.mail.smtp.SMTPSendFailedException: 554 5.2.252 SendAsDenied; nao-responder@example.com not allowed to send as ana@example.com; STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied; Failed to process message due to a permanent exception with message \[BeginDiagnosticData\]Cannot submit message.", 554, "5.2.252", "exo.send_as_denied", "A"),
    # a test plan, in Spanish: a Python exception over two lines
    ("**Error observado:**\nSMTPDataError: (554, b'5.2.252 SendAsDenied; sistemas@example.com \nnot allowed to send as notificacion@example.com')", 554, "5.2.252", "exo.send_as_denied", "A"),
    # the work log of an ERP administrator
    ("**1** real test send reproduced the true error: `554 5.2.252 SendAsDenied — alert@example.com not allowed to send as connect@example.net` (Exchange).", 554, "5.2.252", "exo.send_as_denied", "A"),
    # a product's guide: .NET, with a letter missing
    ('*"Transaction failed. The server response was: 5.2.0 STOREDRV.Submission.Exception:SendAsDeniedException.MapExceptionSendAsDenied; Failed to process message due to a permanent exception with message Cannot submit message..."*', None, "5.2.0", "exo.send_as_denied", "A"),
    # a service's README, in German
    ("- 550 5.7.60 SMTP; Client does not have permissions to send as this sender\n\nDer Grund scheint ein Security/Berechtigungsproblem zu sein.", 550, "5.7.60", "exo.send_as_denied", "A"),
]  # fmt: skip

ROWS = LOGINS + RECIPIENTS + RELAYS + THROTTLES + BLOCKS + SENDERS


@pytest.mark.parametrize(("text", "code", "enhanced", "id_", "class_"), ROWS)
def test_the_reply_is_found_and_understood(
    text: str, code: int | None, enhanced: str | None, id_: str, class_: str
) -> None:
    """Whatever is around the reply: its own digits, its entry, its class."""
    found = explain(text)

    assert found.recognized is not None
    assert found.diagnosis is not None
    assert (found.recognized.code, found.recognized.enhanced) == (code, enhanced)
    assert (found.diagnosis.id, found.diagnosis.kind.value) == (id_, class_)


@pytest.mark.parametrize("text", [row[0] for row in ROWS if row[1] is not None])
def test_what_surrounds_a_reply_is_not_shown_as_the_servers_words(text: str) -> None:
    """No stack, no header of a report and no remark of Postfix stands in the reply's text."""
    found = explain(text)

    assert found.recognized is not None
    for strange in ("at System.Net", "\tat ", "Reporting-MTA", "in reply to", "Original message headers"):
        assert strange not in found.recognized.text


@pytest.mark.parametrize(
    ("text", "phase"),
    [
        (RECIPIENTS[0][0], Phase.RCPT),
        (THROTTLES[0][0], Phase.REPLY),
        (THROTTLES[3][0], Phase.RCPT),
        (THROTTLES[4][0], Phase.MAIL),
        (THROTTLES[10][0], Phase.REPLY),
        (LOGINS[0][0], Phase.AUTH),
        (LOGINS[10][0], Phase.AUTH),
        (RELAYS[0][0], Phase.RCPT),
        (RELAYS[3][0], Phase.RCPT),
        (BLOCKS[1][0], Phase.MAIL),
    ],
)
def test_the_surroundings_tell_the_phase(text: str, phase: Phase) -> None:
    """Postfix, Exim, Java, Python, nodemailer and a session by hand say what was answered."""
    found = explain(text)

    assert found.recognized is not None
    assert found.recognized.phase is phase


def test_the_table_is_no_handful() -> None:
    """Forty texts at least, and their entries are in the catalogue."""
    assert len(ROWS) >= 40
    assert {row[3] for row in ROWS} <= {entry.id for entry in CATALOGUE}
