"""A masked number as a vector of bits, of which one is 1: a table of the mask, dealt, and turned by the masked number.

After the one-time truth tables of Ishai, Kushilevitz, Meldgaard, Orlandi and Paskin-Cherniavsky (On the Power of
Correlated Randomness in Secure Computation, TCC 2013, section 3).  Where we depart from it: the offset of the table
is the mask λ that x has anyway, so the number need not be opened, and the table is always the one-hot vector, so that
one of them serves for any table, public or secret, by a product.

x = m - λ, so [x = j] = [λ = m - j], mod 2^w: the helper deals xor shares of [λ = i] for all 2^w residues i, every
evaluator reads its share at i = m - j, and the result is masked afresh and opened.  1 round.
"""

from __future__ import annotations

import numpy as np

from mpcnode import kernels
from mpcnode.kernels import U8, U64, memory
from mpcnode.party import Place
from mpcnode.protocols.dealing import HELPER, TILE, WORD, fresh, give, opened, take
from mpcnode.rounds import exchange


def residues(size: int) -> int:
    """2^w, the least power of two that is not below `size`."""
    return 1 << (size - 1).bit_length()


def cuts(n: int, size: int) -> list[slice]:
    """Tiles of n numbers with about TILE bits each."""
    step = max(1, TILE // residues(size))
    return [slice(a, min(a + step, n)) for a in range(0, n, step)] or [slice(0, 0)]


def onehot_planes(n: int, size: int) -> tuple[int, int]:
    """Words of 64 bits that each evaluator opens, and that the helper deals, for n numbers."""
    lengths = [at.stop - at.start for at in cuts(n, size)]
    return tuple(sum(kernels.words(rows * length) for length in lengths) for rows in (size, residues(size)))  # type: ignore[return-value]


async def onehot(p: Place, tile: int, x: U64, size: int) -> U8:
    """One tile.  x: uint64[elements], m at an evaluator, λ at the helper.  Returns this party's parts of the bits,
    uint8[parts, size, elements].
    """
    n, many = len(x), residues(size)
    mask = fresh(p, memory.empty(kernels.words(size * n), np.uint64), xor=True)
    low = x & np.uint64(many - 1)
    if p.rank == HELPER:
        table = low == np.arange(many, dtype=np.uint64)[:, None]
        await give(p, tile, [kernels.pack_bits(table.reshape(-1).astype(np.uint8))], xor=True)
        await exchange()
        return _bits([mask], size, n)
    [dealt] = await take(p, tile, [(WORD, (kernels.words(many * n),))])
    table = kernels.unpack_bits(dealt, many * n).reshape(many, n)
    turned = (low.astype(np.intp) - np.arange(size)[:, None]) & (many - 1)
    share = kernels.pack_bits(np.take_along_axis(table, turned, 0).reshape(-1)) ^ mask
    return _bits([await opened(p, share, xor=True), mask], size, n)


def _bits(planes: list[U64], size: int, n: int) -> U8:
    return np.stack([kernels.unpack_bits(plane, size * n).reshape(size, n) for plane in planes])
