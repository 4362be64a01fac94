"""Access tokens of Entra ID: what opens the door, every claim wrong once, keys that roll, a directory that is down.

The directory is the sandbox's. Tokens that it would not issue are signed with its own key, which lies in
its state folder.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from service.routes import directory
from service.sandbox import Sandbox, SandboxApi, SandboxApplication, contoso
from service.submission.who.callers import Callers
from tests.house import House, a_house, a_message, smarthost
from tests.peer import ScriptedPeer
from tests.sandbox.entra import TENANT, readback, token_for
from tests.waiting import eventually

CALLER = "55555555-5555-4555-8555-555555555555"
SECRET = "sandbox-caller-secret"
ROBOT = "66666666-6666-4666-8666-666666666666"
API = "api://postroom"
API_ID = "77777777-7777-4777-8777-777777777777"
OLD_API = "api://postroom-old"


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    """A directory with two APIs of ours, one for each version of tokens, and two applications that call them."""
    roles = {API: ("messages.send", "messages.read", "unheard.of"), OLD_API: ("messages.read",)}
    tenant = contoso(
        tmp_path / "sandbox",
        apis=(
            SandboxApi(identifier=API, client_id=API_ID),
            SandboxApi(identifier=OLD_API, client_id="88888888-8888-4888-8888-888888888888", token_version=1),
        ),
        applications=(
            SandboxApplication(client_id=CALLER, client_secret=SECRET, api_roles=roles),
            SandboxApplication(client_id=ROBOT, client_secret=SECRET),
        ),
        mailboxes=(),
    )
    async with Sandbox(tenant) as running:
        yield running


@pytest.fixture
async def house(sandbox: Sandbox, database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[House]:
    """A door that takes the sandbox's tokens."""
    async with ScriptedPeer() as peer, opened(sandbox, database_url, redis_url, tmp_path, peer) as house:
        yield house


def opened(
    sandbox: Sandbox, database_url: str, redis_url: str, folder: Path, peer: ScriptedPeer, **api: Any
) -> Any:
    entra = {
        "tenant_id": TENANT,
        "authority": sandbox.authority,
        "ca_file": str(sandbox.ca_file),
        "timeout": "5s",
        "api": {"audience": [API_ID, OLD_API], **api},
    }
    return a_house(
        database_url,
        redis_url,
        routes=[smarthost(peer)],
        folder=folder,
        workers=0,
        settings_changes={"entra": entra},
    )


def callers(house: House) -> Callers:
    assert house.app is not None
    found: Callers = house.app.state.door.callers
    return found


def the_directory(house: House) -> directory.Directory:
    tokens = callers(house)._tokens
    assert tokens is not None
    return tokens.directory


async def with_token(house: House, token: str, path: str = "/me") -> httpx2.Response:
    return await house.client.get(path, headers={"Authorization": f"Bearer {token}"})


async def issued(sandbox: Sandbox, scope: str = f"{API}/.default", client_id: str = CALLER) -> str:
    return await token_for(sandbox, client_id=client_id, credential=SECRET, scope=scope)


def signing_key(tmp_path: Path) -> RSAPrivateKey:
    key = load_pem_private_key((tmp_path / "sandbox" / "token.key").read_bytes(), password=None)
    assert isinstance(key, RSAPrivateKey)
    return key


async def forged(sandbox: Sandbox, tmp_path: Path, changes: dict[str, Any], **header: Any) -> str:
    """A token that is right but for `changes`, signed with the directory's own key; None takes a claim away."""
    right = await issued(sandbox)
    claims = jwt.decode(right, options={"verify_signature": False}) | changes
    return jwt.encode(
        {name: value for name, value in claims.items() if value is not None},
        signing_key(tmp_path),
        algorithm="RS256",
        headers={"kid": jwt.get_unverified_header(right)["kid"], **header},
    )


async def test_a_token_opens_the_door_with_its_roles_as_scopes(house: House, sandbox: Sandbox) -> None:
    """`GET /me` shows the application by its client id; roles that we do not know say nothing."""
    token = await issued(sandbox)

    me = (await with_token(house, token)).json()
    headers = {"Authorization": f"Bearer {token}"}
    sent = await house.client.post("/messages", json=a_message(), headers=headers)
    seen = await with_token(house, token, f"/messages/{sent.json()['id']}")
    beyond = await with_token(house, token, "/routes")

    assert (me["object"], me["id"], me["application"]) == ("access_token", f"entra:{CALLER}", CALLER)
    assert me["scopes"] == ["messages.send", "messages.read"]
    assert me["expires_at"] is not None
    assert (sent.status_code, seen.status_code) == (202, 200)
    assert (beyond.status_code, beyond.json()["code"]) == (403, "insufficient_scope")


async def test_a_token_of_version_one_is_as_good(house: House, sandbox: Sandbox) -> None:
    """Its issuer is sts.windows.net, its audience the URI, its client the appid."""
    token = await issued(sandbox, scope=f"{OLD_API}/.default")

    assert jwt.decode(token, options={"verify_signature": False})["iss"].startswith(
        "https://sts.windows.net/"
    )
    me = await with_token(house, token)
    assert (me.status_code, me.json()["application"], me.json()["scopes"]) == (200, CALLER, ["messages.read"])


async def test_the_configuration_names_and_restricts_an_application(
    sandbox: Sandbox, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """`entra.api.applications` gives a name, senders and restrictions, which hold as a key's do."""
    given = {
        "client_id": CALLER.upper(),
        "name": "billing",
        "senders": ["@contoso.com"],
        "recipient_domains": ["Example.com"],
        "messages_per_minute": 3,
    }
    async with (
        ScriptedPeer() as peer,
        opened(sandbox, database_url, redis_url, tmp_path, peer, applications=[given]) as house,
    ):
        headers = {"Authorization": f"Bearer {await issued(sandbox)}"}
        me = (await house.client.get("/me", headers=headers)).json()
        outside = await house.client.post("/messages", json=a_message(to="a@example.org"), headers=headers)
        stranger = await house.client.post(
            "/messages", json=a_message(**{"from": "a@fabrikam.com"}), headers=headers
        )

    assert (me["application"], me["senders"]) == ("billing", ["@contoso.com"])
    assert (me["recipient_domains"], me["messages_per_minute"]) == (["example.com"], 3)
    assert {outside.status_code, stranger.status_code} == {403}


#: What is changed about a right token, and how the door answers.
WRONG_CLAIMS: tuple[tuple[dict[str, Any], int, str], ...] = (
    ({"aud": "api://other"}, 401, "wrong_audience"),
    ({"aud": API}, 401, "wrong_audience"),
    ({"aud": None}, 401, "invalid_token"),
    ({"iss": "https://login.example/v2.0"}, 401, "wrong_issuer"),
    ({"iss": "https://sts.windows.net/99999999-0000-4000-8000-000000000365/"}, 401, "wrong_issuer"),
    ({"iss": None}, 401, "invalid_token"),
    ({"tid": "99999999-0000-4000-8000-000000000365"}, 401, "wrong_tenant"),
    ({"tid": None}, 401, "invalid_token"),
    ({"exp": int(time.time()) - 120}, 401, "token_expired"),
    ({"exp": None}, 401, "invalid_token"),
    ({"exp": "soon"}, 401, "invalid_token"),
    ({"nbf": int(time.time()) + 3600}, 401, "token_not_yet_valid"),
    ({"iat": int(time.time()) + 3600}, 401, "token_not_yet_valid"),
    ({"scp": "Mail.Read"}, 403, "delegated_token"),
    ({"idtyp": "user"}, 403, "delegated_token"),
    ({"sub": "somebody-else"}, 403, "delegated_token"),
    ({"azpacr": "0"}, 403, "delegated_token"),
    ({"azp": None}, 403, "delegated_token"),  # as in an ID token
    ({"azp": "not a client"}, 403, "delegated_token"),
    ({"roles": None}, 403, "no_roles"),
    ({"roles": ["unheard.of"]}, 403, "no_roles"),
    ({"roles": "admin"}, 403, "no_roles"),
    ({"roles": {"admin": True}}, 403, "no_roles"),
)


async def test_every_claim_is_refused_where_it_is_wrong(
    house: House, sandbox: Sandbox, tmp_path: Path
) -> None:
    """Signed by the directory itself, and all the same not for us, not now, or not from an application."""
    for changes, status, code in WRONG_CLAIMS:
        callers(house).wrong_keys._strikes.clear()

        answer = await with_token(house, await forged(sandbox, tmp_path, changes))

        assert (answer.status_code, answer.json()["code"]) == (status, code), changes
        assert status == 403 or 'error="invalid_token"' in answer.headers["www-authenticate"]


async def test_clocks_may_differ_a_little(house: House, sandbox: Sandbox, tmp_path: Path) -> None:
    """A token that ended half a minute ago, or begins in half a minute, is taken."""
    now = int(time.time())
    for changes in ({"exp": now - 30}, {"nbf": now + 30, "iat": now + 30}):
        token = await forged(sandbox, tmp_path, changes)
        assert (await with_token(house, token)).status_code == 200, changes


async def test_only_the_directorys_own_signature_counts(
    house: House, sandbox: Sandbox, tmp_path: Path
) -> None:
    """No algorithm, a MAC made with the public key, another key under the right name, a changed claim: 401."""
    right = await issued(sandbox)
    kid = jwt.get_unverified_header(right)["kid"]
    claims = jwt.decode(right, options={"verify_signature": False})
    public = signing_key(tmp_path).public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    head, _, signature = right.split(".")
    elevated = jwt.utils.base64url_encode(
        str(claims | {"roles": ["admin"]}).replace("'", '"').encode()
    ).decode()
    tokens = {
        "none": jwt.encode(claims, "", algorithm="none", headers={"kid": kid}),
        "HS256 with the public key": _mac(claims, pem, kid),
        "another key": jwt.encode(claims, other, algorithm="RS256", headers={"kid": kid}),
        "PS256": jwt.encode(claims, signing_key(tmp_path), algorithm="PS256", headers={"kid": kid}),
        "no kid": jwt.encode(claims, signing_key(tmp_path), algorithm="RS256"),
        "critical": await forged(sandbox, tmp_path, {}, crit=["x"], x=1),
        "changed": f"{head}.{elevated}.{signature}",
        "no signature": right.rpartition(".")[0] + ".",
        "brackets": jwt.utils.base64url_encode(b"[" * 4000).decode() + ".e30.",
        "not JSON": "eA.eA.eA",
    }

    for name, token in tokens.items():
        callers(house).wrong_keys._strikes.clear()
        answer = await with_token(house, token)
        assert (answer.status_code, answer.json()["code"]) == (401, "invalid_token"), name


def _mac(claims: dict[str, Any], secret: bytes, kid: str) -> str:
    """Sign with HMAC, which PyJWT itself refuses to do with a public key."""
    import hashlib
    import hmac
    import json

    parts = [{"alg": "HS256", "typ": "JWT", "kid": kid}, claims]
    text = ".".join(jwt.utils.base64url_encode(json.dumps(part).encode()).decode() for part in parts)
    signature = hmac.new(secret, text.encode(), hashlib.sha256).digest()
    return f"{text}.{jwt.utils.base64url_encode(signature).decode()}"


async def test_a_key_that_rolled_is_found_and_a_flood_of_names_is_not(
    house: House, sandbox: Sandbox, tmp_path: Path
) -> None:
    """An unknown name is looked for once in a while; the new key is in use then, and the old one still is."""
    old = await issued(sandbox)
    assert (await with_token(house, old)).status_code == 200
    async with readback(sandbox) as client:
        assert (await client.post("/tokens/roll")).status_code == 204
    new = await issued(sandbox)
    known = the_directory(house)
    now = [time.monotonic()]
    known._clock = lambda: now[0]

    now[0] += directory.REFETCH_APART
    before = known.fetches
    both = [await with_token(house, token) for token in (new, old)]
    statuses = set()
    for number in range(30):
        callers(house).wrong_keys._strikes.clear()
        answer = await with_token(house, await _named(tmp_path, f"forged-{number}"))
        statuses.add((answer.status_code, answer.json()["code"]))

    assert [each.status_code for each in both] == [200, 200]
    assert statuses == {(401, "unknown_signing_key")}
    assert known.fetches == before + 1


async def _named(tmp_path: Path, kid: str) -> str:
    return jwt.encode({}, signing_key(tmp_path), algorithm="RS256", headers={"kid": kid})


async def test_a_token_whose_key_is_gone_is_not_remembered(house: House, sandbox: Sandbox) -> None:
    """After two rolls the first key is no longer published: what it signed is refused, although it was taken before."""
    old = await issued(sandbox)
    assert (await with_token(house, old)).status_code == 200
    async with readback(sandbox) as client:
        for _ in range(2):
            await client.post("/tokens/roll")
    known = the_directory(house)
    known._tried_at = None
    assert (await with_token(house, await issued(sandbox))).status_code == 200

    answer = await with_token(house, old)

    assert (answer.status_code, answer.json()["code"]) == (401, "unknown_signing_key")


@pytest.mark.parametrize(
    "fault", [{"kind": "unavailable"}, {"kind": "garbled"}, {"kind": "slow", "seconds": 8.0}]
)
async def test_a_directory_that_is_down_slows_nobody_else(
    sandbox: Sandbox, database_url: str, redis_url: str, tmp_path: Path, fault: dict[str, Any]
) -> None:
    """A token gets 503 without waiting for the directory, and works when it is back; keys work all the while."""
    token = await issued(sandbox)
    sandbox.switch(directory_fault=fault)
    async with ScriptedPeer() as peer, opened(sandbox, database_url, redis_url, tmp_path, peer) as house:
        began = time.monotonic()
        answers = await asyncio.gather(*[with_token(house, token) for _ in range(20)])
        took = time.monotonic() - began
        assert (await house.client.get("/me")).status_code == 200
        fetches = the_directory(house).fetches
        sandbox.switch(directory_fault=None)

        async def there() -> bool:
            return (await with_token(house, token)).status_code == 200

        assert await eventually(there, within=30.0)

    assert {(each.status_code, each.json()["code"]) for each in answers} == {(503, "entra_unavailable")}
    assert all(each.headers["Retry-After"] for each in answers)
    assert took < 4.0  # the directory itself has five seconds
    assert fetches <= 2


async def test_old_keys_stay_in_use_while_the_directory_is_down(house: House, sandbox: Sandbox) -> None:
    """After more than a day without an answer, a token with a known key is still judged, and at once."""
    first, second = (
        await issued(sandbox),
        await token_for(sandbox, client_id=CALLER, credential=SECRET, scope=f"{OLD_API}/.default"),
    )
    assert (await with_token(house, first)).status_code == 200
    known = the_directory(house)
    now = [time.monotonic() + 2 * directory.FRESH]
    known._clock = lambda: now[0]
    sandbox.switch(directory_fault={"kind": "unavailable"})
    before = known.fetches

    assert (await with_token(house, second)).status_code == 200
    await eventually(lambda: known._failed)
    assert (await with_token(house, second)).status_code == 200
    assert known.fetches == before + 1


async def test_wrong_tokens_are_slowed_and_good_ones_are_not(
    house: House, sandbox: Sandbox, tmp_path: Path
) -> None:
    """The address of a guesser gets 429 for what is wrong, and 200 for what is right."""
    good, wrong = await issued(sandbox), await forged(sandbox, tmp_path, {"aud": "api://other"})
    strikes = callers(house).wrong_keys
    strikes._strikes["127.0.0.1"] = (100.0, time.monotonic())

    refused = await with_token(house, wrong)
    taken = await with_token(house, good)

    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_wrong_keys")
    assert taken.status_code == 200
    assert strikes.refused["wrong_audience"] == 1


async def test_a_token_does_not_rotate(house: House, sandbox: Sandbox, tmp_path: Path) -> None:
    """An access token is renewed by Entra ID: /me/rotate has nothing to give it."""
    token = await forged(sandbox, tmp_path, {"roles": ["keys.rotate"]})

    answer = await house.client.post("/me/rotate", headers={"Authorization": f"Bearer {token}"})

    assert (answer.status_code, answer.json()["code"]) == (409, "not_a_key")


async def test_no_claim_and_no_token_is_logged(
    house: House, sandbox: Sandbox, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither for a token that is taken nor for one that is refused."""
    tokens = [
        await issued(sandbox),
        await forged(sandbox, tmp_path, {"aud": "api://canary", "name": "canary-7f3a"}),
    ]

    for token in tokens:
        await with_token(house, token)

    said = "".join(capfd.readouterr())
    assert "caller.refused" in said
    assert "canary" not in said
    assert not any(part in said for token in tokens for part in token.split("."))
