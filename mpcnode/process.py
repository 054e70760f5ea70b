"""What a node's process asks of the system: malloc to keep memory, OpenMP's threads to sleep; and how much it had.

glibc's malloc gives what is freed back to the system early, and has a heap for each of many threads.  But a step of
training frees what the next one takes, in whichever thread a message came: so each step would ask the system for its
pages again, and several heaps would hold what one can.  Other C libraries are left as they are.

GNU's OpenMP has a thread that waits for others spin for milliseconds.  Where several nodes share the cores of a
machine, that is time that those others need.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # of glibc's malloc.h
KEPT_BYTES = 1 << 28  # at the heap's end, during an attempt
ALONE_BYTES = 1 << 25  # an array of this size gets pages of its own, and gives them back; the most that glibc admits
SPINS = 1000  # some microseconds


def _of_glibc(name: str) -> Any:
    """One of its functions; None without it."""
    libc = ctypes.CDLL(None)
    return getattr(libc, name) if hasattr(libc, "gnu_get_libc_version") else None


def prepare() -> None:
    """Keep what is freed, in one heap; let threads that wait sleep soon, unless OpenMP's own settings say otherwise.

    To be called before anything is imported that has threads or native kernels.
    """
    if mallopt := _of_glibc("mallopt"):
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, ALONE_BYTES)
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", f"{SPINS}")


def give_back() -> None:
    """Give back all memory that is free."""
    if malloc_trim := _of_glibc("malloc_trim"):
        malloc_trim(0)


def forget_peak() -> None:
    """Have `peak_mib` tell of the time from now on, if the system can (Linux)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_mib() -> float:
    """The most memory that this process has had."""
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / (1 << 10)
    except (OSError, IndexError):  # no Linux.  There getrusage would say what the parent had when it started this one
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
