"""The passes: what each of them takes away, and that nothing else changes."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compiling import agree, evaluated, names, ops, stages
from jax import lax

from coordinator.lower import fixedpoint, simplify, thresholds, together
from coordinator.lower.builder import Builder, Value
from coordinator.lower.fuse import fuse
from coordinator.lower.hoist import hoist
from coordinator.lower.refine import refine
from coordinator.lower.rewrite import depth, prune, rewrite, until_still
from coordinator.lower.twice import twice
from mpcnode.graph import Graph, Kind, Type
from mpcnode.verify import verify

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(2, 8, 8)).astype(np.float32)
SHAPE = (4, 6)


class Writer:
    """A graph of inputs and what becomes of them."""

    def __init__(self) -> None:
        self.b = Builder()
        self.count = 0

    def input(self, frac: int = 18, shape: tuple[int, int] = SHAPE) -> Value:
        self.count += 1
        columns = tuple(f"c{i}" for i in range(shape[1]))
        return self.b.emit(
            "input", owner="owner", dataset=f"d{self.count - 1}", columns=columns, type=Type(Kind.ARITH, frac, shape)
        )

    def done(self, *values: Value) -> Graph:
        for i, value in enumerate(values):
            self.b.emit("reveal", value, to=("reader",), name=f"out{i}")
        graph = self.b.graph()
        verify(graph)
        return graph


def same_results(before: Graph, after: Graph, shape: tuple[int, int] = SHAPE, tolerance: float = 2.0**-16) -> None:
    verify(after)
    inputs = sum(op.name == "input" for op in before.ops)
    arrays = [RNG.normal(size=shape) for _ in range(inputs)]
    was, now = evaluated(before, *arrays), evaluated(after, *arrays)
    for name in was:
        assert np.abs(was[name].astype(float) - now[name].astype(float)).max() <= tolerance


def simplified(graph: Graph) -> Graph:
    found = until_still(graph, simplify.RULES, 18)
    same_results(graph, found)
    return found


def interior(graph: Graph) -> list[str]:
    return [n for n in names(graph) if n not in ("input", "reveal", "const")]


# ---- simplify ------------------------------------------------------------------------------------------------------
IDENTITIES: dict[str, tuple[Callable[[Builder, Value], Value], list[str]]] = {
    "x + 0": (lambda b, x: b.add(x, b.fill(0.0, x)), []),
    "0 - x": (lambda b, x: b.sub(b.fill(0.0, x), x), ["neg"]),
    "--x": (lambda b, x: b.emit("neg", b.emit("neg", x)), []),
    "x·1": (lambda b, x: b.emit("mul", x, b.fill(1, x, 0)), []),
    "x·2·3": (lambda b, x: b.emit("scale", b.emit("scale", x, by=2, frac=0), by=3, frac=0), ["scale"]),
    "x·c": (lambda b, x: b.emit("mul", x, b.fill(1.5, x, 1)), ["scale"]),
    "x·0": (lambda b, x: b.emit("mul", x, b.fill(0, x, 0)), ["lift", "broadcast"]),
    "reshaped twice": (lambda b, x: b.reshape(b.reshape(x, (24,)), SHAPE), []),
    "transposed twice": (lambda b, x: b.transpose(b.transpose(x, (1, 0)), (1, 0)), []),
    "a slice of a slice": (lambda b, x: b.slice_axis(b.slice_axis(x, 0, 1, 4), 0, 1, 3), ["slice"]),
    "-(broadcast)": (
        lambda b, x: b.emit("neg", b.emit("broadcast", b.slice_axis(x, 0, 0, 1), shape=SHAPE, dims=(0, 1))),
        ["slice", "reshape", "neg", "broadcast"],
    ),
    "a sum over a sum": (lambda b, x: b.emit("sum", b.emit("sum", x, axes=(1,)), axes=(0,)), ["sum"]),
    "a sum over one": (lambda b, x: b.emit("sum", b.slice_axis(x, 0, 0, 1), axes=(0,)), ["slice", "reshape"]),
    "a constant expression": (lambda b, x: b.add(x, b.sub(b.const(np.ones(SHAPE)), b.const(np.eye(4, 6)))), ["add"]),
    "not not": (lambda b, x: b.emit("not", b.emit("not", b.emit("sign", x, lo=0))), ["sign"]),
    "select by not": (lambda b, x: b.keep(b.emit("not", b.emit("sign", x, lo=0)), x, 0), ["sign", "select"]),
}


@pytest.mark.parametrize("name", IDENTITIES)
def test_identities(name: str) -> None:
    write, left = IDENTITIES[name]
    w = Writer()
    found = simplified(w.done(write(w.b, w.input())))
    assert interior(found) == left


def test_equal_ops_are_one_also_inside_of_loops() -> None:
    def program(x: Any) -> Any:
        return lax.scan(lambda c, _: (c + jnp.tanh(x @ c) + jnp.tanh(x @ c), None), x, None, length=2)[0]

    assert names(stages(program, X)["final"]).count("sign") == names(stages(jnp.tanh, X)["final"]).count("sign")


def test_dead_ops_and_results_of_loops_go() -> None:
    w = Writer()
    x, dead = w.input(), w.input()
    body = Builder()
    a, c = (body.emit("param", index=i, type=x.type) for i in range(2))
    unread = body.emit("param", index=2, type=x.type)
    kept, other = body.add(a, c), body.emit("neg", unread)
    loop = w.b.emit("loop", x, x, dead, length=3, reverse=0, consts=1, carry=2, body=body.graph([kept, other, c]))
    graph = w.done(w.b.emit("get", loop, index=0))
    found = prune(graph)
    [op] = ops(found, "loop")
    assert (op.integer("consts"), op.integer("carry"), len(op.args), len(op.body.outputs)) == (1, 1, 2, 1)
    assert names(found).count("input") == 1
    same_results(graph, found)


def test_what_no_step_changes_is_computed_before_the_loop() -> None:
    def program(x: Any, y: Any) -> Any:
        return lax.fori_loop(0, 4, lambda i, c: c + jax.nn.relu(x @ y) * 0.1, x)

    found = agree(program, X, Y)
    [before] = ops(found["legal"], "loop")
    [after] = ops(found["final"], "loop")
    assert "dot" in names(before.body)
    assert names(after.body).count("sign") == names(after.body).count("dot") == 0
    assert depth(after.body) == 0


def test_hoisting_goes_through_nested_loops() -> None:
    def program(x: Any) -> Any:
        inner = lambda i, c: c * 0.5 + jnp.maximum(x, 0)  # noqa: E731
        return lax.fori_loop(0, 2, lambda i, c: lax.fori_loop(0, 3, inner, c), x)

    found = agree(program, X)
    assert [op.name for op in found["final"].ops].count("sign") == 1
    assert names(hoist(found["final"], 18)) == names(found["final"])


# ---- late truncation -----------------------------------------------------------------------------------------------
def late(graph: Graph, tolerance: float = 2.0**-16) -> Graph:
    found = prune(fixedpoint.late(graph, 18))
    same_results(graph, found, tolerance=tolerance)
    return found


def test_two_products_are_truncated_together() -> None:
    w = Writer()
    x, y, z = w.input(), w.input(), w.input()
    found = late(w.done(w.b.add(w.b.mul(x, y), w.b.sub(w.b.mul(y, z), w.b.mul(x, z)))))
    assert [n for n in interior(found) if n == "trunc"] == ["trunc"]


def test_products_are_summed_before_they_are_truncated_while_there_is_room() -> None:
    for rows, size in ((4, 6), (2000, 12000)):
        w = Writer()
        x = w.input(shape=(rows, 6))
        graph = w.done(w.b.emit("sum", w.b.mul(x, x), axes=(0,)))
        found = fixedpoint.late(graph, 18)
        assert [op.type.size for op in ops(found, "trunc")] == [size]


def test_a_bias_is_added_and_a_sign_taken_before_truncation() -> None:
    found = stages(lambda x, y: jax.nn.relu(x @ y + x[0]), X, Y)["final"]
    [sign] = ops(found, "sign")
    assert sign.integer("lo") == 19  # of the product, which is doubled
    assert names(found).count("trunc") == 0  # by the select, on its way
    assert depth(found) == 4  # input, product, the sign of few elements, select


def test_no_chain_becomes_longer_by_adding_before_truncation() -> None:
    w = Writer()
    x, y = w.input(), w.input()
    slow = w.b.mul(w.b.mul(w.b.mul(x, y), y), y)
    early = w.b.mul(x, x)
    square = w.b.add(early, slow)
    graph = w.done(w.b.mul(square, w.b.fill(0.3, square)))
    assert depth(late(graph)) <= depth(graph)


def test_truncations_of_truncations_are_one() -> None:
    w = Writer()
    x, y = w.input(), w.input()
    half = w.b.align(w.b.shift(w.b.mul(x, y), -3), 18)
    assert [op.integer("by") for op in ops(late(w.done(half)), "trunc")] == [21]


def test_a_factor_of_two_is_not_truncated_away() -> None:
    w = Writer()
    x, y = w.input(), w.input()
    graph = w.done(w.b.emit("scale", w.b.mul(x, y), by=12, frac=0))
    [trunc] = ops(late(graph, tolerance=2.0**-13), "trunc")
    assert trunc.integer("by") == 16


def test_a_sign_that_alone_is_asked_for_needs_no_truncation() -> None:
    found = stages(lambda x, y: (x @ y).T > 1.5, X, Y)["final"]
    assert names(found).count("trunc") == 0
    assert depth(found) == 3


def test_a_gradient_and_its_learning_rate_are_truncated_at_once() -> None:
    def program(rate: float) -> Any:
        return lambda x, y: x[:2].T @ y[:2] * rate

    for rate in (0.01, -0.01):
        found = agree(program(rate), X, Y)["final"]
        [rescale] = ops(found, "rescale")
        assert (rescale.type.size, names(found).count("trunc"), depth(found)) == (64, 0, 3)
        assert names(found).count("neg") == (rate < 0)
        assert len(ops(stages(program(rate), X, Y)["legal"], "trunc")) == 2


def test_no_value_gets_more_fraction_bits_than_there_is_room_for() -> None:
    def step(w: Any, x: Any) -> Any:
        return w - 0.1 * jax.grad(lambda w: jnp.mean(jax.nn.relu(x @ w) ** 2))(w)

    for op in stages(step, X, Y)["final"].walk():
        assert op.type.kind is not Kind.ARITH or op.type.frac <= 44


def test_a_large_constant_stays_below_the_room_of_all_truncations_before_a_sign() -> None:
    """Truncations are passed over one by one; the constant is scaled up each time, and must not wrap."""
    w = Writer()
    x, y = w.input(22), w.input(22)
    mixed = w.b.emit("trunc", w.b.emit("scale", x, by=round(0.9 * 2**20), frac=20), by=20)
    found = w.b.emit("trunc", w.b.emit("add", mixed, y), by=4)
    for value in (mixed, found):
        w.b.emit("reveal", value, to=("reader",), name=f"with {value.frac}")
    for knot in (2.0**12, 2.0**24):
        far = w.b.emit("sub", found, w.b.fill(knot, found, 18))
        w.b.emit("reveal", w.b.emit("sign", far, lo=0), to=("reader",), name=f"below {knot}")
    before = w.done()
    same_results(before, fixedpoint.late(before, 18))


# ---- averages ------------------------------------------------------------------------------------------------------
def average(x: Any) -> Any:
    def step(mean: Any, row: Any) -> Any:
        return 0.999 * mean + 0.001 * row, None

    return lax.scan(step, jnp.zeros(8), x)[0]


def test_averages_are_carried_finer() -> None:
    found = stages(average, X)
    [loop] = ops(found["final"], "loop")
    assert loop.body.ops[loop.body.outputs[0]].type.frac == 26
    want = np.asarray(average(X))
    errors = {name: np.abs(evaluated(graph, X)["out"] - want).max() for name, graph in found.items()}
    assert errors["final"] <= 2.0**-18 < errors["legal"]
    assert len(ops(found["final"], "trunc")) <= len(ops(found["legal"], "trunc"))


def test_what_is_not_only_scaled_is_carried_as_it_is() -> None:
    def step(mean: Any, row: Any) -> Any:
        mean = 0.999 * mean + 0.001 * row
        return mean, mean * row

    graph = stages(lambda x: lax.scan(step, jnp.zeros(8), x), X)["late"]
    [loop] = ops(graph, "loop")
    assert loop.body.ops[loop.body.outputs[0]].type.frac == 18
    assert names(refine(graph, 18)) == names(graph)


def test_a_sum_of_what_is_known_to_be_small_is_truncated_once() -> None:
    """And its sign is asked of the sum before that, with all its bits: what is truncated is below 2^62."""

    def program(x: Any) -> Any:
        total = jnp.sum(jax.nn.sigmoid(x[:, :4]), axis=1)
        return total, total > 2.5

    found = agree(program, X)["final"]
    assert [op.type.size for op in ops(found, "trunc")][-1] == 8
    by, fine = ops(found, "trunc")[-1], [op for op in ops(found, "sign") if op.type.size == 8]
    assert [op.integer("lo") for op in fine] == [by.integer("by")]
    wide = agree(lambda x: jnp.sum(jax.nn.sigmoid(x), axis=1) > 2.5, X)["late"]  # 8 of them need a bit more
    assert [op.type.size for op in ops(wide, "trunc")][-1] == 64


# ---- truncations on the way to a product ---------------------------------------------------------------------------
def test_a_truncation_is_fused_with_the_product_that_alone_reads_it() -> None:
    w = Writer()
    x, y, z = w.input(), w.input(), w.input()
    t = w.b.mul(x, y)
    flat = w.b.reshape(w.b.transpose(t, (1, 0)), (24,))
    product = w.b.emit("mul", w.b.reshape(z, (24,)), flat)
    bit = w.b.lift(w.b.const(np.arange(24).reshape(SHAPE) % 2, 0), Kind.BIT)
    kept = w.b.keep(bit, w.b.mul(x, z), 1)
    graph = w.done(w.b.reshape(product, SHAPE), kept)
    after = fuse(graph, 18)
    assert names(after).count("trunc") == 0 and depth(after) == depth(graph) - 1
    assert [op.integer("by") for op in ops(after, "mul", "select") if "by" in op.attrs] == [18, 18]
    same_results(graph, after)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("shape", [SHAPE, (1, 1)])
def test_comparisons_with_several_public_numbers_are_one_op(shape: tuple[int, int], turned: bool) -> None:
    w = Writer()
    x = w.b.reshape(w.input(shape=shape), (shape[0] * shape[1],))
    spread = w.b.emit("broadcast", x, shape=(2, x.shape[0], 3), dims=(1,))
    cuts = w.b.spread(w.b.emit("broadcast", w.b.const([-0.5, 0.25, 1]), shape=(x.shape[0], 3), dims=(1,)), spread.shape)
    gap = w.b.sub(cuts, spread) if turned else w.b.sub(spread, cuts)
    graph = w.done(w.b.emit("inject", w.b.emit("sign", gap, lo=0)))
    after = prune(rewrite(graph, thresholds.RULES, 18)[0])
    [sign] = ops(after, "sign")
    assert len(sign.integers("cuts")) == 6 and "sub" not in names(after) and depth(after) <= depth(graph)
    same_results(graph, after, shape, tolerance=0)


def test_comparisons_with_numbers_of_their_own_stay_apart() -> None:
    w = Writer()
    spread = w.b.emit("broadcast", w.b.reshape(w.input(), (24,)), shape=(2, 24), dims=(1,))
    gap = w.b.sub(spread, w.b.const(np.arange(48).reshape(2, 24)))
    graph = w.done(w.b.emit("inject", w.b.emit("sign", gap, lo=0)))
    assert not rewrite(graph, thresholds.RULES, 18)[1]


def test_a_sum_of_selects_that_nobody_else_reads_is_one_op() -> None:
    w = Writer()
    x, z = w.input(), w.input()
    bit = w.b.emit("sign", z, lo=0)
    alone, shared = w.b.keep(bit, x, 1), w.b.keep(bit, w.b.mul(x, z), 0)
    sums = [w.b.emit("sum", v, axes=axes) for v, axes in ((alone, (0,)), (shared, (1,)))]
    graph = w.done(*sums, shared)
    after = prune(rewrite(fuse(graph, 18), together.RULES, 18)[0])
    assert [op.attrs.get("axes") for op in ops(after, "select")] == [None, (0,)]
    assert names(after).count("sum") == 1 and depth(after) == depth(fuse(graph, 18))
    same_results(graph, after)


def test_a_sum_of_selects_that_truncate_is_one_op() -> None:
    w = Writer()
    x, y, z = w.input(), w.input(), w.input()
    kept = w.b.keep(w.b.emit("sign", z, lo=0), w.b.mul(x, y), 0)
    graph = w.done(w.b.emit("sum", kept, axes=(0, 1)))
    after = prune(rewrite(fuse(graph, 18), together.RULES, 18)[0])
    [select] = ops(after, "select")
    assert (select.integer("by"), select.integers("axes")) == (18, (0, 1)) and "sum" not in names(after)
    same_results(graph, after)


def test_a_square_of_a_truncation_is_one_op() -> None:
    w = Writer()
    x, y = w.input(), w.input()
    t = w.b.mul(x, y)
    graph = w.done(w.b.mul(t, t))
    after = fuse(graph, 18)
    assert names(after).count("square") == 1 and names(after).count("mul") == 1
    same_results(graph, after)


@pytest.mark.parametrize(("elements", "spread"), [(24, 8), (24, 4096)])
def test_where_others_read_it_too_a_round_is_weighed_against_bytes(elements: int, spread: int) -> None:
    w = Writer()
    x, y = w.input(), w.input()
    t = w.b.reshape(w.b.mul(x, y), (elements,))
    wide = w.b.emit("broadcast", t, shape=(spread, elements), dims=(1,))
    product = w.b.emit("sum", w.b.emit("mul", wide, wide), axes=(0,))
    graph = w.done(w.b.reshape(product, SHAPE), w.b.reshape(t, SHAPE))
    after = fuse(graph, 18)
    few = spread == 8
    assert (depth(after), names(after).count("square")) == (depth(graph) - few, few)
    assert names(after).count("trunc") == 1
    same_results(graph, after, tolerance=2.0**-10)


def test_nothing_is_fused_that_makes_no_chain_shorter() -> None:
    w = Writer()
    x, y, z = w.input(), w.input(), w.input()
    t = w.b.mul(x, y)
    product = w.b.emit("mul", t, w.b.emit("select", w.b.emit("sign", z, lo=0), z, keep=1))  # which comes later
    graph = w.done(product, t)
    assert fuse(graph, 18) == graph


# ---- a whole step --------------------------------------------------------------------------------------------------
def test_a_training_step_of_a_perceptron() -> None:
    """Rounds and truncated elements of a step: bounds that a worse compiler would break."""
    sizes = (8, 16, 16, 4)
    rng = np.random.default_rng(0)
    params = [(jnp.asarray(rng.normal(size=s) / 4, jnp.float32), jnp.zeros(s[1])) for s in itertools.pairwise(sizes)]

    def program(x: Any, y: Any) -> Any:
        def loss(params: Any) -> Any:
            h = x
            for w, c in params[:-1]:
                h = jax.nn.relu(h @ w + c)
            return optax.softmax_cross_entropy(h @ params[-1][0] + params[-1][1], jax.nn.softmax(y[:, :4])).mean()

        step = lambda p, _: (jax.tree.map(lambda p, g: p - 0.1 * g, p, jax.grad(loss)(p)), None)  # noqa: E731
        return lax.scan(step, params, None, length=3)[0]

    found = agree(program, X, Y)
    [legal], [final] = (ops(found[stage], "loop") for stage in ("legal", "final"))
    assert depth(final.body) < depth(legal.body)
    truncated = [sum(op.type.size for op in body.walk() if op.name == "trunc") for body in (final.body, legal.body)]
    assert truncated[0] < truncated[1]
    secure = evaluated(found["final"], X, Y, protocol="masked")
    for got, want in zip(secure.values(), jax.tree.leaves(jax.jit(program)(X, Y)), strict=True):
        assert np.abs(got - want).max() < 1e-3


# ---- doubled products ------------------------------------------------------------------------------------------------
SQUARE = (6, 6)


def doubled(graph: Graph) -> tuple[list[int], Graph]:
    """What `twice` sets at each dot, and the graph that it makes; both compute the same."""
    after = twice(graph, 18)
    same_results(graph, after, SQUARE)
    return [op.integer("twice", 0) for op in after.walk() if op.name == "dot"], after


def test_a_product_that_is_truncated_and_compared_is_doubled() -> None:
    w = Writer()
    x, y, bias = (w.input(shape=SQUARE) for _ in range(3))
    z = w.b.emit("add", w.b.emit("dot", x, y), w.b.align(bias, 36))
    bit = w.b.emit("sign", w.b.emit("neg", z), lo=18)
    kept = w.b.emit("select", bit, w.b.reshape(z, SQUARE), keep=1)
    found, after = doubled(w.done(w.b.emit("trunc", z, by=18), w.b.emit("trunc", kept, by=18)))
    assert found == [1]
    assert [(op.attrs.get("by"), op.attrs.get("lo")) for op in after.ops if op.name in ("trunc", "sign")] == [
        (None, 19), (19, None), (19, None)
    ]  # fmt: skip
    assert [op.integer("by") for op in after.ops if op.name == "scale"] == [1 << 18, 2]  # the bias follows


def test_products_that_meet_are_doubled_together() -> None:
    w = Writer()
    x, y = w.input(shape=SQUARE), w.input(shape=SQUARE)
    both = w.b.emit("concat", w.b.emit("dot", x, y), w.b.emit("dot", y, x), axis=0)
    found, after = doubled(w.done(w.b.emit("trunc", w.b.emit("sum", both, axes=(0,)), by=18)))
    assert found == [1, 1]
    assert names(after).count("scale") == 0


@pytest.mark.parametrize("how", ["revealed", "a factor", "without room", "a step of a loop", "short", "known"])
def test_a_product_is_left_alone_where(how: str) -> None:
    w = Writer()
    x, y = w.input(shape=SQUARE), w.input(shape=SQUARE)
    z = w.b.emit("dot", x, y)
    match how:
        case "revealed":
            out = z
        case "a factor":
            out = w.b.emit("trunc", w.b.emit("mul", z, w.b.shift(x, 0)), by=36)
        case "without room":
            out = w.b.emit("trunc", w.b.emit("scale", z, by=1 << 10, frac=10), by=28)
        case "a step of a loop":
            body = Builder()
            p = body.emit("param", index=0, type=z.type)
            loop = w.b.emit("loop", z, length=2, reverse=0, consts=0, carry=1, body=body.graph([body.emit("neg", p)]))
            out = w.b.emit("trunc", w.b.emit("get", loop, index=0), by=18)
        case "short":
            out = w.b.emit("trunc", w.b.emit("dot", *(w.b.slice_axis(v, a, 0, 3) for v, a in ((x, 1), (y, 0)))), by=18)
        case _:
            out = w.b.emit("trunc", w.b.emit("dot", x, w.b.const(np.eye(6))), by=18)
    graph = prune(w.done(out))
    assert doubled(graph) == ([0], graph)
