"""What protocols with a dealing helper are made of: fresh masks, dealt shares, swapping, tiling.

H knows the masks and never a masked value, so it receives nothing and runs ahead.  `[v]` says: H knows v and deals
it: all evaluators but one, the payee, expand their additive (xor) share from their pair key with H, and the payee is
sent the rest.  The payee rotates by op, step and tile, so H's links carry equal load.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Generator, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np

from mpcnode.kernels import memory
from mpcnode.party import Place
from mpcnode.protocols import Sharing
from mpcnode.rounds import Array, Exchange, Inbox, Kernel, Recv, Send, When, par

HELPER, FIRST = 0, 1  # ranks; the evaluators are 1 .. n
# Elements of a tile: few enough that temporaries stay in cache and a tile travels while the next one is computed; an
# odd number of cache lines a plane, so that planes do not compete for the same sets of a cache.
TILE = 1032 * 64
# Purposes of common randomness; LEVEL + i: masks of a comparison's level i, DEALT + k: shares of dealt value k.
MASK, REVEAL, LEVEL, DEALT = 0, 1, 2, 16

WORD, BYTE = np.dtype(np.uint64), np.dtype(np.uint8)
Like: TypeAlias = "tuple[np.dtype[Any], tuple[int, ...]]"  # dtype and shape of a dealt value


def fresh(p: Place, out: Array, purpose: int = MASK, xor: bool = False) -> Array:
    """A fresh mask in `out`: λ_i at E_i, λ at H."""
    if p.rank != HELPER:
        return p.common(HELPER, purpose, out)
    p.common(FIRST, purpose, out)
    part = memory.empty(out.shape, out.dtype)
    for i in range(FIRST + 1, p.size):
        other = p.common(i, purpose, part)
        if xor:
            out ^= other
        else:
            out += other
    return out


def renew(p: Place, out: Array) -> Array:
    """Fresh masks in the parts of a new sharing of arith values, each of them C-contiguous: λ_i at E_i; λ, and, where
    there is room for them, λ_1 .. λ_(n-1) at H.  Returns this party's λ_i or λ.
    """
    if p.rank != HELPER:
        return p.common(HELPER, MASK, out[1, ...])
    if len(out) == 1:
        return fresh(p, out[0, ...])
    last = p.size - 1
    whole = p.common(last, MASK, out[0, ...])
    for i in range(FIRST, last):
        whole += p.common(i, MASK, out[i, ...])
    return whole


def payee(p: Place, tile: int) -> int:
    """The evaluator that is sent what H deals."""
    return FIRST + (p.op + p.step + tile) % (p.size - 1)


@types.coroutine
def give(
    p: Place, tile: int, values: Sequence[Array], xor: bool = False, shares: Array | Sequence[Array] = ()
) -> Generator[Exchange, Inbox, None]:
    """H's side of `[v]`, for all dealt values of a tile at once, which it may overwrite.  `shares`: rows for E_1's
    share of the first value, E_2's and so on, as many as H goes on to need.
    """
    paid = payee(p, tile)
    minus = np.bitwise_xor if xor else np.subtract
    others, rows, sent = _others(p.size, paid), len(shares), []
    for purpose, value in enumerate(values, DEALT):
        v, part, rest = value, None, shares[paid - FIRST] if paid <= rows else value
        for i in others:
            if i <= rows:
                share = shares[i - FIRST]
            else:
                share = part = memory.empty(v.shape, v.dtype) if part is None else part
            v = minus(v, p.common(i, purpose, share), rest)
        sent.append(Send(paid, v, p.op))
        rows = 0  # the other values' shares are nobody's here
    yield Exchange(sent, (), When.DEAL)


@types.coroutine
def take(p: Place, tile: int, likes: Sequence[Like]) -> Generator[Exchange, Inbox, list[Array]]:
    """E_i's side of `[v]`; the arrays are the caller's own."""
    if p.rank == payee(p, tile):
        return (yield Exchange((), [Recv(HELPER, dtype, shape, p.op) for dtype, shape in likes], When.DEAL))
    return [p.common(HELPER, k, memory.empty(shape, dtype)) for k, (dtype, shape) in enumerate(likes, DEALT)]


@types.coroutine
def give_all(p: Place, value: Array) -> Generator[Exchange, Inbox, None]:
    """H's side of what every evaluator is to have alike: no share, but what hides its secret by itself."""
    yield Exchange([Send(i, value, p.op) for i in range(FIRST, p.size)], (), When.DEAL)


@types.coroutine
def take_all(p: Place, like: Like) -> Generator[Exchange, Inbox, Array]:
    """E_i's side of `give_all`."""
    [value] = yield Exchange((), [Recv(HELPER, *like, p.op)], When.DEAL)
    return value


@lru_cache(maxsize=64)
def _others(size: int, rank: int) -> tuple[int, ...]:
    return tuple(i for i in range(FIRST, size) if i != rank)


@types.coroutine
def swap(p: Place, s: Array) -> Generator[Exchange, Inbox, list[Array]]:
    """Send `s` to all other evaluators and receive theirs.  1 round."""
    others, op, dtype, shape = _others(p.size, p.rank), p.op, s.dtype, s.shape
    if len(others) == 1:  # as a rule, and cheaper than two lists made in loops
        [i] = others
        return (yield Exchange((Send(i, s, op),), (Recv(i, dtype, shape, op),), When.ROUND))
    return (yield Exchange([Send(i, s, op) for i in others], [Recv(i, dtype, shape, op) for i in others], When.ROUND))


async def opened(p: Place, s: Array, out: Array | None = None, *, xor: bool = False) -> Array:
    """The sum (xor) of what all evaluators send, in `out` if given.  1 round."""
    return total(s, await swap(p, s), xor, out)


@lru_cache(maxsize=1024)
def tiles(n: int, rows: int = 1) -> Sequence[slice]:
    """Cuts of n elements with so many rows each; a tile has about TILE elements in all."""
    step = -(-TILE // max(1, rows))  # rounded up: tiles are numbered with 16 bits
    return tuple(slice(a, min(a + step, n)) for a in range(0, n, step)) or (slice(0, 0),)


Body: TypeAlias = Callable[[Place, int, slice], Kernel[None]]


def tiled(p: Place, cuts: Sequence[slice], body: Body) -> Kernel[object]:
    """Run `body` on every tile; their rounds are shared."""
    if len(cuts) == 1:
        return body(p, 0, cuts[0])
    return par(*(body(p.tile(k), k, at) for k, at in enumerate(cuts)))


def flat(x: Sharing) -> Array:
    """[parts, elements], C-contiguous."""
    return memory.contiguous(x).reshape(len(x), -1)


def terms(x: Sharing, axes: Sequence[int]) -> Array:
    """[parts, terms, elements]: what is summed up over these axes of the shape, and where."""
    if not axes:
        return memory.contiguous(x).reshape(len(x), 1, -1)
    summed = [a + 1 for a in axes]
    left = [a for a in range(1, x.ndim) if a not in summed]
    lengths = (math.prod(x.shape[a] for a in some) for some in (summed, left))
    return memory.contiguous(x.transpose(0, *summed, *left)).reshape(len(x), *lengths)


def total(s: Array, others: Sequence[Array], xor: bool = False, out: Array | None = None) -> Array:
    """The sum (xor) of what all evaluators sent: the opened masked value."""
    plus = np.bitwise_xor if xor else np.add
    found: Array = plus(s, others[0], out)
    for other in others[1:]:
        plus(found, other, found)
    return found
