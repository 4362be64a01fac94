"""Access tokens: asked for once, renewed in time, and what is done with refusals and silence."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from service.routes.kinds import Cloud
from service.routes.route import BasicLogin, Lane, OAuthLogin, RouteKind
from service.routes.tokens import Entra, TokenRefused, Tokens, TokenUnavailable, retry_after
from service.smtp.peer import Login
from tests.routes.builders import OAUTH, SECRET, a_route, an_account
from tests.routes.entra import TENANT, Answer, FakeEntra
from tests.waiting import eventually


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def entra(tmp_path: Path) -> AsyncIterator[FakeEntra]:
    async with FakeEntra(tmp_path) as server:
        yield server


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tokens(entra: FakeEntra, clock: Clock) -> Tokens:
    return Tokens(a_directory(entra), clock=clock)


def a_directory(entra: FakeEntra, *, timeout: float = 20.0) -> Entra:
    return Entra(
        cloud=Cloud.WORLDWIDE,
        tenant_id=TENANT,
        authority=entra.authority,
        own_authority=True,
        ca_file=entra.ca_file,
        timeout=timedelta(seconds=timeout),
    )


def a_lane(login: OAuthLogin | BasicLogin = OAUTH, *, kind: RouteKind = RouteKind.CLIENT_SUBMISSION) -> Lane:
    return a_route(kind=kind, accounts=(an_account(login=login),)).lanes()[0]


async def secret_for(tokens: Tokens, lane: Lane, *, refresh: bool = False) -> str:
    login = await tokens.login_for(lane, refresh=refresh)
    assert login is not None
    return login.secret


async def test_an_application_logs_in_for_its_mailbox(tokens: Tokens, entra: FakeEntra) -> None:
    """The login is XOAUTH2 with the mailbox's address and the token that client credentials brought."""
    login = await tokens.login_for(a_lane())

    assert Login(method="xoauth2", username="noreply@contoso.com", secret="token-1") == login
    [form] = entra.asked
    assert form["grant_type"] == "client_credentials"
    assert form["scope"] == "https://outlook.office365.com/.default"
    assert (form["client_id"], form["client_secret"]) == ("app-1", SECRET)


async def test_each_cloud_and_kind_has_its_scope(entra: FakeEntra) -> None:
    """GCC High wants its own audience, and High Volume Email another one than client submission."""
    tokens = Tokens(replace(a_directory(entra), cloud=Cloud.GCC_HIGH))

    await tokens.login_for(a_lane())
    await tokens.login_for(a_lane(kind=RouteKind.HIGH_VOLUME_EMAIL))

    assert [form["scope"] for form in entra.asked] == [
        "https://outlook.office365.us/.default",
        "https://outlook.office.com/.default",
    ]


async def test_an_application_may_have_a_scope_of_its_own(tokens: Tokens, entra: FakeEntra) -> None:
    """Where the configuration names a scope, it goes over the cloud's."""
    own = replace(OAUTH, scope="https://outlook.office365.us/.default")

    await tokens.login_for(a_lane(own))

    assert [form["scope"] for form in entra.asked] == ["https://outlook.office365.us/.default"]


async def test_a_password_needs_no_token(tokens: Tokens, entra: FakeEntra) -> None:
    """A basic login is handed on as it is, and nobody is asked."""
    login = await tokens.login_for(a_lane(BasicLogin(username="noreply", password="p")))

    assert Login(method="login", username="noreply", secret="p") == login
    assert not entra.asked


async def test_a_route_without_login_has_none(tokens: Tokens) -> None:
    """Where the peer asks for no login there is none."""
    assert await tokens.login_for(a_route("house", RouteKind.SMARTHOST).lanes()[0]) is None


async def test_a_hundred_waiting_cause_one_request(tokens: Tokens, entra: FakeEntra) -> None:
    """However many lanes of an application wait for a token, it is asked for once."""
    entra.gates["app-1"] = asyncio.Event()
    lanes = [a_route(accounts=(an_account(f"box{n}@contoso.com"),)).lanes()[0] for n in range(100)]
    waiting = [asyncio.create_task(secret_for(tokens, lane)) for lane in lanes]
    await eventually(lambda: len(entra.asked) == 1)

    entra.gates["app-1"].set()

    assert {"token-1"} == set(await asyncio.gather(*waiting))
    assert len(entra.asked) == 1


async def test_one_who_gives_up_does_not_spoil_it_for_the_others(tokens: Tokens, entra: FakeEntra) -> None:
    """A cancelled waiter leaves the request to those who still wait."""
    entra.gates["app-1"] = asyncio.Event()
    first, second = (asyncio.create_task(secret_for(tokens, a_lane())) for _ in range(2))
    await eventually(lambda: len(entra.asked) == 1)

    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    entra.gates["app-1"].set()

    assert await second == "token-1"


async def test_a_token_is_kept(tokens: Tokens, entra: FakeEntra, clock: Clock) -> None:
    """Until ten minutes before its end a token is given out without a word to anybody."""
    await secret_for(tokens, a_lane())
    clock.now += 3600 - 601

    assert await secret_for(tokens, a_lane()) == "token-1"
    assert len(entra.asked) == 1


async def test_a_token_is_renewed_beside_its_use(tokens: Tokens, entra: FakeEntra, clock: Clock) -> None:
    """In its last ten minutes the old token still serves at once while the new one is fetched."""
    await secret_for(tokens, a_lane())
    entra.gates["app-1"] = asyncio.Event()
    clock.now += 3600 - 599

    assert [await secret_for(tokens, a_lane()) for _ in range(3)] == ["token-1"] * 3
    await eventually(lambda: len(entra.asked) == 2)
    entra.gates["app-1"].set()

    async def renewed() -> bool:
        return await secret_for(tokens, a_lane()) == "token-2"

    await eventually(renewed)
    assert len(entra.asked) == 2


async def test_the_last_minutes_are_not_used(tokens: Tokens, clock: Clock) -> None:
    """In its last five minutes a token is no longer given out: the caller waits for the new one."""
    await secret_for(tokens, a_lane())
    clock.now += 3600 - 299

    assert await secret_for(tokens, a_lane()) == "token-2"


async def test_an_old_token_is_better_than_none(tokens: Tokens, entra: FakeEntra, clock: Clock) -> None:
    """Where renewing fails, the token serves to its end, and not beyond."""
    await secret_for(tokens, a_lane())
    entra.answers.append(Answer(status=503, headers={"Retry-After": "1000"}))

    clock.now += 3600 - 100
    assert await secret_for(tokens, a_lane()) == "token-1"
    clock.now += 101
    with pytest.raises(TokenUnavailable):
        await secret_for(tokens, a_lane())
    assert len(entra.asked) == 2


@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_is_kept(status: int, tokens: Tokens, entra: FakeEntra, clock: Clock) -> None:
    """Before Retry-After has passed nobody asks again, and everybody is told how long it takes."""
    entra.answers.append(Answer(status=status, headers={"Retry-After": "120"}))
    with pytest.raises(TokenUnavailable) as first:
        await secret_for(tokens, a_lane())
    clock.now += 119
    with pytest.raises(TokenUnavailable) as second:
        await secret_for(tokens, a_lane())
    assert (first.value.retry_after, second.value.retry_after, len(entra.asked)) == (120, 1, 1)

    clock.now += 1

    assert await secret_for(tokens, a_lane()) == "token-1"


async def test_trouble_at_the_token_service_passes(tokens: Tokens, entra: FakeEntra, clock: Clock) -> None:
    """A 500 without Retry-After is asked again after a second, then after two."""
    entra.answers.extend([Answer(status=500, body="<html>"), Answer(status=502)])
    waits = []
    for _ in range(2):
        with pytest.raises(TokenUnavailable) as unavailable:
            await secret_for(tokens, a_lane())
        waits.append(unavailable.value.retry_after)
        clock.now += unavailable.value.retry_after or 0

    assert waits == [1, 2]
    assert await secret_for(tokens, a_lane()) == "token-1"


async def test_a_wrong_secret_is_refused(tokens: Tokens, entra: FakeEntra, clock: Clock) -> None:
    """A refusal has Microsoft's code, does not repeat the secret, and is not fetched again and again."""
    lane = a_lane(OAuthLogin(client_id="app-1", client_secret="a wrong one"))
    for _ in range(5):
        with pytest.raises(TokenRefused) as refused:
            await secret_for(tokens, lane)
    assert len(entra.asked) == 1
    assert refused.value.code == "AADSTS7000215"
    assert "Invalid client secret provided" in refused.value.detail
    assert "a wrong one" not in str(refused.value)
    assert "\n" not in str(refused.value)

    clock.now += 30
    with pytest.raises(TokenRefused):
        await secret_for(tokens, lane)

    assert len(entra.asked) == 2


async def test_an_unknown_directory_is_a_refusal(entra: FakeEntra) -> None:
    """A tenant id that does not exist is told with Microsoft's code, not as trouble that passes."""
    tokens = Tokens(replace(a_directory(entra), tenant_id="nobody"))

    with pytest.raises(TokenRefused, match="AADSTS90002"):
        await secret_for(tokens, a_lane())


async def test_a_refusal_for_a_while_is_no_refusal(tokens: Tokens, entra: FakeEntra) -> None:
    """The OAuth error temporarily_unavailable is trouble that passes, whatever the status."""
    body: dict[str, object] = {
        "error": "temporarily_unavailable",
        "error_description": "AADSTS90033: A transient error.",
    }
    entra.answers.append(Answer(status=400, body=body))

    with pytest.raises(TokenUnavailable, match="transient"):
        await secret_for(tokens, a_lane())


@pytest.mark.parametrize(
    "answer",
    [
        Answer(body="<html>A proxy's page</html>"),
        Answer(status=403, body="Forbidden by the proxy"),
        Answer(status=302, headers={"Location": "https://elsewhere.example/"}),
        Answer(body="[]"),
        Answer(body="[" * 100_000),
        Answer(body={"access_token": "a\r\ntoken", "expires_in": 3600}),
        Answer(body={"access_token": "", "expires_in": 3600}),
        Answer(body={"access_token": "x", "expires_in": "soon"}),
        Answer(body={"access_token": "x", "expires_in": -1}),
        Answer(body='{"access_token": "x", "expires_in": NaN}'),
        Answer(body='{"access_token": "' + "x" * 2_000_000 + '"}'),
        Answer(hang_up=True),
    ],
    ids=lambda answer: str(answer.body)[:30] or str(answer.status),
)
async def test_nonsense_is_not_a_token(answer: Answer, tokens: Tokens, entra: FakeEntra) -> None:
    """Whatever comes back that is no token counts as trouble that passes."""
    entra.answers.append(answer)

    with pytest.raises(TokenUnavailable):
        await secret_for(tokens, a_lane())


async def test_nobody_at_home(entra: FakeEntra, tokens: Tokens) -> None:
    """A token service that cannot be reached is trouble that passes."""
    await entra.__aexit__(None, None, None)

    with pytest.raises(TokenUnavailable, match="cannot be reached"):
        await secret_for(tokens, a_lane())


async def test_a_slow_answer_keeps_nobody_else_waiting(tokens: Tokens, entra: FakeEntra) -> None:
    """While one application waits for its token, the event loop runs and another gets its own."""
    entra.gates["app-1"] = asyncio.Event()
    slow = asyncio.create_task(secret_for(tokens, a_lane()))
    await eventually(lambda: len(entra.asked) == 1)

    assert await secret_for(tokens, a_lane(OAuthLogin(client_id="app-3", client_secret=SECRET))) == "token-1"
    assert not slow.done()

    entra.gates["app-1"].set()
    assert await slow == "token-2"


async def test_silence_has_an_end(entra: FakeEntra) -> None:
    """A token service that never answers is given up, and may be asked again."""
    tokens = Tokens(a_directory(entra, timeout=0.3))
    entra.gates["app-1"] = asyncio.Event()

    with pytest.raises(TokenUnavailable):
        await secret_for(tokens, a_lane())


async def test_a_refused_token_is_renewed_once(tokens: Tokens, entra: FakeEntra, clock: Clock) -> None:
    """After a 535 one new token is fetched for all who ask, and for half a minute no further one."""
    await secret_for(tokens, a_lane())

    renewed = await asyncio.gather(*(secret_for(tokens, a_lane(), refresh=True) for _ in range(100)))
    assert {"token-2"} == set(renewed)
    assert await secret_for(tokens, a_lane(), refresh=True) == "token-2"
    assert len(entra.asked) == 2

    clock.now += 30
    assert await secret_for(tokens, a_lane(), refresh=True) == "token-3"


async def test_a_certificate_in_place_of_a_secret(tokens: Tokens, entra: FakeEntra, tmp_path: Path) -> None:
    """An application proves itself by an assertion that its certificate's key has signed."""
    issued = trustme.CA(key_type=trustme.KeyType.RSA).issue_cert(
        common_name="app-2", key_type=trustme.KeyType.RSA
    )
    login = with_certificate(issued, tmp_path)
    entra.certificate = x509.load_pem_x509_certificate(issued.cert_chain_pems[0].bytes())

    assert await secret_for(tokens, a_lane(login)) == "token-1"
    [form] = entra.asked
    assert "client_secret" not in form


async def test_a_certificate_without_its_key_is_refused(
    tokens: Tokens, entra: FakeEntra, tmp_path: Path
) -> None:
    """Files that do not belong together are told before anybody is asked."""
    authority = trustme.CA()
    login = with_certificate(authority.issue_cert("a"), tmp_path)
    assert login.private_key is not None
    authority.issue_cert("b").private_key_pem.write_to_path(str(login.private_key))

    with pytest.raises(TokenRefused, match="bad_certificate: private_key_file is not the key"):
        await secret_for(tokens, a_lane(login))
    assert not entra.asked


def with_certificate(issued: trustme.LeafCert, folder: Path) -> OAuthLogin:
    certificate, key = folder / "app.pem", folder / "app.key"
    issued.cert_chain_pems[0].write_to_path(str(certificate))
    loaded = serialization.load_pem_private_key(issued.private_key_pem.bytes(), password=None)
    key.write_bytes(
        loaded.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return OAuthLogin(client_id="app-2", certificate=certificate, private_key=key)


async def test_the_environment_cannot_overrule_the_ca_file(
    tokens: Tokens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What REQUESTS_CA_BUNDLE and its like name is not trusted in place of ca_file."""
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.setenv(variable, str(other))

    assert await secret_for(tokens, a_lane()) == "token-1"


async def test_the_environment_cannot_add_trust(
    entra: FakeEntra, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a ca_file the system decides whom to trust, whatever REQUESTS_CA_BUNDLE names."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(entra.ca_file))
    monkeypatch.setenv("CURL_CA_BUNDLE", str(entra.ca_file))

    with pytest.raises(TokenUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        await secret_for(Tokens(replace(a_directory(entra), ca_file=None), clock=clock), a_lane())
    assert not entra.asked


async def test_an_authority_of_ones_own_is_reached_directly(
    tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTPS_PROXY does not come between us and an overridden authority."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")

    assert await secret_for(tokens, a_lane()) == "token-1"


async def test_microsoft_is_reached_through_the_proxy(
    entra: FakeEntra, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the way to the cloud's own authority HTTPS_PROXY is used."""
    wanted: list[str] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wanted.append((await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0].decode())
        writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    proxy = await asyncio.start_server(refuse, "127.0.0.1", 0)
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("https_proxy", raising=False)
    directory = replace(
        a_directory(entra), authority="https://login.microsoftonline.com", own_authority=False, ca_file=None
    )

    async with proxy:
        with pytest.raises(TokenUnavailable):
            await secret_for(Tokens(directory), a_lane())

    assert wanted == ["CONNECT login.microsoftonline.com:443 HTTP/1.1"]


async def test_no_secret_shows_in_a_repr(tokens: Tokens) -> None:
    """Neither lanes nor logins show what is secret in them."""
    login = await tokens.login_for(a_lane())

    assert SECRET not in repr(a_lane())
    assert "token-1" not in repr(login)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("0", 0),
        ("120", 120),
        (" 7 ", 7),
        ("99999999999999999999", 86400),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("Mon, 23 Nov 2026 12:01:00 GMT", 60),
        ("Mon, 23 Nov 2026 11:00:00 GMT", 0),
        ("Mon, 23 Nov 2026 12:01:00 -0000", 60),
        ("Mon, 99 Nov 2026 12:01:00 GMT", None),
        ("٣", None),
    ],
)
def test_retry_after_is_read(value: str | None, seconds: float | None) -> None:
    """Retry-After is a number of seconds or a date (RFC 9110 §10.2.3); anything else says nothing."""
    assert seconds == retry_after(value, now=datetime(2026, 11, 23, 12, tzinfo=UTC))
