"""No mask serves twice: every draw of common randomness has an address of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

from coordinator.lower.builder import Builder, Value
from mpcnode import kernels, party, protocols
from mpcnode.engine import Hooks, execute
from mpcnode.graph import Graph, Kind, Op, Type
from mpcnode.kernels.prg import Prg
from mpcnode.party import STEP_BYTES, Party, pair_key
from mpcnode.protocols.dealing import TILE
from mpcnode.simulate import run
from mpcnode.verify import verify

NAMES = ["helper", "alice", "bob", "carol"]
ADDRESS_BYTES = 16 << 32  # of key stream, that an address owns


# ---- a graph with everything: outside of loops, in a loop, in a loop in a loop -------------------------------------
def work(b: Builder, x: Value, y: Value) -> Value:
    """Every interactive op."""
    z = b.emit("mul", x, y)
    z = b.emit("add", z, b.emit("trunc", b.emit("scale", z, by=1, frac=18), by=18))
    d = b.emit("or", b.emit("sign", z, lo=0), b.emit("and", b.emit("sign", x, lo=40), b.emit("sign", y, lo=62)))
    d = b.emit("or", d, b.emit("and", d, b.emit("sign", x, lo=0), b.emit("sign", y, lo=0)))
    below = b.emit("sign", x, lo=0, cuts=(-1, 5, 9))
    d = b.emit("or", d, b.reshape(b.slice_axis(below, 0, 1, 2), d.shape))
    z = b.emit("add", b.emit("select", d, z, keep=1), b.emit("inject", d))
    wide = b.emit("scale", z, by=1, frac=18)
    z = b.emit("add", b.emit("select", d, wide, keep=0, by=18), b.emit("mul", wide, x, by=18))
    z = b.emit("add", z, b.emit("square", wide, by=18))
    z = b.emit("add", z, b.emit("rescale", z, by=21, times=12345, frac=21))
    bits, halves, finer = (b.reshape(v, (2, v.type.size // 2)) for v in (d, z, wide))
    z = b.emit("add", z, b.spread(b.emit("select", bits, halves, keep=1, axes=(0, 1)), z.shape))
    folded = b.emit("select", bits, finer, keep=1, axes=(0,), by=18)
    z = b.emit("add", z, b.reshape(b.spread(folded, halves.shape), z.shape))
    product = b.emit("dot", b.reshape(z, (z.shape[0] // 8, 8)), b.reshape(b.slice_axis(x, 0, 0, 64), (8, 8)))
    return b.reshape(product, z.shape)


def looped(b: Builder, x: Value, y: Value, depth: int, length: int = 2) -> Value:
    """`work` on x, `length` times, and loops of the same inside."""
    body = Builder()
    const, carry = (body.emit("param", index=i, type=x.type) for i in range(2))
    result = work(body, carry, const)
    inside = body.graph([looped(body, result, const, depth - 1) if depth > 1 else result])
    return b.emit("get", b.emit("loop", y, x, length=length, reverse=0, consts=1, carry=1, body=inside), index=0)


def nest(elements: int) -> Graph:
    b = Builder()
    column = Type(Kind.ARITH, 0, (elements, 1))
    x, y = (
        b.reshape(b.emit("input", type=column, owner=owner, dataset="d", columns=("v",)), (elements,))
        for owner in ("alice", "bob")
    )
    z = work(b, x, y)
    b.emit("reveal", looped(b, z, y, depth=2), to=("analyst",), name="nested")
    b.emit("reveal", z, to=("analyst",), name="plain")
    return b.graph()


class Zeros(Hooks):
    def read(self, op: Op) -> Any:
        return np.zeros(op.type.shape, np.uint64)


# ---- what is drawn ---------------------------------------------------------------------------------------------------
class Draw(NamedTuple):
    key: bytes
    nonce: bytes
    dtype: str
    shape: tuple[int, ...]


class Recording(Prg):
    """Key streams that note what is drawn from them."""

    made: list[Recording] = []  # noqa: RUF012  (a fixture empties it)

    def __init__(self, key: bytes) -> None:
        super().__init__(key)
        self.key, self.draws, self.played = key, Counter[Draw](), Counter[bytes]()
        self.made.append(self)

    def fill(self, nonce: bytes, out: Any) -> Any:
        assert out.nbytes <= ADDRESS_BYTES
        self.draws[Draw(self.key, nonce, str(out.dtype), out.shape)] += 1
        return super().fill(nonce, out)

    def filler(self, out: Any) -> Callable[[bytes], None]:
        """What tapes draw."""
        fill = super().filler(out)

        def noted(nonce: bytes) -> None:
            self.played[nonce] += 1
            fill(nonce)

        return noted


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> list[Recording]:
    monkeypatch.setattr(party, "Prg", Recording)
    monkeypatch.setattr(Recording, "made", [])
    return Recording.made


def keys(attempt: int) -> list[dict[int, bytes]]:
    """Fresh for every attempt, as a node makes them; the seeds are the same here, the worst case."""
    found: list[dict[int, bytes]] = [{} for _ in NAMES]
    for low in range(len(NAMES)):
        for high in range(low + 1, len(NAMES)):
            key = pair_key(bytes(32), bytes(32), job="job", attempt=attempt, low=NAMES[low], high=NAMES[high])
            found[low][high] = found[high][low] = key
    return found


def attempt(number: int, graph: Graph) -> None:
    rules = protocols.get("masked")
    run([execute(Party(i, NAMES, known), rules, graph, Zeros()) for i, known in enumerate(keys(number))])


def test_no_address_is_drawn_twice(streams: list[Recording]) -> None:
    graph = nest(TILE + 64)
    verify(graph)
    attempt(1, graph)
    assert len(streams) == 12  # both ends of 6 pairs
    for stream in streams:
        assert stream.draws
        addresses = Counter((draw.key, draw.nonce) for draw in stream.draws.elements())
        assert set(addresses.values()) == {1}


@pytest.mark.skipif(kernels.NAME != "native", reason="tapes call the compiled kernels")
def test_no_address_is_drawn_twice_by_tapes(streams: list[Recording], monkeypatch: pytest.MonkeyPatch) -> None:
    """But where a tape is tried against the iteration that it is to be the same as: a turn of each evaluator's."""
    monkeypatch.setattr("mpcnode.engine.LEAST_TURNS", 0)
    b = Builder()
    column = Type(Kind.ARITH, 0, (64, 1))
    x = b.reshape(b.emit("input", type=column, owner="alice", dataset="d", columns=("v",)), (64,))
    b.emit("reveal", looped(b, x, x, depth=1, length=12), to=("analyst",), name="y")
    graph = b.graph()
    verify(graph)
    attempt(1, graph)
    evaluators = len(NAMES) - 1
    for stream in streams:
        drawn = Counter(draw.nonce for draw in stream.draws.elements())
        assert set(drawn.values()) == {1}
        if stream.played:
            assert set(stream.played.values()) == {1}
            steps = {nonce[:STEP_BYTES] for nonce in stream.played}
            assert len(steps) == 12 - evaluators  # all but those that were recorded
            assert len({nonce[:STEP_BYTES] for nonce in drawn.keys() & stream.played.keys()}) == evaluators
    assert any(stream.played for stream in streams)


def test_both_ends_of_a_pair_draw_the_same(streams: list[Recording]) -> None:
    attempt(1, nest(64))
    ends: dict[bytes, list[Counter[Draw]]] = {}
    for stream in streams:
        ends.setdefault(stream.key, []).append(stream.draws)
    assert len(ends) == 6
    assert all(one == other for one, other in ends.values())


def test_another_attempt_draws_from_other_keys(streams: list[Recording]) -> None:
    attempt(1, nest(64))
    first = {(draw.key, draw.nonce) for stream in streams for draw in stream.draws}
    streams.clear()
    attempt(2, nest(64))
    second = {(draw.key, draw.nonce) for stream in streams for draw in stream.draws}
    assert {nonce for _, nonce in first} == {nonce for _, nonce in second}
    assert {key for key, _ in first}.isdisjoint({key for key, _ in second})
