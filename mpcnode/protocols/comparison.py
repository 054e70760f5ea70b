"""The sign of a masked value: a millionaires' tree, dealt instead of by oblivious transfer.

After CrypTFlow2 (Rathee et al., CCS 2020, ePrint 2020/1002, section 3.1): [C < ρ] and [C = ρ] on chunks of 4 bits are
the leaves, and neighbouring chunks merge by lt = lt_hi ^ eq_hi·lt_lo, eq = eq_hi·eq_lo.  Where we depart from it: C =
m is public to the evaluators and ρ = λ is known to the helper, so a leaf needs no transfer but xor shares of the
monomials of the chunk's bits of ρ; and up to 4 nodes merge in one gate, expanded over m ^ λ as in ABY2.0's
multi-input AND.  All of it is dealt in one message ahead of the computation.

For few elements a round is worth more than bytes: then chunks are wider, and a single gate merges up to 8 of them; and
two evaluators compare by the key of a distributed comparison function instead (kernels/dcf.py), which gives them shares
of the sign at once, to be opened in one round.

x is compared with several public numbers at once at the price of fewer leaves: x - cut = (m - cut) - λ has the mask λ
whatever the cut, so one dealing of the monomials of λ, or one key, serves all of them, and only the gates, whose inputs
have masks of their own, are dealt for each.  Shares of one dealt value may be used any number of times, as λ_i is in
all that is computed from x: they are never sent, but in sums with a fresh mask bit for every bit that is opened.

Everything here is bit planes, uint64[rows, words]; the nodes of a level are rows lt_0 .. lt_{c-1}, eq_1 .. eq_{c-1}
(nobody asks the lowest node's eq).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mpcnode import kernels
from mpcnode.kernels import CHUNK, U8, U64, memory
from mpcnode.party import Place
from mpcnode.protocols.dealing import (
    BYTE,
    DEALT,
    FIRST,
    HELPER,
    LEVEL,
    TILE,
    WORD,
    fresh,
    give,
    give_all,
    opened,
    take,
    take_all,
)
from mpcnode.rounds import exchange


class Gate(NamedTuple):
    """Nodes low .. low + fan - 1 of a level become one of the next."""

    fan: int
    with_eq: bool
    inputs: npt.NDArray[np.intp] | slice  # rows of the level: lt_low .., eq_low ..; for an eq that nobody asks, any row
    dealt: slice  # rows of the products that the helper deals
    outputs: npt.NDArray[np.intp]  # rows among those that the level opens


class Level(NamedTuple):
    """Gates that open their outputs in one round; a node without neighbours is passed on."""

    gates: tuple[Gate, ...]
    opened: int  # rows
    merge: (
        npt.NDArray[np.intp] | None
    )  # the next level's rows among this level's and then the opened ones; None: the opened ones


class Tree(NamedTuple):
    """The comparison of two numbers of a given width: dealt are the leaves' monomials and the top bit of ρ, once for
    all cuts, and the gates' products.
    """

    chunk: int  # bits of a leaf
    leaves: int  # dealt rows of monomials
    opened: int  # rows that the leaves open
    levels: tuple[Level, ...]
    products: int  # dealt rows

    def dealt(self, words: int, wide: int) -> int:
        """Words that are dealt, where a plane of x has `words`, and one of all comparisons `wide`."""
        return (self.leaves + 1) * words + self.products * wide


def _level(nodes: int, at: int) -> tuple[Level, int]:
    """The level above `nodes` nodes, whose products are dealt from row `at` on; and where the next one's begin."""
    lows = range(0, nodes, CHUNK)
    outs = [low for low in lows if min(CHUNK, nodes - low) > 1]
    lts = {low: i for i, low in enumerate(outs)}
    eqs = {low: len(outs) + i for i, low in enumerate(o for o in outs if o)}
    gates = []
    for low in outs:
        fan = min(CHUNK, nodes - low)
        inside = range(low, low + fan)
        inputs = np.array([*inside, *(nodes - 1 + max(i, 1) for i in inside)], np.intp)
        dealt = len(kernels.gate_products(fan, low > 0))
        outputs = np.array([lts[low], eqs[low]] if low else [lts[low]], np.intp)
        gates.append(Gate(fan, low > 0, inputs, slice(at, at + dealt), outputs))
        at += dealt
    opened, width, merge = len(outs) + len(eqs), 2 * nodes - 1, None
    if len(outs) < len(lows):
        rows = [width + lts[low] if low in lts else low for low in lows]
        rows += [width + eqs[low] if low in eqs else nodes - 1 + low for low in lows if low]
        merge = np.array(rows, np.intp)
    return Level(tuple(gates), opened, merge), at


WIDE_FAN = 8
EXTRA_BYTES = 1 << 18  # dealt to save a round: up to 0.4 ms of a processor at the helper, half of that at an evaluator
KEY_LEVELS = 1 << 12  # that keys may have, evaluated or not: each takes an evaluator 20 ns and the helper 35


@lru_cache(maxsize=256)
def tree(bits: int, words: int, wide: int) -> Tree:
    """The tree for planes of so many words: of x, and of all comparisons."""
    usual = _tree(bits)
    if len(usual.levels) < 2:
        return usual
    chunks = [chunk for chunk in range(CHUNK, 9) if bits <= WIDE_FAN * chunk]
    few = min((_wide_tree(bits, chunk) for chunk in chunks), key=lambda t: t.dealt(words, wide))
    return few if 8 * (few.dealt(words, wide) - usual.dealt(words, wide)) <= EXTRA_BYTES else usual


def _tree(bits: int) -> Tree:
    """Leaves of 4 bits and levels of gates of fan-in 4: what is dealt least."""
    nodes = len(kernels.chunks(bits))
    opened, at, levels = 2 * nodes - 1, 0, []
    while nodes > 1:
        level, at = _level(nodes, at)
        levels.append(level)
        nodes = -(-nodes // CHUNK)
    return Tree(CHUNK, kernels.leaf_rows(bits), opened, tuple(levels), at)


def _wide_tree(bits: int, chunk: int) -> Tree:
    """Leaves of `chunk` bits, and one gate for all of them."""
    nodes = len(kernels.chunks(bits, chunk))
    if nodes <= CHUNK:
        level, products = _level(nodes, 0)
    else:
        products = kernels.wide_gate_rows(nodes)
        level = Level((Gate(nodes, False, slice(None), slice(0, products), np.array([0], np.intp)),), 1, None)
    return Tree(chunk, kernels.leaf_rows(bits, chunk), 2 * nodes - 1, (level,), products)


def _tree_of(lo: int, top: int, elements: int, cuts: int) -> Tree:
    return tree(top - lo, kernels.words(elements), kernels.words(cuts * elements))


@lru_cache(maxsize=1024)
def sign_tiles(elements: int, cuts: int = 1) -> Sequence[slice]:
    """Tiles of so many numbers with about TILE comparisons each, and an odd number of cache lines a plane of x."""
    step = 512 * (-(-TILE // (512 * cuts)) | 1)
    return tuple(slice(a, min(a + step, elements)) for a in range(0, elements, step)) or (slice(0, 0),)


@lru_cache(maxsize=64)
def ring_elements(cuts: tuple[int, ...]) -> U64:
    """What a comparison is with, uint64[cuts]."""
    return np.array(cuts, np.int64).view(np.uint64)


@lru_cache(maxsize=4096)
def by_key(evaluators: int, lo: int, top: int, elements: int, cuts: int = 1) -> bool:
    """Do they compare by the key of a distributed comparison function?"""
    t, bits = _tree_of(lo, top, elements, cuts), top - lo
    if evaluators != 2 or not t.levels or cuts * elements * max(1, kernels.dcf_levels(bits)) > KEY_LEVELS:
        return False
    dealt = t.dealt(kernels.words(elements), kernels.words(cuts * elements))
    return 2 * elements * kernels.dcf_bytes(bits) <= 8 * dealt + EXTRA_BYTES * len(t.levels)


@lru_cache(maxsize=4096)
def sign_cost(lo: int, top: int, elements: int, cuts: int = 1, evaluators: int = 2) -> tuple[int, int, int]:
    """Rounds, bytes that each evaluator opens, bytes that the helper deals, to compare so many numbers with cuts."""
    if by_key(evaluators, lo, top, elements, cuts):
        return 1, 8 * kernels.words(cuts * elements), evaluators * elements * kernels.dcf_bytes(top - lo)
    t, opened, dealt = _tree_of(lo, top, elements, cuts), 0, 0
    for at in sign_tiles(elements, cuts):
        n = at.stop - at.start
        opened += kernels.words(cuts * n) * (t.opened + sum(level.opened for level in t.levels))
        dealt += t.dealt(kernels.words(n), kernels.words(cuts * n))
    return 1 + len(t.levels), 8 * opened, 8 * dealt


def _gate_deal(masks: U64, gate: Gate) -> U64:
    wide = gate.fan > CHUNK
    return kernels.wide_gate_deal(masks) if wide else kernels.gate_deal(masks, with_eq=gate.with_eq)


def _gate_share(m: U64, masks: U64, products: U64, gate: Gate, *, first: bool) -> U64:
    """Xor shares of the gate's outputs."""
    if gate.fan > CHUNK:
        return kernels.wide_gate_share(m, masks, products, first=first)
    return kernels.gate_share(m, masks, products, with_eq=gate.with_eq, first=first)


def _next(level: Level, rows: U64, opened: U64) -> U64:
    return opened if level.merge is None else np.concatenate([rows, opened])[level.merge]


def _mask(p: Place, level: int, rows: int, words: int) -> U64:
    """What this party knows of the masks of a level's opened rows; 0: the leaves'."""
    return fresh(p, memory.empty((rows, words), np.uint64), LEVEL + level, xor=True)


def _side_by_side(planes: U64, n: int) -> U64:
    """[rows, cuts, words of n bits] -> [rows, words]: the n bits of every cut, one cut's behind another's."""
    rows, cuts, _ = planes.shape
    if n % 64 and cuts > 1:
        bits = np.unpackbits(planes.astype("<u8", copy=False).view(np.uint8), axis=-1, count=n, bitorder="little")
        packed = np.packbits(bits.reshape(rows, -1), axis=-1, bitorder="little")
        whole = memory.zeros((rows, 8 * kernels.words(cuts * n)), np.uint8)
        whole[:, : packed.shape[1]] = packed
        planes = whole.view("<u8").astype(np.uint64, copy=False)
    return planes.reshape(rows, -1)


async def sign_planes(p: Place, tile: int, x: U64, cuts: U64, lo: int, top: int, elements: int) -> Sequence[U64]:
    """One tile of so many elements in all.  x: uint64[elements of the tile], m at an evaluator, λ at the helper; the
    sign is in bit `top`.  Returns the planes of the parts of the signs of x - cut, one cut's bits behind another's.
    """
    if by_key(p.size - FIRST, lo, top, elements, len(cuts)):
        return await _sign_by_key(p, x, cuts, lo, top)
    t = _tree_of(lo, top, elements, len(cuts))
    if p.rank == HELPER:
        return [await _deal_sign(p, tile, t, kernels.to_planes(x, lo, top + 1), kernels.words(len(cuts) * len(x)))]
    return await _evaluate_sign(p, tile, t, x, cuts, lo, top)


async def _deal_sign(p: Place, tile: int, t: Tree, rho: U64, words: int) -> U64:
    """The helper deals the leaves' monomials and λ's top bit, and every gate's products, on planes of so many words; it
    ends as many rounds as the evaluators.
    """
    leaves, products = (
        memory.empty((t.leaves + 1, rho.shape[1]), np.uint64),
        memory.empty((t.products, words), np.uint64),
    )
    leaves[:-1] = kernels.leaf_deal(rho[:-1], t.chunk)
    leaves[-1] = rho[-1]
    rows = _mask(p, 0, t.opened, words)
    for i, level in enumerate(t.levels):
        for g in level.gates:
            products[g.dealt] = _gate_deal(rows[g.inputs], g)
        rows = _next(level, rows, _mask(p, 1 + i, level.opened, words))
    await give(p, tile, [leaves, products][: 1 + bool(t.levels)], xor=True)
    for _ in range(1 + len(t.levels)):
        await exchange()
    parts: U64 = rows[0]
    return parts


async def _evaluate_sign(p: Place, tile: int, t: Tree, x: U64, cuts: U64, lo: int, top: int) -> Sequence[U64]:
    """Leaves, then a gate level a round; the last opening carries λ's top bit, and m's is added in the open."""
    n, first = len(x), p.rank == FIRST
    words = kernels.words(len(cuts) * n)
    likes = [(WORD, (t.leaves + 1, kernels.words(n))), (WORD, (t.products, words))]
    leaves, *products = await take(p, tile, likes[: 1 + bool(t.levels)])
    every = _side_by_side(kernels.leaves(x, cuts, lo, top, leaves, t.chunk, first=first), n)
    share, top_share, top_m = every[:-2], every[-2], every[-1]
    mask = _mask(p, 0, t.opened, words)
    share ^= mask
    if not t.levels:
        share ^= top_share
    m = await opened(p, share, xor=True)
    for i, level in enumerate(t.levels):
        opened_mask = _mask(p, 1 + i, level.opened, words)
        if level.opened == 1:
            [g] = level.gates
            share = _gate_share(m[g.inputs], mask[g.inputs], products[0][g.dealt], g, first=first)
        else:
            share = memory.empty((level.opened, words), np.uint64)
            for g in level.gates:
                share[g.outputs] = _gate_share(m[g.inputs], mask[g.inputs], products[0][g.dealt], g, first=first)
        share ^= opened_mask
        if i == len(t.levels) - 1:
            share ^= top_share
        m, mask = _next(level, m, await opened(p, share, xor=True)), _next(level, mask, opened_mask)
    return m[0] ^ top_m, mask[0]


async def _sign_by_key(p: Place, x: U64, cuts: U64, lo: int, top: int) -> Sequence[U64]:
    """The helper deals one key: corrections that both evaluators get, and a root that each has in common with it.  They
    evaluate it at x - cut for all cuts, and open what comes out, which has λ's top bit in it; m's is added in the open.
    """
    mask = _mask(p, 0, 1, kernels.words(len(cuts) * len(x)))[0]
    if p.rank == HELPER:
        roots = memory.empty((2, len(x), 2), np.uint64)
        for i, root in enumerate(roots, FIRST):
            p.common(i, DEALT, root)
        await give_all(p, kernels.dcf_deal(x, roots, lo, top))
        await exchange()
        return [mask]
    root = p.common(HELPER, DEALT, memory.empty((len(x), 2), np.uint64))
    key: U8 = await take_all(p, (BYTE, (len(x), kernels.dcf_bytes(top - lo))))
    share, tops = kernels.dcf_share(x, cuts, key, root, lo, top, first=p.rank == FIRST)
    m = await opened(p, kernels.pack_bits(share.reshape(-1)) ^ mask, xor=True)
    return [m ^ kernels.pack_bits(tops.reshape(-1)), mask]
