"""Random well-typed graphs compute, under every protocol, what whole numbers say: within the truncations' roundings,
and exactly where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import Known, Unfit, exact, result

from coordinator.lower.builder import Builder, Value
from mpcnode.engine import Hooks
from mpcnode.graph import Attr, Graph, GraphError, Kind, Op, Type
from mpcnode.optable import OPS
from mpcnode.simulate import simulate
from mpcnode.verify import infer, verify

SHAPES: list[tuple[int, ...]] = [(), (3,), (2, 3), (3, 2), (2, 2, 3)]
OWNERS = ["alice", "bob"]
SETTINGS = [("cleartext", 2), ("masked", 2), ("masked", 3)]


class Writer:
    """Writes a graph by a list of choices, and knows all its values."""

    def __init__(self, choices: Iterator[int], depth: int = 0) -> None:
        self._choices, self._depth = choices, depth
        self.b = Builder()
        self.pool: list[tuple[Value, Known]] = []
        self.data: dict[str, Any] = {}

    def pick(self, n: int) -> int:
        """A choice out of n."""
        return next(self._choices) % n

    def numbers(self, shape: tuple[int, ...], bits: int) -> Any:
        seed = [self.pick(1 << 16), bits, *shape]
        return np.random.default_rng(seed).integers(-(1 << bits), 1 << bits, shape, np.int64)

    def start(self) -> None:
        """A few inputs and constants."""
        for name in "abcd":
            shape, frac, bits = SHAPES[self.pick(len(SHAPES))], (0, 8, 18)[self.pick(3)], (1, 8, 20, 40)[self.pick(4)]
            self.data[name] = self.numbers(shape, bits)
            column = Type(Kind.ARITH, frac, (self.data[name].size, 1))
            owner = OWNERS[self.pick(2)]
            v = self.b.emit("input", type=column, owner=owner, dataset=name, columns=("v",))
            self.keep(self.b.reshape(v, shape), exact(self.data[name]))
        for bits in (1, 10):
            x = self.numbers(SHAPES[self.pick(len(SHAPES))], bits)
            self.keep(self.b.raw(x, (0, 8)[self.pick(2)]), exact(x))
        self.keep(*self.joined())

    def joined(self) -> tuple[Value, Known]:
        """Columns of both owners, side by side."""
        names, kind = ("left", "right"), Type(Kind.ARITH, 8, (2, 1))
        self.data |= {name: self.numbers((2, 1), 8) for name in names}
        sources = zip(OWNERS, names, strict=True)
        values = [self.b.emit("input", type=kind, owner=o, dataset=name, columns=("v",)) for o, name in sources]
        return self.b.emit("join", *values), exact(np.concatenate([self.data[name] for name in names], axis=1))

    def keep(self, v: Value, known: Known) -> None:
        self.pool.append((v, known))

    def some(self, **want: object) -> tuple[Value, Known]:
        """A value of the pool, of a given kind, frac or shape."""
        fit = [e for e in self.pool if all(getattr(e[0].type, k) == w for k, w in want.items())]
        if not fit:
            raise Unfit
        return fit[-1 - self.pick(len(fit))]

    def emit(self, name: str, *args: tuple[Value, Any], **attrs: Attr) -> tuple[Value, Any]:
        """Append an op if its result is certain and in range."""
        op = Op(name, tuple(v.number for v, _ in args), attrs, Type(Kind.PUBLIC, 0, ()))
        op = op._replace(type=infer(op, [self.b.ops[a] for a in op.args]))
        known = result(op, [known for _, known in args], {})
        return self.b.emit(name, *(v for v, _ in args), **attrs), known

    def index(self, shape: tuple[int, ...], limit: int) -> tuple[Value, Known]:
        if not limit:
            raise Unfit
        at = np.abs(self.numbers(shape, 20)) % limit
        return self.b.raw(at, 0), exact(at)

    # ---- one step for each group of ops ------------------------------------------------------------------------------
    def step(self) -> None:
        """Try to add one value to the pool."""
        ways = [self.structural, self.unary, self.binary, self.binary, self.product]
        ways += [self.bits, self.truncate, self.compare, self.onehot]
        if self._depth < 2:
            ways.append(self.loop)
        try:
            self.keep(*ways[self.pick(len(ways))]())
        except (Unfit, GraphError):
            return

    def structural(self) -> tuple[Value, Any]:
        x = self.some()
        shape = x[0].shape
        rank = len(shape)
        axis = self.pick(max(1, rank))
        match self.pick(10):
            case 0:
                return self.emit("reshape", x, shape=(x[0].type.size,))
            case 1:
                return self.emit("transpose", x, perm=tuple((i + axis) % rank for i in range(rank)))
            case 2:
                return self.emit("broadcast", x, shape=(2, *shape), dims=tuple(range(1, rank + 1)))
            case 3:
                start = tuple(self.pick(n + 1) for n in shape)
                return self.emit("slice", x, start=start, limit=shape, stride=(1 + axis,) * rank)
            case 4:
                return self.emit("concat", x, self.some(kind=x[0].type.kind, frac=x[0].frac, shape=shape), axis=axis)
            case 5:
                return self.emit("pad", x, low=(axis,) * rank, high=(1,) * rank)
            case 6:
                return self.emit("rev", x, axes=(axis,))
            case 7:
                return self.emit("take", x, self.index((2,), shape[axis] if rank else 0), axis=axis)
            case 8:
                return self.emit("dynamic_slice", x, self.index((rank,), 4), sizes=tuple(max(0, n - 1) for n in shape))
            case _:
                block = self.some(kind=x[0].type.kind, frac=x[0].frac)
                return self.emit("dynamic_update", x, block, self.index((rank,), 4))

    def unary(self) -> tuple[Value, Any]:
        x = self.some()
        match self.pick(4):
            case 0:
                return self.emit("neg", x)
            case 1:
                return self.emit("sum", x, axes=tuple(range(self.pick(1 + len(x[0].shape)))))
            case 2:
                return self.emit("scale", x, by=(1, -3, 1 << 10)[self.pick(3)], frac=(0, 5, -8)[self.pick(3)])
            case _:
                return self.emit("lift", x, kind="arith")

    def binary(self) -> tuple[Value, Any]:
        x = self.some()
        name = ("add", "sub", "mul")[self.pick(3)]
        same = {"shape": x[0].shape} | ({} if name == "mul" else {"frac": x[0].frac})
        return self.emit(name, x, self.some(**same))

    def product(self) -> tuple[Value, Any]:
        x, y = self.some(shape=(2, 3)), self.some(shape=(3, 2))
        if self.pick(2):
            return self.emit("dot", x, y)
        x, y = self.emit("reshape", x, shape=(1, 1, 6, 1)), self.emit("reshape", y, shape=(1, 3, 1, 2))
        one, none = (1,), (0,)
        stride = (1 + self.pick(2),)
        return self.emit("conv", x, y, stride=stride, low=none, high=none, base_dilation=one, window_dilation=one)

    def truncate(self) -> tuple[Value, Any]:
        """A truncation, also on the way to a product."""
        x = self.some(kind=Kind.ARITH)
        by, shape = 1 + self.pick(max(1, x[0].frac)), x[0].shape
        match self.pick(6):
            case 0:
                return self.emit("square", x, by=by)
            case 1:
                return self.emit("mul", x, self.some(kind=Kind.ARITH, shape=shape), by=by)
            case 2:
                summed = {"axes": tuple(range(1 + self.pick(len(shape))))} if shape and self.pick(2) else {}
                return self.emit("select", self.some(kind=Kind.BIT, shape=shape), x, keep=self.pick(2), by=by, **summed)
            case 3:
                return self.emit("rescale", x, by=by, times=1 + self.pick(1 << min(by, 20)), frac=0)
            case _:
                return self.emit("trunc", x, by=by)

    def compare(self) -> tuple[Value, Any]:
        lo, top = (0, 0, 4, 18)[self.pick(4)], (63, 63, 40)[self.pick(3)]
        cuts = {"cuts": ((-5,), (3, 1 << 20, -(1 << 19)))[self.pick(2)]} if self.pick(2) else {}
        return self.emit("sign", self.some(kind=Kind.ARITH), lo=lo, top=top, **cuts)

    def onehot(self) -> tuple[Value, Any]:
        return self.emit("onehot", self.some(kind=Kind.ARITH, frac=0), size=(1, 3, 8)[self.pick(3)])

    def bits(self) -> tuple[Value, Any]:
        d = self.some(kind=Kind.BIT)
        match self.pick(6):
            case 0:
                return self.emit("not", d)
            case 1:
                return self.emit("inject", d)
            case 2:
                return self.emit("select", d, self.some(kind=Kind.ARITH, shape=d[0].shape), keep=self.pick(2))
            case 3:
                ones = self.numbers(d[0].shape, 1) & 1
                public = self.b.raw(ones, 0), exact(ones)
                other = self.emit("lift", public, kind="bit") if self.pick(2) else public
                return self.emit(("xor", "and", "or")[self.pick(3)], *((d, other) if self.pick(2) else (other, d)))
            case 4:
                others = [self.some(kind=Kind.BIT, shape=d[0].shape) for _ in range(1 + self.pick(4))]
                return self.emit("and", d, *others)
            case _:
                return self.emit(("xor", "and", "or")[self.pick(3)], d, self.some(kind=Kind.BIT, shape=d[0].shape))

    def loop(self) -> tuple[Value, Any]:
        """A loop over a value of the pool, whose body is written in the same way for the values of the first step."""
        scanned = self.some()
        if not scanned[0].shape or not scanned[0].shape[0]:
            raise Unfit
        const, carried = self.some(), self.some()
        length, reverse = scanned[0].shape[0], self.pick(2)
        first = [const[1], carried[1], Known(*(np.array(part[-reverse], object) for part in scanned[1]))]
        inner = Writer(self._choices, self._depth + 1)
        item = scanned[0].type._replace(shape=scanned[0].shape[1:])
        for i, (kind, known) in enumerate(zip((const[0].type, carried[0].type, item), first, strict=True)):
            inner.keep(inner.b.emit("param", index=i, type=kind), known)
        for _ in range(4):
            inner.step()
        carry = inner.some(kind=carried[0].type.kind, frac=carried[0].frac, shape=carried[0].shape)
        body = inner.b.graph([carry[0], inner.pool[-1][0]])
        loop = self.emit("loop", const, carried, scanned, length=length, reverse=reverse, consts=1, carry=1, body=body)
        return self.emit("get", loop, index=self.pick(2))

    def graph(self) -> tuple[Graph, dict[str, Known]]:
        """The graph that reveals the last values, and what it must reveal."""
        want = {}
        for v, known in self.pool[-6:]:
            name = f"out{len(want)}"
            want[name] = known
            if v.type.kind is not Kind.PUBLIC:
                dtype = "bool" if v.type.kind is Kind.BIT else "float32"
                v = self.b.emit("store", v, kept="value", path=(name,), dtype=dtype, to=(), replace=0)  # noqa: PLW2901
            self.b.emit("reveal", self.b.shift(v, v.frac) if v.frac else v, to=("analyst",), name=name)
        return self.b.graph(), want


class Data(Hooks):
    def __init__(self, data: dict[str, Any]) -> None:
        self._data = data

    def read(self, op: Op) -> Any:
        return self._data[op.text("dataset")].reshape(op.type.shape).view(np.uint64)

    def keys(self, op: Op) -> bytes:
        return b"all rows are in order"


def test_random_graphs_compute_what_whole_numbers_say() -> None:
    seen: dict[str, int] = dict.fromkeys(OPS.keys() - {"load"}, 0)  # what a load has is as unknown as an input's

    @settings(max_examples=80, derandomize=True, deadline=None, database=None)
    @given(st.lists(st.integers(0, (1 << 16) - 1), min_size=40, max_size=160))
    def check(choices: list[int]) -> None:
        endless = (choices[i % len(choices)] + i // len(choices) for i in count())
        w = Writer(endless)
        w.start()
        for _ in range(30):
            w.step()
        graph, want = w.graph()
        verify(graph)
        for op in graph.walk():
            seen[op.name] += 1
        for protocol, evaluators in SETTINGS:
            found = simulate(graph, {}, protocol, evaluators=evaluators, hooks=lambda rank: Data(w.data)).outputs
            for name, known in want.items():
                assert found[name].shape == known.middle.shape
                assert np.all(abs(found[name].astype(object) - known.middle) <= known.error), (protocol, name)

    check()
    assert min(seen.values()) > 0
