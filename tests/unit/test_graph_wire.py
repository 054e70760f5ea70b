"""A graph as a message: the round trip, and what is refused on receipt."""

from collections.abc import Callable

import numpy as np
import pytest
from google.protobuf.message import DecodeError

from coordinator.lower.builder import Builder
from mpcnode import graph_wire
from mpcnode.graph import Attr, Graph, GraphError, Kind, Op, Type
from mpcnode.graph_wire import from_wire, to_wire
from mpcnode.verify import verify
from mpcnode.wire import graph_pb2

ARITH = Type(Kind.ARITH, 18, (4, 3))


def layer() -> Graph:
    """relu(x @ w) with a constant of more than a few elements, an output and source lines."""
    b = Builder()
    with b.at("train.py:12"):
        x = b.emit("input", type=ARITH, owner="clinic_a", dataset="wdbc", columns=("u", "v", "w"))
        w = b.const(np.arange(15.0).reshape(3, 5))
        z = b.emit("trunc", b.emit("dot", x, w), by=18)
        y = b.emit("select", b.emit("sign", z, lo=0), z, keep=0)
        b.emit("reveal", y, to=("analyst",), name="activations")
    return b.graph()


def looped() -> Graph:
    """A loop in a loop."""
    number = Type(Kind.PUBLIC, 0, ())
    inner = Graph((Op("param", (), {"index": 0}, number), Op("add", (0, 0), {}, number)), (1,))
    loop = {"length": 3, "reverse": 0, "consts": 0, "carry": 1}
    tuple_ = Type(Kind.TUPLE, 0, ())
    outer = Graph(
        (
            Op("param", (), {"index": 0}, number),
            Op("loop", (0,), {**loop, "body": inner}, tuple_),
            Op("get", (1,), {"index": 0}, number),
        ),
        (2,),
    )
    ops = (
        Op("const", (), {"value": np.array(1, np.int64)}, number, "a.py:1"),
        Op("loop", (0,), {**loop, "body": outer}, tuple_, "a.py:2"),
        Op("get", (1,), {"index": 0}, number),
        Op("reveal", (2,), {"to": ("analyst",), "name": "n"}, number),
    )
    return Graph(ops)


@pytest.mark.parametrize("graph", [layer(), looped(), Graph(())], ids=["layer", "loops", "empty"])
def test_the_round_trip_keeps_the_program(graph: Graph) -> None:
    verify(graph)
    message = graph_pb2.Graph.FromString(to_wire(graph).SerializeToString())
    back = from_wire(message)
    verify(back)
    assert back.digest() == graph.digest()
    assert back.text() == graph.text()  # with the source lines


def test_every_kind_of_attribute_comes_back_as_it_was() -> None:
    values: dict[str, Attr] = {
        "small": -(1 << 63),
        "text": "ärzte",
        "none": (),
        "integers": (1, -2, 1 << 62),
        "texts": ("a", ""),
        "scalar": np.array(-7, np.int64),
        "hollow": np.zeros((3, 0, 2), np.int64),
        "turned": np.arange(6, dtype=np.int64).reshape(2, 3).T,
    }
    back = from_wire(to_wire(Graph((Op("const", (), values, ARITH),)))).ops[0].attrs
    assert back.keys() == values.keys()
    for key, value in values.items():
        assert type(back[key]) is type(value)
        np.testing.assert_array_equal(np.asarray(back[key]), np.asarray(value))


@pytest.mark.parametrize(
    "attrs",
    [{"by": 1 << 64}, {"by": 1.5}, {"shape": (1, "a")}, {"columns": ("a", 1)}],
    ids=["wide", "float", "mixed", "mixed2"],
)
def test_what_no_message_holds_is_refused(attrs: dict[str, Attr]) -> None:
    with pytest.raises(GraphError, match="does not fit"):
        to_wire(Graph((Op("scale", (), attrs, ARITH),)))


def _deep(message: graph_pb2.Graph, levels: int) -> None:
    for _ in range(levels):
        op = message.ops.add(name="loop")
        op.type.kind = graph_pb2.KIND_TUPLE
        message = op.attrs["body"].graph


Spoil = Callable[[graph_pb2.Graph], object]
SPOILT: dict[str, tuple[Spoil, str]] = {
    "no kind": (lambda g: g.ops[2].type.ClearField("kind"), "%2 = dot: its type is of no known kind"),
    "a kind to come": (lambda g: setattr(g.ops[2].type, "kind", 77), "%2 = dot: its type is of no known kind"),
    "no value": (lambda g: g.ops[3].attrs["by"].ClearField("integer"), "attribute 'by': it has no value"),
    "no name": (lambda g: g.ops[3].ClearField("name"), "%3: its name"),
    "a long name": (lambda g: setattr(g.ops[3], "name", "x" * 65), "%3: its name"),
    "a name of two lines": (lambda g: setattr(g.ops[3], "name", "x\ny"), "%3: its name"),
    "a binary point": (lambda g: setattr(g.ops[3].type, "frac", 128), "binary point 128"),
    "many axes": (lambda g: g.ops[3].type.shape.extend([1] * 40), "more than 32 axes"),
    "many elements": (lambda g: g.ops[3].type.shape.append(1 << 60), "elements"),
    "many elements and none": (lambda g: g.ops[3].type.shape.extend([0, 1 << 60]), "elements"),
    "a huge constant": (lambda g: g.ops[1].attrs["value"].tensor.shape.append(1 << 31), "elements"),
    "too little constant": (
        lambda g: setattr(g.ops[1].attrs["value"].tensor, "data", b"1234567"),
        "has 120 bytes, not 7",
    ),
    "a constant's shape": (lambda g: g.ops[1].attrs["value"].tensor.shape.append(2), "has 240 bytes, not 120"),
    "many attributes": (lambda g: [g.ops[3].attrs[f"a{i}"].__class__ for i in range(17)], "more than 16 attributes"),
    "a source line": (lambda g: setattr(g.ops[3], "where", "a.py:1\nb.py:2"), "source line"),
    "a long text": (lambda g: setattr(g.ops[0].attrs["owner"], "text", "x" * 5000), "longer than 4096"),
    "a text of two lines": (lambda g: setattr(g.ops[0].attrs["owner"], "text", "x\ny"), "do not print"),
    "loops": (lambda g: _deep(g, 10), "nest deeper"),
}


@pytest.mark.parametrize(("spoil", "why"), SPOILT.values(), ids=SPOILT.keys())
def test_anything_odd_is_refused_and_named(spoil: Spoil, why: str) -> None:
    message = to_wire(layer())
    spoil(message)
    with pytest.raises(GraphError) as refused:
        from_wire(graph_pb2.Graph.FromString(message.SerializeToString()))
    assert why in str(refused.value)


def test_fields_of_a_later_version_are_refused() -> None:
    later = bytes([0x9A, 0x06, 1, 0])  # field 99, one byte
    with pytest.raises(GraphError, match="does not know"):
        from_wire(graph_pb2.Graph.FromString(to_wire(layer()).SerializeToString() + later))


def test_ops_are_counted_over_all_bodies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_wire, "MAX_OPS", 8)
    with pytest.raises(GraphError, match="more than 8 ops"):
        from_wire(to_wire(looped()))


def test_messages_of_random_bytes_are_a_graph_error_or_a_graph() -> None:
    whole = bytearray(to_wire(layer()).SerializeToString())
    rng = np.random.default_rng(1)
    for _ in range(300):
        spoilt = bytearray(whole)
        spoilt[rng.integers(len(whole))] ^= int(rng.integers(1, 256))
        message = graph_pb2.Graph()
        try:
            message.ParseFromString(bytes(spoilt))
        except DecodeError:
            continue
        try:
            verify(from_wire(message))
        except GraphError:
            continue
