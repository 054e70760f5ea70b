"""The definition of every kernel, in numpy.  `native.c` computes the same, faster; a test holds it to this file.

Conventions.  Ring elements are uint64 and wrap (Z_2^64).  Elementwise kernels take C-contiguous arrays of one shape;
`matmul` takes any strides.  Bit planes are uint64[planes, words]: element e of a plane is bit e % 64 of word e // 64,
and words = ceil(elements / 64); what stands behind the last element is unspecified.  `first` tells the one evaluator
that adds the public terms (the braces of docs/design.md).
"""

from __future__ import annotations

from functools import cache
from itertools import combinations

import numpy as np
import numpy.typing as npt

from mpcnode.kernels import dcf
from mpcnode.kernels.places import padded
from mpcnode.window import Window

U64 = npt.NDArray[np.uint64]
U8 = npt.NDArray[np.uint8]
Unsigned = npt.NDArray[np.unsignedinteger]

CHUNK = 4  # bits of a comparison leaf, and inputs of a comparison gate
MOST_TIMES = (1 << 31) - 1  # the largest factor of a truncation
_ONES = np.uint64(0xFFFF_FFFF_FFFF_FFFF)


def set_threads(count: int) -> None:
    """Let one call use up to `count` threads: here one always serves."""
    if count < 1:
        raise ValueError(f"at least one thread, not {count}")


def threads() -> int:
    """Threads that one call may use."""
    return 1


# ---- ring products ---------------------------------------------------------------------------------------------------
def matmul(a: U64, b: U64) -> U64:
    """a @ b mod 2^64.  a: [..., m, k], b: [..., k, n] with equal leading axes, any strides; result C-contiguous."""
    product: U64 = np.ascontiguousarray(np.matmul(a, b))
    return product


def matmul_add(out: U64, a: U64, b: U64, *, negate: bool = False) -> None:
    """out += a @ b (or -= with `negate`) mod 2^64.  out: [..., m, n], C-contiguous."""
    if negate:
        out -= np.matmul(a, b)
    else:
        out += np.matmul(a, b)


def conv(x: U64, w: U64, window: Window) -> U64:
    """The convolution (without turning the window around) of x [groups, images, *space, channels] with
    w [groups, *window, channels, outputs] mod 2^64: [groups, images, *places, outputs].  Any strides; result
    C-contiguous.
    """
    places = window.places(x.shape[2:-1], w.shape[1:-2])
    x = padded(x, window)
    out = np.zeros((*x.shape[:2], *places, w.shape[-1]), np.uint64)
    for element in np.ndindex(*w.shape[1:-2]):
        starts = (e * d for e, d in zip(element, window.window_dilation, strict=True))
        met = (slice(a, a + (n - 1) * s + 1, s) for a, n, s in zip(starts, places, window.stride, strict=True))
        if out.size:
            rows = x[(slice(None), slice(None), *met)].reshape(len(x), out[0, ..., 0].size, x.shape[-1])
            out += np.matmul(rows, w[(slice(None), *element)]).reshape(out.shape)
    return out


def conv_add(out: U64, x: U64, w: U64, window: Window, *, negate: bool = False) -> None:
    """out += conv(x, w, window) (or -= with `negate`) mod 2^64.  out: C-contiguous."""
    if negate:
        out -= conv(x, w, window)
    else:
        out += conv(x, w, window)


def mul_share(mx: U64, lx: U64, my: U64, ly: U64, gamma: U64, mask: U64, *, first: bool) -> U64:
    """One evaluator's message for x·y, elementwise: gamma + mask - mx·ly - lx·my {+ mx·my}."""
    s: U64 = gamma + mask - mx * ly - lx * my
    if first:
        s += mx * my
    return s


def waxpby(a: int, x: U64, b: int, y: U64) -> U64:
    """a·x + b·y, elementwise, as BLAS names it.  The result's axes stand in memory in the order of x's."""
    return np.asarray(np.uint64(a % (1 << 64)) * x + np.uint64(b % (1 << 64)) * y)


# ---- exact truncation ------------------------------------------------------------------------------------------------
def scaled(x: U64, times: int, by: int) -> U64:
    """x·times >> by for 1 <= times < 2^31 and times <= 2^by, without a product of 96 bits."""
    if times == 1:
        return x >> np.uint64(by)
    high, low = (x >> np.uint64(32)) * np.uint64(times), (x & np.uint64(0xFFFF_FFFF)) * np.uint64(times)
    if by < 32:
        return (high << np.uint64(32 - by)) + (low >> np.uint64(by))
    return (high + (low >> np.uint64(32))) >> np.uint64(by - 32)


def trunc_deal(r: U64, by: int, wrap: npt.DTypeLike, times: int = 1) -> tuple[U64, Unsigned]:
    """(r·times >> by, (r >> 63)·times): what the helper deals for a truncation with a factor, 1 <= times < 2^31 and
    times <= 2^by; the second in the unsigned dtype `wrap` (at least `by` bits).
    """
    top = (r >> np.uint64(63)).astype(wrap)
    return scaled(r, times, by), np.asarray(top * top.dtype.type(times & ((1 << 8 * top.itemsize) - 1)))


def trunc_share(c: U64, b: Unsigned, mask: Unsigned) -> Unsigned:
    """One evaluator's message for a truncation of z with c = z + r, |z| < 2^62, b a share of (r >> 63)·times, mask of
    the same dtype: mask + (1 - (c' >> 63))·b with c' = c + 2^62.
    """
    no_top = 1 - ((c + np.uint64(1 << 62)) >> np.uint64(63)).astype(b.dtype)
    return np.asarray(mask + no_top * b)


def trunc_open(c: U64, v: Unsigned, by: int, times: int = 1, out: U64 | None = None) -> U64:
    """The truncation's new masked value, for v the sum of all messages and 1 <= by <= 62:
    (c'·times >> by) - times·2^(62-by) + 2^(64-by)·v with c' = c + 2^62.
    """
    above = v.astype(np.uint64) << np.uint64(64 - by)
    known = scaled(c + np.uint64(1 << 62), times, by) - np.uint64(times << (62 - by))
    return np.asarray(np.add(known, above, out))


def trunc_mask(t: U64, mask: Unsigned, by: int, out: U64 | None = None) -> U64:
    """A party's part of the truncation's new mask, for t its part of r·times >> by: t + 2^(64-by)·mask; may be t."""
    return np.asarray(np.add(t, mask.astype(np.uint64) << np.uint64(64 - by), out))


# ---- a masked bit times a ring element -------------------------------------------------------------------------------
def select_share(bit: U8, mw: U64, lw: U64, beta: U64, beta_lw: U64, mask: U64, *, first: bool) -> U64:
    """One evaluator's message for Σ_k b_k·w_k, where bit = b ^ β is public, beta a share of β and beta_lw one of β·λ_w:
    mask + Σ_k (- bit·lw + (1 - 2·bit)·(beta·mw - beta_lw) {+ bit·mw}).  mask: of any shape, the others [terms, *shape].
    """
    m = bit.astype(np.uint64)
    s = (np.uint64(1) - np.uint64(2) * m) * (beta * mw - beta_lw) - m * lw
    if first:
        s += m * mw
    return _on_top(mask, s)


def _on_top(mask: U64, terms: U64) -> U64:
    """The mask and the sum of the terms, in the first axis."""
    return np.asarray(mask + np.add.reduce(terms, axis=0, dtype=np.uint64))


def inject_share(bit: U8, beta: U64, mask: U64, *, first: bool) -> U64:
    """One evaluator's message for b as a ring element: mask + (1 - 2·bit)·beta {+ bit}."""
    m = bit.astype(np.uint64)
    s = mask + (np.uint64(1) - np.uint64(2) * m) * beta
    if first:
        s += m
    return s


# ---- products of what is truncated on the way ------------------------------------------------------------------------
# For c = z + r with |z| < 2^62 a truncation of z is t = A - (r >> by) + W·(r >> 63), where evaluators know A and W.
def _truncation(c: U64, by: int) -> tuple[U64, U64]:
    """A = (c' >> by) - 2^(62-by) and W = (1 - (c' >> 63))·2^(64-by), with c' = c + 2^62."""
    shifted = c + np.uint64(1 << 62)
    known = (shifted >> np.uint64(by)) - np.uint64(1 << (62 - by))
    return known, (np.uint64(1) - (shifted >> np.uint64(63))) << np.uint64(64 - by)


def select_trunc_deal(bit: U8, r: U64, by: int, wrap: npt.DTypeLike) -> tuple[U64, Unsigned, U64, U64, Unsigned]:
    """R = r >> by, S = r >> 63, β, β·R, β·S: what the helper deals for β·t; S and β·S in the unsigned dtype `wrap` (at
    least `by` bits).
    """
    (t, b), beta = trunc_deal(r, by, wrap), bit.astype(np.uint64)
    return t, b, beta, beta * t, bit.astype(wrap) * b


def select_trunc_share(
    bit: U8, c: U64, t: U64, b: Unsigned, beta: U64, beta_t: U64, beta_b: Unsigned, mask: U64, by: int, *, first: bool
) -> U64:
    """One evaluator's message for the sum over the first axis of truncations t by `by` times bits b = bit ^ β, with
    shares of what `select_trunc_deal` makes: mask + Σ_k (bit·({A} - t + W·b) + (1 - 2·bit)·(beta·A - beta_t +
    W·beta_b)).  mask: of any shape, the others [terms, *shape].
    """
    known, wrap = _truncation(c, by)
    m = bit.astype(np.uint64)
    value = wrap * b.astype(np.uint64) - t
    if first:
        value += known
    product = beta * known - beta_t + wrap * beta_b.astype(np.uint64)
    return _on_top(mask, m * value + (np.uint64(1) - np.uint64(2) * m) * product)


def mul_trunc_deal(r: U64, ly: U64, by: int, wrap: npt.DTypeLike) -> tuple[U64, Unsigned, U64, Unsigned]:
    """R = r >> by, S = r >> 63, R·λy, S·λy: what the helper deals for t·y; S and S·λy in the unsigned dtype `wrap`."""
    t, b = trunc_deal(r, by, wrap)
    return t, b, t * ly, b * ly.astype(wrap)


def mul_trunc_share(
    c: U64, my: U64, ly: U64, t: U64, b: Unsigned, t_ly: U64, b_ly: Unsigned, mask: U64, by: int, *, first: bool
) -> U64:
    """One evaluator's message for a truncation t by `by` times y, with shares of what `mul_trunc_deal` makes:
    mask + my·({A} - t + W·b) - A·ly + t_ly - W·b_ly.
    """
    known, wrap = _truncation(c, by)
    value = wrap * b.astype(np.uint64) - t
    if first:
        value += known
    return mask + my * value - known * ly + t_ly - wrap * b_ly.astype(np.uint64)


def square_trunc_deal(r: U64, by: int, wrap: npt.DTypeLike) -> tuple[U64, Unsigned, U64, Unsigned]:
    """R = r >> by, S = r >> 63, R², S·R: what the helper deals for t²; S and S·R in the unsigned dtype `wrap`."""
    t, b = trunc_deal(r, by, wrap)
    return t, b, t * t, b * t.astype(wrap)


def square_trunc_share(c: U64, t: U64, b: Unsigned, tt: U64, bt: Unsigned, mask: U64, by: int, *, first: bool) -> U64:
    """One evaluator's message for the square of a truncation t by `by`, with shares of what `square_trunc_deal` makes:
    mask {+ A²} - 2·A·t + tt + (2·A·W + W²)·b - 2·W·bt, where b² = b.
    """
    known, wrap = _truncation(c, by)
    two = np.uint64(2)
    s: U64 = mask + tt - two * known * t + (two * known + wrap) * wrap * b.astype(np.uint64)
    s -= two * wrap * bt.astype(np.uint64)
    if first:
        s += known * known
    return s


# ---- bit planes ------------------------------------------------------------------------------------------------------
def words(elements: int) -> int:
    """Words of a plane of that many elements."""
    return -(-elements // 64)


def _rows(rows: list[U64], width: int) -> U64:
    """Planes of `width` words each, maybe none, as one array."""
    return np.array(rows, np.uint64).reshape(len(rows), width)


def pack_bits(bits: U8) -> U64:
    """uint8[..., elements] of 0 and 1 -> planes, uint64[..., words]."""
    *rows, elements = bits.shape
    padded = np.zeros((*rows, words(elements) * 64), np.uint8)
    padded[..., :elements] = bits
    return np.packbits(padded, axis=-1, bitorder="little").view("<u8").astype(np.uint64)


def unpack_bits(plane: U64, elements: int) -> U8:
    """One plane, uint64[words] -> uint8[elements] of 0 and 1."""
    return np.unpackbits(plane.astype("<u8").view(np.uint8), count=elements, bitorder="little")


def to_planes(x: U64, lo: int, hi: int) -> U64:
    """Bits lo .. hi-1 of x, uint64[elements] -> uint64[hi-lo, words]."""
    return _rows(
        [pack_bits(((x >> np.uint64(i)) & np.uint64(1)).astype(np.uint8)) for i in range(lo, hi)], words(x.size)
    )


# ---- conjunctions of 2 to 8 bits -------------------------------------------------------------------------------------
def and_rows(fan: int) -> int:
    """Planes that `and_deal` makes for so many bits: one for each set of two and more."""
    return (1 << fan) - 1 - fan


def and_deal(masks: U64) -> U64:
    """masks: uint64[fan, words] -> the products over all sets of two and more of them, uint64[and_rows(fan), words], in
    the order of the sets as numbers (bit i: mask i).
    """
    products: list[U64] = [np.empty(0, np.uint64)]
    for s in range(1, 1 << len(masks)):
        top = s.bit_length() - 1
        rest = s ^ (1 << top)
        products.append(masks[top] & products[rest] if rest else masks[top])
    return _rows([p for s, p in enumerate(products) if s & (s - 1)], masks.shape[1])


def and_share(m: U64, masks: U64, products: U64, *, first: bool) -> U64:
    """Xor shares of prod_i (m_i ^ mask_i), uint64[words].  m: uint64[fan, words], public; masks: this evaluator's xor
    shares of the masks; products: its xor shares of `and_deal`.  The sum over all sets of the product of masks in the
    set and of m's outside, summed over one bit at a time (ABY2.0, section 3.1.4, multi-input AND).
    """
    fan, row = len(m), iter(products)
    t = [np.full(m.shape[1], _ONES if first else np.uint64(0))]
    t += [next(row) if s & (s - 1) else masks[s.bit_length() - 1] for s in range(1, 1 << fan)]
    for i in reversed(range(fan)):
        t = [(m[i] & t[s]) ^ t[s + (1 << i)] for s in range(1 << i)]
    return t[0]


# ---- comparison leaves: [C < rho] and [C = rho] on chunks of 4 to 8 bits ---------------------------------------------
def chunks(bits: int, chunk: int = CHUNK) -> list[tuple[int, int]]:
    """(first bit, width) of each chunk of a number of that many bits, from the lowest; the last may be narrower."""
    return [(lo, min(chunk, bits - lo)) for lo in range(0, bits, chunk)]


def leaf_rows(bits: int, chunk: int = CHUNK) -> int:
    """Planes that `leaf_deal` makes for a number of that many bits."""
    return ((1 << chunk) - 1) * (bits // chunk) + (1 << bits % chunk) - 1


def leaf_deal(rho: U64, chunk: int = CHUNK) -> U64:
    """The monomials of each chunk's bits.  rho: uint64[bits, words] -> uint64[leaf_rows(bits, chunk), words]; in a
    chunk's block, row s - 1 is the product of the bits in the set s (bit i of s stands for bit i of the chunk).
    """
    rows: list[U64] = []
    for lo, width in chunks(len(rho), chunk):
        block: list[U64] = []
        for s in range(1, 1 << width):
            top = s.bit_length() - 1
            rest = s ^ (1 << top)
            block.append(rho[lo + top] & block[rest - 1] if rest else rho[lo + top])
        rows += block
    return _rows(rows, rho.shape[1])


def leaf_share(c: U64, monomials: U64, chunk: int = CHUNK, *, first: bool) -> tuple[U64, U64]:
    """Xor shares of [C < rho] and [C = rho] for every chunk.  c: uint64[bits, words], public; monomials: xor shares
    of `leaf_deal(rho, chunk)`.  Returns lt, eq: uint64[chunks, words].  With n_i = 1 ^ c_i: eq = prod_i (n_i ^ rho_i),
    lt = sum_i n_i·rho_i·prod_{j>i} (n_j ^ rho_j).
    """
    lt: list[U64] = []
    eq: list[U64] = []
    row = 0
    for lo, width in chunks(len(c), chunk):
        n = [c[lo + i] ^ _ONES for i in range(width)]
        e = np.zeros(c.shape[1], np.uint64)
        less = np.zeros(c.shape[1], np.uint64)
        for s in range(1 << width):
            mono = monomials[row + s - 1] if s else (_ONES if first else np.uint64(0))
            rest = np.full(c.shape[1], _ONES)
            for i in range(width):
                if not s >> i & 1:
                    rest &= n[i]
            e ^= rest & mono
            if (
                s
            ):  # the lowest bit of s is the i of its terms: n_i·rho_i·(the rest of s)·prod of n_j over j > i outside s
                i = (s & -s).bit_length() - 1
                above = n[i].copy()
                for j in range(i + 1, width):
                    if not s >> j & 1:
                        above &= n[j]
                less ^= above & mono
        lt.append(less)
        eq.append(e)
        row += (1 << width) - 1
    return _rows(lt, c.shape[1]), _rows(eq, c.shape[1])


def leaves(x: U64, cuts: U64, lo: int, top: int, dealt: U64, chunk: int = CHUNK, *, first: bool) -> U64:
    """The leaves of bits lo .. top-1 of x - cut for all cuts.  x: uint64[elements], cuts: uint64[cuts], public; dealt:
    xor shares of `leaf_deal` and one row more.  Returns uint64[2·chunks + 1, cuts, words]: lt, eq but the lowest
    chunk's, then the last dealt row and bit `top`.
    """
    found = []
    for cut in cuts:
        c = to_planes(x - cut, lo, top + 1)
        lt, eq = leaf_share(c[:-1], dealt[:-1], chunk, first=first)
        found.append(np.concatenate([lt, eq[1:], dealt[-1:], c[-1:]]))
    return np.stack(found, axis=1)


# ---- comparison gates: 2 to 4 neighbouring (lt, eq) pairs into one ---------------------------------------------------
@cache
def gate_sums(fan: int, with_eq: bool) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """The gate as sums of products of its inputs, which are numbered lt_0 .. lt_{fan-1}, eq_0 .. eq_{fan-1} (0 the
    lowest chunk): lt = xor_k lt_k·prod_{j>k} eq_j, and with `with_eq` also eq = prod_j eq_j.
    """
    lt = tuple((k, *(fan + j for j in range(k + 1, fan))) for k in range(fan))
    return (lt, (tuple(fan + j for j in range(fan)),)) if with_eq else (lt,)


@cache
def gate_products(fan: int, with_eq: bool) -> tuple[tuple[int, ...], ...]:
    """The products of two and more input masks that the helper deals for a gate, in dealing order (by size, then by
    inputs).
    """
    found = {
        part
        for output in gate_sums(fan, with_eq)
        for term in output
        for size in range(2, len(term) + 1)
        for part in combinations(sorted(term), size)
    }
    return tuple(sorted(found, key=lambda part: (len(part), part)))


def gate_deal(masks: U64, *, with_eq: bool) -> U64:
    """masks: uint64[2·fan, words], the inputs' masks (lt rows, then eq rows; row fan = eq_0 is read only `with_eq`).
    Returns uint64[len(gate_products(fan, with_eq)), words]."""
    parts = gate_products(len(masks) // 2, with_eq)
    return np.stack([np.bitwise_and.reduce(masks[list(part)], axis=0) for part in parts])


def gate_share(m: U64, masks: U64, products: U64, *, with_eq: bool, first: bool) -> U64:
    """Xor shares of a gate's outputs.  m: uint64[2·fan, words], the masked inputs; masks: this evaluator's xor shares
    of their masks; products: its xor shares of `gate_deal`.  Returns uint64[1 or 2, words]: lt and, `with_eq`, eq.
    Each term prod_i (m_i ^ mask_i) is expanded over the subsets of its inputs (ABY2.0, section 3.1.4, multi-input
    AND).
    """
    fan = len(m) // 2
    row = {part: i for i, part in enumerate(gate_products(fan, with_eq))}
    outputs = []
    for terms in gate_sums(fan, with_eq):
        share = np.zeros(m.shape[1], np.uint64)
        for term in terms:
            for size in range(len(term) + 1):
                for part in combinations(sorted(term), size):
                    rest = [i for i in term if i not in part]
                    public = np.bitwise_and.reduce(m[rest], axis=0) if rest else np.full(m.shape[1], _ONES)
                    if size == 0:
                        share ^= public if first else np.uint64(0)
                    elif size == 1:
                        share ^= public & masks[part[0]]
                    else:
                        share ^= public & products[row[part]]
        outputs.append(share)
    return np.stack(outputs)


# ---- a gate for few words: 2 to 8 pairs, a conjunction for each product ----------------------------------------------
def _wide_terms(fan: int) -> list[list[int]]:
    """Rows of the inputs lt_0 .., eq_1 .. of each product lt_k·eq_{k+1}···eq_{fan-1}, k < fan - 1."""
    return [[k, *range(fan + k, 2 * fan - 1)] for k in range(fan - 1)]


@cache
def wide_gate_rows(fan: int) -> int:
    """Planes that `wide_gate_deal` makes."""
    return sum(and_rows(len(term)) for term in _wide_terms(fan))


def wide_gate_deal(masks: U64) -> U64:
    """masks: uint64[2·fan - 1, words], lt rows, then eq_1 ..  Returns `and_deal` of the inputs of each product
    lt_k·eq_{k+1}···eq_{fan-1}, k < fan - 1, one after the other.
    """
    return np.concatenate([and_deal(masks[term]) for term in _wide_terms((len(masks) + 1) // 2)])


def wide_gate_share(m: U64, masks: U64, products: U64, *, first: bool) -> U64:
    """Xor shares of the gate's lt, uint64[1, words].  m: uint64[2·fan - 1, words], the masked inputs; masks: this
    evaluator's xor shares of their masks; products: its xor shares of `wide_gate_deal`.
    """
    fan, at = (len(m) + 1) // 2, 0
    share: U64 = masks[fan - 1] ^ m[fan - 1] if first else masks[fan - 1].copy()
    for term in _wide_terms(fan):
        end = at + and_rows(len(term))
        share ^= and_share(m[term], masks[term], products[at:end], first=first)
        at = end
    return share[None]


# ---- distributed comparison functions: a file of their own -----------------------------------------------------------
dcf_levels, dcf_bytes, dcf_deal, dcf_share = dcf.dcf_levels, dcf.dcf_bytes, dcf.dcf_deal, dcf.dcf_share
