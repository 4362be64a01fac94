"""The addresses of PostgreSQL and Redis: what may stand in them, and what is said of what may not."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from service.ledger import Ledger
from service.ledger.database_url import BadDatabaseUrl, check, driver_url
from service.ledger.standing import standing
from service.settings import redis_url as redis_address

HERE = "postgresql://postroom:canary@db.contoso.com/postroom"


def database_mistake(url: str) -> str:
    with pytest.raises(BadDatabaseUrl) as wrong:
        check(url)
    return str(wrong.value)


def redis_mistake(url: str) -> str:
    with pytest.raises(ValueError) as wrong:
        redis_address.check(url)
    return str(wrong.value)


@pytest.mark.parametrize(
    "url",
    [
        HERE,
        HERE + "?sslmode=require&application_name=mail&connect_timeout=5",
        HERE + "?ssl=verify-full",
        "postgres://postroom@db/postroom",
        "postgresql+asyncpg://postroom@db:5433/postroom",
        "postgresql://u:p@/postroom?host=a,b&port=5432,5433&target_session_attrs=read-write",
        "postgresql:///postroom?host=/var/run/postgresql",
        "postgresql://u:a%40b%2Fc@db/postroom",
    ],
)
def test_addresses_of_postgresql_as_its_own_programs_take_them(url: str) -> None:
    check(url)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://u:canary@a:5432,b:5432/postroom", "?host=a,b&port=5432,5432"),
        ("postgresql://u:canary@db:port/postroom", "cannot be read"),
        ("postgresql://u:canary@db:99999/postroom", "1 to 65535"),
        (HERE + "?sslmod=require", "has a parameter"),
        (HERE + "?sslmode=required", "verify-full"),
        (HERE + "?sslmode=verify-full&sslrootcert=/canary/ca.pem", "sslrootcert that is not there"),
        ("mysql://u:canary@db/postroom", "postgresql://"),
    ],
)
def test_a_wrong_address_of_postgresql_is_told_with_the_remedy(url: str, said: str) -> None:
    """The sentence says how it is written, and nothing of what was."""
    mistake = database_mistake(url)

    assert said in mistake
    assert "canary" not in mistake


async def test_what_stands_behind_the_question_mark_reaches_the_driver(database_url: str) -> None:
    """Without TLS at the server `sslmode=prefer` works and `require` is refused: the driver was told."""
    open_ones = {
        mode: Ledger.open(f"{database_url}?sslmode={mode}", name="t", connections=1) for mode in MODES
    }

    found = {mode: (await standing(ledger)).state for mode, ledger in open_ones.items()}
    for ledger in open_ones.values():
        await ledger.dispose()

    assert found == {"disable": "ready", "prefer": "ready", "require": "unavailable"}


MODES = ("disable", "prefer", "require")


@settings(deadline=None, database=None, max_examples=150)
@given(password=st.text(st.characters(codec="utf-8"), max_size=20))
def test_no_password_whatever_is_repeated_or_breaks_the_start(password: str) -> None:
    """A password that nobody encoded is taken as it is, or refused in a sentence that has none of it."""
    canary = f"canary{password}canary"

    said = [
        _mistake(check, f"postgresql://u:{canary}@db/postroom"),
        _mistake(redis_address.check, f"redis://:{canary}@cache:6379/0"),
    ]

    assert "canary" not in str(said)
    if said[0] is None:
        driver_url(f"postgresql://u:{canary}@db/postroom")


def _mistake(checked: Callable[[str], None], url: str) -> str | None:
    try:
        checked(url)
    except ValueError as wrong:
        return str(wrong)
    return None


@pytest.mark.parametrize(
    "url",
    [
        "redis://cache",
        "redis://:secret@cache:6379/1",
        "redis://cache/0?socket_timeout=2.5&client_name=postroom",
        "rediss://cache/0?ssl_cert_reqs=required&ssl_check_hostname=true",
        "unix:///run/valkey.sock?db=2",
    ],
)
async def test_addresses_of_redis_that_its_client_takes(url: str) -> None:
    """What is let through makes a connection of the client's, which is more than its pool checks."""
    redis_address.check(url)

    client = Redis.from_url(url)
    client.connection_pool.make_connection()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://:canary/canary@cache:6379/0", "%2F"),
        ("redis://:canary#canary@cache:6379/0", "%23"),
        ("redis://cache/canary", "number behind the host"),
        ("redis://cache/0?canary=1", "has a parameter"),
        ("redis://cache/0?ssl_ca_certs=canary.pem", "rediss://"),
        ("rediss://cache/0?ssl_ca_certs=canary.pem", "ssl_ca_certs that is not there"),
        ("rediss://cache/0?ssl_cert_reqs=canary", "required, optional or none"),
        ("redis://cache/0?socket_timeout=canary", "socket_timeout"),
    ],
)
def test_a_wrong_address_of_redis_is_told_with_the_remedy(url: str, said: str) -> None:
    """The sentence says how it is written, and nothing of what was."""
    mistake = redis_mistake(url)

    assert said in mistake
    assert "canary" not in mistake


def test_a_file_that_is_there_is_taken(tmp_path: Path) -> None:
    """Only that it is there is looked at: whether it is a certificate, TLS says."""
    ca = tmp_path / "ca.pem"
    ca.write_text("x")

    check(f"{HERE}?sslmode=verify-full&sslrootcert={ca}")
    redis_address.check(f"rediss://cache/0?ssl_ca_certs={ca}")
