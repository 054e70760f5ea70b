"""Calibration: what values come to, the binary points that follow, and models that train as in plain JAX with them."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rich.console import Console

from coordinator import calibration, report, results, sampling, trees
from coordinator.calibration import Calibration
from coordinator.compiled import compile_job
from coordinator.frontend import CompileError, Input, Piece, flat_of, observe, trace
from coordinator.frontend.domains import problems
from coordinator.jobfile import Keep, KeptInput, Leaf, Plan
from coordinator.lower.passes import compile
from coordinator.lower.points import MARGIN, Seen
from coordinator.programs import reduced_signs
from mpcnode.errors import ConfigError
from mpcnode.graph import Graph, Kind, Type
from mpcnode.simulate import simulate

Program = Callable[..., dict[str, Any]]
OUTPUTS = {"out": ("reader",)}


class Job(NamedTuple):
    """A function of one input, and a sample of it."""

    function: Callable[[Any], Any]
    sample: np.ndarray

    def program(self, x: Any) -> dict[str, Any]:
        return {"out": self.function(x)}

    @property
    def inputs(self) -> dict[str, Input]:
        columns = tuple(f"c{i}" for i in range(self.sample.shape[1]))
        return {"x": Input((Piece("owner", "d", len(self.sample), columns),), False, False)}

    def calibrated(self) -> Calibration:
        flat, _ = flat_of(self.program, self.inputs, OUTPUTS)
        return observe.record(flat, self.inputs, {"x": self.sample})

    def graph(self, met: Calibration | None, *, assume: bool = False) -> Graph:
        traced = trace(self.program, self.inputs, OUTPUTS, calibration=met, assume=assume)
        return list(compile(traced.graph, assume=assume).values())[-1]

    def run(self, graph: Graph, protocol: str = "cleartext") -> list[np.ndarray]:
        return list(simulate(graph, {("owner", "d"): self.sample}, protocol).outputs.values())

    def errors(self, graph: Graph) -> list[float]:
        """Of each output, the largest, as a share of its largest value."""
        want = [np.asarray(v, np.float64) for v in jax.tree.leaves(jax.jit(self.function)(self.sample))]
        got = self.run(graph)
        return [float(np.abs(g - w).max() / np.abs(w).max()) for g, w in zip(got, want, strict=True)]


def rows(count: int, columns: int, scale: float = 1.0, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(count, columns)) * scale).astype(np.float32)


# ---- binary points ---------------------------------------------------------------------------------------------------
def alike(x: float) -> Seen:
    return Seen(x, x, x)


@pytest.mark.parametrize(
    ("seen", "point"),
    [
        (alike(1.0), 23),  # 24 bits below 2^1
        (alike(100.0), 18),  # 24 bits would be fewer than the job's
        (alike(1e-3), 33),
        (Seen(1e-3, 1e-9, 1e-20), 45),  # 16 bits below a typical number
        (Seen(1e-3, 1e-12, 1e-20), 49),  # but not more than 40 below the largest
        (alike(1e15), 62 - MARGIN - 50),  # what is large gets fewer
        (alike(1e-30), 63),
    ],
)
def test_the_binary_point_follows_from_the_sizes(seen: Seen, point: int) -> None:
    assert seen.point(18) == point
    assert seen.largest * 2.0 ** (MARGIN + seen.point(18)) <= 2.0**62


def test_every_step_of_every_loop_is_met() -> None:
    def function(x: Any) -> Any:
        def step(carry: Any, factor: Any) -> tuple[Any, Any]:
            return carry * factor, carry.sum()

        last, sums = jax.lax.scan(step, x, jnp.asarray([1e-3, 1e-3, 8.0]))
        halved = jax.lax.fori_loop(0, 4, lambda i, v: jax.lax.cond(i < 9, lambda u: u / 2, lambda u: u * 1e9, v), last)
        return sums, halved

    job = Job(function, np.full((2, 3), 4.0, np.float32))
    flat, _ = flat_of(job.program, job.inputs, OUTPUTS)
    met, lines = job.calibrated().values, observe.lines_of(flat)
    products = [v.seen for v in met.values() if v.what == "mul"]
    assert (products[0].largest, products[0].typical) == pytest.approx((4e-3, 4e-6), rel=1e-3)
    carried = [met[at].seen for at in met if at.endswith("/in0")]
    assert carried[0].largest == 4 and carried[0].typical == pytest.approx(4e-6, rel=1e-3)
    assert all(v.line.startswith("test_calibration.py:") for v in met.values() if v.what)
    assert met.keys() <= lines.keys()
    assert max(v.seen.largest for v in met.values()) == 24  # nothing of the branch that was not taken
    for graph in (job.graph(None), job.graph(job.calibrated())):
        assert graph.outputs == ()
    assert max(job.errors(job.graph(job.calibrated()))) < 1e-5 < max(job.errors(job.graph(None)))


# ---- the file --------------------------------------------------------------------------------------------------------
def test_a_calibration_is_written_and_read(tmp_path: Path) -> None:
    met = Job(jnp.tanh, rows(4, 2)).calibrated()
    calibration.write(met, tmp_path / "c.toml")
    again = calibration.read(tmp_path / "c.toml")
    assert again._replace(values={}) == met._replace(values={})
    assert [v.seen for v in again.values.values()] == [pytest.approx(v.seen, rel=1e-3) for v in met.values.values()]
    text = (tmp_path / "c.toml").read_text()
    (tmp_path / "c.toml").write_text(text.replace("margin_bits = 4", "margin_bits = 5"))
    with pytest.raises(ConfigError, match="was made for a margin of 5 bits, not 4: make it again"):
        calibration.read(tmp_path / "c.toml")
    with pytest.raises(ConfigError, match=r"none\.toml does not exist"):
        calibration.read(tmp_path / "none.toml")


def test_a_calibration_of_another_program_is_refused() -> None:
    met = Job(lambda x: x * 0.5, rows(4, 2)).calibrated()
    Job(lambda x: x * 0.5, rows(9, 2)).graph(met)  # other rows, the same program
    for other in (lambda x: x * 0.25, lambda x: x + 0.5):
        with pytest.raises(CompileError, match="of another program than the job's function is now: make it again with"):
            Job(other, rows(4, 2)).graph(met)


# ---- functions of small numbers --------------------------------------------------------------------------------------
SMALL: dict[str, tuple[Callable[[Any], Any], float, float]] = {  # function, size of x, error of the largest result
    "sqrt": (jnp.sqrt, 1e-10, 1e-3),
    "rsqrt": (jax.lax.rsqrt, 1e-10, 1e-3),
    "power": (lambda x: x**-0.5, 1e-10, 1e-3),
    "inverse": (lambda x: 1 / x, 1e-7, 1e-3),
    "quotient": (lambda x: x[:, :1] / x, 1e-7, 1e-3),
    "mean": (lambda x: x / x.sum(axis=1, keepdims=True), 1e-7, 1e-3),
    "square": (lambda x: (x * x).sum(axis=0), 1e-7, 1e-5),
    "large": (lambda x: (x * x).sum(axis=0), 1e8, 1e-6),
    "large root": (lambda x: jnp.sqrt(x * x), 1e8, 1e-3),
}


@pytest.mark.parametrize("name", SMALL)
def test_functions_of_very_small_and_large_numbers(name: str) -> None:
    function, scale, tolerance = SMALL[name]
    job = Job(function, np.exp(rows(16, 4)) * np.float32(scale))
    assert max(job.errors(job.graph(job.calibrated()))) < tolerance


# ---- training --------------------------------------------------------------------------------------------------------
def regression(optimizer: optax.GradientTransformation, steps: int = 10) -> Callable[[Any], Any]:
    """A small network on targets around 1e-3, whose gradients are small and their squares tiny."""

    def train(data: Any) -> Any:
        x, y = data[:, :-1], data[:, -1:]
        params = [jnp.asarray(rows(6, 4, 0.3, 1)), jnp.asarray(rows(4, 1, 0.01, 2))]

        def loss(p: Any) -> Any:
            return jnp.mean((jax.nn.relu(x @ p[0]) @ p[1] - y) ** 2)

        def step(state: Any, _: Any) -> tuple[Any, None]:
            p, memory = state
            updates, memory = optimizer.update(jax.grad(loss)(p), memory, p)
            return (optax.apply_updates(p, updates), memory), None

        (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), None, length=steps)
        return params

    return train


def normalised(x: Any) -> Any:
    """Batch norm of features whose variances go from 1e-8 to 1e-2."""
    z = x * jnp.asarray([1e-4, 1e-3, 1e-2, 1e-1])
    return (z - z.mean(axis=0)) * jax.lax.rsqrt(z.var(axis=0) + 1e-10)


TRAINED: dict[str, tuple[Callable[[Any], Any], np.ndarray, float, float]] = {  # with calibration and, at least, without
    "adam": (regression(optax.adam(1e-2)), rows(32, 7) * np.float32([1] * 6 + [1e-3]), 2e-3, 5e-2),
    "rmsprop": (regression(optax.rmsprop(1e-3)), rows(32, 7) * np.float32([1] * 6 + [1e-3]), 1e-4, 5e-3),
    "batch norm": (normalised, rows(64, 4), 2e-3, 5e-2),
}


@pytest.mark.parametrize("name", TRAINED)
def test_small_second_moments_do_not_underflow(name: str) -> None:
    """Errors are relative to the largest weight (or value)."""
    function, sample, tolerance, without = TRAINED[name]
    job = Job(function, sample)
    assert max(job.errors(job.graph(job.calibrated()))) < tolerance
    assert max(job.errors(job.graph(None))) > without


def test_a_calibrated_graph_runs_under_the_protocol() -> None:
    job = Job(regression(optax.adam(1e-2), steps=2), rows(16, 7) * np.float32([1] * 6 + [1e-3]))
    graph = job.graph(job.calibrated())
    for secure, clear in zip(job.run(graph, "masked"), job.run(graph), strict=True):
        assert np.abs(secure - clear).max() < 2e-4  # Adam divides by what rounding has touched
    loops = [op for op in graph.ops if op.name == "loop"]
    fracs = {op.type.frac for loop in loops for op in loop.body.ops if op.type.kind is Kind.ARITH}
    assert max(fracs) > 44 and all(op.most == 0 for op in graph.walk())


def test_what_follows_from_ranges_still_does() -> None:
    """A softmax needs no more comparisons: a maximum is subtracted, and the sum is 1 at least."""
    job = Job(lambda x: jax.nn.log_softmax(x * jnp.float32(0.3)), rows(8, 10))
    graphs = job.graph(None), job.graph(job.calibrated())
    counts = [sum(op.type.size for op in graph.walk() if op.name == "sign") for graph in graphs]
    assert counts[0] == counts[1]


# ---- assumed ranges --------------------------------------------------------------------------------------------------
def layer(x: Any) -> Any:
    return jax.nn.relu(x @ jnp.asarray(rows(4, 8, 0.5, 3))).max(axis=1), x > 0.25


def test_assumed_ranges_compare_fewer_bits() -> None:
    job = Job(layer, rows(16, 4))
    met = job.calibrated()
    full, few = job.graph(met), job.graph(met, assume=True)
    tops = [op.integer("top", 63) - op.integer("lo") for op in few.walk() if op.name == "sign"]
    assert min(tops) < 40 and all(op.integer("top", 63) == 63 for op in full.walk() if op.name == "sign")
    assert reduced_signs(full) == "" and "comparisons rely on those that a calibration met" in reduced_signs(few)
    masked, clear = job.run(few, "masked"), job.run(full)
    assert np.abs(masked[0] - clear[0]).max() < 1e-4 and np.array_equal(masked[1], clear[1])
    within = job._replace(sample=job.sample * (2**MARGIN - 1))  # as large as the margin allows
    assert max(within.errors(few)) < 1e-4
    beyond = job._replace(sample=job.sample * 2**12)
    assert max(beyond.errors(full)) < 1e-4 < max(beyond.errors(few))


# ---- what goes wrong -------------------------------------------------------------------------------------------------
WRONG: dict[str, tuple[Callable[[Any], Any], float, bool, str]] = {
    "product": (lambda x: x * x, 1e5, True, "comes to .*, which overflows with 18 fraction bits"),
    "small": (lambda x: x * x, 1e-4, True, "is around .* at its least, which 18 .* less than 4 bits"),
    "endless": (lambda x: x / 0.0, 1.0, False, "is infinite or no number in plain floating point too: look for"),
    "exp": (lambda x: jnp.exp(jnp.abs(x)), 10.0, False, "e\\^14 = 1.2e6 at most: subtract the largest exponent first"),
    "log": (lambda x: jnp.log(x * x), 1e-4, False, "is right from 2\\^-18 to 2\\^24: clip or scale its argument"),
    "power": (lambda x: x**5, 1e2, False, "powers are right below 2\\^25"),
    "huge": (lambda x: x * 1e12, 1e4, False, "leaves no fraction bits: scale it down"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_goes_wrong_is_named_with_its_line(name: str) -> None:
    function, scale, settled, sentence = WRONG[name]
    job = Job(function, rows(8, 3, scale))
    flat, _ = flat_of(job.program, job.inputs, OUTPUTS)
    found = [p for p in problems(flat, job.calibrated().seen, 18) if p.settled == settled]
    assert found and all(p.line.startswith("test_calibration.py:") for p in found)
    assert any(re.search(sentence, p.sentence) for p in found)


def test_a_simulation_with_calibration(tmp_path: Path) -> None:
    """From a sample file with fewer rows than the owners have."""
    np.save(tmp_path / "x.npy", rows(8, 2, 1e-5))
    piece = Piece("owner", "d", 1000, ("a", "b"))
    plan = Plan("tiny", 18, {"x": Input((piece,), False, False)}, {"out": ("reader",)})
    program: Program = lambda x: {"out": (x * x).sum(axis=0)}  # noqa: E731
    plain = sampling.run(plan, program, {"x": tmp_path / "x.npy"})
    found = sampling.calibrate(plan, program, {"x": tmp_path / "x.npy"})
    assert found.calibration.rows == {"x": 8} and any(problem.settled for problem in found.problems)
    assert plain.errors[0].error == plain.errors[0].largest  # it was 0
    assert found.simulated.errors[0].error < 1e-4 * found.simulated.errors[0].largest


def test_pieces_that_are_dropped_may_overflow(tmp_path: Path) -> None:
    """A range that does not fit is one of the job's numbers, not of a polynomial off its piece."""
    np.save(tmp_path / "x.npy", np.full((4, 2), 13.0))
    plan = Plan("far", 18, {"x": Input((Piece("owner", "d", 4, ("a", "b")),), False, False)}, {"out": ("reader",)})
    found = sampling.run(plan, lambda x: {"out": jnp.exp(x) + jnp.tanh(100 * x)}, {"x": tmp_path / "x.npy"})
    assert min(line.headroom_bits for line in found.ranges) > 2


def test_columns_of_truths_are_met_as_truths() -> None:
    job = Job(lambda x: jnp.where(~x, 3.0, 0.5), np.array([[True, False], [False, False]]))
    inputs = {"x": job.inputs["x"]._replace(integer=True, boolean=True)}
    flat, _ = flat_of(job.program, inputs, OUTPUTS)
    found = observe.record(flat, inputs, {"x": job.sample})
    assert max(met.seen.largest for met in found.values.values()) == 3.0


# ---- jobs that read kept values --------------------------------------------------------------------------------------
DATASET = ("owner", "d")
COLUMNS = tuple(f"c{i}" for i in range(7))
ROWS = rows(32, 7) * np.float32([1] * 6 + [1e-3])
DATA = {DATASET: dict(zip(COLUMNS, ROWS.T, strict=True))}
INPUTS = {"data": Input((Piece(*DATASET, len(ROWS), COLUMNS),), False, False)}
SLOW = optax.rmsprop(1e-3)  # small steps: weights and squared gradients of very different sizes


def steps(params: Any, memory: Any, data: Any) -> Any:
    x, y = data[:, :-1], data[:, -1:]

    def step(state: Any, _: Any) -> tuple[Any, None]:
        loss = lambda p: jnp.mean((jax.nn.relu(x @ p[0]) @ p[1] - y) ** 2)  # noqa: E731
        updates, memory = SLOW.update(jax.grad(loss)(state[0]), state[1], state[0])
        return (optax.apply_updates(state[0], updates), memory), None

    return jax.lax.scan(step, (params, memory), None, length=4)[0]


def begin(data: Any) -> dict[str, Any]:
    params = [jnp.asarray(rows(6, 4, 0.3, 1)), jnp.asarray(rows(4, 1, 0.01, 2))]
    params, memory = steps(params, SLOW.init(params), data)
    return {"model": {"weights": params, "memory": jax.tree.leaves(memory)}}


def go_on(data: Any, model: Any) -> dict[str, Any]:
    params = model["weights"]
    params, memory = steps(params, jax.tree.unflatten(jax.tree.structure(SLOW.init(params)), model["memory"]), data)
    return {"weights": params, "memory": jax.tree.leaves(memory)}


def predict(data: Any, model: Any) -> dict[str, Any]:
    return {"out": jax.nn.relu(data[:, :-1] @ model["weights"][0]) @ model["weights"][1]}


def kept_by(graph: Graph) -> KeptInput:
    stores = [op for op in graph.ops if op.name == "store"]
    leaves = tuple(Leaf(op.texts("path"), op.type, op.text("dtype")) for op in stores)
    return KeptInput("value", "job-1/1", leaves)


@pytest.mark.parametrize("maker_calibrated", [False, True])
def test_jobs_that_read_kept_values_are_calibrated(tmp_path: Path, maker_calibrated: bool) -> None:
    """One job trains and keeps; two more are calibrated on what plain JAX would have kept, and read what was kept."""
    np.save(tmp_path / "data.npy", ROWS)
    samples = {"data": tmp_path / "data.npy"}
    plan = Plan("begin", 18, INPUTS, {}, keeps={"model": Keep("value")})
    first = sampling.calibrate(plan, begin, samples)
    if maker_calibrated:
        plan = plan._replace(calibration=first.calibration)
    graph = compile_job(plan, begin, "").graph
    made = simulate(graph, DATA, "masked")
    [stand_in] = results.write(first.simulated.kept, tmp_path)
    assert stand_in == tmp_path / "model.npz"
    samples["model"] = stand_in

    kept = trees.build([(path, np.float32(array)) for (_, path), array in made.kept.items()])
    for function, names in ((go_on, ("weights", "memory")), (predict, ("out",))):
        later = Plan("later", 18, INPUTS, dict.fromkeys(names, ("reader",)), kept={"model": kept_by(graph)})
        met = sampling.calibrate(later, function, samples)
        assert met.simulated.random == ()
        calibration.write(met.calibration, tmp_path / "later.toml")
        later = later._replace(calibration=calibration.read(tmp_path / "later.toml"))
        program = compile_job(later, function, "").graph
        found = simulate(program, DATA, "masked", kept=made.kept, seed=b"another job").outputs
        clear = simulate(program, DATA, kept=made.kept).outputs
        for name, value in observed(function(ROWS, kept)):
            largest = np.abs(value).max()
            assert np.abs(found[name] - clear[name]).max() < 2e-3 * largest
            if maker_calibrated or name == "out":  # else what was kept has lost its small numbers already
                assert np.abs(found[name] - value).max() < 2e-3 * largest


def observed(found: dict[str, Any]) -> Any:
    """Arrays by the names that outputs have."""
    for name, tree in found.items():
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            yield "/".join((name, *(str(part.idx) for part in path))), np.asarray(leaf, np.float64)


def test_a_calibration_on_a_made_up_model_says_what_it_is_worth(tmp_path: Path) -> None:
    """Made-up numbers fit whatever binary points the kept ones have."""
    leaves = tuple(
        Leaf((".weights", f"[{i}"), Type(Kind.ARITH, frac, shape), "float32")
        for i, (frac, shape) in enumerate([(18, (6, 4)), (63, (4, 1))])
    )
    plan = Plan("later", 18, INPUTS, {"out": ("reader",)}, kept={"model": KeptInput("value", "job-1/1", leaves)})
    np.save(tmp_path / "data.npy", ROWS)
    found = sampling.calibrate(plan, predict, {"data": tmp_path / "data.npy"})
    assert found.simulated.random == ("model",)
    shown = Console(width=200, file=io.StringIO())
    shown.print(report.calibration(found, 18, 20))
    text = shown.file.getvalue()  # type: ignore[attr-defined]
    assert "the binary points follow from made-up numbers for model: they are worth what these are" in text
    assert "give what it may be like with --sample model=FILE.npz" in text and "real samples" not in text


def test_other_arrays_in_the_kept_value_are_another_program() -> None:
    """A value that was made anew with another structure does not go with the calibration; another size does."""
    one = KeptInput("v", "job-1/1", (Leaf((), Type(Kind.ARITH, 18, (6, 2)), "float32"),))
    wider = one._replace(leaves=(one.leaves[0]._replace(type=Type(Kind.ARITH, 18, (6, 3))),))
    more = one._replace(leaves=tuple(one.leaves[0]._replace(path=(f"[{i}",)) for i in range(2)))
    plan = Plan("sums", 18, INPUTS, {"out": ("reader",)}, kept={"model": one})
    function = lambda data, model: {"out": sum(data[:, :-1] @ w for w in jax.tree.leaves(model))}  # noqa: E731
    met = sampling.calibrate(plan, function, {}).calibration
    compile_job(plan._replace(calibration=met, kept={"model": wider}), function, "")
    with pytest.raises(CompileError, match="of another program than the job's function is now"):
        compile_job(plan._replace(calibration=met, kept={"model": more}), function, "")
