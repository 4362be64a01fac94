"""What large messages leave behind in memory goes back to the system.

A message of 25 MB is in memory several times while it is accepted or sent. glibc takes such a buffer from the
system and gives it back, but with the first one that is freed it takes buffers of that size, up to 32 MB, for
small ones (mallopt(3), M_MMAP_THRESHOLD): from then on they come from its heap, which grows, is torn into
pieces and hardly shrinks. A threshold that is set stays where it is. The pieces in which large contents come
from a socket are of the heap all the same; what of them lies free between things in use is given back by
malloc_trim(3).
"""

import asyncio
import ctypes
from typing import Any

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

#: Octets from which on a buffer is the system's. An attachment of 1 MB still comes from the heap, which is quicker.
_LARGE = 4 * 1024 * 1024

#: Octets that may lie free at the heap's end until somebody looks. It has to be said: with the one threshold glibc
#: fixes the other, at 128 kB, and then each request shrinks the heap and the next one takes it anew, page by page.
_TOP = 64 * 1024 * 1024

#: Seconds between two looks for what lies free: 0.2 ms where there is nothing, 10 ms after ten large messages.
_EVERY = 30.0


def give_back_large_buffers() -> None:
    """Fix the thresholds for this process."""
    _c_library("mallopt", _M_MMAP_THRESHOLD, _LARGE)
    _c_library("mallopt", _M_TRIM_THRESHOLD, _TOP)


async def keep_small() -> None:
    """Give back what lies free, again and again, until cancelled."""
    while True:
        await asyncio.sleep(_EVERY)
        await asyncio.to_thread(give_back)


def give_back() -> None:
    """Give back what lies free."""
    _c_library("malloc_trim", 0)


def _c_library(name: str, *arguments: int) -> None:
    """Call glibc; where the C library is another one, there is nothing to do."""
    function: Any = getattr(ctypes.CDLL(None), name, None)
    if function is not None:
        function(*arguments)
