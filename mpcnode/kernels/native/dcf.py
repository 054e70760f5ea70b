"""Distributed comparison functions, where the processor has instructions for AES."""

from __future__ import annotations

from mpcnode.kernels import _native, reference
from mpcnode.kernels.dcf import reach
from mpcnode.kernels.memory import empty
from mpcnode.kernels.native.buffers import BYTE, BYTES, bytes_of, from_buffer, lib, made, words_of
from mpcnode.kernels.reference import U8, U64, dcf_bytes


def dcf_deal(x: U64, roots: U64, lo: int, top: int) -> U8:
    """The corrections for ρ = bits lo .. top-1 of x, and for x's bit `top` as the constant that is added.
    x: uint64[elements], roots: uint64[2, elements, 2], the parties' seeds.  Returns uint8[elements, dcf_bytes].
    """
    if not _native.lib.mpc_dcf_compiled():
        return reference.dcf_deal(x, roots, lo, top)
    n = x.size
    out = empty((n, dcf_bytes(reach(lo, top))), BYTE)
    operands = words_of(x, (n,), "x"), words_of(roots, (2, n, 2), "roots")
    lib.mpc_dcf_deal(from_buffer(BYTES, out), *operands, n, lo, top)
    return out


def dcf_share(x: U64, cuts: U64, key: U8, root: U64, lo: int, top: int, *, first: bool) -> tuple[U8, U8]:
    """Xor shares of [C < ρ] ^ constant, where C is bits lo .. top-1 of x - cut, and bit `top` of x - cut, for all cuts:
    uint8[cuts, elements] each.  x: uint64[elements], cuts: uint64[cuts], public; key: what `dcf_deal` returns; root:
    uint64[elements, 2], this party's.
    """
    if not _native.lib.mpc_dcf_compiled():
        return reference.dcf_share(x, cuts, key, root, lo, top, first=first)
    n, count = x.size, cuts.size
    out, tops = empty((count, n), BYTE), empty((count, n), BYTE)
    public = words_of(x, (n,), "x"), words_of(cuts, (count,), "cuts"), count
    held = bytes_of(key, (n, dcf_bytes(reach(lo, top))), "key"), words_of(root, (n, 2), "root")
    results = from_buffer(BYTES, out), from_buffer(BYTES, tops), made((n,))[1]
    lib.mpc_dcf_share(*results, *public, *held, n, lo, top, first)
    return out, tops
