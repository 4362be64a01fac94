"""Routes as the tests need them: what a test does not speak of is as usual."""

from collections.abc import Mapping
from typing import Literal

from service.mail.address import Address
from service.routes.choice import Rest, Wanted
from service.routes.kinds import KINDS
from service.routes.route import Account, BasicLogin, Limits, OAuthLogin, Route, RouteKind
from service.smtp.peer import Peer, TlsMode

SECRET = "the right secret"
OAUTH = OAuthLogin(client_id="app-1", client_secret=SECRET)


def an_address(text: str) -> Address:
    return Address.parse(text)


def a_peer() -> Peer:
    return Peer(host="mail.contoso.com", port=25, ehlo_name="postroom.contoso.com", tls=TlsMode.NONE)


def an_account(
    address: str = "noreply@contoso.com",
    *,
    send_as: tuple[str, ...] = (),
    send_as_domains: tuple[str, ...] = (),
    login: OAuthLogin | BasicLogin = OAUTH,
) -> Account:
    return Account(
        address=an_address(address),
        login=login,
        send_as=tuple(map(an_address, send_as)),
        send_as_domains=send_as_domains,
    )


def a_route(
    name: str = "noreply",
    kind: RouteKind = RouteKind.CLIENT_SUBMISSION,
    *,
    accounts: tuple[Account, ...] | None = None,
    login: BasicLogin | None = None,
    limits: Limits | None = None,
    sender_domains: tuple[str, ...] | None = None,
    recipient_domains: tuple[str, ...] | None = None,
    enabled: bool = True,
    mx_of: str | None = None,
    relay_by: Literal["certificate", "ip"] | None = None,
) -> Route:
    with_accounts = kind in {RouteKind.CLIENT_SUBMISSION, RouteKind.HIGH_VOLUME_EMAIL}
    usual = (an_account(),) if with_accounts else ()
    return Route(
        name=name,
        kind=kind,
        peer=a_peer(),
        limits=KINDS[kind].limits if limits is None else limits,
        accounts=usual if accounts is None else accounts,
        login=login,
        sender_domains=sender_domains,
        recipient_domains=recipient_domains,
        enabled=enabled,
        mx_of=mx_of,
        relay_by=relay_by,
    )


def a_wish(
    *recipients: str,
    sender: str | None = "noreply@contoso.com",
    route: str = "auto",
    size: int = 1000,
    stream: str = "transactional",
    allowed_routes: tuple[str, ...] | None = None,
    test: bool = False,
    authors: tuple[str, ...] = (),
    resting: Mapping[str, Rest] | None = None,
) -> Wanted:
    return Wanted(
        sender=None if sender is None else an_address(sender),
        recipients=tuple(map(an_address, recipients or ("ana@contoso.com",))),
        route=route,
        size=size,
        stream=stream,
        allowed_routes=allowed_routes,
        test=test,
        authors=tuple(map(an_address, authors)),
        resting=resting or {},
    )
