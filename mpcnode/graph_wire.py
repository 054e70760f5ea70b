"""A graph as a message, and back.

`from_wire` trusts nothing: it bounds every size before it allocates, refuses what it does not know, and builds a graph
that has yet to pass `graph.verify`.  The round trip keeps `Graph.digest()`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mpcnode.graph import MAX_DEPTH, MAX_ELEMENTS, MAX_FRAC, MAX_OPS, Attr, Graph, GraphError, Kind, Op, Type
from mpcnode.wire import graph_pb2

MAX_AXES = 32
MAX_ATTRS = 16
MAX_NAME = 64  # characters of the name of an op or attribute
MAX_TEXT = 4096  # characters of a text attribute or a source line
MAX_TEXTS = 1 << 16  # texts of one attribute: the columns of an input

_KINDS = {
    Kind.PUBLIC: graph_pb2.KIND_PUBLIC,
    Kind.ARITH: graph_pb2.KIND_ARITH,
    Kind.BIT: graph_pb2.KIND_BIT,
    Kind.TUPLE: graph_pb2.KIND_TUPLE,
}
_KINDS_BACK = {number: kind for kind, number in _KINDS.items()}


def to_wire(graph: Graph) -> graph_pb2.Graph:
    """The message of a verified graph.  Raises GraphError for what a message cannot hold."""
    message = graph_pb2.Graph()
    try:
        _write_graph(graph, message)
    except (ValueError, TypeError) as error:  # protobuf's, for a number out of range or a value of another type
        raise GraphError(f"the graph does not fit into a message: {error}") from None
    return message


def from_wire(message: graph_pb2.Graph) -> Graph:
    """The graph of a message, not yet verified.  Raises GraphError naming the op for anything odd."""
    _refuse_unknown(message)
    return _Reader().graph(message, "", 0)


# ---- writing ---------------------------------------------------------------------------------------------------------
def _write_graph(graph: Graph, message: graph_pb2.Graph) -> None:
    message.outputs.extend(graph.outputs)
    for op in graph.ops:
        written = message.ops.add(name=op.name, args=op.args, where=op.where)
        written.type.CopyFrom(type_to_wire(op.type))
        for key, value in op.attrs.items():
            _write_attr(value, written.attrs[key])


def type_to_wire(type_: Type) -> graph_pb2.Type:
    """The message of a type."""
    return graph_pb2.Type(kind=_KINDS[type_.kind], frac=type_.frac, shape=type_.shape)


def type_from_wire(message: graph_pb2.Type) -> Type:
    """The type of a message.  Raises GraphError for what is none."""
    return _type(message, "a type")


def _write_attr(value: Attr, attr: graph_pb2.Attr) -> None:
    if isinstance(value, Graph):  # before tuple, which a Graph is as well
        attr.graph.SetInParent()
        _write_graph(value, attr.graph)
    elif isinstance(value, np.ndarray):
        attr.tensor.shape.extend(value.shape)
        attr.tensor.data = np.ascontiguousarray(value, dtype="<i8").tobytes()
    elif isinstance(value, str):
        attr.text = value
    elif isinstance(value, tuple) and value and all(isinstance(v, str) for v in value):
        attr.strings.values.extend(str(v) for v in value)
    elif isinstance(value, tuple):
        attr.integers.values.extend(int(v) for v in value)
        attr.integers.SetInParent()  # or an empty one would be no value at all
    else:
        attr.integer = value


# ---- reading ---------------------------------------------------------------------------------------------------------
def _need(holds: bool, place: str, why: str) -> None:
    if not holds:
        raise GraphError(f"{place}: {why}" if place else why)


def _refuse_unknown(message: graph_pb2.Graph) -> None:
    """A field that this version does not know may change what the graph means to others."""
    known = graph_pb2.Graph()
    known.CopyFrom(message)
    known.DiscardUnknownFields()
    _need(known.ByteSize() == message.ByteSize(), "", "the graph has fields that this version does not know")


class _Reader:
    """Reads one message and its nested bodies, counting ops over all of them."""

    def __init__(self) -> None:
        self._ops = 0

    def graph(self, message: graph_pb2.Graph, path: str, depth: int) -> Graph:
        _need(depth <= MAX_DEPTH, path, f"loops nest deeper than {MAX_DEPTH}")
        self._ops += len(message.ops)
        _need(self._ops <= MAX_OPS, path, f"the graph has more than {MAX_OPS} ops")
        _need(len(message.outputs) <= MAX_OPS, path, f"the graph has more than {MAX_OPS} outputs")
        ops = tuple(self._op(op, f"{path}%{i}", depth) for i, op in enumerate(message.ops))
        return Graph(ops, tuple(message.outputs))

    def _op(self, op: graph_pb2.Op, place: str, depth: int) -> Op:
        _need(0 < len(op.name) <= MAX_NAME and op.name.isidentifier(), place, "its name is no name of an op")
        place = f"{place} = {op.name}"
        _need(len(op.where) <= MAX_TEXT and op.where.isprintable(), place, "its source line is no line of text")
        _need(len(op.args) <= MAX_OPS, place, f"it has more than {MAX_OPS} arguments")
        _need(len(op.attrs) <= MAX_ATTRS, place, f"it has more than {MAX_ATTRS} attributes")
        attrs = {key: self._attr(op.attrs[key], f"{place}, attribute {key[:MAX_NAME]!r}", depth) for key in op.attrs}
        return Op(op.name, tuple(op.args), attrs, _type(op.type, place), op.where)

    def _attr(self, attr: graph_pb2.Attr, place: str, depth: int) -> Attr:
        match attr.WhichOneof("value"):
            case "integer":
                return attr.integer
            case "text":
                return _text(attr.text, place)
            case "integers":
                return tuple(attr.integers.values)
            case "strings":
                _need(len(attr.strings.values) <= MAX_TEXTS, place, f"it has more than {MAX_TEXTS} texts")
                return tuple(_text(value, place) for value in attr.strings.values)
            case "tensor":
                return _tensor(attr.tensor, place)
            case "graph":
                return self.graph(attr.graph, f"{place} / ", depth + 1)
            case _:
                raise GraphError(f"{place}: it has no value")


def _text(text: str, place: str) -> str:
    _need(len(text) <= MAX_TEXT, place, f"a text is longer than {MAX_TEXT} characters")
    _need(text.isprintable(), place, "a text has characters that do not print")  # it will stand in logs
    return text


def _shape(shape: Sequence[int], place: str) -> tuple[int, ...]:
    _need(len(shape) <= MAX_AXES, place, f"it has more than {MAX_AXES} axes")
    # Without the zeros, which numpy does not let make up for other axes of any length.
    _need(math.prod(n for n in shape if n) <= MAX_ELEMENTS, place, f"it has more than {MAX_ELEMENTS} elements")
    return tuple(shape)


def _type(message: graph_pb2.Type, place: str) -> Type:
    kind = _KINDS_BACK.get(message.kind)
    if kind is None:
        raise GraphError(f"{place}: its type is of no known kind")
    _need(message.frac <= MAX_FRAC, place, f"binary point {message.frac} is outside 0 to {MAX_FRAC}")
    return Type(kind, message.frac, _shape(message.shape, place))


def _tensor(message: graph_pb2.Tensor, place: str) -> npt.NDArray[np.int64]:
    shape = _shape(message.shape, place)
    wanted = math.prod(shape) * 8
    _need(
        len(message.data) == wanted,
        place,
        f"a constant of shape {list(shape)} has {wanted} bytes, not {len(message.data)}",
    )
    # A copy: the graph outlives the message, and kernels want native byte order.
    return np.frombuffer(message.data, dtype="<i8").astype(np.int64).reshape(shape)
