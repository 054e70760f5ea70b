"""What the front end reads, names and evaluates itself: everything that does not depend on secrets."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compiling import agree, evaluated, names, ops, stages, traced
from jax import lax

from coordinator.frontend import CompileError, Input, Output, Piece, known, trace
from coordinator.frontend.flat import flatten, prune
from coordinator.frontend.visibility import known_outputs, known_variables
from mpcnode.graph import Graph, Kind
from mpcnode.simulate import simulate

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(2, 6, 3)).astype(np.float32)
AB = ("a", "b")


def table(*rows: int, integer: bool = False, squeeze: bool = False, columns: tuple[str, ...] = AB) -> Input:
    return Input(tuple(Piece(f"owner_{i}", "data", n, columns) for i, n in enumerate(rows)), squeeze, integer)


def loop(graph: Graph) -> Graph:
    """The body of the only loop."""
    [found] = ops(graph, "loop")
    return found.body


# ---- inputs and outputs --------------------------------------------------------------------------------------------
def test_pieces_are_stacked_and_columns_squeezed() -> None:
    inputs = {"x": table(4, 2), "y": table(6, integer=True, squeeze=True, columns=("l",))}

    def program(y: Any, x: Any) -> dict[str, Any]:
        assert (x.shape, x.dtype, y.shape, y.dtype) == ((6, 2), jnp.float32, (6,), jnp.int32)
        return {"out": x[:, 0] * y}

    graph = trace(program, inputs, {"out": ("analyst",)}).graph
    assert [str(op.type) for op in ops(graph, "input")] == ["arith.18 [4,2]", "arith.18 [2,2]", "arith.0 [6,1]"]
    assert [op.text("owner") for op in ops(graph, "input")] == ["owner_0", "owner_1", "owner_0"]
    halves = {"owner_0": X[:4], "owner_1": X[4:]}
    data = {(owner, "data"): {"a": x[:, 0], "b": x[:, 1], "l": np.arange(6)} for owner, x in halves.items()}
    assert np.allclose(simulate(graph, data).outputs["out"], X[:, 0] * np.arange(6), atol=1e-4)


def test_arguments_by_name_or_by_order() -> None:
    inputs = {"x": table(2), "y": table(3)}
    by_name = trace(lambda y, x: {"out": y.sum(1)}, inputs, {"out": ("r",)})
    by_order = trace(lambda p, q: {"out": q.sum(1)}, inputs, {"out": ("r",)})
    assert by_name.outputs[0].shape == by_order.outputs[0].shape == (3,)


def test_outputs_are_named_by_their_place_and_say_how_to_decode_them() -> None:
    def program(x: Any) -> dict[str, Any]:
        layer = {"w": x.T, "b": x[0] > 0}
        return {"weights": [layer, (x * 2).sum()], "count": jnp.argmax(x, 1), "known": jnp.arange(3)}

    found = trace(program, {"x": table(4)}, {"weights": ("r", "s"), "count": ("s",), "known": ("s",)})
    assert found.outputs == (
        Output("count", (4,), "int32", 0, ("s",)),
        Output("known", (3,), "int32", 0, ("s",)),
        Output("weights/0/b", (2,), "bool", 0, ("r", "s")),
        Output("weights/0/w", (2, 4), "float32", 18, ("r", "s")),
        Output("weights/1", (), "float32", 18, ("r", "s")),
    )
    assert [(op.text("name"), op.texts("to")) for op in ops(found.graph, "reveal")] == [
        (o.name, o.to) for o in found.outputs
    ]


@pytest.mark.parametrize(
    ("result", "why"),
    [
        (lambda x: x, "returns no dict"),
        (lambda x: {"out": x, "more": x}, "'more'.* does not say who learns it"),
        (lambda x: {}, "does not return 'out'"),
    ],
)
def test_outputs_that_do_not_match_the_job(result: Any, why: str) -> None:
    with pytest.raises(CompileError, match=why):
        trace(result, {"x": table(2)}, {"out": ("r",)})


def test_a_known_result_is_revealed_all_the_same() -> None:
    assert evaluated(traced(lambda x: jnp.arange(3.0) / 2, X).graph, X)["out"].tolist() == [0, 0.5, 1]
    assert evaluated(traced(lambda x: jnp.ones((2, 2)), X).graph, X)["out"].tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize(
    ("result", "why"),
    [
        (lambda x: {"out": x if x[0, 0] > 0 else -x}, "Python asks for the value of an array .*; .*jnp.where"),
        (lambda x: {"out": x @ x}, "TypeError: dot_general requires contracting dimensions"),
        (lambda x: {"out": x[int(x[0, 0])]}, "Python asks for the value"),
    ],
)
def test_what_the_function_raises_is_told_with_its_line(result: Any, why: str) -> None:
    with pytest.raises(CompileError, match=rf"^test_frontend.py:{result.__code__.co_firstlineno}: {why}"):
        trace(result, {"x": table(3)}, {"out": ("r",)})


# ---- where it stands -----------------------------------------------------------------------------------------------
def test_every_op_knows_the_users_line() -> None:
    graph = traced(lambda x: jax.nn.relu(x @ Y.T).sum(), X).graph
    assert all(op.where.startswith("test_frontend.py:") for op in graph.ops if op.name in ("dot", "sign", "sum"))


def test_a_library_function_stands_where_it_is_called() -> None:
    def program(x: Any) -> Any:
        first = jax.nn.relu(x)
        return jax.nn.relu(first - 1)

    lines = {op.where for op in ops(traced(program, X).graph, "sign")}
    assert len(lines) == 2


def test_a_function_of_the_users_stands_where_it_is_written() -> None:
    @jax.jit
    def cube(x: Any) -> Any:
        return x * x * x

    [line] = {op.where for op in ops(traced(lambda x: cube(x) + 1, X).graph, "mul")}
    assert line == f"test_frontend.py:{cube.__wrapped__.__code__.co_firstlineno + 2}"


# ---- what is known -------------------------------------------------------------------------------------------------
def adam(x: Any, y: Any) -> Any:
    """Least squares with Adam, on batches that a key chooses in every step."""
    optimizer = optax.adam(0.1, eps=1e-2)
    params = {"w": jnp.zeros((3, 3)), "b": jnp.zeros(3)}

    def step(carry: Any, _: Any) -> Any:
        params, state, key = carry
        key, chosen = jax.random.split(key)
        rows = jax.random.permutation(chosen, 6)[:4]
        slope = jax.grad(lambda p: jnp.mean((x[rows] @ p["w"] + p["b"] - y[rows]) ** 2))(params)
        updates, state = optimizer.update(slope, state)
        return (optax.apply_updates(params, updates), state, key), None

    return lax.scan(step, (params, optimizer.init(params), jax.random.key(3)), None, length=4)[0][0]


def test_adam_on_random_batches() -> None:
    """The key, its permutations and the bias corrections 1 - b^t are scanned constants: no op computes them."""
    found = stages(adam, X, Y)
    for out, want in zip(evaluated(found["final"], X, Y).values(), jax.tree.leaves(jax.jit(adam)(X, Y)), strict=True):
        assert np.abs(out - want).max() < 2e-3
    body = loop(found["legal"])
    scanned = [op for op in body.ops if op.name == "param" and op.type.kind is Kind.PUBLIC]
    assert sorted(op.type.shape for op in scanned) == [(), (), (4,)]  # 1/(1 - b1^t), 1/(1 - b2^t), rows
    assert sum(op.name == "param" and op.type.kind is Kind.ARITH for op in body.ops) == 2 + 2 + 4  # x, y; w, b; moments


def test_momentum_and_schedules() -> None:
    def program(x: Any, y: Any) -> Any:
        optimizer = optax.chain(
            optax.clip_by_global_norm(1.0), optax.sgd(optax.cosine_decay_schedule(0.1, 5), momentum=0.9)
        )

        def step(carry: Any, _: Any) -> Any:
            w, state = carry
            updates, state = optimizer.update(jax.grad(lambda w: jnp.mean((x @ w - y) ** 2))(w), state)
            return (optax.apply_updates(w, updates), state), None

        w = jnp.zeros((3, 3))
        return lax.scan(step, (w, optimizer.init(w)), None, length=5)[0][0]

    agree(program, X, Y, tolerance=5e-3)


def test_epochs_of_shuffled_batches_nest() -> None:
    def program(x: Any) -> Any:
        def epoch(carry: Any, key: Any) -> Any:
            order = jax.random.permutation(key, 6).reshape(3, 2)

            def batch(c: Any, rows: Any) -> Any:
                return c * 0.5 + x[rows].sum(0), None

            return lax.scan(batch, carry, order)[0], None

        return lax.scan(epoch, jnp.zeros(3), jax.random.split(jax.random.key(0), 2))[0]

    legal = agree(program, X)["legal"]
    [order] = [op for op in legal.ops if op.name == "const" and op.type.shape == (2, 3, 2)]
    assert order.type.frac == 0


def test_a_known_value_that_no_step_changes_is_no_stack() -> None:
    table_ = jnp.asarray(RNG.normal(size=(50, 3)), jnp.float32)

    def program(x: Any) -> Any:
        return lax.fori_loop(0, 40, lambda i, c: (c[0] * 0.5 + c[1].mean(0) + i, c[1]), (x, table_))[0]

    graph = traced(program, X).graph
    assert max(op.type.size for op in graph.walk() if op.name == "const") <= 150


def test_a_broadcast_of_what_changes_is_kept_small() -> None:
    def program(x: Any) -> Any:
        step = lambda c, i: (c + jnp.broadcast_to(jnp.sin(i), c.shape) * x, None)  # noqa: E731
        return lax.scan(step, x, jnp.arange(40.0))[0]

    assert max(op.type.size for op in traced(program, X).graph.walk() if op.name == "const") == 40
    agree(program, X, tolerance=5e-3)


def test_a_loop_that_no_secret_enters_is_no_loop() -> None:
    def program(x: Any) -> Any:
        weights, _ = lax.scan(lambda c, i: (c * 0.9 + i, None), 1.0, jnp.arange(5.0))
        return x * weights * lax.while_loop(lambda v: v < 3, lambda v: v + 1, 0.0)

    assert "loop" not in names(traced(program, X).graph)
    agree(program, X, tolerance=5e-3)


def test_results_that_nobody_reads_are_not_computed() -> None:
    def program(x: Any) -> Any:
        def step(w: Any, _: Any) -> Any:
            loss, slope = jax.value_and_grad(lambda w: jnp.sum((x @ w) ** 2))(w)
            return w - 0.01 * slope, jnp.sin(loss)  # which would be refused

        return lax.scan(step, jnp.ones((3, 2)), None, length=2)[0]

    assert loop(traced(program, X).graph).outputs


def test_a_carried_value_that_becomes_secret_starts_as_a_lifted_constant() -> None:
    graph = traced(lambda x: lax.scan(lambda c, r: (c + r, None), jnp.ones(3), x)[0], X).graph
    assert names(graph).count("lift") == 1


def test_a_rule_may_find_its_result_known() -> None:
    agree(lambda x: lax.cond(jnp.isfinite(x[0, 0]), lambda x: x * 2, lambda x: x, x), X)
    agree(lambda x: lax.scan(lambda c, r: (c + jnp.isfinite(r[0]), r), 0, x), X)


def test_branches_that_a_counter_chooses() -> None:
    def program(x: Any) -> Any:
        def step(i: Any, c: Any) -> Any:
            return lax.switch(i % 3, [lambda c: c * 0.5, lambda c: c + 1, lambda c: jnp.maximum(c, 0)], c)

        return lax.fori_loop(0, 5, step, x)

    agree(program, X)


def test_while_loops_of_known_length_may_nest() -> None:
    def program(x: Any) -> Any:
        def outer(carry: Any) -> Any:
            i, c = carry
            return i + 1, lax.while_loop(lambda s: s[0] < 2, lambda s: (s[0] + 1, s[1] * 0.5 + i), (0, c))[1]

        return lax.while_loop(lambda s: s[0] < 3, outer, (0, x))[1]

    found = agree(program, X)
    assert [op.integer("length") for op in ops(found["final"], "loop")] == [3, 2]
    agree(lambda x: lax.while_loop(lambda s: s[0] < 0, lambda s: (s[0] + 1, s[1] * 2), (0, x))[1], X)


def test_while_loops_whose_length_changes_are_refused() -> None:
    def program(x: Any) -> Any:
        def step(i: Any, c: Any) -> Any:
            return lax.while_loop(lambda s: s[0] < i, lambda s: (s[0] + 1, s[1] * 0.5), (0, c))[1]

        return lax.fori_loop(0, 3, step, x)

    with pytest.raises(CompileError, match=r"test_frontend.py:\d+: primitive 'while': turns another number of times"):
        traced(program, X)


def test_too_many_known_numbers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "LIMIT_BYTES", 1 << 20)

    def program(x: Any) -> Any:
        return (
            lax.fori_loop(0, 1000, lambda i, c: c + jax.random.normal(jax.random.key(i), (1000,)).sum() * c, x)
            + (
                lax.fori_loop(
                    0, 1000, lambda i, c: c * jax.random.normal(jax.random.key(i), (1000,)), x[0, 0] * jnp.ones(1000)
                )
            ).sum()
        )

    with pytest.raises(CompileError, match=r"test_frontend.py:\d+: .*MiB of known numbers"):
        traced(program, X)


# ---- visibility ----------------------------------------------------------------------------------------------------
def test_visibility_of_a_scan_is_its_greatest_fixed_point() -> None:
    def step(carry: Any, x: Any) -> Any:
        count, total, follower = carry
        return (count + 1, total + x, follower * 0 + total), count

    closed = jax.make_jaxpr(lambda x: lax.scan(step, (0.0, 0.0, 0.0), x))(jnp.ones(3))
    flat, _ = prune(flatten(closed), [True] * 4)
    [scan] = [e for e in flat.equations if e.name == "scan"]
    inputs = [v in known_variables(flat, [False]) for v in scan.inputs]
    assert known_outputs(scan, inputs) == [True, False, False, True]


def test_stages_are_verified_and_named() -> None:
    assert list(stages(lambda x: x, X)) == ["legal", "folded", "late", "final"]
