"""What is left out of memory, and what goes back when it is freed."""

import subprocess
import sys

import pytest

from service.without import without


def test_inside_there_is_nothing_in_the_module() -> None:
    """Every name in it is None, there is nothing below it, and afterwards the real one can be imported."""
    with without("modulefinder"):
        import modulefinder

        assert modulefinder.ModuleFinder is None
        with pytest.raises(ModuleNotFoundError):
            __import__("modulefinder.below")
    import modulefinder as real

    assert real.ModuleFinder is not None


def test_a_module_that_is_loaded_stays() -> None:
    """Who has it goes on having it: nothing is taken away from anybody."""
    with without("json"):
        import json

        assert json.loads("[]") == []
    assert sys.modules["json"] is json


_PIECES = """
from service.memory import give_back

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 // 1_000_000

before = resident()
pieces = [b"x" * 65_536 for _ in range(1000)]
pin = b"y" * 65_536  # what is still needed lies above them
del pieces
left = resident() - before
give_back()
print(left, resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_what_lies_free_goes_back_to_the_system() -> None:
    """What came in a thousand pieces and was freed is still the process's own, until it is given back."""
    said = subprocess.run([sys.executable, "-c", _PIECES], capture_output=True, check=True).stdout
    left, after = map(int, said.split())

    assert left > 40
    assert after < 10


_TORN_HEAP = """
import sys
if sys.argv[1] == "given back":
    from service.memory import give_back_large_buffers
    give_back_large_buffers()

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 // 1_000_000

before = resident()
large = b"x" * 25_000_000
del large  # the first that is freed
large = [b"x" * 20_000_000 for _ in range(10)]
pin = [b"y" * 200_000 for _ in range(5)]  # what is still needed lies above them
del large
print(resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_large_buffers_go_back_to_the_system() -> None:
    """After 200 MB of large buffers were freed a process is as small as before, which it is not by itself."""
    left = {
        how: int(
            subprocess.run([sys.executable, "-c", _TORN_HEAP, how], capture_output=True, check=True).stdout
        )
        for how in ("given back", "kept")
    }

    assert left["given back"] < 20
    assert left["kept"] > 100
