"""Large buffers go back to the system when they are freed.

A message of 25 MB is in memory several times while it is accepted or sent. glibc takes such a buffer from the
system and gives it back, but with the first one that is freed it takes buffers of that size, up to 32 MB, for
small ones (mallopt(3), M_MMAP_THRESHOLD): from then on they come from its heap, which grows, is torn into
pieces and hardly shrinks. A threshold that is set stays where it is.
"""

import ctypes

_M_MMAP_THRESHOLD = -3

#: Octets from which on a buffer is the system's. An attachment of 1 MB still comes from the heap, which is quicker.
_LARGE = 4 * 1024 * 1024


def give_back_large_buffers() -> None:
    """Fix the threshold for this process; where the C library is another one, there is nothing to fix."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
