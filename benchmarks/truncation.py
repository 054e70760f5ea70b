"""How exact truncation is, on many products near the limit of the range: `python benchmarks/truncation.py --help`.

Under masked evaluation a truncated value is one of the two neighbours of the exact quotient, always; and on average it
is the quotient itself.  Local truncation, as in SecureML (Mohassel and Zhang, S&P 2017) and the systems after it, has
each of two parties shift its own share: with probability |z|/2^64 the result is off by 2^64 / 2^by, a wreck.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from rich.console import Console

from mpcnode import kernels
from mpcnode.protocols.fused import wrap_dtype

LIMIT = 1 << 62
CHUNK = 1 << 20
Array = Any


class Tally(NamedTuple):
    """Of one chunk: how far results were off in units of the last place (ulp); how many local truncation wrecked."""

    worst: float
    total: float
    wrecks: int


def products(rng: np.random.Generator, n: int) -> Array:
    """Products x·y of which |x·y| is just below 2^62, as int64."""
    x = rng.integers(1 << 30, 1 << 32, n, np.int64)
    return x * ((LIMIT - 1) // x) * (2 * rng.integers(0, 2, n, np.int64) - 1)


def ring(rng: np.random.Generator, n: int) -> Array:
    return rng.integers(0, 1 << 64, n, np.uint64)


def split(rng: np.random.Generator, value: Array, parties: int) -> list[Array]:
    """Additive shares in the value's own ring."""
    shares = [ring(rng, len(value)).astype(value.dtype) for _ in range(parties - 1)]
    return [value - sum(shares[1:], shares[0]), *shares]


def truncated(rng: np.random.Generator, z: Array, by: int, evaluators: int) -> Array:
    """z / 2^by under masked evaluation: H deals, every evaluator computes its message, their sum is unmasked."""
    r = ring(rng, len(z))
    c = z.view(np.uint64) + r
    dealt = [split(rng, v, evaluators) for v in kernels.trunc_deal(r, by, wrap_dtype(by))]
    masks = split(rng, ring(rng, len(z)).astype(wrap_dtype(by)), evaluators)
    messages = [kernels.trunc_share(c, b, mask) for b, mask in zip(dealt[1], masks, strict=True)]
    new_masks = [kernels.trunc_mask(t, mask, by) for t, mask in zip(dealt[0], masks, strict=True)]
    m = kernels.trunc_open(c, sum(messages[1:], messages[0]), by)
    return (m - sum(new_masks[1:], new_masks[0])).view(np.int64)


def local(rng: np.random.Generator, z: Array, by: int) -> Array:
    """z / 2^by as two parties do it on their own: one shifts its share, the other shifts the negative of its own."""
    r = ring(rng, len(z))
    shift = np.uint64(by)
    return (((z.view(np.uint64) + r) >> shift) - (r >> shift)).view(np.int64)


def errors(got: Array, z: Array, by: int) -> Array:
    """got - z / 2^by, exactly where it is small: whole parts and fractions apart."""
    return (got - (z >> by)) - (z & ((1 << by) - 1)) / 2.0**by


def tally(rng: np.random.Generator, n: int, by: int, evaluators: int) -> Tally:
    z = products(rng, n)
    off = errors(truncated(rng, z, by, evaluators), z, by)
    wrecks = int((np.abs(errors(local(rng, z, by), z, by)) > 1).sum())
    return Tally(float(np.abs(off).max()), float(off.sum()), wrecks)


def main(
    elements: Annotated[int, typer.Option(min=1, help="products to truncate")] = 100_000_000,
    by: Annotated[int, typer.Option(min=1, max=62, help="bits to drop")] = 18,
    evaluators: Annotated[int, typer.Option(min=2)] = 2,
    seed: int = 1,
) -> None:
    """Truncate products just below the limit of 2^62; print worst error and bias, and how local truncation fares."""
    rng = np.random.default_rng(seed)
    start = time.perf_counter()
    chunks = [tally(rng, min(CHUNK, elements - done), by, evaluators) for done in range(0, elements, CHUNK)]
    seconds = time.perf_counter() - start
    worst = max(chunk.worst for chunk in chunks)
    bias = sum(chunk.total for chunk in chunks) / elements
    wrecks = sum(chunk.wrecks for chunk in chunks)
    say = partial(Console(highlight=False).print, soft_wrap=True)
    say(f"elements     {elements:,} products of |z| < 2^62, truncated by {by} bits among {evaluators} evaluators")
    say(f"worst error  {worst:.6f} ulp (below 1: one of the two neighbours)")
    say(f"bias         {bias:+.2e} ulp (statistics alone: {0.41 / elements**0.5:.1e})")
    say(f"seconds      {seconds:.1f}, on {kernels.NAME} kernels")
    say(f"local        {wrecks / elements:.3%} wrecked by local truncation; in theory |z|/2^64 = {LIMIT / 2**64:.3%}")
    if worst >= 1:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
