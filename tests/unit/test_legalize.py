"""One rule per primitive: what the compiled program yields, at every stage, is what jax yields."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compiling import agree, evaluated, names, ops, stages, traced
from jax import lax

from coordinator.frontend import CompileError
from coordinator.lower.rewrite import depth

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(2, 4, 3)).astype(np.float32)
POSITIVE = np.abs(X) + 0.5
INTEGERS = RNG.integers(-5, 5, size=(4, 3)).astype(np.int32)
C = RNG.normal(size=(4, 3)).astype(np.float32)
LABELS = np.array([0, 2, 1, 0], np.int32)


def gradient(function: Callable[..., Any]) -> Callable[..., Any]:
    return jax.grad(lambda *args: jnp.sum(function(*args)))


ACTIVATIONS: list[Callable[..., Any]] = [
    *(jax.nn.relu, jax.nn.gelu, jax.nn.softplus, jax.nn.softmax, jax.nn.log_softmax, jax.nn.silu, jnp.tanh),
    lambda x: jax.nn.gelu(x, approximate=False),
]
CASES: dict[str, tuple[Callable[..., Any], ...]] = {
    "sums": (lambda x, y: (x + y, x + C, 2.0 - x, x - y, -x, x.sum(), x.mean(0), jnp.cumsum(x, 1)),),
    "products": (lambda x, y: (x * y, x * C, x * 0.5, x * 4, x * 0.1, x * 3, x / 7, x / C, x * -1e-3, x * 1000.0),),
    "powers": (lambda x, y: (x**2, x**3, jnp.square(y), lax.integer_pow(x, 1), x**0),),
    "comparisons": (
        lambda x, y: (x < y, x > y, x <= y, x >= y, x == x, x != x, x == y, x > 0.0, x < jnp.inf, jnp.isfinite(x)),
    ),
    "booleans": (
        lambda x, y: (
            *(
                (x > 0) & (y > 0),
                (x > 0) | (y > 0),
                (x > 0) ^ (y > 0),
                ~(x > 0),
                (x > 0) == (y > 0),
                (x > 0) != (C > 0),
            ),
            *(jnp.any(x > 0, 1), jnp.all(x > -1), (x > 1).astype(jnp.float32), (x > 0).astype(jnp.int32)),
        ),
    ),
    "choices": (
        lambda x, y: (
            *(jnp.where(x > 0, x, y), jnp.where(x > 0, 1.0, 2.0), jnp.where(C > 0, x, y), jnp.where(C > 0, x, 1.0)),
            *(jnp.where(x > 0, C, y), jnp.where(x > 0, x, 0), jnp.where(x > 0, 0, x), jnp.where(x > 0, y > 0, x < 1)),
            *(jnp.where(x > 0, True, False), 2 * jnp.where(x > 0, 1.0, 2.0) + 1, y / jnp.where(x > 0, 1.0, 2.0)),
        ),
    ),
    "extremes": (
        lambda x, y: (
            *(jnp.maximum(x, y), jnp.minimum(x, y), jnp.clip(x, -1, 1), jnp.maximum(x, 0), jnp.abs(x), jnp.sign(x)),
            *(x.max(), x.min(1), jnp.argmax(x, 1), jnp.argmin(x, 0)),
        ),
    ),
    "gradients of extremes": (
        gradient(lambda x, y: jnp.maximum(x, 0.0) * y),
        gradient(jnp.maximum),
        gradient(lambda x, y: jnp.clip(x, -1, 1) * y),
        gradient(lambda x, y: jnp.abs(x) * y),
    ),
    "statistics": (lambda x, y: (x.std(0), x.var(), jnp.linalg.norm(x), (x - x.mean(0)) * lax.rsqrt((x**2).mean(0))),),
    "activations": (
        lambda x, y: (jax.nn.relu(x), jax.nn.gelu(x), jax.nn.gelu(x, approximate=False), jax.nn.softplus(x)),
        lambda x, y: (jax.nn.softmax(x), jax.nn.log_softmax(x), jax.nn.leaky_relu(x), jax.nn.silu(x), jax.nn.elu(x)),
    ),
    "gradients of activations": tuple(gradient(lambda x, y, f=f: f(x) * y) for f in ACTIVATIONS),
    "matrix products": (
        lambda x, y: (
            *(x @ y.T, x.T @ y, x @ C.T, C @ x.T, jnp.einsum("ij,ij->i", x, y), jnp.einsum("ij,ik->ijk", x, y)),
            *(x[0] @ y[0], jnp.tensordot(x, y, 2), jax.vmap(jnp.outer)(x, y), x @ np.eye(3, dtype=np.float32)),
        ),
    ),
    "structure": (
        lambda x, y: (
            *(
                x.T,
                x.reshape(2, 6),
                x[1:3, ::2],
                x[::-1],
                jnp.concatenate([x, C]),
                jnp.pad(x, 1),
                x[None],
                jnp.roll(x, 1),
            ),
            *(jnp.pad(x, 1, constant_values=2.0), lax.pad(x, 1.5, ((1, -1, 2), (0, 2, 1))), jnp.stack([x, y], 1)),
            *(
                jnp.tile(x, (2, 2)),
                jnp.repeat(x, 2, 0),
                jnp.squeeze(x[:1]),
                jnp.split(x, 2),
                jnp.triu(x),
                jnp.diag(x[:3]),
            ),
            *(lax.cumsum(x, 0, reverse=True), jnp.pad(x > 0, 1), jnp.pad(x > 0, 1, constant_values=True)),
        ),
    ),
    "indices": (
        lambda x, y: (
            *(
                x[jnp.array([2, 0, 0])],
                x[:, jnp.array([2, 0])],
                jnp.take(x, jnp.array([[1, 2], [3, 0]]), axis=0),
                x[-1],
            ),
            *(jnp.take_along_axis(x, LABELS[:, None], 1), x[jnp.array([0, 1]), jnp.array([1, 2])], x.at[1].set(0.0)),
            *(x.at[1].add(2.0), x.at[jnp.array([0, 0, 2])].add(y[:3]), x.at[0, 1].set(7.0), x.at[0].set(y[1])),
            *(lax.dynamic_slice(x, (1, 1), (2, 2)), lax.dynamic_update_slice(x, y[:2, :2], (3, 1))),
        ),
    ),
    "gradients of indices": (
        gradient(lambda x, y: x[jnp.array([0, 0, 2])] * y[:3]),
        gradient(lambda x, y: jnp.take_along_axis(x, LABELS[:, None], 1) * y[:, :1]),
        gradient(lambda x, y: x[1:3, ::2] * 2 + y[1:3, ::2]),
    ),
    "convolutions": (
        lambda x, y: lax.conv_general_dilated(x.reshape(1, 1, 4, 3), y[:3].reshape(1, 1, 3, 3), (1, 1), "SAME"),
        gradient(
            lambda x, y: jnp.tanh(lax.conv(x.reshape(1, 1, 4, 3), y[:2, :2].reshape(2, 1, 1, 2), (2, 1), "VALID"))
        ),
    ),
    "losses": (
        jax.grad(lambda x, y: optax.sigmoid_binary_cross_entropy(x, (y > 0).astype(jnp.float32)).mean()),
        jax.value_and_grad(lambda x, y: optax.softmax_cross_entropy_with_integer_labels(x, LABELS).mean()),
        jax.grad(lambda x, y: optax.softmax_cross_entropy(x, jax.nn.one_hot(jnp.argmax(y, 1), 3)).mean()),
        jax.grad(lambda x, y: optax.huber_loss(x, y).mean()),
    ),
    "checkpoint": (gradient(lambda x, y: jax.checkpoint(lambda x: jnp.tanh(x) ** 2)(x) * y),),
}


@pytest.mark.parametrize("name", CASES)
def test_as_jax(name: str) -> None:
    for function in CASES[name]:
        agree(function, X, Y)


def test_functions_of_positive_numbers() -> None:
    agree(lambda x: (jnp.exp(x), jnp.log(x), jnp.sqrt(x), lax.rsqrt(x), jnp.log1p(x), jnp.expm1(x)), POSITIVE)
    agree(lambda x: (1 / x, x**2.5, x**-1, 2.0**x, x**0.5, x**-0.5, lax.erf(x), 1 / x[:, :1] * x), POSITIVE)


def test_integers() -> None:
    agree(lambda i: (i + 1, i * 3, i * i, -i, i.sum(0), i.max(1), jnp.argmax(i, 1), jnp.abs(i), jnp.sign(i)), INTEGERS)
    agree(lambda i: (i < 2, i == 3, i != 0, i.astype(jnp.float32) * 0.5, i.astype(bool), i @ i.T), INTEGERS)
    agree(lambda i: (jax.nn.one_hot(i, 4), (jax.nn.one_hot(i, 3) * C).sum(), jax.nn.one_hot(i, 4) * 0.125), LABELS)


def test_booleans() -> None:
    flags = RNG.integers(0, 2, (4, 3)).astype(bool)
    found = agree(
        lambda f, x: (f.astype(jnp.float32) * x, f @ C.T, ~f, f.sum(0), f.mean(), f.any(1), f ^ (x > 0)), flags, X
    )
    assert [str(op.type) for op in ops(found["final"], "input")] == ["arith.0 [4,3]", "arith.18 [4,3]"]
    agree(
        lambda f, x: (jnp.where(f, x, -x), f & f[::-1], f + 1, 1 - f, f == f.T[0, 0], f.astype(jnp.int32) * 5), flags, X
    )
    assert (
        evaluated(traced(jnp.logical_not, flags).graph, flags, protocol="masked")["out"].tolist() == (~flags).tolist()
    )


def test_vectors_and_columns() -> None:
    agree(lambda v, m: (v @ m, v[:, None] * m, m.mean(1) - v), X[:, 0], Y)


@pytest.mark.parametrize("frac", [14, 22])
def test_other_binary_points(frac: int) -> None:
    found = agree(
        lambda x, y: (x @ y.T * 0.1, jax.nn.sigmoid(x), jax.nn.relu(x) / 3), X, Y, frac=frac, tolerance=30 * 2.0**-14
    )
    assert {op.type.frac for op in ops(found["final"], "reveal")} == {frac}


def test_control_flow() -> None:
    agree(lambda x: lax.cond(jnp.sum(jnp.arange(3)) > 2, lambda x: x, lambda x: 2 * x, x), X)
    agree(lambda x: lax.fori_loop(0, 4, lambda i, c: lax.cond(i % 2 == 0, lambda c: c * 0.5, lambda c: c + 1, c), x), X)
    agree(lambda x: lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] * 0.5), (0, x))[1], X)
    agree(lambda x: lax.switch(jnp.int32(1), [lambda x: x, lambda x: -x], x), X)


def test_loops() -> None:
    agree(lambda x: lax.scan(lambda c, r: (c + r, c * r), jnp.zeros(3), x), X)
    agree(lambda x: lax.scan(lambda c, r: (c + r, c * r), jnp.zeros(3), x, reverse=True), X)
    agree(lambda x: lax.scan(lambda c, r: ((c[0] | (r > 1), c[1]), r), (jnp.zeros(3, bool), x[0]), x), X)
    agree(
        lambda x: lax.fori_loop(
            0, 3, lambda i, c: lax.dynamic_update_slice(c, lax.dynamic_slice(c, (i, 0), (1, 3)) * 2, (i, 0)), x
        ),
        X,
    )

    def recurrent(w: Any, x: Any) -> Any:
        last, sums = lax.scan(lambda h, r: (jnp.tanh(h * w[0] + r), h.sum()), w[0], x)
        return last + sums[1]

    agree(gradient(recurrent), Y, X)


def test_nested_loops_take_known_slices_at_every_depth() -> None:
    def program(x: Any) -> Any:
        def outer(c: Any, i: Any) -> Any:
            def inner(d: Any, j: Any) -> Any:
                return d * 0.5 + i * j * x[jnp.int32(i) + 1] + x[jnp.int32(j)], d[0]

            return lax.scan(inner, c, jnp.arange(3.0))

        return lax.scan(outer, jnp.zeros(3), jnp.arange(2.0))

    agree(program, X)


# ---- how it is lowered ---------------------------------------------------------------------------------------------
def test_a_product_with_a_power_of_two_costs_one_truncation_or_nothing() -> None:
    assert "mul" not in names(stages(lambda x: x * 0.25, X)["legal"])
    assert names(stages(lambda x: x * 8.0, X)["final"]).count("trunc") == 0
    assert names(stages(lambda x: (x @ Y.T) * 0.25, X)["final"]).count("trunc") == 1


def test_the_gradient_of_relu_asks_the_sign_of_the_forward_pass() -> None:
    found = stages(gradient(lambda x, y: jax.nn.relu(x @ y.T)), X, Y)["final"]
    assert names(found).count("sign") == 1


def test_the_gradient_of_a_maximum_asks_the_sign_that_it_was_chosen_by() -> None:
    both = stages(lambda x, y: jax.value_and_grad(lambda x: (jnp.maximum(x, 0.0) * y).sum())(x), X, Y)["final"]
    assert names(both).count("sign") == 1


def test_of_equal_ones_one_has_the_gradient_of_an_extreme() -> None:
    def slopes(f: Callable[..., Any]) -> Any:
        return jax.grad(lambda x, y: f(x, y).sum(), (0, 1))

    for f, want in ((jnp.maximum, (0, 1)), (jnp.minimum, (1, 0))):
        out = evaluated(stages(slopes(f), X, X)["final"], X, X)
        assert [set(v.ravel()) for v in out.values()] == [{float(w)} for w in want]
    zero = np.zeros((2, 2), np.float32)
    agree(gradient(lambda x, y: jax.nn.celu(x) + y), zero, zero)
    agree(gradient(lambda x, y: jax.nn.relu(x) + jnp.maximum(y, 0.0)), zero, zero + 1)


@pytest.mark.parametrize(
    "f", [lambda x: jnp.maximum(0.0, x), lambda x: jnp.minimum(x, C), lambda x: jnp.maximum(x, -x)]
)
def test_the_gradient_of_an_extreme_asks_one_sign(f: Callable[..., Any]) -> None:
    assert names(stages(jax.value_and_grad(lambda x: f(x).sum()), X)["final"]).count("sign") == 1


def test_chosen_nan_is_known_where_it_is_asked_for() -> None:
    def masked(x: Any) -> Any:
        return jnp.where(x > 0.5, jnp.nan, x)

    agree(lambda x: (jnp.nanmean(masked(x)), jnp.nansum(masked(x), 1), jnp.isfinite(masked(x)), jnp.isnan(x)), X)


def test_known_nan_that_is_left_out() -> None:
    """As optax.radam has it: in a loop, and written out."""

    def step(x: Any, t: Any) -> Any:
        return jnp.where(t >= 2, x * jnp.sqrt(t - 2), x + 1)

    agree(lambda x: lax.scan(lambda c, t: (step(c, t), None), x, jnp.arange(4.0))[0], X)
    agree(lambda x: step(step(x, 1.0), 3.0), X)


def test_what_falls_on_known_places_is_joined_there() -> None:
    i, j = jnp.array([0, 0, 2]), jnp.array([1, 1])
    agree(lambda x: (x.at[i].multiply(2.0), x.at[i].max(x[:3]), x.at[:, 1].min(0.0), x.at[7].multiply(3.0)), X)
    agree(lambda x: (x.at[j, j].subtract(1.0), jnp.zeros(4).at[1].max(x[1, 0])), X)
    agree(lambda x: lax.fori_loop(0, 3, lambda i, c: c.at[i].multiply(0.5), x), X)


def test_powers_of_every_kind() -> None:
    agree(lambda x: (x[:, None] ** jnp.arange(3), x[..., None] ** np.array([0.0, 2, 1])), X[:, 0])
    agree(lambda x, y: (x**y, jnp.array([2.0, 3, 0.5]) ** y), POSITIVE, Y)


def test_the_gradient_of_softplus_is_logistic() -> None:
    found = stages(gradient(lambda x, y: jax.nn.softplus(x)), X, Y)["final"]
    assert depth(found) <= depth(stages(lambda x, y: jax.nn.sigmoid(x), X, Y)["final"]) + 1


def test_what_is_spread_is_divided_by_before() -> None:
    found = stages(lambda x: x / x.sum(1, keepdims=True), POSITIVE)["final"]
    assert max(op.type.size for op in ops(found, "sign")) < 30 * len(POSITIVE)


def test_a_mask_selects() -> None:
    found = stages(lambda x, y: (x > 0).astype(jnp.float32) * y, X, Y)["final"]
    assert [n for n in names(found) if n in ("sign", "select", "mul", "trunc", "inject")] == ["sign", "select"]


def test_rows_are_looked_up_by_secret_numbers_without_truncation() -> None:
    found = agree(lambda i, x: jax.nn.one_hot(i, 4) @ x, LABELS, X)["final"]
    assert names(found).count("trunc") == 0


def test_dropout_is_a_known_mask() -> None:
    keep = jax.random.bernoulli(jax.random.key(0), 0.5, X.shape)
    found = agree(lambda x: jnp.where(keep, x / 0.5, 0.0), X)["final"]
    assert [n for n in names(found) if n in ("select", "trunc", "sign")] == []


def test_a_small_guard_of_a_root_is_raised_to_its_resolution() -> None:
    out = evaluated(traced(lambda x: 1 / (jnp.sqrt(x) + 1e-8), np.zeros(2, np.float32)).graph, np.zeros(2))
    assert np.all(out["out"] <= 2.0**9 * 1.01)


def test_the_guard_grows_with_what_is_under_the_root() -> None:
    """Adam: v / (1 - b2^t) is 1000 v in the first step, and so is its rounding."""
    slopes = np.array([1, 0.3, 0.1, 0.03, 0.01, 1e-3, 0], np.float32)

    def program(g: Any) -> Any:
        def step(v: Any, t: Any) -> Any:
            v = 0.999 * v + 0.001 * g * g
            return v, g / (jnp.sqrt(v / (1 - 0.999 ** (t + 1))) + 1e-8)

        return lax.scan(step, jnp.zeros(7), jnp.arange(3.0))[1]

    found = evaluated(stages(program, slopes)["final"], slopes)["out"]
    assert found.max() <= 2  # and no 500 g, as with a guard of 2^-9
    assert np.abs(found[:, :3] - 1).max() < 0.12


@pytest.mark.parametrize("far", [-jnp.inf, jnp.finfo(jnp.float32).min, -1e30])
def test_masked_logits(far: float) -> None:
    mask = np.tri(3, dtype=bool)
    agree(lambda x: jax.nn.softmax(jnp.where(mask, x[:3], far)), X)
    agree(lambda x: jax.nn.softmax(x[:3] + jnp.where(mask, 0.0, max(far, jnp.finfo(jnp.float32).min))), X)
    agree(gradient(lambda x, y: jax.nn.softmax(jnp.where(y > 0, x, far)) ** 2), X, POSITIVE)


def test_a_reshape_may_transpose() -> None:
    agree(lambda x: lax.reshape(x, (2, 6), (1, 0)), X)


def test_a_small_constant_is_not_zero() -> None:
    out = evaluated(traced(lambda x: x + 1e-9, np.zeros(2, np.float32)).graph, np.zeros(2))
    assert np.all(out["out"] == 2.0**-18)


# ---- refusals ------------------------------------------------------------------------------------------------------
REFUSED: dict[str, tuple[Callable[..., Any], str]] = {
    "Bessel function": (
        lambda x: jax.scipy.special.i0(x) + 1,
        r"not supported on secret values; docs/functions.md lists",
    ),
    "a function in place": (lambda x: x.at[0].apply(jnp.abs), r"applies a function in place; write x.at"),
    "NaN computed with": (
        lambda x: jnp.nanmean(2 * jnp.where(x > 0, jnp.nan, x)),
        r"asks for NaN of what was computed",
    ),
    "NaN everywhere": (lambda x: x * jnp.nan, r"infinite or NaN"),
    "NaN in some steps": (
        lambda x: lax.scan(lambda c, t: (c * jnp.sqrt(t - 2), None), x, jnp.arange(4.0))[0],
        r"primitive 'mul': a known number is NaN in some steps; choose another with jnp.where",
    ),
    "secret size": (lambda x: jnp.nonzero(x > 0), r"shape of a result would depend on secret data; pass size="),
    "secret window": (
        lambda x: jax.vmap(lambda i: lax.dynamic_slice(x, (i, 0), (2, 3)))(jnp.argmax(x, 1)),
        r"windows at secret places; take single rows",
    ),
    "complex": (lambda x: jnp.fft.fft(x)[0], r"there are no complex numbers"),
    "setting at secret places": (lambda x: x.at[jnp.argmax(x, 1)].set(0.0), r"may be the same; pass unique_indices"),
    "secret divisor": (lambda x: 7 // x.astype(jnp.int32), r"one known number to divide by; convert to float32"),
    "remainder by what is not held": (lambda x: x % 0.3, r"does not divide by 0.3"),
    "masks of integers": (lambda x: x.astype(jnp.int32) | 1, r"bitwise operations on secret integers"),
    "secret shift": (lambda x: 1 << x.astype(jnp.int32), r"shifts by one known number"),
    "secret branch": (lambda x: lax.cond(x[0, 0] > 0, lambda x: x, lambda x: -x, x), r"jnp.where"),
    "secret length": (lambda x: lax.while_loop(lambda c: c.sum() < 3, lambda c: c * 2, x), r"fixed number of turns"),
    "infinity": (lambda x: x * jnp.inf, r"infinite or NaN; use a large number"),
    "too large": (lambda x: x + 1e18, r"not below 2\^44"),
    "many exponents": (lambda x: x ** np.linspace(0, 1, 3), r"wants one constant exponent, or up to 16 whole ones"),
    "debugging": (lambda x: (jax.debug.print("{}", x), x)[1], r"return the value as an output"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_the_line_and_a_way_around(name: str) -> None:
    function, why = REFUSED[name]
    with pytest.raises(CompileError, match=why) as caught:
        traced(function, X)
    assert str(caught.value).startswith("test_legalize.py:")
