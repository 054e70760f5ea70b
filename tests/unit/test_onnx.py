"""ONNX models as jax functions: what a file of PyTorch's or by hand gives, in clear and on shares."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="ONNX is an optional extra: make test-models")

from compiling import agree, ops, traced  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

from coordinator import weights  # noqa: E402
from coordinator.frontend import CompileError  # noqa: E402
from coordinator.onnx import Unsupported, from_file, without_weights  # noqa: E402
from coordinator.onnx.rules import RULES  # noqa: E402
from mpcnode.errors import DataError  # noqa: E402
from mpcnode.simulate import simulate  # noqa: E402

DOCS = Path(__file__).parents[2] / "docs"
RNG = np.random.default_rng(6)


def model_of(nodes: list[Any], tensors: dict[str, Any], shape: tuple[Any, ...] = ("n", 64), opset: int = 17) -> Any:
    """From input x to output y."""
    graph = helper.make_graph(
        nodes, "net", [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["a", "b"])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in tensors.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def lenet() -> Any:
    """Convolution, batch normalisation, a residual block and a classifier, with a shape that is computed."""
    node = helper.make_node
    nodes = [
        node("Reshape", ["x", "image"], ["x0"]),
        node("Conv", ["x0", "k1", "b1"], ["x1"], name="/conv1/Conv", pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["x1", "scale", "shift", "mean", "variance"], ["x2"]),
        node("Relu", ["x2"], ["x3"]),
        node("Conv", ["x3", "k2", "b1"], ["x4"], pads=[1, 1, 1, 1]),
        node("Add", ["x4", "x3"], ["x5"]),
        node("MaxPool", ["x5"], ["x6"], kernel_shape=[2, 2], strides=[2, 2]),
        node("AveragePool", ["x6"], ["x7"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Shape", ["x7"], ["s0"]),
        node("Constant", [], ["zero"], value_ints=[0]),
        node("Constant", [], ["rest"], value_ints=[-1]),
        node("Gather", ["s0", "zero"], ["s1"]),
        node("Concat", ["s1", "rest"], ["s2"], axis=0),
        node("Reshape", ["x7", "s2"], ["x8"]),
        node("Gemm", ["x8", "w", "b2"], ["x9"], transB=1),
        node("Softmax", ["x9"], ["y"], axis=-1),
    ]
    tensors = {
        "image": np.array([-1, 1, 8, 8]), "k1": RNG.normal(size=(2, 1, 3, 3)), "b1": RNG.normal(size=2),
        "scale": RNG.uniform(0.5, 2, 2), "shift": RNG.normal(size=2), "mean": RNG.normal(size=2),
        "variance": RNG.uniform(0.5, 2, 2), "k2": 0.3 * RNG.normal(size=(2, 2, 3, 3)), "w": RNG.normal(size=(3, 8)),
        "b2": RNG.normal(size=3),
    }  # fmt: skip
    return model_of(nodes, {n: a.astype(np.float32) if a.dtype.kind == "f" else a for n, a in tensors.items()})


X = RNG.normal(size=(2, 64)).astype(np.float32)


def test_a_network_gives_the_reference_numbers(tmp_path: Path) -> None:
    onnx.save(lenet(), tmp_path / "lenet.onnx")
    model = from_file(tmp_path / "lenet.onnx")
    assert (model.inputs, model.outputs) == (("x",), ("y",))
    assert list(model.params) == ["k1", "b1", "scale", "shift", "mean", "variance", "k2", "w", "b2"]
    [wanted] = ReferenceEvaluator(onnx.load(tmp_path / "lenet.onnx")).run(None, {"x": X})
    np.testing.assert_allclose(model.apply(model.params, X), wanted, atol=1e-5)
    np.testing.assert_allclose(jax.jit(model.apply)(model.params, X), wanted, atol=1e-5)
    np.testing.assert_allclose(model.apply({}, X[:1]), wanted[:1], atol=1e-5)


def test_on_shares_ops_stand_at_their_nodes() -> None:
    model = from_file(lenet())
    found = agree(lambda x: model.apply(model.params, x), X, tolerance=2e-3)
    assert [op.where for op in ops(found["legal"], "conv")] == ["net.onnx:2", "net.onnx:5"]


def test_a_secret_model_predicts_on_secret_data(tmp_path: Path) -> None:
    """Who writes the job has the architecture, one owner the weights and another the data."""
    onnx.save(lenet(), tmp_path / "lenet.onnx")
    without_weights(tmp_path / "lenet.onnx", tmp_path / "architecture.onnx")
    theirs, public = from_file(tmp_path / "lenet.onnx"), from_file(tmp_path / "architecture.onnx")
    assert weights.save(theirs.params, tmp_path / "weights.npy") == weights.pack(public.params).size
    assert not any(array.any() for array in public.params.values())
    numbers = {abs(float(n)) for n in weights.pack(theirs.params)}
    kept = onnx.load(tmp_path / "architecture.onnx").graph.initializer
    assert not numbers & {abs(float(n)) for t in kept for n in numpy_helper.to_array(t).reshape(-1)}
    with pytest.raises(Unsupported, match="the file holds no weights 'k1': pass them in params"):
        public.apply({}, X)

    column = np.load(tmp_path / "weights.npy").astype(np.float32)[:, None]
    graph = traced(lambda x, m: public.apply(weights.unpack(m, public.params), x), X, column).graph
    found = simulate(graph, {("owner", "d0"): X, ("owner", "d1"): column}, "masked").outputs["out"]
    np.testing.assert_allclose(found, theirs.apply(theirs.params, X), atol=5e-3)


def test_a_sequence_model_gives_the_reference_numbers() -> None:
    """As PyTorch writes it: the last step by a scalar index of -1, and attributes that say the default."""
    node = helper.make_node
    nodes = [
        node("Reshape", ["x", "steps"], ["x0"]),
        node("LSTM", ["x0", "w", "r", "b"], ["all"], hidden_size=3, direction="forward", input_forget=0, layout=0),
        node("Gather", ["all", "last"], ["x1"], axis=0),
        node("Squeeze", ["x1", "first"], ["y"]),
    ]
    tensors = {
        "steps": np.array([8, 2, -1]), "w": RNG.normal(size=(1, 12, 8)), "r": RNG.normal(size=(1, 12, 3)),
        "b": RNG.normal(size=(1, 24)), "last": np.array(-1), "first": np.array([0]),
    }  # fmt: skip
    net = model_of(nodes, {n: a.astype(np.float32) if a.dtype.kind == "f" else a for n, a in tensors.items()})
    [wanted] = ReferenceEvaluator(net).run(None, {"x": X})
    np.testing.assert_allclose(from_file(net).apply({}, X), wanted, atol=1e-5)


# ---- refusals ------------------------------------------------------------------------------------------------------
def one(op: str, **attributes: Any) -> Any:
    return model_of([helper.make_node(op, ["x"], ["y"], name="/last", **attributes)], {})


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (one("NonZero"), "net.onnx:1, /last: ONNX operator 'NonZero' is not supported; choose with Where"),
        (one("Dropout", seed=1), None),
        (model_of([helper.make_node("Softmax", ["x"], ["y"])], {}, opset=11), "of an opset below 13 .*; export"),
        (model_of([helper.make_node("Reshape", ["x", "x"], ["y"])], {}), None),
    ],
)
def test_what_cannot_be_computed_is_refused_by_its_node(model: Any, why: str | None) -> None:
    if model.graph.node[0].op_type == "Dropout":
        assert np.array_equal(from_file(model).apply({}, X), X)
        return
    if why is None:  # no valid model: shapes are integers
        why = "ONNX operator 'Reshape' wants a shape, axis or index that depends on an input"
    with pytest.raises(CompileError, match=why):
        from_file(model).apply({}, X)


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("weights")
    with pytest.raises(DataError, match=r"text.onnx is no (valid )?ONNX model"):
        from_file(tmp_path / "text.onnx")
    with pytest.raises(DataError, match=r"nowhere.onnx cannot be read"):
        from_file(tmp_path / "nowhere.onnx")
    with pytest.raises(Unsupported, match="no weights 'k9': it has k1, b1"):
        from_file(lenet()).apply({"k9": X}, X)
    with pytest.raises(Unsupported, match="has 1 inputs, not 2: x"):
        from_file(lenet()).apply({}, X, X)


def test_without_onnx_there_is_one_sentence() -> None:
    program = "import sys; sys.modules['onnx'] = None; import coordinator.client, coordinator.onnx"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert found.stderr.splitlines()[-1].endswith("is not installed: pip install 'mpcnode[onnx]', or onnx itself")


def test_the_documentation_lists_the_operators() -> None:
    table = (DOCS / "onnx.md").read_text().partition("## What is supported")[2].partition("Not supported")[0]
    listed = set(re.findall(r"`(\w+)`", table.partition("`lenet.onnx:7")[2]))
    assert listed == {name for name in RULES if "." not in name} | {"Constant"}
