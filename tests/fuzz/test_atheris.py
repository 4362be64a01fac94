"""The fuzzers as programs, for some seconds each: what they find in that time fails the test, with the input."""

import base64
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house import ROOT

#: Seconds each; longer by hand (`tests.fuzz`).
SECONDS = int(os.environ.get("POSTROOM_TEST_FUZZ_SECONDS", "8"))


def fuzz(program: str, corpus: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run a fuzzer on a copy of its corpus, in which it may keep what it finds."""
    seeds = shutil.copytree(ROOT / "tests" / "fuzz" / "corpus" / corpus, folder / "corpus")
    return subprocess.run(
        [
            *(sys.executable, "-m", f"tests.fuzz.{program}", f"-max_total_time={SECONDS}", "-timeout=20"),
            *("-rss_limit_mb=1024", "-max_len=4096", f"-artifact_prefix={folder}/find-", str(seeds)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=SECONDS + 120,
    )


@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this Python"
)
@pytest.mark.parametrize(("program", "corpus"), [("fuzz_replies", "replies"), ("fuzz_raw", "raw")])
def test_nothing_is_found(program: str, corpus: str, tmp_path: Path) -> None:
    """No input of some ten thousand breaks what must hold of every input (`reading`)."""
    done = fuzz(program, corpus, tmp_path)

    finds = {path.name: base64.b64encode(path.read_bytes()).decode() for path in tmp_path.glob("find-*")}
    assert not finds, f"{finds}\n{done.stderr[-3000:]}"
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Done " in done.stderr


@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this Python"
)
def test_a_find_is_told(tmp_path: Path) -> None:
    """A planted mistake (a reader that fails at some octets) ends the program, and leaves the input behind."""
    planted = tmp_path / "planted.py"
    planted.write_text(
        "import sys, atheris\n"
        "@atheris.instrument_func\n"
        "def one(octets):\n"
        "    if len(octets) > 2 and octets[0] == 0x35:\n"
        "        raise RuntimeError('found')\n"
        "atheris.Setup(sys.argv, one)\n"
        "atheris.Fuzz()\n"
    )
    done = subprocess.run(
        [sys.executable, str(planted), "-max_total_time=60", f"-artifact_prefix={tmp_path}/find-"],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=120,
    )

    assert done.returncode != 0
    assert [path.read_bytes()[0] for path in tmp_path.glob("find-*")] == [0x35]
