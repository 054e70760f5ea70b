"""Threads and instruction sets."""

from __future__ import annotations

from mpcnode.kernels.native.buffers import lib

_ISAS = ("portable", "avx2", "avx512")


def set_threads(count: int) -> None:
    """Let one call use up to `count` threads (for the whole process; one without OpenMP)."""
    if count < 1:
        raise ValueError(f"at least one thread, not {count}")
    lib.mpc_set_threads(count)


def threads() -> int:
    """Threads that one call may use."""
    return int(lib.mpc_threads())


def isa() -> str:
    """The instruction set in use: portable, avx2 or avx512."""
    return _ISAS[lib.mpc_isa()]


def set_isa(name: str) -> None:
    """Use at most this instruction set (of those the processor has): for tests and benchmarks."""
    lib.mpc_set_isa(_ISAS.index(name))
