"""Jobs that keep and load: what is compiled, what masked evaluation makes of it, and who allows it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coordinator import sampling
from coordinator.frontend import CompileError, trace
from coordinator.frontend.plain import run_plain
from coordinator.jobfile import Input, Keep, KeptInput, Leaf, Piece, Plan
from coordinator.lower.passes import compile as lower
from mpcnode import policy
from mpcnode.errors import DataError, PolicyError
from mpcnode.graph import Graph
from mpcnode.policy import Keeping, Terms
from mpcnode.simulate import simulate

X = Input((Piece("alice", "rows", 4, ("u", "v")),), squeeze=False, integer=False)
DATA = np.array([[0.5, -1.0], [2.0, 0.25], [-0.75, 1.5], [1.0, 1.0]])


def fit(x: Any) -> dict[str, Any]:
    w = x.T @ x / 4
    return {"model": {"w": w, "parts": [x.mean(0), (w[0] > 0, jnp.array(7), jnp.float32(0.5))]}, "mean": x.mean()}


def use(x: Any, model: Any) -> dict[str, Any]:
    mean, (positive, seven, half) = model["parts"]
    return {"y": jnp.where(positive, (x - mean) @ model["w"], half) + seven}


def kept_by(graph: Graph, name: str = "m") -> KeptInput:
    """The kept input that a graph makes, as the nodes would describe it."""
    stores = [op for op in graph.ops if op.name == "store"]
    return KeptInput(name, "job-1/1", tuple(Leaf(op.texts("path"), op.type, op.text("dtype")) for op in stores))


def fitted(frac: int = 18) -> Graph:
    traced = trace(fit, {"x": X}, {"mean": ("alice",)}, frac, keeps={"model": Keep("m", ("bob",), True)})
    return list(lower(traced.graph, frac).values())[-1]


def test_what_is_kept_is_in_the_graph_with_its_terms() -> None:
    stores = [op for op in fitted().ops if op.name == "store"]
    assert [(op.texts("path"), op.text("dtype"), op.type.shape) for op in stores] == [
        ((".parts", "[0"), "float32", (2,)),
        ((".parts", "[1", "(0"), "bool", (2,)),
        ((".parts", "[1", "(1"), "int32", ()),
        ((".parts", "[1", "(2"), "float32", ()),
        ((".w",), "float32", (2, 2)),
    ]
    assert {(op.text("kept"), op.texts("to"), op.integer("replace")) for op in stores} == {("m", ("bob",), 1)}
    assert policy.keeps(fitted()) == {"m": Keeping(frozenset({("alice", "rows")}), ("bob",))}


@pytest.mark.parametrize(("protocol", "frac"), [("cleartext", 18), ("masked", 18), ("masked", 20)])
def test_a_later_job_goes_on_with_what_was_kept(protocol: str, frac: int) -> None:
    first = fitted()
    made = simulate(first, {("alice", "rows"): DATA}, protocol)
    item = kept_by(first)
    traced = trace(use, {"x": X}, {"y": ("alice",)}, frac, kept={"model": item})
    graph = list(lower(traced.graph, frac).values())[-1]
    found = simulate(graph, {("alice", "rows"): DATA}, protocol, kept=made.kept, seed=b"another job").outputs["y"]
    want = use(DATA, fit(DATA)["model"])["y"]
    np.testing.assert_allclose(found, want, atol=1e-4)
    assert policy.taints(graph)["y"] == {("alice", "rows"), ("", "m")}


def test_arguments_are_given_by_name_or_kept_ones_last() -> None:
    item = kept_by(fitted())
    arrays = [np.zeros(leaf.type.shape, leaf.dtype) for leaf in item.leaves]
    for function in (use, lambda a, b: use(a, b)):  # noqa: PLW0108 - other names
        assert run_plain(function, {"x": X}, {"y": ()}, {"x": DATA}, {"model": (item, arrays)})["y"].shape == (4, 2)


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (
            lambda x: {"model": jax.tree_util.Partial(lambda: 0, x)},
            "output 'model' cannot be kept: the value is Partial",
        ),
        (lambda x: {"model": {"a": {}, "w": x}}, "output 'model' cannot be kept: a is empty"),
        (lambda x: {"other": x}, "returns 'other', and the job does not say who learns it"),
    ],
)
def test_what_cannot_be_kept_is_refused_when_it_is_compiled(function: Callable[..., Any], why: str) -> None:
    with pytest.raises(CompileError, match=why):
        trace(function, {"x": X}, {}, keeps={"model": Keep("m")})


def test_a_description_that_makes_no_tree_is_refused() -> None:
    item = kept_by(fitted())
    broken = item._replace(leaves=(*item.leaves, item.leaves[0]._replace(path=())))
    with pytest.raises(CompileError, match="the kept m cannot be put together"):
        trace(use, {"x": X}, {"y": ("alice",)}, kept={"model": broken})


# ---- simulation ------------------------------------------------------------------------------------------------------
def test_kept_inputs_are_sampled_or_made_up(tmp_path: Path) -> None:
    item = kept_by(fitted())
    plan = Plan("use", 18, {"x": X}, {"y": ("alice",)}, kept={"model": item})
    made_up = sampling.run(plan, use, {}, protocol="masked")
    assert made_up.random == ("x", "model") and made_up.errors[0].error < 1e-3
    arrays = {leaf.path: np.ones(leaf.type.shape, leaf.dtype) for leaf in item.leaves}
    names = {"/".join(part[1:] for part in path): array for path, array in arrays.items()}
    np.savez(tmp_path / "model.npz", **names)
    sampled = sampling.run(plan, use, {"model": tmp_path / "model.npz"})
    assert sampled.random == ("x",)


GOOD = {
    "w": np.ones((2, 2)),
    "parts/0": np.zeros(2, np.float32),
    "parts/1/0": np.array([True, False]),
    "parts/1/1": np.int64(7),
    "parts/1/2": 1,
}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"parts/0": None}, "has no array parts/0, which input model wants: it has w, parts/1/0, parts/1/1, parts/1/2"),
        ({"w": np.ones((2, 3))}, r"the array w is of shape \[2, 3\], and input model wants \[2, 2\]"),
        ({"w": np.ones((2, 2), complex)}, "the array w holds complex128, and input model wants float32"),
        ({"w": np.full((2, 2), "1.5")}, "the array w holds <U3, and input model wants float32"),
        ({"w": np.array([[1, 2], [3, np.nan]])}, "the array w holds a value that is infinite or no number"),
        ({"w": np.full((2, 2), 1e15)}, "the array w cannot stand for what is kept: a value is not below 2\\^44"),
        ({"parts/1/0": np.array([0, 2])}, "the array parts/1/0 holds other numbers than 0 and 1, and input model"),
        ({"parts/1/0": np.array([0.0, 1.0])}, "the array parts/1/0 holds float64, and input model wants bool"),
        ({"parts/1/1": np.float32(7)}, "the array parts/1/1 holds float32, and input model wants int32"),
        ({"parts/1/1": np.int64(1 << 40)}, "the array parts/1/1 holds a number beyond those of int32"),
        ({"w": np.array([[None, 1], [2, 3]])}, "is damaged, or does not hold arrays of numbers: write it again"),
    ],
)
def test_what_cannot_stand_for_a_kept_value(tmp_path: Path, change: dict[str, Any], why: str) -> None:
    plan = Plan("use", 18, {"x": X}, {"y": ("alice",)}, kept={"model": kept_by(fitted())})
    file = tmp_path / "model.npz"
    np.savez(file, **{name: array for name, array in (GOOD | change).items() if array is not None})
    for simulated in (sampling.run, sampling.calibrate):
        with pytest.raises(DataError, match=why):
            simulated(plan, use, {"model": file})
    np.savez(file, **GOOD)
    assert sampling.calibrate(plan, use, {"model": file}).simulated.random == ("x",)


@pytest.mark.parametrize("cut", [0, 3, 100, -30, -1])
def test_a_file_that_is_cut_short_is_named(tmp_path: Path, cut: int) -> None:
    file = tmp_path / "model.npz"
    np.savez_compressed(file, **GOOD)
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"model.npz is no \.npz file, or is cut short, and the kept input model wants"):
        sampling.read_kept(file, "model", kept_by(fitted()))


def test_no_byte_of_a_file_ends_in_a_traceback(tmp_path: Path) -> None:
    file, item = tmp_path / "model.npz", kept_by(fitted())
    np.savez_compressed(file, **GOOD)
    whole = file.read_bytes()
    for at in range(0, len(whole), 3):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        with suppress(DataError):  # a byte that nobody reads, such as of a date, may change
            sampling.read_kept(file, "model", item)


def test_other_files_cannot_stand_for_a_kept_value(tmp_path: Path) -> None:
    item = kept_by(fitted())
    np.save(tmp_path / "model.npy", np.ones((2, 2)))
    (tmp_path / "model.csv").write_text("a,b\n1,2\n")
    for name in ("model.npy", "model.csv"):
        with pytest.raises(DataError, match=f"{name} is no .npz file"):
            sampling.read_kept(tmp_path / name, "model", item)
    with pytest.raises(DataError, match=r"none.npz cannot be read: No such file or directory"):
        sampling.read_kept(tmp_path / "none.npz", "model", item)


def test_a_single_array_may_have_any_name(tmp_path: Path) -> None:
    item = KeptInput("m", "job-1/1", (Leaf((), kept_by(fitted()).leaves[-1].type, "float32"),))
    np.savez(tmp_path / "w.npz", weights=np.ones((2, 2)))
    assert len(sampling.read_kept(tmp_path / "w.npz", "model", item)) == 1
    np.savez(tmp_path / "w.npz", weights=np.ones((2, 2)), model=np.zeros((2, 2)))
    assert sampling.read_kept(tmp_path / "w.npz", "model", item)[0].sum() == 0


def test_what_a_job_would_keep_is_compared_with_plain_jax() -> None:
    plan = Plan("fit", 18, {"x": X}, {"mean": ("alice",)}, keeps={"model": Keep("m")})
    found = {error.output: error.error for error in sampling.run(plan, fit, {}, protocol="masked").errors}
    assert found.keys() == {"mean", "model/w", "model/parts/0", *(f"model/parts/1/{i}" for i in range(3))}
    assert max(found.values()) < 1e-4


# ---- policy ----------------------------------------------------------------------------------------------------------
KEEPING = {"m": Keeping(frozenset({("alice", "rows"), ("bob", "rows"), ("", "older")}), ("carol",))}


def test_data_is_kept_only_where_its_owner_says_so() -> None:
    policy.check_keeping(KEEPING, {"rows": Terms({"carol"}, keep=True)}, "alice", "ab")
    policy.check_keeping(KEEPING, {"rows": Terms(set(), True, {"ab": {"carol"}})}, "alice", "ab")
    policy.check_keeping(KEEPING, {"rows": Terms({"anyone"}, keep=True)}, "alice", "ab")
    policy.check_keeping(KEEPING, {"other": Terms(set())}, "dave", "ab")  # not his
    with pytest.raises(
        PolicyError, match=r"the job would keep m, which is computed from alice/rows, and alice does not"
    ):
        policy.check_keeping(KEEPING, {"rows": Terms({"carol"})}, "alice", "ab")
    with pytest.raises(
        PolicyError, match=r"keep m for carol, and it is computed from alice/rows, which is not for carol"
    ):
        policy.check_keeping(KEEPING, {"rows": Terms({"alice"}, True, {"cd": {"carol"}})}, "alice", "ab")


def loading(to: tuple[str, ...] = ("alice",), keep: Keep | None = None) -> Graph:
    kept = {"model": kept_by(fitted())}
    again = {"again": keep} if keep else {}

    def both(x: Any, model: Any) -> dict[str, Any]:
        return use(x, model) | ({"again": model["w"]} if keep else {}) | {"seen": x.sum()}

    return trace(both, {"x": X}, {"y": to, "seen": ("dave",)}, kept=kept, keeps=again).graph


def test_what_is_computed_from_a_kept_value_goes_only_where_each_node_allows() -> None:
    program = loading().digest().hex()
    for terms in (Terms({"alice"}), Terms({"anyone"}), Terms(set(), programs={program: {"anyone"}})):
        policy.check_kept(loading(), {"m": terms}, "clinic_a")
    for graph, terms in (
        (loading(), Terms(set())),
        (loading(), Terms({"bob"})),
        (loading(("alice", "bob")), Terms({"alice"}, programs={program: {"anyone"}})),
        (loading(), Terms(set(), programs={program: {"bob"}})),  # approved, for others
    ):
        with pytest.raises(PolicyError, match=r"output y is computed from the kept m and would go to (alice|bob)"):
            policy.check_kept(graph, {"m": terms}, "clinic_a")
    with pytest.raises(PolicyError, match=f"mpcnode kept allow m --program {program}` at clinic_a"):
        policy.check_kept(loading(), {"m": Terms(set())}, "clinic_a")


def test_keeping_anew_is_no_way_round_the_terms() -> None:
    policy.check_kept(loading(keep=Keep("copy")), {"m": Terms({"alice"})}, "clinic_a")  # for nobody: nothing leaks
    with pytest.raises(PolicyError, match=r"copy, to be kept, is computed from the kept m and would go to eve"):
        policy.check_kept(loading(keep=Keep("copy", ("eve",))), {"m": Terms({"alice"})}, "clinic_a")
