"""Keys: what the ledger keeps opens no door, and what is guessed is compared without telling how much of it was right."""

import ast
import base64
import hashlib
import re

import asyncpg

from service.ledger import Ledger
from service.ledger.keys import DEFAULT_SCOPES
from tests.house import ROOT

_SECRET = re.compile(r"\b(?:hash|secret|digest|signature|guard|password|cookie|nonce)\b")


async def test_what_the_ledger_keeps_of_a_key_does_not_open_the_door(database_url: str) -> None:
    """Neither the hash in any form, nor a key of the right id with another secret, nor the other kind of key."""
    ledger = Ledger.open(database_url, name="test", connections=2)
    try:
        made = await ledger.create_key("shop", scopes=DEFAULT_SCOPES, senders=[])
        kind, _, rest = made.token.removeprefix("pr_").partition("_")
        number, secret = rest[:26], rest[27:]
        connection = await asyncpg.connect(database_url)
        (kept,) = [row["hash"] for row in await connection.fetch("SELECT hash FROM keys")]
        await connection.close()

        coded = base64.urlsafe_b64encode(kept).rstrip(b"=").decode()
        guesses = [
            f"pr_{kind}_{number}_{coded}",
            f"pr_{kind}_{number}_{kept.hex()[:43]}",
            f"pr_{kind}_{number}_{'A' * 43}",
            f"pr_{kind}_{number}_{secret[:-1]}{'A' if secret[-1] != 'A' else 'B'}",
            f"pr_{kind}_{number}_{secret.swapcase()}",
            f"pr_test_{number}_{secret}",
            f"pr_{kind}_{number.lower()}_{secret}",
            f" {made.token}", f"{made.token} ", f"{made.token}\n", f"{made.token}\0", made.token[:-1], made.token * 2,
        ]  # fmt: skip
        assert [guess for guess in guesses if await ledger.find_key(guess) is not None] == []
        assert await ledger.find_key(made.token) is not None
        assert kept == hashlib.sha256(secret.encode()).digest()
        assert len(base64.urlsafe_b64decode(f"{secret}=")) == 32, "256 bits need no slow hash"
    finally:
        await ledger.dispose()


def test_no_secret_is_compared_by_equality() -> None:
    """`==` stops at the first octet that differs, and so tells how many were right: secrets go through hmac."""
    compared, safe = [], 0
    for path in sorted((ROOT / "service").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            safe += isinstance(node, ast.Attribute) and node.attr == "compare_digest"
            if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Eq | ast.NotEq):
                sides = [node.left, *node.comparators]
                if any(isinstance(each, ast.Constant) for each in sides):
                    continue  # a name, not a secret
                if any(_SECRET.search(ast.unparse(each).rpartition(".")[2]) for each in sides):
                    compared.append(f"{path.relative_to(ROOT)}: {ast.unparse(node)}")

    assert safe >= 4
    assert compared == []
