"""From the settings as they are written to the values that the rooms below work with.

Defaults come in here: a route's own value goes over its kind's (`service.routes.kinds`), and
the cloud gives client submission its host. What is built can break no rule: `rules.py` looked
at the settings before.
"""

import re
import socket
from collections.abc import Sequence
from dataclasses import asdict
from typing import assert_never

from pydantic import SecretStr

from service.mail.address import Address
from service.routes.kinds import (
    ACS_MANAGED_DOMAIN,
    ACS_MANAGED_LIMITS,
    CLOUDS,
    KINDS,
    RELAY_BY_IP,
    Cloud,
    Domains,
    Kind,
    is_below,
    sources_of,
    tenant_external_recipients,
)
from service.routes.mx import Resolver
from service.routes.route import Account, BasicLogin, Limits, OAuthLogin, Route, RouteKind
from service.routes.tokens import Entra
from service.settings.route_shapes import (
    ApplicationPassword,
    AzureCommunicationServices,
    ClientCertificate,
    ClientSubmission,
    DirectSend,
    HighVolumeEmail,
    LimitsShape,
    Mailbox,
    MailboxPassword,
    OAuth,
    Password,
    RouteShape,
    Smarthost,
    SmtpRelay,
    TimeoutsShape,
)
from service.settings.shapes import (
    Dns,
    EntraApplicationShape,
    EntraShape,
    Organization,
    SandboxShape,
)
from service.smtp.peer import Peer, Timeouts, TlsMode

SANDBOX = "sandbox"  # the name of the route of test keys; no other route may have it

_FULL_NAME = re.compile(
    r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9][a-z0-9-]{0,61}[a-z0-9]", re.IGNORECASE
)


def kind_of(shape: RouteShape) -> Kind:
    """Find the rules for a route; the two ways of relay have their own."""
    if isinstance(shape, SmtpRelay) and shape.authenticate_by == "ip":
        return RELAY_BY_IP
    return KINDS[shape.kind]


def host_of(shape: RouteShape, cloud: Cloud) -> str | None:
    """Say the peer's name; None where the configuration names neither the host nor whose MX it is."""
    if isinstance(shape, ClientSubmission):
        return shape.host or CLOUDS[cloud].submission_host
    return shape.host or kind_of(shape).host or mx_of(shape)


def mx_of(shape: RouteShape) -> str | None:
    """Say whose MX record names the host, where the host is not named itself."""
    return shape.mx_of if isinstance(shape, DirectSend | SmtpRelay) and shape.host is None else None


def tls_of(shape: RouteShape) -> TlsMode:
    """Say the TLS mode; where something is proved to the peer, TLS is required unless said otherwise."""
    proves = isinstance(shape, Smarthost) and (shape.login or shape.client_certificate)
    return shape.tls or (TlsMode.REQUIRED if proves else kind_of(shape).tls)


def mailboxes_of(shape: RouteShape) -> tuple[Mailbox, ...]:
    """List the mailboxes that a route logs in with."""
    if isinstance(shape, ClientSubmission):
        return shape.mailboxes
    return shape.accounts if isinstance(shape, HighVolumeEmail) else ()


def login_of(shape: RouteShape) -> Password | None:
    """Find the login of a whole route."""
    return shape.login if isinstance(shape, Smarthost | AzureCommunicationServices) else None


def certificate_of(shape: RouteShape) -> ClientCertificate | None:
    """Find the client certificate that a route presents."""
    return shape.client_certificate if isinstance(shape, DirectSend | SmtpRelay | Smarthost) else None


def default_limits(shape: RouteShape) -> Limits:
    """Find the limits of a route that sets none: its kind's, or those of a domain that Azure manages."""
    domains = shape.sender_domains if isinstance(shape, AzureCommunicationServices) else None
    if any(is_below(domain, (ACS_MANAGED_DOMAIN,)) for domain in domains or ()):
        return ACS_MANAGED_LIMITS
    return kind_of(shape).limits


def limits_of(given: LimitsShape, defaults: Limits) -> Limits:
    """Lay a route's own limits over its kind's; a limit given as null is none."""
    own = {name: getattr(given, name) for name in given.model_fields_set}
    return Limits(**(asdict(defaults) | own))


def route(shape: RouteShape, *, organization: Organization, cloud: Cloud) -> Route:
    """Build one route."""
    kind = kind_of(shape)
    certificate = certificate_of(shape)
    host = host_of(shape, cloud)
    assert host is not None, "the rules see to it that a route has a host"
    login = login_of(shape)
    limits = limits_of(shape.limits, default_limits(shape))
    return Route(
        name=shape.name,
        kind=shape.kind,
        peer=Peer(
            host=host,
            port=shape.port or kind.port,
            connect_to=shape.connect_to,
            tls=tls_of(shape),
            ca_file=shape.ca_file,
            client_certificate=certificate.certificate_file if certificate else None,
            client_key=certificate.private_key_file if certificate else None,
            ehlo_name=shape.ehlo_name or own_name(organization.accepted_domains),
            timeouts=_timeouts(shape.timeouts),
            address_family="ipv4" if kind.ipv4_only else "any",
        ),
        limits=limits,
        accounts=tuple(_account(mailbox) for mailbox in mailboxes_of(shape)),
        login=None if login is None else _login_of_route(login),
        sender_domains=_sender_domains(shape, organization),
        recipient_domains=_recipient_domains(shape, organization),
        enabled=shape.enabled,
        relay_by=shape.authenticate_by if isinstance(shape, SmtpRelay) else None,
        mx_of=mx_of(shape),
        allow_private=isinstance(shape, DirectSend | SmtpRelay) and shape.allow_private,
        limit_sources=sources_of(limits, given=frozenset(shape.limits.model_fields_set), kind=kind),
    )


def sandbox_route(shape: SandboxShape, *, organization: Organization) -> Route | None:
    """Build the way of test keys, a smarthost that only they take; None when it is switched off."""
    if not shape.enabled:
        return None
    return Route(
        name=SANDBOX,
        kind=RouteKind.SMARTHOST,
        peer=Peer(
            host=shape.host,
            port=shape.port,
            connect_to=shape.connect_to,
            tls=shape.tls,
            ca_file=shape.ca_file,
            ehlo_name=own_name(organization.accepted_domains),
        ),
        limits=KINDS[RouteKind.SMARTHOST].limits,
        limit_sources=KINDS[RouteKind.SMARTHOST].sources,
        login=None if shape.login is None else _password(shape.login.username, shape.login.password),
    )


def external_budget(organization: Organization) -> int | None:
    """Say how many external recipients the tenant may have in 24 hours; None where nobody knows."""
    if organization.external_recipients_per_day is not None:
        return organization.external_recipients_per_day
    if organization.licences is None and not organization.trial:
        return None
    return tenant_external_recipients(organization.licences or 1, trial=organization.trial)


def resolver(shape: Dns) -> Resolver:
    """Build what the search for MX hosts needs to know."""
    return Resolver(nameservers=shape.nameservers, timeout=shape.timeout.total_seconds())


def entra(shape: EntraShape) -> Entra:
    """Build what the tokens room needs to know about the directory."""
    return Entra(
        cloud=shape.cloud,
        tenant_id=shape.tenant_id or "",
        authority=(shape.authority or CLOUDS[shape.cloud].authority).rstrip("/"),
        own_authority=shape.authority is not None,
        ca_file=shape.ca_file,
        timeout=shape.timeout,
    )


def rights_of(application: EntraApplicationShape) -> dict[str, object]:
    """Pick the rights that are given to an application of the directory."""
    names = ("senders", "routes", "recipient_domains", "networks", "messages_per_minute", "messages_per_day")
    return {name: getattr(application, name) for name in names}


def own_name(accepted_domains: Sequence[str]) -> str:
    """Make the name for EHLO (RFC 5321 §4.1.1.1): this host's full one, or an address literal.

    A container's host name is one label. Exchange wants a full name (501 5.5.4), so it is put
    below the organisation's first domain.
    """
    name = socket.gethostname().replace("_", "-")
    if "." not in name and accepted_domains:
        name = f"{name}.{accepted_domains[0]}"
    return name.lower() if _FULL_NAME.fullmatch(name) and len(name) <= 255 else "[127.0.0.1]"


def _account(mailbox: Mailbox) -> Account:
    domains = [name.removeprefix("*@") for name in mailbox.send_as if name.startswith("*")]
    return Account(
        address=mailbox.address,
        login=_login(mailbox),
        send_as=tuple(Address.parse(name) for name in mailbox.send_as if not name.startswith("*")),
        send_as_domains=tuple(domains),
    )


def _login(mailbox: Mailbox) -> OAuthLogin | BasicLogin:
    match mailbox.login:
        case OAuth() as given:
            return OAuthLogin(
                client_id=given.client_id,
                client_secret=given.client_secret.get_secret_value() if given.client_secret else None,
                certificate=given.certificate_file,
                private_key=given.private_key_file,
                scope=given.scope,
                client_secret_expires=given.client_secret_expires,
            )
        case MailboxPassword() as given:
            return _password(given.username or str(mailbox.address), given.password)
        case _:
            assert_never(mailbox.login)


def _login_of_route(login: Password) -> BasicLogin:
    expires = login.client_secret_expires if isinstance(login, ApplicationPassword) else None
    return BasicLogin(
        username=login.username, password=login.password.get_secret_value(), client_secret_expires=expires
    )


def _password(username: str, password: SecretStr) -> BasicLogin:
    return BasicLogin(username=username, password=password.get_secret_value())


def _sender_domains(shape: RouteShape, organization: Organization) -> tuple[str, ...] | None:
    if isinstance(shape, Smarthost | AzureCommunicationServices) and shape.sender_domains is not None:
        return shape.sender_domains
    return organization.accepted_domains if kind_of(shape).senders is Domains.ACCEPTED else None


def _recipient_domains(shape: RouteShape, organization: Organization) -> tuple[str, ...] | None:
    if isinstance(shape, Smarthost) and shape.recipient_domains is not None:
        return shape.recipient_domains
    return organization.accepted_domains if kind_of(shape).recipients is Domains.ACCEPTED else None


def _timeouts(shape: TimeoutsShape) -> Timeouts:
    given = {name: limit.total_seconds() for name, limit in shape if limit is not None}
    return Timeouts(**given)
