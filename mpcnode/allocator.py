"""What a node asks of the C library's allocator: keep what is freed while a job runs, give it back between jobs.

A job's messages and arrays have hundreds of kilobytes and live for a moment.  As it comes, glibc maps such memory anew
each time and unmaps it, and the kernel clears every page of it: a third of the time that a message of 800 kB takes.
"""

from __future__ import annotations

import ctypes
from typing import Final

# of malloc.h; absent from any other library than glibc
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
MAPPED_BYTES: Final = 32 << 20  # from here on memory is mapped and unmapped as ever: more than this glibc refuses
_NEVER: Final = -1  # gives the end of the heap back when so much of it is free


def keep() -> bool:
    """Keep freed memory, in one place for all threads: what one frees serves the next, and nearly all of this process's
    allocate under the interpreter's lock anyway.  False where this is not glibc, which then does as it likes.

    Before threads start.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    settings = (_ARENA_MAX, 1), (_MMAP_THRESHOLD, MAPPED_BYTES), (_TRIM_THRESHOLD, _NEVER)
    return all(mallopt(option, value) == 1 for option, value in settings)


def release() -> None:
    """Give freed memory back to the system."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        return
