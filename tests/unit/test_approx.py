"""The stated error of every function, swept densely with the roughest rounding; rounds and comparisons; sanity outside
of the domains.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from rough import apply, count, evaluate, rounds, trace

from coordinator.lower import approx
from coordinator.lower.approx import curves
from coordinator.lower.approx.functions import fine_exp
from coordinator.lower.builder import Builder, Value
from coordinator.lower.passes import compile
from coordinator.lower.ranges import note

ULP = 2.0**-18
LIMIT = 2.0**-12
Numbers = np.ndarray


def at_grid(x: Numbers) -> Numbers:
    return np.unique(np.rint(x / ULP) * ULP)


def spread(low: float, high: float, points: int = 20_000) -> Numbers:
    """Evenly from low to high, with both ends, tiny values and powers of two with their neighbours."""
    powers = 2.0 ** np.arange(-18, 45)
    near = np.concatenate([powers - ULP, powers, powers + ULP, [0]])
    x = at_grid(np.concatenate([np.linspace(low, high, points), near, -near]))
    return x[(x >= low) & (x <= high)]


def scales(low: float, high: float, points: int = 20_000) -> Numbers:
    """The same, evenly in the logarithm."""
    x = np.exp(np.linspace(np.log(low), np.log(high), points))
    return at_grid(np.concatenate([x, spread(low, high, 100)]))


def sigmoid(x: Numbers) -> Numbers:
    return 0.5 + 0.5 * np.tanh(x / 2)


def erf(x: Numbers) -> Numbers:
    return np.array([math.erf(v) for v in x])


def erf_inv(x: Numbers) -> Numbers:
    """By bisection."""
    low, high = np.full_like(x, -5.0), np.full_like(x, 5.0)
    for _ in range(60):
        middle = (low + high) / 2
        above = erf(middle) > x
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return low


def log_gamma(x: Numbers) -> Numbers:
    return np.array([math.lgamma(v) for v in x])


def digamma(x: Numbers) -> Numbers:
    """The slope of log_gamma, from where that is smooth down by psi(x) = psi(x + 1) - 1 / x."""
    far = x + 200
    low = -(1 / (x[:, None] + np.arange(200))).sum(1)
    return low + np.log(far) - 1 / (2 * far) - 1 / (12 * far**2) + 1 / (120 * far**4)


def absolute(y: Numbers) -> Numbers:
    return np.ones_like(y)


def relative(y: Numbers) -> Numbers:
    return np.maximum(1, np.abs(y))


def error(
    f: Callable[..., Value], exact: Callable[[Numbers], Numbers], x: Numbers, unit: Callable[[Numbers], Numbers]
) -> float:
    """The largest, as a multiple of 2^-12 units."""
    want = exact(x)
    return float((np.abs(apply(f, x) - want) / unit(want)).max() / LIMIT)


def positive(f: Callable[..., Value], high: float = math.inf) -> Callable[..., Value]:
    """f of a number that is known to be >= 0."""
    return lambda b, *xs: f(b, *xs[:-1], note(b, xs[-1], 0, high))


SCALED = scales(ULP, 2.0**24 - ULP, 30_000)
INVERTED = scales(2.0**-12, 2.0**24 - ULP, 24_000)
WIDE, TOP = spread(-(2.0**42), 2.0**42), 4096.0
UNIT = np.concatenate([spread(-1 + ULP, 1 - ULP), 1 - scales(ULP, 0.5), scales(ULP, 0.5) - 1])
SIZES = np.concatenate([spread(-8, 8), scales(ULP, TOP), -scales(ULP, TOP)])
TURNS = np.concatenate([spread(-10, 10), spread(-(2.0**14) + 1, 2.0**14 - 1)])
SWEEPS = {
    "exp2": (approx.exp2, np.exp2, spread(-20, 20), relative),
    "sinh": (approx.sinh, np.sinh, spread(-14 + ULP, 14 - ULP), relative),
    "cosh": (approx.cosh, np.cosh, spread(-14 + ULP, 14 - ULP), relative),
    "sin": (approx.sin, np.sin, TURNS, absolute),
    "cos": (approx.cos, np.cos, TURNS, absolute),
    "tan": (approx.tan, np.tan, spread(-1.55, 1.55), lambda y: 1 + y**2),
    "asin": (approx.asin, np.arcsin, np.concatenate([UNIT, [-1, 1]]), absolute),
    "acos": (approx.acos, np.arccos, np.concatenate([UNIT, [-1, 1]]), absolute),
    "atan": (approx.atan, np.arctan, np.concatenate([SIZES, WIDE]), absolute),
    "asinh": (approx.asinh, np.arcsinh, SIZES, absolute),
    "acosh": (approx.acosh, np.arccosh, 1 + np.concatenate([[0], scales(ULP, TOP - 1)]), absolute),
    "atanh": (approx.atanh, np.arctanh, UNIT, absolute),
    "erf_inv": (approx.erf_inv, erf_inv, UNIT, absolute),
    "lgamma": (approx.lgamma, log_gamma, scales(ULP, TOP - ULP), relative),
    "digamma": (approx.digamma, digamma, scales(2.0**-12, TOP - ULP), relative),
    "exp": (approx.exp, np.exp, spread(-16, 14 - ULP), relative),
    "fine exp": (fine_exp, np.exp, spread(-16, 14 - ULP), lambda y: relative(y) / 16),
    "exp far": (approx.exp, np.exp, spread(-(2.0**43) + 1, 14 - ULP), relative),
    "logistic": (approx.logistic, sigmoid, spread(-16, 16), absolute),
    "logistic far": (approx.logistic, sigmoid, spread(-(2.0**42), 2.0**42), absolute),
    "tanh": (approx.tanh, np.tanh, spread(-8, 8), absolute),
    "tanh far": (approx.tanh, np.tanh, spread(-(2.0**42), 2.0**42), absolute),
    "erf": (approx.erf, erf, spread(-8, 8), absolute),
    "erf far": (approx.erf, erf, spread(-(2.0**42), 2.0**42), absolute),
    "expm1": (approx.expm1, np.expm1, spread(-16, 14 - ULP), relative),
    "log1p": (approx.log1p, np.log1p, spread(-1 + ULP, 4096), absolute),
}
CURVES = {
    "log": (approx.log, np.log, SCALED, absolute),
    "sqrt": (approx.sqrt, np.sqrt, np.concatenate([[0], SCALED]), relative),
    "cbrt": (approx.cbrt, np.cbrt, np.concatenate([[0], SCALED, -SCALED]), relative),
    "rsqrt": (approx.rsqrt, lambda x: x**-0.5, SCALED, relative),
    "reciprocal": (approx.reciprocal, lambda x: 1 / x, np.concatenate([INVERTED, -INVERTED]), relative),
    "positive reciprocal": (positive(approx.reciprocal), lambda x: 1 / x, INVERTED, relative),
}


@pytest.mark.parametrize("name", SWEEPS)
def test_error(name: str) -> None:
    assert error(*SWEEPS[name]) <= 1


@pytest.mark.parametrize("by_scale", [False, True])
@pytest.mark.parametrize("name", CURVES)
def test_error_of_curves_both_ways(name: str, by_scale: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "SCALE_ROUNDS", -math.inf if by_scale else math.inf)
    assert error(*CURVES[name]) <= 1


@pytest.mark.parametrize("by_scale", [False, True])
@pytest.mark.parametrize("high", [0.0, 1.0, 2.0, 10.0, 5000.0])
def test_error_where_the_range_is_known(high: float, by_scale: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "SCALE_ROUNDS", -math.inf if by_scale else math.inf)
    if high:
        for name in ("log", "sqrt", "rsqrt", "positive reciprocal"):
            f, exact, x, unit = CURVES[name]
            assert error(positive(f, high), exact, x[(x > 0) & (x <= high)], unit) <= 1, name
    else:
        assert (
            error(positive(lambda b, x: approx.exp(b, b.emit("neg", x))), lambda x: np.exp(-x), spread(0, 16), absolute)
            <= 1
        )


@pytest.mark.parametrize("by_scale", [False, True])
@pytest.mark.parametrize("kind", ["secret", "public", "broadcast", "negative"])
def test_quotient(kind: str, by_scale: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative at every size of the denominator: error <= 2^-12·|x / y| + 2^-16."""
    monkeypatch.setattr(curves, "SCALE_ROUNDS", -math.inf if by_scale else math.inf)
    rng = np.random.default_rng(5)
    y = scales(2.0**-12, 2.0**24 - ULP, 4000 if kind == "broadcast" else 20_000)
    q = rng.choice([-1, 1], y.size) * np.exp(rng.uniform(np.log(2.0**-12), np.log(2.0**18), y.size))
    x = np.rint(np.where(np.abs(q * y) < 2.0**25, q * y, q) / ULP) * ULP
    f, inputs = positive(approx.divide), (x, y)
    if kind == "public":
        x, inputs = np.broadcast_to(3.0, y.shape), (y,)
        f = positive(lambda b, y: approx.divide(b, b.fill(3.0, y), y))
    elif kind == "broadcast":
        x = np.stack([x, -x, y, y * 0, -y])
        f, inputs = positive(lambda b, x, y: approx.divide(b, x, b.spread(y, x.shape))), (x, y)
    elif kind == "negative":
        y = y * rng.choice([-1, 1], y.size)
        f, inputs = approx.divide, (x, y)
    got, want = apply(f, *inputs), x / y
    assert np.all(np.abs(got - want) <= LIMIT * np.abs(want) + 2.0**-16)


def test_angles_of_points() -> None:
    rng = np.random.default_rng(6)
    y, x = (np.rint(rng.normal(size=20_000) * np.exp(rng.uniform(-8, 14, 20_000)) / ULP) * ULP + 0.0 for _ in "yx")
    y[:6], x[:6] = [0, 0, 1, -1, 0, 1], [1, -1, 0, 0, 2.0**-12, 1]
    seen = np.maximum(np.abs(x), np.abs(y)) >= 2.0**-12
    assert np.abs(apply(approx.atan2, y, x) - np.arctan2(y, x))[seen].max() <= LIMIT
    assert np.abs(apply(approx.atan2, np.zeros(2), np.zeros(2))).max() <= LIMIT


def test_beyond_the_ends_stands_a_constant() -> None:
    x = np.array([1, -1, 1.5, -(2.0**40), 2.0**40])
    assert np.allclose(apply(approx.asin, x), np.sign(x) * math.pi / 2, atol=LIMIT)
    assert np.allclose(apply(approx.atanh, x), np.sign(x) * 6.585, atol=1e-3)
    assert np.allclose(apply(approx.erf_inv, x), np.sign(x) * 3.2677, atol=1e-3)
    assert np.allclose(apply(approx.asinh, x[3:]), [-9.011, 9.011], atol=1e-3)
    assert np.allclose(apply(approx.acosh, np.array([0.5, -3, 2.0**40])), [0, 0, 9.011], atol=1e-3)
    assert np.allclose(apply(approx.lgamma, np.array([0.0, -5])), 12.4766, atol=1e-2)


@pytest.mark.parametrize("by_scale", [False, True])
def test_below_the_domain_is_bounded(by_scale: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "SCALE_ROUNDS", -math.inf if by_scale else math.inf)
    x = np.array([0, -ULP, -1, -(2.0**20)])
    assert np.allclose(apply(approx.log, x), math.log(ULP), atol=1e-3)
    assert np.array_equal(apply(approx.sqrt, x), np.zeros(4))
    assert np.allclose(apply(approx.rsqrt, x), 512, rtol=1e-3)
    near = np.array([0, ULP, 100 * ULP, 63 * ULP, -ULP, -63 * ULP])
    assert np.allclose(
        np.abs(apply(approx.reciprocal, near)), np.minimum(4096, 1 / np.maximum(np.abs(near), ULP)), rtol=1e-3
    )
    assert np.array_equal(np.sign(apply(approx.reciprocal, near)), [1, 1, 1, 1, -1, -1])
    assert np.allclose(
        apply(approx.divide, np.array([1.0, -2.0, 100.0]), np.zeros(3)), [4096, -8192, 409600], rtol=1e-3
    )


def test_beyond_the_domain_is_bounded() -> None:
    assert np.allclose(apply(approx.exp, np.array([14.5, 100, 2.0**43 - 1])), math.exp(14), rtol=1e-3)
    assert not apply(positive(approx.reciprocal), np.array([2.0**24, 2.0**40])).any()


@pytest.mark.parametrize("frac", [14, 22, 26])
def test_other_binary_points(frac: int) -> None:
    x = np.rint(scales(2.0**-8, 2.0**12, 2000) * 2.0**frac) / 2.0**frac
    room = 1 + 2.0 ** (13 - frac)  # a unit or two in the last place
    for f, exact, low in (
        (approx.log, np.log, 0.5),
        (approx.sqrt, np.sqrt, 0.1),
        (approx.reciprocal, lambda v: 1 / v, 0.5),
    ):
        want = exact(x[x > low])
        assert np.all(np.abs(apply(f, x[x > low], frac=frac) - want) <= LIMIT * room * relative(want)), f
    assert np.all(np.abs(apply(approx.logistic, x, frac=frac) - sigmoid(x)) <= LIMIT * room)


def test_powers() -> None:
    x = spread(-8, 8, 2000)
    for n in range(8):
        assert np.all(
            np.abs(apply(approx.integer_pow, x, n=n) - x**n) <= 8 * n * ULP * np.maximum(1, np.abs(x)) ** max(n - 1, 0)
        )
    x = x[np.abs(x) > 0.3]
    for n in (-1, -2, -3):
        want = x**n
        assert np.all(np.abs(apply(approx.integer_pow, x, n=n) - want) <= 1.2 * LIMIT * relative(want))


def test_the_passes_keep_it_right() -> None:
    """They move truncations; here numbers overflow on purpose where nobody looks."""
    for f, exact, x, unit in (SWEEPS["exp"], SWEEPS["tanh far"], CURVES["log"], CURVES["reciprocal"]):
        graph = trace(f, x.shape)
        final = compile(graph)["final"]
        want = exact(x)
        assert np.all(np.abs(evaluate(final, x) - want) <= LIMIT * unit(want))
        assert rounds(final) <= rounds(graph)


# ---- costs -----------------------------------------------------------------------------------------------------------
ROUNDS = {
    "exp": (approx.exp, 1, 5, 14),
    "fine exp": (fine_exp, 1, 5, 28),
    "exp of a negative number": (lambda b, x: approx.exp(b, note(b, x, high=0)), 1, 5, 3),
    "logistic": (approx.logistic, 1, 5, 7),
    "tanh": (approx.tanh, 1, 5, 7),
    "erf": (approx.erf, 1, 5, 6),
    "log": (approx.log, 1, 6, 38),
    "log below 2^12": (positive(approx.log, 4096), 1, 5, 27),
    "log1p of [0, 1]": (lambda b, x: approx.log1p(b, note(b, x, 0, 1)), 1, 4, 0),
    "sqrt": (approx.sqrt, 1, 6, 22),
    "sqrt below 2^12": (positive(approx.sqrt, 4096), 1, 5, 14),
    "rsqrt": (approx.rsqrt, 1, 6, 29),
    "rsqrt below 2^12": (positive(approx.rsqrt, 4096), 1, 5, 25),
    "reciprocal": (approx.reciprocal, 1, 10, 24),
    "reciprocal of a positive number": (positive(approx.reciprocal), 1, 5, 23),
    "divide": (approx.divide, 2, 12, 43),
    "divide by a positive number": (positive(approx.divide), 2, 8, 42),
    "divide by a number of [0, 2^12]": (positive(approx.divide, 4096), 2, 7, 29),
    "sine": (approx.sin, 1, 7, 7),
    "sine and cosine": (lambda b, x: b.add(approx.sin(b, x), approx.cos(b, x)), 1, 7, 7),
    "arc sine": (approx.asin, 1, 5, 15),
    "arc tangent": (approx.atan, 1, 5, 17),
    "arc tangent of two": (approx.atan2, 2, 24, 62),
    "inverse error function": (approx.erf_inv, 1, 5, 25),
    "cube root": (approx.cbrt, 1, 11, 25),
    "cube": (lambda b, x: approx.integer_pow(b, x, 3), 1, 4, 0),
}


@pytest.mark.parametrize("name", ROUNDS)
def test_rounds_and_comparisons(name: str) -> None:
    f, inputs, most_rounds, most_comparisons = ROUNDS[name]
    graph = trace(f, *[(10,)] * inputs)
    assert rounds(graph) <= most_rounds
    assert count(graph, "sign") <= 10 * most_comparisons


MANY = {
    "log": (approx.log, 1, 10, 14),
    "sqrt": (approx.sqrt, 1, 12, 12),
    "rsqrt": (approx.rsqrt, 1, 12, 13),
    "reciprocal": (positive(approx.reciprocal), 1, 12, 13),
    "divide": (positive(approx.divide), 2, 12, 13),
}


@pytest.mark.parametrize("name", MANY)
def test_many_elements_take_more_rounds_and_fewer_comparisons(name: str) -> None:
    f, inputs, most_rounds, most_comparisons = MANY[name]
    graph = trace(f, *[(100_000,)] * inputs)
    assert rounds(graph) <= most_rounds
    assert count(graph, "sign") <= 100_000 * most_comparisons


def test_the_same_program_yields_the_same_graph() -> None:
    first = trace(approx.log, (3,)).digest()
    curves.needed.cache_clear()
    assert trace(approx.log, (3,)).digest() == first


# ---- together --------------------------------------------------------------------------------------------------------
def exponentials(b: Builder, x: Value) -> tuple[Value, Value]:
    """exp(x - max) and its sums, as jax.nn.softmax has them."""
    top = b.spread(b.reshape(approx.reduce_max(b, x, 1), (x.shape[0], 1)), x.shape)
    e = approx.exp(b, b.sub(x, top))
    return e, b.emit("sum", e, axes=(1,))


def softmax(b: Builder, x: Value) -> Value:
    e, total = exponentials(b, x)
    return approx.divide(b, e, b.spread(b.reshape(total, (x.shape[0], 1)), x.shape))


def logsumexp(b: Builder, x: Value) -> Value:
    return approx.log(b, exponentials(b, x)[1])


def test_softmax_needs_few_comparisons() -> None:
    """The exponents are known not to be positive, and the sums to be at least 1."""
    x = np.random.default_rng(2).normal(size=(100, 10)) * 6
    e = np.exp(x - x.max(1, keepdims=True))
    assert np.abs(apply(softmax, x) - e / e.sum(1, keepdims=True)).max() < 2 * LIMIT
    assert np.abs(apply(logsumexp, x) - np.log(e.sum(1))).max() < 3 * LIMIT
    graph = trace(softmax, x.shape)
    assert count(graph, "sign") <= 100 * (45 + 10 * 3 + 4)
    assert rounds(graph) <= 7 + 5 + 7


def test_softmax_of_one_large_exponent_and_many_small_ones() -> None:
    x = np.full((4, 1000), -9.0)
    x[:, 7] = [0, 3, -9, 2000]
    e = np.exp(x - x.max(1, keepdims=True))
    assert np.abs(apply(softmax, x) - e / e.sum(1, keepdims=True)).max() < 0.1  # 999 errors of 2^-12 add up in the sum


def test_a_maximum_of_another_axis_is_no_bound() -> None:
    def crossed(b: Builder, x: Value) -> Value:
        return approx.exp(b, b.sub(x, b.spread(approx.reduce_max(b, x, 1), x.shape)))

    x = np.random.default_rng(3).normal(size=(6, 6)) * 2
    want = np.exp(x - x.max(1)[None, :])
    assert np.all(np.abs(apply(crossed, x) - want) <= LIMIT * relative(want))


def test_softplus_needs_no_comparison_for_its_logarithm() -> None:
    def softplus(b: Builder, x: Value) -> Value:
        gap = b.emit("neg", approx.abs_(b, x))
        return b.add(approx.relu(b, x), approx.log1p(b, approx.exp(b, gap)))

    x = spread(-30, 30, 5000)
    assert np.abs(apply(softplus, x) - np.logaddexp(x, 0)).max() < 2 * LIMIT
    assert count(trace(softplus, (10,)), "sign") <= 10 * 4


def test_adams_step_is_sane_for_vanishing_gradients() -> None:
    def step(b: Builder, m: Value, v: Value) -> Value:
        root = approx.sqrt(b, note(b, v, 0))
        return approx.divide(b, m, b.add(root, b.fill(1e-8, root)))

    g = np.concatenate([[0, 2.0**-18, 2.0**-12, 0.001], scales(2.0**-7, 100, 500)])
    got = apply(step, g, np.rint(g**2 / ULP) * ULP)
    assert np.all(np.abs(got[g > 0.1] - 1) < 0.01)
    assert np.all(np.abs(got[g > 2.0**-7] - 1) < 0.1)
    assert np.all(np.abs(got) < 2.0**3)


def test_under_masks() -> None:
    """A reduced sweep under the real protocol."""
    rng = np.random.default_rng(9)
    plain = np.concatenate([rng.uniform(-12, 12, 60), [0, ULP, -ULP, 2.0**25, -(2.0**25)]])
    for f, exact in ((approx.logistic, sigmoid), (approx.tanh, np.tanh), (approx.erf, erf), (approx.atan, np.arctan)):
        assert np.abs(apply(f, plain, protocol="masked") - exact(plain)).max() <= LIMIT
    x = plain[plain < 14]
    assert np.all(np.abs(apply(approx.exp, x, protocol="masked") - np.exp(x)) <= LIMIT * relative(np.exp(x)))
    x = at_grid(np.exp(rng.uniform(np.log(2.0**-12), np.log(2.0**23), 60)))
    for f, exact in ((approx.sqrt, np.sqrt), (approx.rsqrt, lambda v: v**-0.5), (approx.reciprocal, lambda v: 1 / v)):
        assert np.all(np.abs(apply(f, x, protocol="masked") - exact(x)) <= LIMIT * relative(exact(x)))
    assert np.abs(apply(approx.log, x, protocol="masked") - np.log(x)).max() <= LIMIT
    got, want = apply(approx.divide, 3 * x, x[::-1].copy(), protocol="masked"), 3 * x / x[::-1]
    usable = want < 2.0**18
    assert np.all(np.abs(got - want)[usable] <= LIMIT * want[usable] + 2.0**-16)
