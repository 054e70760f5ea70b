"""What parties see of a run under masked evaluation, and whether it looks like coin tosses.

`transcript` runs a graph that uses every interactive op on an honest evaluator's data.  From it, `coalition` takes what
all other evaluators together can hold against the honest one: the messages that they received, the opened values less
their own masks, and the sums of their dealt shares.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pytest

from coordinator.lower.builder import Builder, Value
from mpcnode import protocols
from mpcnode.engine import Hooks, Plan, execute
from mpcnode.graph import Graph, Kind, Op, Type
from mpcnode.kernels.dcf import LEVEL as LEVEL_BYTES
from mpcnode.kernels.dcf import SEED
from mpcnode.party import Party, Place, seeded_keys
from mpcnode.protocols import comparison, dealing, fused, lookup, masked
from mpcnode.protocols.dealing import HELPER, LEVEL, MASK
from mpcnode.simulate import Message, run

Array = Any
Key = tuple[object, ...]
View = dict[Key, Array]  # arrays: ring elements [elements] of any width, planes [planes, words], or bits as uint8
BITWISE = ("and", "or", "sign", "onehot")  # their values are shared and opened by xor

SECRETS: dict[str, Callable[[int], Array]] = {  # adversarial: they show where a mask is missing or serves twice
    "zeros": lambda n: np.zeros((2, n), np.int64),
    "largest": lambda n: np.full((2, n), (1 << 62) - 1, np.int64),
    "structured": lambda n: np.stack([np.arange(n) % 7 - 3, -(np.int64(1) << np.arange(n) % 62)]),
}


# ---- the graph -------------------------------------------------------------------------------------------------------
def every_op(elements: int, owner: str) -> Graph:
    """Every interactive op on vectors x and y of one owner, or on results of others; and every way to reveal."""
    b = Builder()
    column = Type(Kind.ARITH, 40, (elements, 1))
    inputs = [b.emit("input", type=column, owner=owner, dataset=name, columns=("v",)) for name in "xy"]
    x, y = (b.reshape(v, (elements,)) for v in inputs)
    product = b.emit("mul", x, b.shift(x, 40))
    square = b.emit("dot", b.reshape(x, (elements // 8, 8)), b.reshape(b.slice_axis(b.shift(y, 40), 0, 0, 64), (8, 8)))
    short, tiny = b.emit("trunc", y, by=18), b.emit("rescale", x, by=7, times=5, frac=0)
    negative, rough = b.emit("sign", x, lo=0), b.emit("sign", y, lo=45)
    below = b.emit("sign", x, lo=0, cuts=(-3, 0, 1 << 50))
    kept, dropped = (b.emit("select", negative, y, keep=keep) for keep in (0, 1))
    both, either = b.emit("and", negative, rough), b.emit("or", negative, b.emit("not", rough))
    number = b.emit("inject", both)
    four = b.emit("and", negative, rough, either, b.emit("not", both))
    fused = [b.emit("mul", y, b.shift(x, 40), by=18), b.emit("mul", x, x, by=7), b.emit("square", y, by=33)]
    fused += [b.emit("select", bit, v, keep=keep, by=18) for keep, bit, v in ((1, negative, y), (0, rough, x))]
    fused += [b.emit("select", *(b.reshape(v, (2, elements // 2)) for v in (negative, y)), keep=1, axes=(0,))]
    found = b.emit("onehot", b.shift(x, 40), size=5)

    inside = Builder()
    carried = inside.emit("param", index=0, type=b.shift(x, 40).type)
    body = inside.graph([inside.emit("mul", carried, carried)])
    loop = b.emit("loop", b.shift(x, 40), length=3, reverse=0, consts=0, carry=1, body=body)
    power = b.emit("get", loop, index=0)

    revealed: list[Value] = [x, x, b.emit("add", x, y), b.emit("scale", y, by=1 << 40, frac=0), product, square, short]
    revealed += [tiny, negative, rough, kept, dropped, both, either, four, number, power, found, below, *fused]
    for i, v in enumerate(revealed):
        b.emit("reveal", v, to=("analyst",), name=f"out{i}")
    return b.graph()


class Data(Hooks):
    def __init__(self, secrets: Array) -> None:
        self._data = dict(zip("xy", secrets, strict=True))

    def read(self, op: Op) -> Array:
        return self._data[op.text("dataset")].reshape(op.type.shape).view(np.uint64)


# ---- runs ------------------------------------------------------------------------------------------------------------
class Transcript(NamedTuple):
    ops: dict[int, Op]
    messages: list[Message]
    known: list[View]  # by rank: what it knows of masks, dealt values and openings, by kind, op, step, tile and number
    parts: list[dict[str, Array]]  # by rank, of the outputs


def transcript(evaluators: int, honest: int, secrets: Array, seed: int, by_key: bool = False) -> Transcript:
    """Run `every_op` on the data of the evaluator of that rank.  by_key: all comparisons are by keys, few elements or
    not."""
    names = ["helper", *(f"evaluator_{i}" for i in range(1, evaluators + 1))]
    plan = Plan(every_op(secrets.shape[1], names[honest]))
    keys = seeded_keys(len(names), f"secrecy {seed}".encode())
    kernels = [
        execute(Party(i, names, keys[i]), protocols.get("masked"), plan, Data(secrets)) for i in range(len(names))
    ]
    messages: list[Message] = []

    def tap(message: Message) -> list[Message]:
        messages.append(message)
        return [message]

    known: list[View] = [{} for _ in names]
    with pytest.MonkeyPatch.context() as patch:
        record(patch, known)
        patch.setattr(comparison, "by_key", lambda *_: by_key)
        parts, _ = run(kernels, tap)
    return Transcript(plan.ops(), messages, known, parts)


def record(patch: pytest.MonkeyPatch, known: list[View]) -> None:
    """Have the building blocks of the protocol note what passes through them."""

    def note(p: Place, kind: str, number: int, array: Array) -> None:
        key = kind, p.op, p.step, p._tile, number
        assert key not in known[p.rank]
        known[p.rank][key] = np.array(array)

    def fresh(p: Place, out: Array, purpose: int = MASK, xor: bool = False) -> Array:
        mask = dealing.fresh(p, out, purpose, xor)
        note(p, "mask", max(0, purpose - LEVEL), mask)
        return mask

    def renew(p: Place, out: Array) -> Array:
        mask = dealing.renew(p, out)
        note(p, "mask", 0, mask)
        return mask

    async def take(p: Place, tile: int, likes: Any) -> list[Array]:
        got = await dealing.take(p, tile, likes)
        for k, v in enumerate(got):
            note(p, "dealt", k, v)
        return got

    async def swap(p: Place, s: Array) -> list[Array]:
        got = await proper_swap(p, s)
        opened[p.rank, p.op, p.step, p._tile] += 1
        note(p, "opened", opened[p.rank, p.op, p.step, p._tile] - 1, [s, *got])
        return got

    opened: Counter[Key] = Counter()
    proper_swap = dealing.swap
    for module in (dealing, masked):
        patch.setattr(module, "swap", swap)
    for module in (masked, comparison, lookup):
        patch.setattr(module, "fresh", fresh)
    for module in (masked, comparison, lookup, fused):
        patch.setattr(module, "take", take)
    patch.setattr(masked, "renew", renew)


# ---- views -----------------------------------------------------------------------------------------------------------
def combined(arrays: Sequence[Array], bits: bool) -> Array:
    """The sum or xor."""
    return np.bitwise_xor.reduce(arrays, axis=0) if bits else np.add.reduce(arrays, axis=0, dtype=arrays[0].dtype)


def received(t: Transcript, rank: int, sources: Sequence[int] | None = None) -> View:
    """Every message that a party received (from these sources)."""
    view: View = {}
    for m in t.messages:
        if m.target == rank and (sources is None or m.source in sources):
            key = f"to {rank}", m.source, m.dealt, m.sequence
            is_key = m.dealt and t.ops[m.op].name == "sign" and m.array.dtype == np.uint8
            view |= corrections(key, m.array) if is_key else {key: formed(m.array, t.ops[m.op])}
    return view


def corrections(key: Key, array: Array) -> View:
    """A key for a comparison: seeds as planes, a level each, and bits."""
    levels = array[:, :-SEED].reshape(len(array), -1, LEVEL_BYTES)
    seeds = [*levels[:, :, :SEED].swapaxes(0, 1), array[:, -SEED:]]
    assert (levels[:, :, SEED] < 8).all()
    bits = levels[:, :, SEED, None] >> np.arange(3, dtype=np.uint8) & 1
    planes = np.stack([np.ascontiguousarray(seed).reshape(-1).view(np.uint64) for seed in seeds])
    return {(*key, "seeds"): planes} | ({(*key, "bits"): bits.reshape(-1)} if bits.size else {})


def formed(array: Array, op: Op) -> Array:
    """[planes, words] of bits, or [elements]."""
    return array.reshape(-1, array.shape[-1]) if op.name in BITWISE else array.reshape(-1)


def coalition(t: Transcript, honest: int) -> View:
    """What all evaluators but one know together: what the others sent them, opened values less all of their own masks,
    and the sums of all of their shares of dealt values."""
    others = [rank for rank in range(1, len(t.known)) if rank != honest]
    view = received(t, others[0], (honest,))  # the same as to any other
    for rank in others:
        view |= received(t, rank, (HELPER,))
    for m in t.messages:
        if t.ops[m.op].name == "input" and m.target == others[0]:
            view["residue", m.op] = formed(m.array, t.ops[m.op])
    for key, array in t.known[others[0]].items():
        kind, *where = key
        op = t.ops[int(str(where[0]))]
        bits = op.name in BITWISE
        if kind == "dealt":
            view["shares", *where] = formed(combined([t.known[rank][key] for rank in others], bits), op)
        if kind == "opened":
            opened = combined(array, bits)
            masks = combined([t.known[rank]["mask", *where] for rank in others], bits).reshape(opened.shape)
            view["residue", *where] = formed(opened ^ masks if bits else opened - masks, op)
    return view


def proper_parts(t: Transcript) -> View:
    """What a recipient is sent beyond the outputs: the sums of some, but not all, of the parts."""
    view: View = {}
    for name in t.parts[1]:
        parts = [found[name].reshape(-1) for found in t.parts[1:]]
        for count in range(1, len(parts)):
            for some in combinations(range(len(parts)), count):
                view[("parts", some), name] = combined([parts[i] for i in some], parts[0].dtype == np.uint8)
    return view


def several(views: Sequence[View]) -> View:
    """Views of runs with different seeds, end to end."""
    assert all(view.keys() == views[0].keys() for view in views)
    return {key: np.concatenate([view[key] for view in views], axis=-1) for key in views[0]}


def differences(view: View) -> View:
    """Of every two of the same form and kind: what a mask that serves twice does not hide.  (Of two kinds there may be
    one: a broadcast less its residue is what the others computed in the open.)
    """
    found: View = {}
    for (k, a), (l, b) in combinations(view.items(), 2):
        if a.shape == b.shape and a.dtype == b.dtype and k[0] == l[0]:
            found[k, l] = a ^ b if a.ndim == 2 or a.dtype == np.uint8 else a - b
    return found


# ---- statistics ------------------------------------------------------------------------------------------------------
ALARM = 1e-6  # a false alarm is rarer than this in every test
ONES = (np.arange(256)[:, None] >> np.arange(8)) & 1  # bits of a byte


def tail(statistic: Array, freedom: Array) -> float:
    """The least probability that a chi-square variable is as large, over an array of them, or rather an upper bound
    of it (Chernoff): (z·e^(1-z))^(k/2) with z = x/k."""
    z = np.maximum(1.0, np.asarray(statistic) / freedom)
    return float(np.exp(np.asarray(freedom) / 2 * (np.log(z) + 1 - z)).min())


def histograms(view: View) -> Iterator[Array]:
    """How often each byte value (or bit) occurs, [columns, values]: for every byte of a ring element by itself, for
    every plane."""
    for array in view.values():
        if array.dtype == np.uint8:
            yield np.bincount(array, minlength=2)[None]
        else:
            bytes_ = array.view(np.uint8)
            columns = bytes_ if array.ndim == 2 else bytes_.reshape(-1, array.itemsize).T
            values = columns + 256 * np.arange(len(columns))[:, None]
            yield np.bincount(values.reshape(-1), minlength=256 * len(columns)).reshape(-1, 256)


def uniform(view: View) -> float:
    """The probability that uniform bytes and bits look at least as odd (an upper bound, over all tests together)."""
    lowest, tests = 1.0, 0
    for counts in histograms(view):
        columns, bins = counts.shape
        n = int(counts[0].sum())
        assert bins == 2 or n >= 8 * bins, "too few samples for the test"
        lowest = min(lowest, tail(((counts - n / bins) ** 2).sum(1) * bins / n, bins - 1))
        if bins == 256:
            lowest = min(lowest, tail((counts @ ONES - n / 2) ** 2 * 4 / n, 1))
        tests += 9 * columns
    return min(1.0, lowest * tests)


def alike(one: View, other: View) -> float:
    """The probability that views of one distribution differ at least as much (an upper bound, over all tests)."""
    lowest, tests = 1.0, 0
    assert one.keys() == other.keys()
    for a, b in zip(histograms(one), histograms(other), strict=True):
        assert np.array_equal(a.sum(1), b.sum(1))
        some = a + b > 0
        statistic = np.where(some, (a - b) ** 2 / np.maximum(1, a + b), 0).sum(1)
        lowest, tests = min(lowest, tail(statistic, np.maximum(1, some.sum(1) - 1))), tests + len(a)
    return min(1.0, lowest * tests)
