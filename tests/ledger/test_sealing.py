"""Secrets at rest: sealed for one owner with one key, and kept as they are without a key."""

import base64
import os
from pathlib import Path

import pytest

from service.ledger.sealing import CannotOpen, Seal
from service.settings import BadSettings, Settings

BASE = {"POSTROOM_DATABASE_URL": "postgresql://x", "POSTROOM_REDIS_URL": "redis://x"}


def test_a_seal_opens_with_its_key_for_its_purpose_alone() -> None:
    """Another key, no key, and another owner's row open nothing; two seals of one secret differ."""
    seal = Seal(bytes(32))
    stored = seal.close("whsec_x", purpose="whk_1")

    assert seal.open(stored, purpose="whk_1") == "whsec_x"
    assert stored != seal.close("whsec_x", purpose="whk_1")
    for other, purpose in ((seal, "whk_2"), (Seal(os.urandom(32)), "whk_1"), (Seal(None), "whk_1")):
        with pytest.raises(CannotOpen):
            other.open(stored, purpose=purpose)


def test_without_a_key_secrets_are_kept_and_open_later() -> None:
    """What was written before there was a key opens with one."""
    stored = Seal(None).close("whsec_x", purpose="whk_1")

    assert stored == "whsec_x"
    assert Seal(bytes(32)).open(stored, purpose="whk_1") == "whsec_x"


def test_the_key_comes_from_the_configuration_or_a_file(tmp_path: Path) -> None:
    """32 bytes in base64, in clear or in a file, struck out where it is shown; anything else stops the start."""
    key = base64.b64encode(bytes(range(32))).decode()
    (tmp_path / "key").write_text(f"{key}\n")

    given = Settings.load(None, env={**BASE, "POSTROOM_ENCRYPTION_KEY": key})
    from_file = Settings.load(None, env={**BASE, "POSTROOM_ENCRYPTION_KEY_FILE": str(tmp_path / "key")})

    assert given.sealing_key() == from_file.sealing_key() == bytes(range(32))
    assert Settings.load(None, env=BASE).sealing_key() is None
    assert key not in str(given.effective())
    for bad in ("short", key[:-4], "%" * 44, key + key):
        with pytest.raises(BadSettings, match=r"encryption_key.*32 bytes"):
            Settings.load(None, env={**BASE, "POSTROOM_ENCRYPTION_KEY": bad})
