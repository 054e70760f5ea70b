"""An ONNX model as a program: read with the onnx package, which checks it.  Nothing else imports onnx."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, inliner, numpy_helper

from coordinator.foreign.program import Place, Program, Ref, Step, Unsupported
from mpcnode.errors import DataError

WEIGHTS = "weights"  # of the model's metadata: the inputs that are weights
DOMAINS = ("", "ai.onnx")
DROPPED = ("consumed_inputs", "is_test", "spatial")  # of versions of long ago
FLAT_BEFORE = 13  # until then a softmax was one over all later axes

Arrays = dict[str, npt.NDArray[Any]]


class Read(NamedTuple):
    """program: its inputs are the weights and the model's inputs, by name.  weights: those that the file holds.
    shapes: of all weights.
    """

    program: Program
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: Arrays
    shapes: dict[str, tuple[int, ...]]


def load(source: Any) -> tuple[Any, str]:
    """The checked model, with local functions inlined, and its file's name.  DataError if it is none."""
    if isinstance(source, onnx.ModelProto):
        model, name = source, f"{source.graph.name or 'model'}.onnx"
    else:
        path = Path(source)
        name = path.name
        try:
            model = onnx.load(path)
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
        except Exception as error:
            raise DataError(f"{path} is no ONNX model: export it again") from error
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise DataError(f"{name} is no valid ONNX model: {str(error).strip().splitlines()[0]}") from error
    return (inliner.inline_local_functions(model) if model.functions else model), name


def read(model: Any, name: str) -> Read:
    """The model's program.  Raises Unsupported for operators of other domains."""
    graph = model.graph
    if graph.sparse_initializer:
        raise Unsupported(f"{name} has sparse weights: export it with dense ones")
    stripped = _stripped(model)
    tensors = {tensor.name: to_array(numpy_helper.to_array(tensor)) for tensor in graph.initializer}
    steps: list[Step] = []
    version = max((o.version for o in model.opset_import if o.domain in DOMAINS), default=1)
    for number, node in enumerate(graph.node, 1):
        if node.op_type == "Constant" and node.domain in DOMAINS:
            tensors[node.output[0]] = _constant(node)
        else:
            steps.append(_step(node, Place(name, number, node.name), version))
    weights = {n: a for n, a in tensors.items() if is_weight(a)}
    constants = {n: a for n, a in tensors.items() if n not in weights}
    shapes = {n: a.shape for n, a in weights.items()} | {
        v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in graph.input if v.name in stripped
    }
    inputs = tuple(v.name for v in graph.input if v.name not in tensors and v.name not in stripped)
    outputs = tuple(v.name for v in graph.output)
    return Read(Program(tuple(steps), constants, tuple(map(Ref, outputs))), inputs, outputs, weights, shapes)


def is_weight(array: npt.NDArray[Any]) -> bool:
    """Floats with at least one axis are weights; single numbers and integers belong to the architecture."""
    return array.dtype.kind == "f" and array.ndim > 0


def strip(model: Any) -> Any:
    """The model with its weights as inputs, and without their numbers."""
    found = onnx.ModelProto()
    found.CopyFrom(model)
    graph = found.graph
    weights: dict[str, Any] = {}
    for tensor in list(graph.initializer):
        if is_weight(to_array(numpy_helper.to_array(tensor))):
            weights[tensor.name] = (tensor.data_type, tensor.dims)
            graph.initializer.remove(tensor)
    for node in list(graph.node):
        if node.op_type == "Constant" and is_weight(_constant(node)):
            weights[node.output[0]] = (onnx.TensorProto.FLOAT, _constant(node).shape)
            graph.node.remove(node)
    for value in [v for v in graph.input if v.name in weights]:
        graph.input.remove(value)
    for name, (kind, dims) in weights.items():
        graph.input.append(helper.make_tensor_value_info(name, kind, list(dims)))
    for entry in [e for e in found.metadata_props if e.key == WEIGHTS]:
        found.metadata_props.remove(entry)
    helper.set_model_props(
        found, {**{e.key: e.value for e in found.metadata_props}, WEIGHTS: "\n".join([*_stripped(model), *weights])}
    )
    return found


def save(model: Any, path: Path) -> None:
    try:
        onnx.save(model, path)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}") from error


def to_array(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """float32, int32 or bool; larger integers stand for "to the end"."""
    if array.dtype.kind in "iu":
        return np.asarray(np.clip(array, np.iinfo(np.int32).min, np.iinfo(np.int32).max), np.int32)
    if array.dtype.kind == "b":
        return array.astype(np.bool_)
    if array.dtype.kind in "fV":  # V: bfloat16 and its like
        return array.astype(np.float32)
    raise Unsupported(f"the model holds a tensor of {array.dtype}: real numbers, integers and booleans are supported")


def _stripped(model: Any) -> list[str]:
    found = next((entry.value for entry in model.metadata_props if entry.key == WEIGHTS), "")
    return found.split("\n") if found else []


def _constant(node: Any) -> npt.NDArray[Any]:
    [attribute] = node.attribute
    value = helper.get_attribute_value(attribute)
    if isinstance(value, onnx.TensorProto):
        return to_array(numpy_helper.to_array(value))
    return to_array(np.asarray(value, np.float32 if "float" in attribute.name else None))


def _step(node: Any, place: Place, version: int) -> Step:
    if node.domain not in DOMAINS:
        raise Unsupported(
            f"{place}: operator '{node.domain}.{node.op_type}' is not ONNX's own; export the model without it"
        )
    attributes = {a.name: _attribute(a) for a in node.attribute if a.name not in DROPPED}
    args = [Ref(name) if name else None for name in node.input]
    op = f"{node.op_type}.flat" if node.op_type.endswith("Softmax") and version < FLAT_BEFORE else node.op_type
    if node.op_type == "Split":
        attributes["outputs"] = len(node.output)
    return Step(op, tuple(args), attributes, tuple(node.output), place)


def _attribute(attribute: Any) -> Any:
    """Tensors as arrays, texts as str, element types as numpy's."""
    value = helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, onnx.TensorProto):
        return to_array(numpy_helper.to_array(value))
    if attribute.name in ("to", "dtype") and isinstance(value, int):
        return to_array(np.zeros((), helper.tensor_dtype_to_np_dtype(value))).dtype
    if attribute.type == onnx.AttributeProto.STRINGS:
        return [text.decode() for text in value]
    return list(value) if isinstance(value, (list, tuple)) or hasattr(value, "extend") else value


def check_names(given: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    unknown = [name for name in given if name not in known]
    if unknown:
        listed = ", ".join(list(known)[:6])
        raise Unsupported(f"the model has no weights {unknown[0]!r}: it has {listed}")
