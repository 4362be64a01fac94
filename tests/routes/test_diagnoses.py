"""The catalogue: one row for each reply that Microsoft 365 is known to give."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.routes import diagnoses
from service.routes.diagnoses import CATALOGUE, Class, Scope
from service.routes.route import RouteKind
from service.smtp.phase import Phase
from service.smtp.reply import Reply
from tests.routes.test_diagnoses_seen import ROWS as SEEN

SUB, DS, REL = RouteKind.CLIENT_SUBMISSION, RouteKind.DIRECT_SEND, RouteKind.SMTP_RELAY
HVE, ACS = RouteKind.HIGH_VOLUME_EMAIL, RouteKind.AZURE_COMMUNICATION_SERVICES
OWN = RouteKind.SMARTHOST
TRAILER = " [SB0P365CA0001.PROD.OUTLOOK.COM 2026-10-08T20:36:23.875Z 08DF254F56560914]"

#: reply, phase, kind of route, id, class, scope, who must act
Row = tuple[str, Phase | None, RouteKind, str, str, str, str]
CONNECT, GREETING, EHLO, STARTTLS = Phase.CONNECT, Phase.GREETING, Phase.EHLO, Phase.STARTTLS
AUTH, MAIL, RCPT, DATA, REPLY = Phase.AUTH, Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.REPLY

_THROTTLED = "550 5.2.25{} Sender throttled due to continuous {} errors; please try again later. For more details please refer to x"

ROWS: list[Row] = [
    # -- connections, EHLO, STARTTLS
    ("421 4.3.2 Service not available", GREETING, SUB, "exo.service_trouble", "T1", "lane", "nobody"),
    ("421 4.3.2 Service not active", GREETING, REL, "exo.service_trouble", "T1", "lane", "nobody"),
    ("421 4.3.2 System not accepting network messages", GREETING, REL, "exo.service_trouble", "T1", "lane", "nobody"),
    ("421 4.3.2 The maximum number of concurrent server connections has exceeded a limit, closing transmission channel", GREETING, REL, "exo.connection_limit", "T2", "lane", "nobody"),
    ("421 4.3.2 The maximum number of concurrent connections has exceeded a limit, closing transmission channel", GREETING, DS, "exo.connection_limit", "T2", "lane", "nobody"),
    ("421 4.4.1 Connection timed out", MAIL, SUB, "smtp.idle_too_long", "T1", "lane", "nobody"),
    ("421 4.4.2 Connection dropped (due to TimedOut)", MAIL, SUB, "smtp.idle_too_long", "T1", "lane", "nobody"),
    ("451 4.7.0 Timeout waiting for client input", MAIL, SUB, "smtp.idle_too_long", "T1", "lane", "nobody"),
    ("421 4.7.0 Too many errors on this connection, closing transmission channel", AUTH, SUB, "smtp.too_many_errors", "T1", "lane", "operator"),
    ("421 4.4.2 Message submission rate for this client has exceeded the configured limit", MAIL, REL, "exo.connection_rate", "T2", "lane", "nobody"),
    ("421 4.4.2 Message size limit for this connection reached", MAIL, REL, "exo.connection_rate", "T2", "lane", "nobody"),
    ("501 5.5.4 Invalid domain name", EHLO, SUB, "smtp.ehlo_name_refused", "CFG", "lane", "operator"),
    ("501 5.0.0 EHLO requires domain address", EHLO, SUB, "smtp.ehlo_name_refused", "CFG", "lane", "operator"),
    ("550 5.7.506 Access Denied, Bad HELO", EHLO, REL, "smtp.ehlo_name_refused", "CFG", "lane", "operator"),
    ("550 5.7.800 Access denied, banned sender", EHLO, REL, "exo.banned_domain", "A", "lane", "exchange_admin"),
    ("421 4.7.66 TLS 1.0 and 1.1 are not supported. Please upgrade/update your client to support TLS 1.2. Visit https://aka.ms/smtp_auth_tls.", AUTH, SUB, "exo.tls_too_old", "CFG", "lane", "operator"),
    ("421 5.7.67 TLS 1.0 and 1.1 are not supported by your organization", AUTH, SUB, "exo.legacy_tls_not_allowed", "CFG", "lane", "operator"),
    ("454 4.7.0 Cannot accept TLS as maximum TLS rate exceeded for server", STARTTLS, SUB, "smtp.tls_busy", "T1", "lane", "nobody"),
    ("554 5.7.3 Unable to initialize security subsystem", STARTTLS, SUB, "smtp.security_subsystem", "T1", "lane", "operator"),
    ("454 4.7.5 Certificate validation failure", MAIL, REL, "exo.client_certificate_refused", "A", "lane", "exchange_admin"),
    ("454 4.7.0 Failed to establish appropriate TLS channel: Access Denied", MAIL, REL, "exo.client_certificate_refused", "A", "lane", "exchange_admin"),
    ("530 5.7.0 Must issue a STARTTLS command first", MAIL, SUB, "smtp.starttls_needed", "CFG", "lane", "operator"),
    ("451 5.7.3 STARTTLS is required to send mail", MAIL, REL, "smtp.starttls_needed", "CFG", "lane", "operator"),
    ("500 5.3.3 Unrecognized command", MAIL, SUB, "smtp.dialogue_refused", "CFG", "lane", "operator"),
    ("502 5.3.3 Command not implemented", MAIL, SUB, "smtp.dialogue_refused", "CFG", "lane", "operator"),
    ("503 5.5.1 Bad sequence of commands", RCPT, SUB, "smtp.dialogue_refused", "CFG", "lane", "operator"),
    ("503 5.5.2 Send hello first", MAIL, SUB, "smtp.dialogue_refused", "CFG", "lane", "operator"),
    ("503 5.5.2 Need mail command", RCPT, SUB, "smtp.dialogue_refused", "CFG", "lane", "operator"),
    ("503 5.5.2 Need rcpt command", DATA, SUB, "smtp.dialogue_refused", "CFG", "lane", "operator"),
    ("503 5.5.2 Sender already specified", MAIL, SUB, "smtp.dialogue_refused", "CFG", "lane", "operator"),
    ("503 5.5.2 Only one STARTTLS command can be issued per session", STARTTLS, SUB, "smtp.dialogue_refused", "CFG", "lane", "operator"),
    ("501 5.5.4 Invalid arguments", MAIL, SUB, "smtp.dialogue_refused", "CFG", "lane", "operator"),
    ("501 5.5.4 Unrecognized parameter", MAIL, SUB, "smtp.dialogue_refused", "CFG", "lane", "operator"),
    ("501 5.5.4 Unsupported BODY type", MAIL, SUB, "smtp.dialogue_refused", "CFG", "lane", "operator"),
    ("500 5.5.2 Command too long", AUTH, SUB, "smtp.dialogue_refused", "CFG", "lane", "operator"),
    # -- AUTH
    ("535 5.7.3 Authentication unsuccessful [SB0P365CA0001.CANPRD01.PROD.OUTLOOK.COM]", AUTH, SUB, "exo.authentication_unsuccessful", "A", "lane", "exchange_admin"),
    ("535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant. Visit https://aka.ms/smtp_auth_disabled for more information.", AUTH, SUB, "exo.smtp_auth_disabled_for_tenant", "A", "lane", "exchange_admin"),
    ("535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox. Visit https://aka.ms/smtp_auth_disabled for more information.", AUTH, SUB, "exo.smtp_auth_disabled_for_mailbox", "A", "lane", "exchange_admin"),
    ("535 5.7.139 Authentication unsuccessful, basic authentication is disabled.", AUTH, SUB, "exo.basic_auth_disabled", "A", "lane", "exchange_admin"),
    ("535 5.7.139 Authentication unsuccessful, user is locked by your organization's security defaults policy. Contact your administrator.", AUTH, SUB, "entra.security_defaults", "A", "lane", "entra_admin"),
    ("535 5.7.139 Authentication unsuccessful, the request did not meet the criteria to be authenticated successfully. Contact your administrator.", AUTH, SUB, "entra.conditional_access", "A", "lane", "entra_admin"),
    ("535 5.7.139 Authentication unsuccessful, the user credentials were incorrect.", AUTH, SUB, "exo.password_incorrect", "A", "lane", "operator"),
    ("535 5.7.139 Authentication unsuccessful, the organization configuration does not allow this authentication request", AUTH, HVE, "exo.authentication_not_allowed", "A", "lane", "exchange_admin"),
    ("535 5.7.139 Authentication unsuccessful, federated STS service was unreachable", AUTH, SUB, "entra.federation_unreachable", "T2", "lane", "entra_admin"),
    ("535 5.7.139 Authentication unsuccessful, federated STS URL does not support HTTPS", AUTH, SUB, "entra.federation_insecure", "A", "lane", "entra_admin"),
    ("550 5.7.30 Basic authentication is not supported for Client Submission.", AUTH, SUB, "exo.basic_auth_retired", "A", "lane", "exchange_admin"),
    ("504 5.7.4 Unrecognized authentication type", AUTH, SUB, "smtp.mechanism_unknown", "CFG", "lane", "operator"),
    ("454 4.7.0 Temporary authentication failure", AUTH, SUB, "smtp.temporary_login_failure", "T1", "lane", "nobody"),
    ("451 4.7.3 Authentication unsuccessful due to temporary server error. Please try again later.", AUTH, SUB, "exo.service_trouble", "T1", "lane", "nobody"),
    ("501 5.5.121 Invalid XOAUTH2 argument, missing user", AUTH, HVE, "hve.login_malformed", "CFG", "lane", "operator"),
    ("501 5.5.126 Invalid XOAUTH2 argument, empty token", AUTH, HVE, "hve.login_malformed", "CFG", "lane", "operator"),
    ("535 5.7.142 Authentication unsuccessful, token will expire soon", AUTH, HVE, "hve.token_expiring", "T1", "lane", "nobody"),
    ("535 5.7.143 Authentication unsuccessful, expired token", AUTH, HVE, "hve.token_expiring", "T1", "lane", "nobody"),
    ("535 5.7.144 Authentication unsuccessful, Invalid API permissions", AUTH, HVE, "hve.permission_missing", "A", "lane", "entra_admin"),
    ("550 5.7.240 Application is not allowed for this account", AUTH, HVE, "hve.application_not_allowed", "A", "lane", "exchange_admin"),
    ("550 5.2.240 Not a high volume account", MAIL, HVE, "hve.not_an_account", "A", "lane", "exchange_admin"),
    ("535 5.7.3 Authentication unsuccessful", AUTH, HVE, "exo.hve_authentication_unsuccessful", "A", "lane", "exchange_admin"),
    ("535 5.7.3 Authentication unsuccessful", AUTH, ACS, "acs.application_refused", "A", "lane", "entra_admin"),
    ("535 5.7.139 Authentication unsuccessful, basic authentication is disabled.", AUTH, ACS, "acs.application_refused", "A", "lane", "entra_admin"),
    ("535 5.7.3 Authentication unsuccessful", AUTH, OWN, "smtp.login_refused", "A", "lane", "operator"),
    # -- MAIL
    ("530 5.7.57 Client not authenticated to send mail.", MAIL, SUB, "smtp.not_authenticated", "CFG", "lane", "operator"),
    ("530 5.7.57 SMTP; Client was not authenticated to send anonymous mail during MAIL FROM", MAIL, SUB, "smtp.not_authenticated", "CFG", "lane", "operator"),
    ("530 5.7.57 Client not authenticated to send mail. Error: 535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox.", MAIL, SUB, "exo.smtp_auth_disabled_for_mailbox", "A", "lane", "exchange_admin"),
    ("530 5.7.1 Client was not authenticated", MAIL, SUB, "smtp.not_authenticated", "CFG", "lane", "operator"),
    ("530 5.7.1 Not authenticated", MAIL, SUB, "smtp.not_authenticated", "CFG", "lane", "operator"),
    ("550 5.7.60 SMTP; Client does not have permissions to send as this sender", MAIL, SUB, "exo.send_as_denied", "A", "sender", "exchange_admin"),
    ("550 5.7.62 Client not permitted to send as this sender address", MAIL, HVE, "hve.sender_not_account", "CFG", "sender", "application"),
    ("550 5.7.60 SMTP; Client does not have permissions to send as this sender", MAIL, HVE, "hve.sender_not_account", "CFG", "sender", "application"),
    ("550 5.7.60 SMTP; Client does not have permissions to send as this sender", MAIL, ACS, "acs.sender_not_linked", "A", "sender", "operator"),
    ("550 5.1.7 The specified sender domain has not been linked.", MAIL, ACS, "acs.sender_not_linked", "A", "sender", "operator"),
    ("501 5.1.7 Invalid address", MAIL, SUB, "exo.sender_address_invalid", "PM", "message", "application"),
    ("501 5.1.7 Long addresses not supported", MAIL, SUB, "exo.sender_address_invalid", "PM", "message", "application"),
    ("501 5.1.9 UTF-8 addresses not supported", MAIL, SUB, "exo.sender_address_invalid", "PM", "message", "application"),
    ("552 5.3.4 Message size exceeds fixed maximum message size", MAIL, SUB, "smtp.message_too_large", "PM", "message", "application"),
    ("451 4.4.62 Mail sent to the wrong Office 365 region. ATTR35. For more information x", MAIL, REL, "exo.wrong_region", "A", "lane", "exchange_admin"),
    ("451 4.4.3 Temporary server error. Please try again later ATTR18", MAIL, REL, "exo.attribution_trouble", "T1", "lane", "nobody"),
    ("451 4.4.4 Temporary server error. Please try again later ATTR1", MAIL, REL, "exo.attribution_trouble", "T1", "lane", "nobody"),
    ("451 4.3.2 Temporary server error. Please try again later ATTR2", MAIL, REL, "exo.attribution_trouble", "T1", "lane", "nobody"),
    ("451 4.7.700 PFA agent busy, please try again.", MAIL, DS, "exo.service_trouble", "T1", "lane", "nobody"),
    # -- RCPT
    ("550 5.4.1 Recipient address rejected: Access denied. AS(201806281)", RCPT, DS, "exo.recipient_not_found", "PR", "recipient", "application"),
    ("550 5.4.1 Recipient address rejected: Access denied. For more information see https://aka.ms/EXOSmtpErrors", RCPT, DS, "exo.recipient_not_found", "PR", "recipient", "application"),
    ("550 5.4.1 Relay Access Denied", RCPT, SUB, "exo.domain_not_served", "PR", "recipient", "operator"),
    ("550 5.7.64 TenantAttribution; Relay Access Denied", RCPT, REL, "exo.relay_denied", "A", "lane", "exchange_admin"),
    ("550 5.7.64 Relay Access Denied ATTR36. For more details please refer to x", RCPT, REL, "exo.relay_denied", "A", "lane", "exchange_admin"),
    ("550 5.7.64 TenantAttribution; Relay Access Denied", RCPT, DS, "exo.relay_denied_direct_send", "PR", "recipient", "operator"),
    ("550 5.7.68 TenantInboundAttribution; Direct Send not allowed for this organization from unauthorized sources", RCPT, DS, "exo.direct_send_rejected", "A", "lane", "exchange_admin"),
    ("550 5.7.1 Unable to relay", RCPT, REL, "exo.relay_denied", "A", "lane", "exchange_admin"),
    ("550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain", RCPT, REL, "exo.relay_denied", "A", "lane", "exchange_admin"),
    ("450 4.7.1 Unable to Relay. ATTR12", RCPT, REL, "exo.attribution_trouble", "T1", "lane", "nobody"),
    ("550 4.4.4 Mail received as unauthenticated, incoming to a recipient domain configured in a hosted tenant which has no mail-enabled subscriptions. ATTR5", RCPT, DS, "exo.no_exchange_subscription", "A", "lane", "exchange_admin"),
    ("451 4.4.4 Mail received as unauthenticated, incoming to a recipient domain configured in a hosted tenant which has no mail-enabled subscriptions. ATTR5", RCPT, DS, "exo.no_exchange_subscription", "A", "lane", "exchange_admin"),
    ("550 5.7.606 Access denied, banned sending IP [203.0.113.10]. To request removal from this list please visit https://sender.office.com/ and follow the directions. AS(1430)", RCPT, DS, "exo.address_banned", "A", "lane", "network"),
    ("550 5.7.649 Access denied, banned sending IP [203.0.113.10]. AS16012609", RCPT, REL, "exo.address_banned", "A", "lane", "network"),
    ("550 5.7.511 Access denied, banned sender [203.0.113.10].", RCPT, REL, "exo.address_banned_for_good", "A", "lane", "network"),
    ("550 5.7.1 Service unavailable; Client host [203.0.113.10] blocked using Spamhaus. To request removal x", RCPT, REL, "exo.address_on_block_list", "A", "lane", "network"),
    ("550 5.7.513 Service unavailable, Client host [203.0.113.10] blocked by contoso.com using Customer Block list (AS16012607)", RCPT, REL, "exo.recipient_blocks_us", "PR", "recipient", "application"),
    ("550 5.7.507 Access denied, rejected by recipient", RCPT, REL, "exo.recipient_blocks_us", "PR", "recipient", "application"),
    ("550 5.7.510 Access denied, does not accept email over IPv6", RCPT, REL, "exo.ipv6_not_taken", "CFG", "lane", "operator"),
    ("550 5.7.25 Access denied, the sending IPv6 address must have a reverse DNS record", RCPT, REL, "exo.ipv6_not_taken", "CFG", "lane", "operator"),
    ("450 4.7.26 Access denied, a message sent over IPv6 must pass either SPF or DKIM validation", RCPT, REL, "exo.ipv6_not_taken", "CFG", "lane", "operator"),
    ("550 5.7.508 Access denied, IPv6 range has exceeded permitted limits within 24 hour", RCPT, REL, "exo.ipv6_over_limit", "T2", "lane", "operator"),
    ("550 5.7.1 Unable to accept unauthorized message over IPv6", RCPT, REL, "exo.ipv6_not_taken", "CFG", "lane", "operator"),
    ("451 4.7.500 Server busy. Please try again later from [203.0.113.10]. (S77714)", RCPT, DS, "exo.server_busy", "T2", "lane", "exchange_admin"),
    ("451 4.7.500 Server busy. Please try again later from [203.0.113.10]. (AS843)", RCPT, DS, "exo.server_busy", "T2", "lane", "exchange_admin"),
    ("451 4.7.850 Access denied, please try again later", RCPT, DS, "exo.server_busy", "T2", "lane", "exchange_admin"),
    ("451 4.7.650 The mail server [203.0.113.10] has been temporarily rate limited due to IP reputation. For e-mail delivery information, see x (S775)", RCPT, DS, "exo.address_rate_limited", "T2", "lane", "exchange_admin"),
    ("451 4.7.651 The mail server [203.0.113.10] has been temporarily rate limited due to IP reputation. (S844)", RCPT, DS, "exo.address_rate_limited", "T2", "lane", "exchange_admin"),
    ("452 4.5.3 Too many recipients", RCPT, REL, "smtp.too_many_recipients", "T1", "split", "nobody"),
    ("452 4.5.3 Too many recipients (AS780090)", RCPT, REL, "exo.address_volume", "T2", "lane", "exchange_admin"),
    ("550 5.1.8 Access denied, bad outbound sender AS(42004)", RCPT, SUB, "exo.outbound_spam", "A", "lane", "exchange_admin"),
    ("550 5.7.501 Access denied, spam abuse detected", RCPT, SUB, "exo.sender_banned", "A", "lane", "exchange_admin"),
    ("550 5.7.502 Access denied, banned sender", RCPT, SUB, "exo.sender_banned", "A", "lane", "exchange_admin"),
    ("550 5.7.503 Access denied, banned sender", REPLY, SUB, "exo.sender_banned", "A", "lane", "exchange_admin"),
    ("550 5.7.504 [contoso.com]: Recipient address rejected", RCPT, SUB, "exo.recipient_not_found", "PR", "recipient", "application"),
    ("550 5.7.505 Access denied, banned recipient", RCPT, SUB, "exo.recipient_banned", "PR", "recipient", "application"),
    ("550 5.7.703 Your message can't be delivered because one or more recipients are blocked by your organization using Tenant Allow Block List", REPLY, SUB, "exo.tenant_block_list", "PM", "message", "exchange_admin"),
    ("550 5.7.703 Blocked", RCPT, SUB, "exo.tenant_block_list", "PM", "message", "exchange_admin"),
    ("550 5.7.705 Access denied, tenant has exceeded threshold", RCPT, SUB, "exo.tenant_blocked", "A", "lane", "exchange_admin"),
    ("550 5.7.708 Access denied, traffic not accepted from this IP", RCPT, SUB, "exo.address_not_trusted", "A", "lane", "exchange_admin"),
    ("550 5.7.711 Access denied, bad inbound connector. AS(2204)", RCPT, REL, "exo.connector_blocked", "A", "lane", "exchange_admin"),
    ("550 5.7.750 Service unavailable. Client blocked from sending from unregistered domains. For more information x", RCPT, REL, "exo.unregistered_domains", "A", "lane", "exchange_admin"),
    ("550 5.7.750 Service unavailable", RCPT, REL, "exo.unregistered_domains", "A", "lane", "exchange_admin"),
    ("501 5.1.3 Invalid address", RCPT, SUB, "exo.recipient_invalid", "PR", "recipient", "application"),
    ("501 5.1.6 Recipient addresses in single label domains not accepted", RCPT, SUB, "exo.recipient_invalid", "PR", "recipient", "application"),
    ("501 5.1.8 UTF-8 addresses not supported", RCPT, SUB, "exo.recipient_invalid", "PR", "recipient", "application"),
    # -- DATA and the dot
    ("432 4.3.2 Concurrent connections limit exceeded. Visit https://aka.ms/concurrent_sending for more information. [Hostname=SB0P365MB0001.PROD.OUTLOOK.COM]", REPLY, SUB, "exo.concurrent_connections", "T1", "lane", "nobody"),
    ("432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded", REPLY, SUB, "exo.concurrent_connections", "T1", "lane", "nobody"),
    ("554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException; Failed to process message due to a permanent exception", REPLY, SUB, "exo.recipient_quota", "T3", "lane", "nobody"),
    ("550 5.1.90 Your message can't be sent because you've reached your daily limit for message recipients", REPLY, SUB, "exo.recipient_quota", "T3", "lane", "nobody"),
    ("550 5.2.2 Submission quota exceeded", REPLY, SUB, "exo.recipient_quota", "T3", "lane", "nobody"),
    ("554 5.2.2 mailbox full; STOREDRV.Submission.Exception:QuotaExceededException.MapiException(Shutoff)QuotaExceeded; Failed to process", REPLY, SUB, "exo.sender_mailbox_full", "A", "lane", "exchange_admin"),
    ("554 5.2.252 SendAsDenied; noreply@contoso.com not allowed to send as ceo@contoso.com; STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied; x", REPLY, SUB, "exo.send_as_denied", "A", "sender", "exchange_admin"),
    ("554 5.2.0 STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied", REPLY, SUB, "exo.send_as_denied", "A", "sender", "exchange_admin"),
    (_THROTTLED.format(1, "mailbox full"), REPLY, SUB, "exo.sender_throttled_mailbox_full", "T3", "lane", "exchange_admin"),
    (_THROTTLED.format(2, "send as denied"), REPLY, SUB, "exo.sender_throttled_send_as_denied", "T3", "lane", "exchange_admin"),
    (_THROTTLED.format(3, "invalid license"), REPLY, SUB, "exo.sender_throttled_invalid_license", "T3", "lane", "exchange_admin"),
    (_THROTTLED.format(4, "too many recipients"), REPLY, SUB, "exo.sender_throttled_too_many_recipients", "T3", "lane", "exchange_admin"),
    (_THROTTLED.format(5, "invalid recipients"), REPLY, SUB, "exo.sender_throttled_invalid_recipients", "T3", "lane", "exchange_admin"),
    (_THROTTLED.format(4, "invalid recipients"), REPLY, SUB, "exo.sender_throttled_invalid_recipients", "T3", "lane", "exchange_admin"),
    (_THROTTLED.format(9, "unheard-of"), REPLY, SUB, "exo.sender_throttled_other", "T3", "lane", "exchange_admin"),
    ("554 5.2.0 STOREDRV.Submission.Exception:OutboundSpamException; Failed to process message due to a permanent exception with message WASCL UserAction verdict is not None. Actual verdict is Suspend, ShowTierUpgrade", REPLY, SUB, "exo.outbound_spam", "A", "lane", "exchange_admin"),
    ("554 5.2.0 STOREDRV.Submission.Exception:InvalidRecipientsException; Failed to process message", REPLY, SUB, "exo.invalid_recipients", "PM", "message", "application"),
    ("550 5.1.20 Multiple From addresses are not allowed without Sender address", REPLY, SUB, "exo.several_authors", "PM", "message", "application"),
    ("552 5.3.4 Message size exceeds fixed maximum message size", REPLY, SUB, "smtp.message_too_large", "PM", "message", "application"),
    ("552 5.3.4 Header size exceeds fixed maximum size", REPLY, SUB, "exo.header_too_large", "PM", "message", "application"),
    ("550 5.2.3 RESOLVER.RST.SendSizeLimit.Sender; message too large for this sender", REPLY, SUB, "exo.send_size_limit", "PM", "message", "application"),
    ("550 5.2.3 RESOLVER.RST.RecipSizeLimit; message size exceeds a limit for this recipient", REPLY, SUB, "exo.recipient_size_limit", "PR", "recipient", "application"),
    ("550 5.5.3 RESOLVER.ADR.RecipLimit; too many recipients", REPLY, SUB, "exo.recipient_limit", "T1", "split", "exchange_admin"),
    ("550 5.5.3 RESOLVER.ADR.RecipLimit; too many recipients", REPLY, HVE, "exo.recipient_limit", "T1", "split", "operator"),
    ("550 5.5.3 Enough", REPLY, ACS, "exo.recipient_limit", "T1", "split", "operator"),
    ("432 4.3.2 Concurrent connections limit exceeded", REPLY, HVE, "exo.concurrent_connections", "T1", "lane", "nobody"),
    *(
        (f"552 5.3.4 {words}", MAIL, kind, "smtp.message_too_large", "PM", "message", "application")
        for words in ("Message size exceeds fixed maximum message size", "No")
        for kind in (HVE, ACS, DS, OWN)
    ),
    ("554 5.6.0 Invalid message content", REPLY, SUB, "smtp.message_malformed", "PM", "message", "application"),
    ("554 5.6.0 Invalid message content, message contains bare linefeeds", REPLY, REL, "smtp.message_malformed", "PM", "message", "application"),
    ("554 5.6.0 STOREDRV.Submit; invalid message content", REPLY, SUB, "smtp.message_malformed", "PM", "message", "application"),
    ("554 5.6.1 Messages of type message/partial are not supported", REPLY, SUB, "smtp.message_malformed", "PM", "message", "application"),
    ("550 5.6.11 SMTPSEND.BareLinefeedsAreIllegal", REPLY, REL, "smtp.message_malformed_status", "PM", "message", "application"),
    ("550 5.7.512 Access denied, message must be RFC 5322 section 3.6.2 compliant", REPLY, DS, "exo.from_invalid", "PM", "message", "application"),
    ("550 5.7.509 Access denied, sending domain [CONTOSO.COM] does not pass DMARC verification and has a DMARC policy of reject.", REPLY, DS, "exo.dmarc_rejected", "A", "sender", "network"),
    ("550 5.7.23 The message was rejected because of Sender Policy Framework violation", REPLY, DS, "exo.spf_failed", "A", "sender", "network"),
    ("550 5.7.23 Rejected", REPLY, DS, "exo.spf_failed", "A", "sender", "network"),
    ("550 5.7.233 Your message can't be sent because your tenant exceeded its daily limit for sending email to external recipients (tenant external recipient rate limit)", REPLY, SUB, "exo.tenant_recipient_rate", "T3", "external", "exchange_admin"),
    ("550 5.7.232 Your message can't be sent because your trial tenant exceeded its daily limit for sending email to external recipients", REPLY, SUB, "exo.tenant_recipient_rate", "T3", "external", "exchange_admin"),
    ("550 Your tenant exceeded the tenant external recipient rate limit", REPLY, REL, "exo.tenant_recipient_rate", "T3", "external", "exchange_admin"),
    ("550 5.7.236 Your message can't be sent because your tenant exceeded its daily limit for sending email to external recipients from your tenant's onmicrosoft.com domains", REPLY, SUB, "exo.onmicrosoft_recipient_rate", "T3", "sender", "exchange_admin"),
    ("550 5.7.236 Limit exceeded", REPLY, SUB, "exo.onmicrosoft_recipient_rate", "T3", "sender", "exchange_admin"),
    ("550 5.7.1 TRANSPORT.RULES.RejectMessage; the message was rejected by organization policy", REPLY, SUB, "exo.transport_rule", "PM", "message", "exchange_admin"),
    ("550 5.7.900 No newsletters here", REPLY, SUB, "exo.transport_rule_status", "PM", "message", "exchange_admin"),
    ("450 4.5.127 Message rejected. Excessive message rate from sender. For more information see https://aka.ms/EXOSmtpErrors.", REPLY, ACS, "acs.message_rate", "T2", "lane", "nobody"),
    ("550 5.6.241 Header From differs from the account", REPLY, HVE, "hve.sender_not_account", "CFG", "sender", "application"),
    ("550 5.7.62 Wrong account", MAIL, HVE, "hve.sender_not_account", "CFG", "sender", "application"),
    ("550 5.7.1 Account has no valid billing policy", REPLY, HVE, "hve.no_billing", "A", "lane", "exchange_admin"),
    ("451 4.7.0 Temporary server error. Please try again later. PRX4 NextHop:SB0P365MB0001.PROD.OUTLOOK.COM", REPLY, SUB, "exo.proxy_trouble", "T1", "lane", "nobody"),
    ("451 4.7.0 Temporary server error. Please try again later. CPRX1", REPLY, SUB, "exo.proxy_trouble", "T1", "lane", "nobody"),
    ("452 4.3.1 Insufficient system resources", DATA, SUB, "exo.service_trouble", "T1", "lane", "nobody"),
    ("431 4.3.1 STOREDRV; disk is full", REPLY, SUB, "exo.service_trouble", "T1", "lane", "nobody"),
    ("451 4.4.24 Message failed to be replicated: no", REPLY, SUB, "exo.service_trouble", "T1", "lane", "nobody"),
    ("451 4.4.0 Message failed to be made redundant", REPLY, SUB, "exo.service_trouble", "T1", "lane", "nobody"),
    ("450 4.7.0 Organization queue quota exceeded", REPLY, SUB, "exo.service_trouble", "T1", "lane", "nobody"),
    ("554 5.4.6 Hop count exceeded - possible mail loop", REPLY, REL, "exo.mail_loop", "A", "message", "exchange_admin"),
    ("554 5.4.14 Hop count exceeded - possible mail loop ATTR34", REPLY, REL, "exo.mail_loop", "A", "message", "exchange_admin"),
    # -- reports
    ("550 5.1.1 RESOLVER.ADR.RecipNotFound; not found", REPLY, SUB, "exo.recipient_not_found", "PR", "recipient", "application"),
    ("550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient ana@contoso.com not found by SMTP address lookup", REPLY, SUB, "exo.recipient_not_found", "PR", "recipient", "application"),
    ("550 5.7.124 Sender not in allowed-senders list", REPLY, SUB, "exo.recipient_restricted", "PR", "recipient", "exchange_admin"),
    ("550 5.7.133 RESOLVER.RST.SenderNotAuthenticatedForGroup; authentication required", RCPT, DS, "exo.recipient_restricted", "PR", "recipient", "exchange_admin"),
    ("550 5.7.12 Sender was not authenticated by organization", REPLY, DS, "exo.recipient_restricted", "PR", "recipient", "exchange_admin"),
    ("550 5.7.13 Sender was not authenticated for public folder", REPLY, DS, "exo.recipient_restricted", "PR", "recipient", "exchange_admin"),
    ("550 5.7.135 Sender was not authenticated for public folder", REPLY, DS, "exo.recipient_restricted", "PR", "recipient", "exchange_admin"),
    ("550 5.7.136 Sender was not authenticated", REPLY, DS, "exo.recipient_restricted", "PR", "recipient", "exchange_admin"),
    ("550 5.7.1 Unable to Relay. ATTR25", RCPT, REL, "exo.relay_denied", "A", "lane", "exchange_admin"),
    ("550 5.7.193 Delivery not authorized", REPLY, SUB, "exo.recipient_restricted", "PR", "recipient", "exchange_admin"),
    ("550 5.2.121 The recipient has exceeded their limit for the number of messages they can receive per hour from this sender", REPLY, SUB, "exo.recipient_over_rate", "T2", "recipient", "nobody"),
    ("550 5.2.122 The recipient has exceeded their limit for the number of messages they can receive per hour", REPLY, SUB, "exo.recipient_over_rate", "T2", "recipient", "nobody"),
    ("432 4.3.2 STOREDRV.Deliver; recipient thread limit exceeded", REPLY, SUB, "exo.recipient_busy", "T1", "recipient", "nobody"),
    ("550 5.2.2 The recipient's mailbox is full", REPLY, SUB, "exo.recipient_mailbox_full", "PR", "recipient", "application"),
    ("550 4.4.7 Message expired", None, SUB, "report.expired_on_the_way", "PM", "message", "application"),
    ("550 5.4.300 Message expired", None, SUB, "report.expired_on_the_way", "PM", "message", "application"),
    ("450 4.4.316 Connection refused [Message=Socket error code 10061]", None, SUB, "report.remote_unreachable", "PR", "recipient", "application"),
    ("450 4.4.317 Cannot connect to remote server", None, SUB, "report.remote_unreachable", "PR", "recipient", "application"),
    ("450 4.4.8 MX hosts failed MTA-STS validation", None, SUB, "report.remote_unreachable", "PR", "recipient", "application"),
    ("450 4.7.321 starttls-not-supported: Destination mail server must support TLS", None, SUB, "report.dane_failed", "PR", "recipient", "application"),
    ("550 5.7.323 tlsa-invalid: The domain failed DANE validation", None, SUB, "report.dane_failed", "PR", "recipient", "application"),
    ("550 5.0.350 Remote server returned an error", REPLY, SUB, "report.refused_elsewhere", "PM", "message", "exchange_admin"),
    ("550 5.7.367 Remote server returned not permitted to relay", REPLY, SUB, "report.refused_elsewhere", "PM", "message", "exchange_admin"),
    ("550 5.7.520 Access denied, Your organization does not allow external forwarding", REPLY, SUB, "report.refused_elsewhere", "PM", "message", "exchange_admin"),
    ("550 5.7.26 This mail has been blocked because the sender is unauthenticated", REPLY, SUB, "other.unauthenticated_mail", "A", "sender", "network"),
    ("550 5.7.515 Access denied, sending domain contoso.com doesn't meet the required authentication level", REPLY, SUB, "other.unauthenticated_mail", "A", "sender", "network"),
    # -- by status alone, in words that nobody has seen yet; and by words under another status
    ("421 4.7.66 Too old", AUTH, SUB, "exo.tls_too_old", "CFG", "lane", "operator"),
    ("550 5.2.253 Throttled", REPLY, SUB, "exo.sender_throttled_other", "T3", "lane", "exchange_admin"),
    ("550 5.7.60 No", MAIL, SUB, "exo.send_as_denied", "A", "sender", "exchange_admin"),
    ("554 5.2.252 No", REPLY, SUB, "exo.send_as_denied", "A", "sender", "exchange_admin"),
    ("550 5.1.90 Enough", REPLY, SUB, "exo.recipient_quota", "T3", "lane", "nobody"),
    ("450 4.5.127 Slowly", REPLY, ACS, "acs.message_rate", "T2", "lane", "nobody"),
    ("451 4.3.0 Server busy. Please try again later from [203.0.113.10].", RCPT, REL, "exo.server_busy", "T2", "lane", "exchange_admin"),
    ("550 5.7.68 No", RCPT, DS, "exo.direct_send_rejected", "A", "lane", "exchange_admin"),
    ("451 4.4.62 Elsewhere", MAIL, REL, "exo.wrong_region", "A", "lane", "exchange_admin"),
    ("550 5.7.64 No", RCPT, DS, "exo.relay_denied_direct_send", "PR", "recipient", "operator"),
    ("550 5.7.64 No", RCPT, REL, "exo.relay_denied", "A", "lane", "exchange_admin"),
    ("550 5.7.711 No", RCPT, REL, "exo.connector_blocked", "A", "lane", "exchange_admin"),
    ("550 5.1.8 No", RCPT, SUB, "exo.outbound_spam", "A", "lane", "exchange_admin"),
    ("550 5.1.8 <ana@example.com>: Sender address rejected: Domain not found", RCPT, OWN, "smtp.sender_domain_unknown", "PM", "message", "application"),
    ("550 5.7.509 No", REPLY, DS, "exo.dmarc_rejected", "A", "sender", "network"),
    ("550 5.2.1 Mailbox cannot be accessed", REPLY, SUB, "exo.recipient_disabled", "PR", "recipient", "application"),
    ("550 5.1.10 No", REPLY, SUB, "exo.recipient_not_found", "PR", "recipient", "application"),
    ("550 5.2.3 No", REPLY, SUB, "smtp.message_too_large", "PM", "message", "application"),
    ("550 5.7.30 No", AUTH, SUB, "exo.basic_auth_retired", "A", "lane", "exchange_admin"),
    ("535 5.7.139 In words of tomorrow", AUTH, SUB, "exo.authentication_unsuccessful", "A", "lane", "exchange_admin"),
    ("530 5.7.57 No", MAIL, SUB, "smtp.not_authenticated", "CFG", "lane", "operator"),
    ("451 5.7.3 No", MAIL, REL, "smtp.starttls_needed", "CFG", "lane", "operator"),
    ("550 5.7.506 No", EHLO, REL, "smtp.ehlo_name_refused", "CFG", "lane", "operator"),
    ("504 5.7.4 No", AUTH, SUB, "smtp.mechanism_unknown", "CFG", "lane", "operator"),
    ("452 4.5.3 Enough", RCPT, REL, "smtp.too_many_recipients", "T1", "split", "nobody"),
    ("550 5.5.3 Enough", REPLY, SUB, "exo.recipient_limit", "T1", "split", "exchange_admin"),
    ("550 5.7.510 No", RCPT, REL, "exo.ipv6_not_taken", "CFG", "lane", "operator"),
    ("550 5.7.25 [203.0.113.9] The IP address sending this message does not have a PTR record setup", RCPT, OWN, "other.no_reverse_dns", "A", "lane", "network"),
    ("550 5.2.252 SendAsDenied; a not allowed to send as b", REPLY, SUB, "exo.send_as_denied", "A", "sender", "exchange_admin"),
    ("530 Log in first", MAIL, SUB, "smtp.login_required", "CFG", "lane", "operator"),
    # -- by digits alone
    ("421 Try later", GREETING, SUB, "smtp.service_unavailable", "T1", "lane", "nobody"),
    ("450 4.3.5 Something", DATA, SUB, "smtp.system_trouble", "T1", "lane", "nobody"),
    ("535 No", AUTH, SUB, "smtp.login_refused", "A", "lane", "operator"),
    ("454 Later", AUTH, SUB, "smtp.login_failed_for_now", "T1", "lane", "nobody"),
    ("550 No", AUTH, SUB, "smtp.login_impossible", "A", "lane", "operator"),
    ("450 Greylisted", RCPT, SUB, "smtp.recipient_deferred", "T1", "recipient", "nobody"),
    ("550 No", RCPT, SUB, "smtp.recipient_refused", "PR", "recipient", "application"),
    ("550 5.4.1 Access denied", RCPT, DS, "exo.edge_blocked", "PR", "recipient", "application"),
    ("550 4.3.2 Odd", REPLY, SUB, "smtp.system_trouble", "T1", "lane", "nobody"),
    ("550 4.1.0 Odd", REPLY, SUB, "smtp.contradiction", "T1", "message", "nobody"),
    ("554 No SMTP here", GREETING, SUB, "smtp.session_refused", "A", "lane", "operator"),
    ("450 Later", EHLO, SUB, "smtp.session_deferred", "T1", "lane", "nobody"),
    ("450 Later", MAIL, SUB, "smtp.passing_refusal", "T1", "message", "nobody"),
    ("550 No", MAIL, SUB, "smtp.sender_refused", "PM", "message", "operator"),
    ("554 No", REPLY, SUB, "smtp.content_refused", "PM", "message", "application"),
]  # fmt: skip


def remedies(diagnosis: diagnoses.Diagnosis, **names: str) -> list[str]:
    written = diagnosis.as_json(names)["remedy"]
    assert isinstance(written, list)
    return written


def found(text: str, phase: Phase | None, kind: RouteKind) -> diagnoses.Diagnosis:
    return diagnoses.of_reply(Reply.from_text(text), phase, kind)


@pytest.mark.parametrize(("text", "phase", "kind", "id_", "class_", "scope", "who"), ROWS)
@pytest.mark.parametrize("trailer", ["", TRAILER])
def test_each_reply_has_its_diagnosis(
    text: str, phase: Phase | None, kind: RouteKind, id_: str, class_: str, scope: str, who: str, trailer: str
) -> None:
    """With and without Microsoft's trailer: the entry, its class, what it touches, who must act."""
    diagnosis = found(text + trailer, phase, kind)

    assert diagnosis.id == id_
    assert (diagnosis.kind.value, diagnosis.scope.value, diagnosis.who) == (class_, scope, who)


@pytest.mark.parametrize(("text", "phase", "kind", "id_"), [row[:4] for row in ROWS])
def test_capitals_do_not_matter(text: str, phase: Phase | None, kind: RouteKind, id_: str) -> None:
    assert found(text.upper(), phase, kind).id == id_


def test_every_entry_is_met_by_a_row() -> None:
    """No entry hides behind another one, and none is there that no row speaks of."""
    met = {found(text, phase, kind) for text, phase, kind, *_ in ROWS + SEEN}
    for text in ("552 5.3.4 Message size exceeds", "552 5.3.4 No"):  # where nobody says which kind of route
        met.add(diagnoses.of_reply(Reply.from_text(text), None))
    assert [entry.id for entry in CATALOGUE if not entry.faults and entry not in met] == []


def test_a_throttle_or_an_administrators_business_is_never_the_end_of_a_message() -> None:
    """Only PM and PR fail by themselves; the waits of the others are positive and grow to a cap."""
    for entry in CATALOGUE:
        assert entry.remedy, entry.id
        assert entry.first > 0 < entry.cap, entry.id
        assert entry.factor >= 1, entry.id
        if entry.kind in {Class.T2, Class.T3, Class.A, Class.CFG}:
            assert entry.scope is not Scope.SPLIT, entry.id


@pytest.mark.parametrize(
    "text",
    [
        "450 4.4.316 Connection refused [Message=Socket error code 10061]",
        "450 4.4.8 MX hosts failed MTA-STS validation",
        "451 4.4.7 Message delayed",
        "450 4.7.321 starttls-not-supported: Destination mail server must support TLS",
    ],
)
@pytest.mark.parametrize("phase", [MAIL, RCPT, DATA, REPLY])
def test_what_ends_a_report_does_not_end_a_dialogue(text: str, phase: Phase) -> None:
    """Exchange Online has tried for a day before it reports this; a server that says 4yz to us wants another try."""
    assert found(text, phase, OWN).kind is Class.T1
    assert found(text, None, OWN).kind in {Class.PR, Class.PM}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("452 4.5.3 Too many recipients (AS780090)", 3600),
        (_THROTTLED.format(2, "send as denied"), 86400),
        ("432 4.3.2 Concurrent connections limit exceeded", 20),
        ("450 4.5.127 Excessive message rate from sender", 60),
        ("550 5.7.64 TenantAttribution; Relay Access Denied", 900),
    ],
)
def test_some_waits_are_known(text: str, seconds: float) -> None:
    assert found(text, RCPT, REL).first == seconds


# -- remedies --------------------------------------------------------------------------------


def test_a_remedy_has_the_real_names() -> None:
    diagnosis = found("535 5.7.139 SmtpClientAuthentication is disabled for the Tenant", AUTH, SUB)
    shown = diagnosis.as_json({"mailbox": "noreply@contoso.com"})
    assert shown["remedy"][0] == (  # type: ignore[index]
        "Set-CASMailbox -Identity noreply@contoso.com -SmtpClientAuthenticationDisabled $false"
    )


@pytest.mark.parametrize(
    ("text", "phase", "kinds"),
    [
        ("535 5.7.3 Authentication unsuccessful", AUTH, (HVE, ACS, OWN)),
        ("535 5.7.139 Authentication unsuccessful", AUTH, (HVE, ACS)),
        ("432 4.3.2 Concurrent connections limit exceeded", REPLY, (HVE, ACS, DS, REL, OWN)),
        ("550 5.5.3 RESOLVER.ADR.RecipLimit; too many recipients", REPLY, (HVE, ACS, DS, REL, OWN)),
        ("550 5.7.60 SMTP; Client does not have permissions to send as this sender", MAIL, (HVE, ACS)),
        ("554 5.2.252 SendAsDenied; a not allowed to send as b", REPLY, (HVE, ACS)),
        ("552 5.3.4 Message size exceeds fixed maximum message size", MAIL, (HVE, ACS, DS, REL, OWN)),
    ],
)
def test_where_no_mailbox_logs_in_no_mailbox_is_to_be_changed(
    text: str, phase: Phase, kinds: tuple[RouteKind, ...]
) -> None:
    """What is a mailbox's setting at client submission is no remedy for a service that has none."""
    for kind in kinds:
        told = " ".join(remedies(found(text, phase, kind), mailbox="login@contoso.com", login="password"))

        assert not re.search(
            r"CASMailbox|(Mailbox|Permission) .*login@contoso\.com|outlook\.office\.com", told
        )


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (SUB, "Set-Mailbox noreply@contoso.com -MaxSendSize 150MB"),
        (HVE, "10 MB a message, which no administrator can raise"),
        (ACS, "10 MB a message. No setting raises it"),
        (DS, "Set-Mailbox ana@contoso.com -MaxReceiveSize 150MB"),
        (REL, "150 MB, which no administrator can raise"),
        (OWN, "Ask the administrator of mail.contoso.com"),
    ],
)
def test_whose_limit_a_message_is_too_large_for(kind: RouteKind, told: str) -> None:
    """A mailbox's limit is raised by its administrator, a service's by nobody; each kind says which it is."""
    names = {"mailbox": "noreply@contoso.com", "recipient": "ana@contoso.com", "host": "mail.contoso.com"}
    shown = found("552 5.3.4 Message size exceeds fixed maximum message size", MAIL, kind).as_json(names)
    text = " ".join([str(shown["explanation"]), *shown["remedy"]])  # type: ignore[misc]

    assert told in text
    assert ("-MaxSendSize" in text) is (kind is SUB)


def test_which_connector_helps_where_direct_send_is_rejected() -> None:
    """A partner connector lets direct send in again; only one of type OnPremises relays to the outside."""
    rejected = found(
        "550 5.7.68 TenantInboundAttribution; Direct Send not allowed for this organization", RCPT, DS
    )
    _, partner, by_address, by_certificate = remedies(rejected, domain="contoso.com", address="203.0.113.10")

    assert "kind: direct_send" in partner
    assert "-ConnectorType Partner -SenderDomains contoso.com" in partner
    assert "-SenderIPAddresses 203.0.113.10 -RestrictDomainsToIPAddresses $true" in partner
    assert "kind: smtp_relay" in by_address
    for relay in (by_address, by_certificate):
        assert "-ConnectorType OnPremises -SenderDomains *" in relay
        assert "Restrict" not in relay  # for partners only


def test_a_name_cannot_add_a_command() -> None:
    """A name comes from a request, and a remedy is pasted into a shell with an administrator's rights."""
    diagnosis = found("550 5.7.60 Client does not have permissions to send as this sender", MAIL, SUB)
    evil = "a'; Remove-Mailbox b\n#@contoso.com"
    command = str(diagnosis.as_json({"sender": evil, "mailbox": "$(evil)@contoso.com"})["remedy"][0])  # type: ignore[index]

    assert command == (
        "Add-RecipientPermission 'a''; Remove-Mailbox b #@contoso.com' -AccessRights SendAs -Trustee '$(evil)@contoso.com'"
    )


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("noreply+1@contoso.com", "noreply+1@contoso.com"),
        ("o'neill@contoso.com", "'o''neill@contoso.com'"),
        ("o\u2019neill@contoso.com", "'o\u2019\u2019neill@contoso.com'"),  # a quote for PowerShell, too
        ("-Confirm:0@contoso.com", "'-Confirm:0@contoso.com'"),
        ("-x@contoso.com", "'-x@contoso.com'"),
        ("@args", "'@args'"),
        ("a;b@contoso.com", "'a;b@contoso.com'"),
        ("a`$b@contoso.com", "'a`$b@contoso.com'"),
        ("a\r\nb@contoso.com", "'a  b@contoso.com'"),
        ("a\u202eb@contoso.com", "'a b@contoso.com'"),
        ("", "<mailbox>"),
    ],
)
def test_names_are_safe_to_paste(name: str, written: str) -> None:
    """Each name stays one word of its command, in remedies that begin with a command and in those that hold one."""
    switched_off = found("535 5.7.139 SmtpClientAuthentication is disabled for the Tenant", AUTH, SUB)
    policy = found("535 5.7.139 basic authentication is disabled", AUTH, SUB)

    first, *_ = remedies(switched_off, mailbox=name)
    *_, last = remedies(policy, mailbox=name)

    assert first == f"Set-CASMailbox -Identity {written} -SmtpClientAuthenticationDisabled $false"
    assert last.endswith(f"; Set-User -Identity {written} -AuthenticationPolicy AllowSmtp")


def test_no_name_is_misspelt() -> None:
    """Every name in the catalogue is one that attempts, the preflight and `explain` can fill in."""
    known = {
        "mailbox",
        "sender",
        "recipient",
        "host",
        "route",
        "application_id",
        "tenant_id",
        "address",
        "domain",
        "suppression",  # its id, in what a suppressed recipient shows
    }
    for entry in CATALOGUE:
        used = re.findall(r"\{(\w*)\}", " ".join((entry.title, entry.explanation, *entry.remedy)))
        assert set(used) <= known, entry.id


def test_what_is_unverified_is_said() -> None:
    """Where Microsoft's pages do not say so themselves, the explanation does."""
    late = found("550 5.7.705 Access denied, tenant has exceeded threshold", RCPT, SUB).as_json({})
    exchange = found(
        "454 4.7.0 Cannot accept TLS as maximum TLS rate exceeded for server", STARTTLS, SUB
    ).as_json({})
    documented = found("550 5.7.64 TenantAttribution; Relay Access Denied", RCPT, REL).as_json({})

    assert str(late["explanation"]).endswith(" Unverified: at which point of the dialogue it comes.")
    assert "Unverified: the wording is known from Exchange Server" in str(exchange["explanation"])
    assert "nverified" not in str(documented["explanation"])


def test_codes_in_errors_are_unambiguous() -> None:
    """An error's `code` is the id without its family, so no two families share one."""
    codes: dict[str, set[str]] = {}
    for entry in CATALOGUE:
        codes.setdefault(entry.code, set()).add(entry.id)
    assert [ids for ids in codes.values() if len(ids) > 1] == []


def test_what_is_not_known_stays_readable() -> None:
    diagnosis = found("535 5.7.3 Authentication unsuccessful", AUTH, SUB)
    assert "-AppId <application_id>" in str(diagnosis.as_json({})["remedy"])


# -- traps -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("550 5.2.2 Submission quota exceeded", REPLY, SUB), ("550 5.2.2 The recipient's mailbox is full", REPLY, SUB)),
        (("550 5.4.1 Recipient address rejected: Access denied", RCPT, REL), ("550 5.4.1 Relay Access Denied", RCPT, REL)),
        (("452 4.5.3 Too many recipients", RCPT, REL), ("452 4.5.3 Too many recipients (AS780090)", RCPT, REL)),
        (("554 5.2.252 SendAsDenied; a not allowed to send as b", REPLY, SUB), (_THROTTLED.format(2, "send as denied"), REPLY, SUB)),
        (("501 5.1.8 UTF-8 addresses not supported", RCPT, SUB), ("550 5.1.8 Access denied, bad outbound sender", RCPT, SUB)),
        (("550 5.7.1 Unable to relay", RCPT, REL), ("550 5.7.1 TRANSPORT.RULES.RejectMessage; no", REPLY, REL)),
        (("550 5.7.64 TenantAttribution", RCPT, DS), ("550 5.7.64 TenantAttribution", RCPT, REL)),
        (("432 4.3.2 sender thread limit exceeded", REPLY, SUB), ("432 4.3.2 recipient thread limit exceeded", REPLY, SUB)),
        (("550 5.7.60 No", MAIL, SUB), ("550 5.7.606 No", RCPT, DS)),
    ],
)  # fmt: skip
def test_one_number_two_meanings(
    one: tuple[str, Phase, RouteKind], other: tuple[str, Phase, RouteKind]
) -> None:
    """Words, code, and kind of route tell them apart."""
    assert found(*one).id != found(*other).id


@pytest.mark.parametrize(
    "text",
    [
        "451 5.7.3 STARTTLS is required to send mail",
        "451 4.4.62 Mail sent to the wrong Office 365 region. ATTR35",
        "451 4.4.4 Mail received as unauthenticated … no mail-enabled subscriptions. ATTR5",
        "454 4.7.0 Failed to establish appropriate TLS channel: Access Denied",
        "430 4.2.0 STOREDRV; mailbox logon failure",
    ],
)
def test_a_4yz_that_never_heals_needs_somebody(text: str) -> None:
    diagnosis = found(text, MAIL, REL)
    assert diagnosis.kind in {Class.A, Class.CFG}
    assert diagnosis.who != "nobody"
    assert diagnosis.scope is Scope.LANE


@pytest.mark.parametrize(
    "text",
    [
        "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException; x",
        "550 5.1.90 Your message can't be sent because you've reached your daily limit for message recipients",
        "550 5.2.2 Submission quota exceeded",
        *(_THROTTLED.format(n, "some") for n in range(1, 6)),
        "550 5.7.232 trial tenant",
        "550 5.7.233 tenant",
        "550 5.7.236 onmicrosoft",
        "550 5.7.508 IPv6 range",
        "550 5.2.121 from this sender",
        "550 5.2.122 from all",
    ],
)
@pytest.mark.parametrize("phase", [MAIL, RCPT, DATA, REPLY])
def test_a_5yz_that_is_a_throttle_is_no_end(text: str, phase: Phase) -> None:
    assert found(text, phase, SUB).kind in {Class.T2, Class.T3}


def test_only_a_login_refused_earlier_hides_in_a_reply() -> None:
    """`530 5.7.57 … Error: 535 …` is what its end says; elsewhere a quoted reply is not the peer's own."""
    hidden = "530 5.7.57 Client not authenticated to send mail. Error: 535 5.7.139 … SmtpClientAuthentication is disabled for the Tenant."
    quoted = "554 5.6.0 Invalid message content. Error: 550 5.7.60 No"

    assert found(hidden, MAIL, SUB).id == "exo.smtp_auth_disabled_for_tenant"
    assert found(quoted, REPLY, SUB).id == "smtp.message_malformed"


def test_without_its_context_a_reply_is_not_guessed_at() -> None:
    """An entry that is for one kind of route, or one phase, needs to know it."""
    relay = diagnoses.of_reply(Reply.from_text("550 5.7.64 TenantAttribution; Relay Access Denied"), None)
    bare = diagnoses.of_reply(Reply.from_text("550 No"), None)

    assert relay.id == "exo.relay_denied"
    assert bare.id == "smtp.content_refused"


# -- nothing crashes it ----------------------------------------------------------------------


@given(
    code=st.integers(200, 599),
    enhanced=st.one_of(st.none(), st.from_regex(r"[245]\.\d{1,3}\.\d{1,3}", fullmatch=True)),
    words=st.text(max_size=200),
    phase=st.sampled_from(list(Phase)),
    kind=st.sampled_from(list(RouteKind)),
)
def test_every_reply_has_some_diagnosis(
    code: int, enhanced: str | None, words: str, phase: Phase, kind: RouteKind
) -> None:
    reply = Reply(code=code, enhanced=enhanced, text=words, lines=())
    diagnosis = diagnoses.of_reply(reply, phase, kind)
    assert diagnosis.as_json({})["remedy"]


def test_a_reply_that_quotes_itself_does_not_go_round_in_circles() -> None:
    text = "530 5.7.57 x. " + "Error: 535 5.7.139 " * 300
    assert found(text, MAIL, SUB).kind is Class.A


# -- the trailer -----------------------------------------------------------------------------


def test_the_trailer_is_read() -> None:
    seen = diagnoses.trailer("Relay Access Denied" + TRAILER)
    assert seen is not None
    assert seen.as_json() == {
        "host": "SB0P365CA0001.PROD.OUTLOOK.COM",
        "time": "2026-10-08T20:36:23.875Z",
        "session": "08DF254F56560914",
    }


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("Relay Access Denied [AM5EUR03FT012.eop-EUR03.prod.protection.outlook.com]", "AM5EUR03FT012.eop-EUR03.prod.protection.outlook.com"),
        ("OK <x@y.z> [Hostname=SYBP282MB2635.AUSP282.PROD.OUTLOOK.COM]", "SYBP282MB2635.AUSP282.PROD.OUTLOOK.COM"),
        ("<x@y> [InternalId=38521561683110, Hostname=TYZPR06MB6239.apcprd06.prod.outlook.com] 8547 bytes in 0.1", "TYZPR06MB6239.apcprd06.prod.outlook.com"),
        ("Refused. [AM0PR01CA0092.eurprd01.prod.exchangelabs.com]", "AM0PR01CA0092.eurprd01.prod.exchangelabs.com"),
        ("banned sending IP [203.0.113.10]. AS(1430) [DM6NAM11FT012.eop-nam11.prod.protection.outlook.com 2026-10-07T14:02:11.321Z]", "DM6NAM11FT012.eop-nam11.prod.protection.outlook.com"),
        ("[Hostname=AM9P192MB0935.EURP192.PROD.OUTLOOK.COM] Error: x [BN0PR03CA0016.namprd03.prod.outlook.com]", "BN0PR03CA0016.namprd03.prod.outlook.com"),
        ("connect to mail.example.net [relay.mail.example.net]", None),  # anybody's
        ("refused [www.outlook.com.example.net]", None),
        ("450 4.4.316 Connection refused [LastAttemptedServerName=mail.example.com]", None),
        ("banned sending IP [203.0.113.10]", None),
        ("nothing", None),
    ],
)  # fmt: skip
def test_older_trailers_name_the_host(text: str, host: str | None) -> None:
    seen = diagnoses.trailer(text)
    assert (seen.host if seen else None) == host


def test_a_wrong_password_is_not_answered_with_the_steps_of_oauth() -> None:
    """The same reply stands for a refused token and a refused password; the remedy knows which it was."""
    diagnosis = found("535 5.7.3 Authentication unsuccessful", AUTH, SUB)

    by_password = str(diagnosis.as_json({"mailbox": "noreply@contoso.com", "login": "password"})["remedy"])
    by_token = str(diagnosis.as_json({"mailbox": "noreply@contoso.com"})["remedy"])

    assert "New-ServicePrincipal" not in by_password
    assert "by hand" in by_password
    assert "New-ServicePrincipal" in by_token
