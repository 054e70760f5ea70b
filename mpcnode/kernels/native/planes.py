"""Bit planes: packing, conjunctions, and the leaves and gates of comparisons."""

from __future__ import annotations

import math
from functools import cache

from mpcnode.kernels.memory import empty
from mpcnode.kernels.native.buffers import BYTE, BYTES, bytes_of, from_buffer, lib, made, words_of
from mpcnode.kernels.reference import CHUNK, U8, U64, and_rows, gate_products, leaf_rows, wide_gate_rows, words


def pack_bits(bits: U8) -> U64:
    """uint8[..., elements] of 0 and 1 -> planes, uint64[..., words]."""
    *rows, elements = bits.shape
    planes, data = made((*rows, words(elements)))
    lib.mpc_pack_bits(data, bytes_of(bits, bits.shape, "bits"), math.prod(rows), elements)
    return planes


def unpack_bits(plane: U64, elements: int) -> U8:
    """One plane, uint64[words] -> uint8[elements] of 0 and 1."""
    bits = empty(elements, BYTE)
    lib.mpc_unpack_bits(from_buffer(BYTES, bits), words_of(plane, (words(elements),), "plane"), elements)
    return bits


def to_planes(x: U64, lo: int, hi: int) -> U64:
    """Bits lo .. hi-1 of x, uint64[elements] -> uint64[hi-lo, words]."""
    if not 0 <= lo <= hi <= 64:
        raise ValueError(f"bits {lo} to {hi} of 64")
    planes, data = made((hi - lo, words(x.size)))
    lib.mpc_to_planes(data, words_of(x, (x.size,), "x"), x.size, lo, hi)
    return planes


# ---- conjunctions of 2 to 8 bits -------------------------------------------------------------------------------------
def _check_fan(fan: int) -> None:
    if not 2 <= fan <= 8:
        raise ValueError(f"a conjunction of 2 to 8 bits, not {fan}")


def and_deal(masks: U64) -> U64:
    """masks: uint64[fan, words] -> the products over all sets of two and more of them, uint64[and_rows(fan), words], in
    the order of the sets as numbers (bit i: mask i).
    """
    fan, count = masks.shape
    _check_fan(fan)
    products, data = made((and_rows(fan), count))
    lib.mpc_and_deal(data, words_of(masks, masks.shape, "masks"), count, fan)
    return products


def and_share(m: U64, masks: U64, products: U64, *, first: bool) -> U64:
    """Xor shares of prod_i (m_i ^ mask_i), uint64[words].  m: uint64[fan, words], public; masks: this evaluator's xor
    shares of the masks; products: its xor shares of `and_deal`.
    """
    fan, count = m.shape
    _check_fan(fan)
    out, data = made((count,))
    rows = words_of(products, (and_rows(fan), count), "products")
    lib.mpc_and_share(data, words_of(m, m.shape, "m"), words_of(masks, m.shape, "masks"), rows, count, fan, first)
    return out


# ---- comparison leaves: [C < rho] and [C = rho] on chunks of 4 to 8 bits ---------------------------------------------
def _check_chunk(chunk: int) -> None:
    if not CHUNK <= chunk <= 8:
        raise ValueError(f"chunks of {CHUNK} to 8 bits, not {chunk}")


def leaf_deal(rho: U64, chunk: int = CHUNK) -> U64:
    """The monomials of each chunk's bits.  rho: uint64[bits, words] -> uint64[leaf_rows(bits, chunk), words]; in a
    chunk's block, row s - 1 is the product of the bits in the set s (bit i of s stands for bit i of the chunk).
    """
    bits, count = rho.shape
    _check_chunk(chunk)
    rows, data = made((leaf_rows(bits, chunk), count))
    lib.mpc_leaf_deal(data, words_of(rho, rho.shape, "rho"), count, bits, chunk)
    return rows


def leaf_share(c: U64, monomials: U64, chunk: int = CHUNK, *, first: bool) -> tuple[U64, U64]:
    """Xor shares of [C < rho] and [C = rho] for every chunk.  c: uint64[bits, words], public; monomials: xor shares of
    `leaf_deal(rho, chunk)`.  Returns lt, eq: uint64[chunks, words].
    """
    bits, count = c.shape
    _check_chunk(chunk)
    lt, lt_data = made((-(-bits // chunk), count))
    eq, eq_data = made(lt.shape)
    rows = words_of(monomials, (leaf_rows(bits, chunk), count), "monomials")
    lib.mpc_leaf_share(lt_data, eq_data, words_of(c, c.shape, "c"), rows, count, bits, chunk, first)
    return lt, eq


def leaves(x: U64, cuts: U64, lo: int, top: int, dealt: U64, chunk: int = CHUNK, *, first: bool) -> U64:
    """The leaves of bits lo .. top-1 of x - cut for all cuts.  x: uint64[elements], cuts: uint64[cuts], public; dealt:
    xor shares of `leaf_deal` and one row more.  Returns uint64[2·chunks + 1, cuts, words]: lt, eq but the lowest
    chunk's, then the last dealt row and bit `top`.
    """
    if not 0 <= lo < top <= 63:
        raise ValueError(f"bits {lo} to {top} of 63")
    _check_chunk(chunk)
    bits, count = top - lo, words(x.size)
    out, data = made((1 + 2 * -(-bits // chunk), cuts.size, count))
    planes, moved = made((bits + 1, count))[1], made((x.size,))[1]
    rows = words_of(dealt, (leaf_rows(bits, chunk) + 1, count), "dealt")
    operands = words_of(x, (x.size,), "x"), words_of(cuts, (cuts.size,), "cuts"), cuts.size, rows, len(dealt), x.size
    lib.mpc_leaves(data, planes, moved, *operands, lo, top, chunk, first)
    return out


# ---- comparison gates: 2 to 4 neighbouring (lt, eq) pairs into one ---------------------------------------------------
@cache
def _gate_sets(fan: int, with_eq: bool) -> bytes:
    """gate_products as sets of inputs, one byte each."""
    if not 2 <= fan <= 4:
        raise ValueError(f"a gate has 2 to 4 pairs of inputs, not {fan}")
    return bytes(sum(1 << i for i in part) for part in gate_products(fan, with_eq))


def gate_deal(masks: U64, *, with_eq: bool) -> U64:
    """masks: uint64[2·fan, words], the inputs' masks (lt rows, then eq rows; row fan = eq_0 is read only `with_eq`).
    Returns uint64[len(gate_products(fan, with_eq)), words].
    """
    rows, count = masks.shape
    sets = _gate_sets(rows // 2, with_eq)
    products, data = made((len(sets), count))
    lib.mpc_gate_deal(data, words_of(masks, (rows & ~1, count), "masks"), sets, len(sets), count)
    return products


def gate_share(m: U64, masks: U64, products: U64, *, with_eq: bool, first: bool) -> U64:
    """Xor shares of a gate's outputs.  m: uint64[2·fan, words], the masked inputs; masks: this evaluator's xor shares
    of their masks; products: its xor shares of `gate_deal`.  Returns uint64[1 or 2, words]: lt and, `with_eq`, eq.
    """
    rows, count = m.shape
    sets = _gate_sets(rows // 2, with_eq)
    out, data = made((1 + with_eq, count))
    shape = (rows & ~1, count)
    lib.mpc_gate_share(
        data,
        words_of(m, shape, "m"),
        words_of(masks, shape, "masks"),
        words_of(products, (len(sets), count), "products"),
        sets,
        len(sets),
        count,
        rows // 2,
        with_eq,
        first,
    )
    return out


# ---- a gate for few words: 2 to 8 pairs, a conjunction for each product ----------------------------------------------
def wide_gate_deal(masks: U64) -> U64:
    """masks: uint64[2·fan - 1, words], lt rows, then eq_1 ..  Returns `and_deal` of the inputs of each product
    lt_k·eq_{k+1}···eq_{fan-1}, k < fan - 1, one after the other.
    """
    rows, count = masks.shape
    fan = (rows + 1) // 2
    _check_fan(fan)
    products, data = made((wide_gate_rows(fan), count))
    lib.mpc_wide_gate_deal(data, words_of(masks, (2 * fan - 1, count), "masks"), count, fan)
    return products


def wide_gate_share(m: U64, masks: U64, products: U64, *, first: bool) -> U64:
    """Xor shares of the gate's lt, uint64[1, words].  m: uint64[2·fan - 1, words], the masked inputs; masks: this
    evaluator's xor shares of their masks; products: its xor shares of `wide_gate_deal`.
    """
    rows, count = m.shape
    fan = (rows + 1) // 2
    _check_fan(fan)
    out, data = made((1, count))
    shape = 2 * fan - 1, count
    dealt = words_of(products, (wide_gate_rows(fan), count), "products")
    lib.mpc_wide_gate_share(data, words_of(m, shape, "m"), words_of(masks, shape, "masks"), dealt, count, fan, first)
    return out
