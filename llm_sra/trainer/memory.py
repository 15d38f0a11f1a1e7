"""Memory of a training on a CPU."""

import ctypes
import os
from contextlib import suppress

LARGE = 2**22  # bytes; smaller blocks are many, and cheap to keep
_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of glibc's malloc.h
_SET_BY_USER = ("MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def return_large_blocks() -> bool:
    """Let the C library give blocks of `LARGE` bytes or more back to the system as soon as they are free.

    By itself glibc keeps freed blocks of up to 32 MiB. Tensors of a training have many sizes and do not fit into the
    holes of others, so that the process grows to twice what it uses. Nothing is changed where the environment sets the
    C library's limits, or where the library is another one.

    Returns:
        Whether it was set.

    References:
        mallopt(3), M_MMAP_THRESHOLD.
    """
    if any(name in os.environ for name in _SET_BY_USER):
        return False
    with suppress(OSError, AttributeError, TypeError):  # no such library, no such function; no library by None
        return bool(ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, LARGE))
    return False
