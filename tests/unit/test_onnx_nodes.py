"""ONNX's own test cases of every operator that has a rule."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="ONNX is an optional extra: make test-models")

from coordinator.onnx import from_file  # noqa: E402
from coordinator.onnx.rules import RULES  # noqa: E402

OTHER_TYPES = ("float64", "float32", "int64", "int32", "bool")  # of numbers that are computed with
OUT = {  # cases that are not for these rules: a part of the name, and why
    "string": "texts",
    "sequence": "sequences of tensors",
    "optional": "optional values",
    "test_cast_": "conversions between types of few bits",
    "test_castlike_": "conversions between types of few bits",
    "_seed": "random numbers",
    "training": "training: export the model for inference",
    "_with_argmax": "places of maxima",
    "with_loss": "places of maxima",
    "peepholes": "refused",
}
UNTOLD = {"Cast", "CastLike", "Softmax.flat", "LogSoftmax.flat"}  # rules without a case here


def cases() -> dict[str, list[Any]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.loader import load_model_tests

        found = load_model_tests(kind="node")
    chosen: dict[str, list[Any]] = {}
    for case in found:
        [node, *more] = case.model.graph.node
        plain = not more and node.domain == "" and not any(part in case.name for part in OUT)
        if plain and node.op_type in RULES and all(usual(arrays) for data in case.data_sets for arrays in data):
            chosen.setdefault(node.op_type, []).append(case)
    return chosen


def usual(arrays: Iterable[Any]) -> bool:
    return all(isinstance(a, (np.ndarray, np.generic)) and a.dtype.name in OTHER_TYPES for a in arrays)


def frozen(model: Any, inputs: Sequence[Any]) -> Any:
    """The model with its integer inputs as constants, as exporters write shapes, axes and counts."""
    found = onnx.ModelProto()
    found.CopyFrom(model)
    op = model.graph.node[0].op_type
    every = op in ("Range", "ConstantOfShape")
    for value, array in list(zip(found.graph.input, map(np.asarray, inputs), strict=True)):
        if every or (array.dtype.kind == "i" and len(inputs) > 1) or (op == "OneHot" and array.size == 1):
            found.graph.initializer.append(onnx.numpy_helper.from_array(array, value.name))
            found.graph.input.remove(value)
    return found


def check(case: Any) -> str:
    """What is wrong; nothing if all is well."""
    for inputs, outputs in case.data_sets:
        given = dict(zip([v.name for v in case.model.graph.input], inputs, strict=True))
        model = from_file(frozen(case.model, inputs))
        found = model.apply({}, *(given[name] for name in model.inputs))
        for f, w in zip(found if isinstance(found, tuple) else (found,), outputs, strict=True):
            if f.shape != w.shape:
                return f"{f.shape} instead of {w.shape}"
            if not np.allclose(np.asarray(f), w, rtol=1e-3, atol=1e-5, equal_nan=True):
                return f"off by {np.abs(np.asarray(f, float) - w).max()}"
    return ""


@pytest.mark.timeout(900)
def test_every_operator_passes_its_cases() -> None:
    """Two of each operator: all of them take minutes, most of them to compile."""
    found = cases()
    assert not set(RULES) - set(found) - UNTOLD
    wrong = []
    for several in found.values():
        for case in several[:: -(-len(several) // 2)]:
            why = check(case)
            wrong += [f"{case.name}: {why}"] if why else []
    assert not wrong
