"""The verifier says which rule is broken; the text shows all, the digest covers all but source lines."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

from mpcnode import graph, optable
from mpcnode import verify as verifier
from mpcnode.graph import MAX_AXES, MAX_DEPTH, MAX_ELEMENTS, MAX_STEPS, Attr, Graph, GraphError, Kind, Op, Type
from mpcnode.optable import OPS
from mpcnode.verify import infer, verify

INT = np.int64


def public(*shape: int, frac: int = 0) -> Type:
    return Type(Kind.PUBLIC, frac, shape)


def arith(*shape: int, frac: int = 18) -> Type:
    return Type(Kind.ARITH, frac, shape)


def bit(*shape: int) -> Type:
    return Type(Kind.BIT, 0, shape)


TUPLE = Type(Kind.TUPLE, 0, ())


# ---- rules on one op -------------------------------------------------------------------------------------------------
APART = "arith.18 [{}] and arith.18 [{}] are no images and window"
STEPS = "strides, dilations and lengths of the window are at least 1"
WINDOW = {"stride": (1,), "low": (0,), "high": (0,), "base_dilation": (1,), "window_dilation": (1,)}


class Broken(NamedTuple):
    """An op on arguments of these types, and what the verifier says of it."""

    name: str
    args: list[Type]
    attrs: dict[str, Any]
    why: str
    type: Type = Type(Kind.ARITH, 18, ())


def loop_attrs(body: Graph, **other: Any) -> dict[str, Any]:
    return {"length": 3, "reverse": 0, "consts": 0, "carry": 1, "body": body} | other


def param(index: int, type: Type) -> Op:
    return Op("param", (), {"index": index}, type)


ECHO = Graph((param(0, arith(2)),), (0,))
INPUT = {"owner": "a", "dataset": "d", "columns": ("x", "y")}
SLICE = {"start": (0,), "limit": (3,), "stride": (1,)}

STORE = {"kept": "model", "path": (".w",), "dtype": "float32", "to": (), "replace": 0}
LOAD = {"kept": "model", "run": "job-1/1", "path": (".w",)}
BROKEN = [
    Broken("sqrt", [arith()], {}, "is no op"),
    Broken("neg", [], {}, "has 0 arguments, not 1"),
    Broken("add", [arith()] * 3, {}, "has 3 arguments, not 2"),
    Broken("concat", [], {"axis": 0}, "has 0 arguments, not 1 or more"),
    Broken("neg", [arith()], {"by": 1}, "has attributes ['by'], not []"),
    Broken("trunc", [arith()], {}, "has attributes [], not ['by']"),
    Broken("trunc", [arith()], {"by": "1"}, "attribute by is ill-typed"),
    Broken("trunc", [arith()], {"by": True}, "attribute by is ill-typed"),
    Broken("scale", [arith()], {"by": 1 << 63, "frac": 0}, "attribute by is ill-typed"),
    Broken("reshape", [arith()], {"shape": [1]}, "attribute shape is ill-typed"),
    Broken("reshape", [arith()], {"shape": (1.0,)}, "attribute shape is ill-typed"),
    Broken("reveal", [arith()], {"to": "bob", "name": "x"}, "attribute to is ill-typed"),
    Broken("const", [], {"value": 3}, "attribute value is ill-typed"),
    Broken("loop", [arith(2)], loop_attrs("body"), "attribute body is ill-typed"),  # type: ignore[arg-type]
    Broken("trunc", [arith(frac=18)], {"by": 19}, "binary point -1 is outside 0 to 127"),
    Broken("mul", [arith(frac=64), arith(frac=64)], {}, "binary point 128 is outside 0 to 127"),
    Broken("scale", [arith()], {"by": 1, "frac": -(1 << 62)}, "binary point -4611686018427387886 is outside 0 to 127"),
    Broken("reshape", [arith(6)], {"shape": (-2, -3)}, "shape [-2, -3] is out of bounds"),
    Broken("pad", [arith(1)], {"low": (0,), "high": (MAX_ELEMENTS,)}, f"shape [{MAX_ELEMENTS + 1}] is out of bounds"),
    Broken("reshape", [arith(1)], {"shape": (1,) * (MAX_AXES + 1)}, f"shape {[1] * (MAX_AXES + 1)} is out of bounds"),
    *(
        Broken(name, [TUPLE, *more], attrs, "a loop's results must be picked with get")
        for name, more, attrs in (
            ("neg", [], {}),
            ("add", [public()], {}),
            ("reveal", [], {"to": ("bob",), "name": "x"}),
            ("reshape", [], {"shape": (1,)}),
            ("broadcast", [], {"shape": (2,), "dims": ()}),
            ("loop", [], loop_attrs(ECHO)),
        )
    ),
    # boundary
    Broken("input", [], INPUT, "an input is arith", public(3, 2)),
    Broken("input", [], INPUT, "an input is [rows, columns]", arith(3, 3)),
    Broken("input", [], INPUT, "an input is [rows, columns]", arith(3)),
    Broken("const", [], {"value": np.zeros(2)}, "a constant is int64"),
    Broken("const", [], {"value": np.zeros(2, ">i8")}, "a constant is int64"),
    Broken("param", [], {"index": 0}, "wants a declared type", TUPLE),
    Broken("lift", [arith()], {"kind": "arith"}, "lifts public values only"),
    Broken("lift", [public(frac=1)], {"kind": "bit"}, "kind must be arith, or bit for integers"),
    Broken("lift", [public()], {"kind": "public"}, "kind must be arith, or bit for integers"),
    Broken("reveal", [arith()], {"to": (), "name": "x"}, "names no recipient"),
    Broken("store", [public()], STORE, "keeps shared values only: lift a public one first"),
    Broken("store", [arith()], {**STORE, "kept": ""}, "names no kept value"),
    Broken("store", [arith()], {**STORE, "dtype": "int32"}, "keeps arith.18 [] as 'int32'"),
    Broken("store", [bit()], STORE, "keeps bit [] as 'float32'"),
    Broken("store", [arith()], {**STORE, "dtype": "object"}, "keeps arith.18 [] as 'object'"),
    Broken("store", [arith()], {**STORE, "replace": 2}, "replace must be 0 or 1"),
    Broken("load", [], LOAD, "loads shared values only", public(2)),
    Broken("load", [], {**LOAD, "run": ""}, "names no kept value and the run that made it"),
    # structure
    Broken("reshape", [arith(2, 3)], {"shape": (5,)}, "[2, 3] has not the elements of [5]"),
    Broken("transpose", [arith(2, 3)], {"perm": (0,)}, "[0] permutes no 2 axes"),
    Broken("transpose", [arith(2, 3)], {"perm": (0, 0)}, "[0, 0] permutes no 2 axes"),
    Broken("broadcast", [arith(2)], {"shape": (2,), "dims": ()}, "dims has not one entry an axis"),
    Broken("broadcast", [arith(1, 1)], {"shape": (2, 2), "dims": (1, 0)}, "dims [1, 0] do not rise within the shape"),
    Broken("broadcast", [arith(2)], {"shape": (2,), "dims": (1,)}, "dims [1] do not rise within the shape"),
    Broken("broadcast", [arith(2)], {"shape": (3,), "dims": (0,)}, "[2] does not spread over [3]"),
    Broken("slice", [arith(3, 1)], SLICE, "start, limit and stride have not one entry an axis"),
    Broken("slice", [arith(2)], SLICE, "slices outside the value"),
    Broken("slice", [arith(3)], SLICE | {"start": (-1,)}, "slices outside the value"),
    Broken("slice", [arith(3)], SLICE | {"stride": (0,)}, "slices outside the value"),
    Broken("slice", [arith(3)], SLICE | {"start": (3,), "limit": (2,)}, "slices outside the value"),
    Broken("join", [arith(2, 1), arith(2, 1)], {}, "joins inputs only"),
    Broken("concat", [arith(2), bit(2)], {"axis": 0}, "joins arith.18 [2] and bit [2]"),
    Broken("concat", [arith(2), arith(2, frac=1)], {"axis": 0}, "joins arith.18 [2] and arith.1 [2]"),
    Broken("concat", [arith(2), arith(2, 1)], {"axis": 0}, "joins arith.18 [2] and arith.18 [2,1]"),
    Broken("concat", [arith(2, 3), arith(2, 4)], {"axis": 0}, "joins arith.18 [2,3] and arith.18 [2,4]"),
    Broken("concat", [arith(2)], {"axis": 1}, "axes [1] are not axes of [2]"),
    Broken("pad", [arith(2)], {"low": (), "high": (0,)}, "low and high have not one entry >= 0 an axis"),
    Broken("pad", [arith(2)], {"low": (-1,), "high": (0,)}, "low and high have not one entry >= 0 an axis"),
    Broken("rev", [arith(2, 2)], {"axes": (1, 0)}, "axes [1, 0] are not axes of [2, 2]"),
    Broken("sum", [arith(2, 2)], {"axes": (1, 1)}, "axes [1, 1] are not axes of [2, 2]"),
    Broken("take", [arith(2), arith(1)], {"axis": 0}, "indices must be public integers"),
    Broken("take", [arith(2), public(1, frac=1)], {"axis": 0}, "indices must be public integers"),
    Broken("take", [arith(2), public(1)], {"axis": -1}, "axes [-1] are not axes of [2]"),
    Broken("dynamic_slice", [arith(2), arith(1)], {"sizes": (1,)}, "the corner must be public integers"),
    Broken("dynamic_slice", [arith(2), public()], {"sizes": (1,)}, "wants one number an axis"),
    Broken("dynamic_slice", [arith(2), public(1)], {"sizes": ()}, "wants one number an axis"),
    Broken("dynamic_slice", [arith(2), public(1)], {"sizes": (3,)}, "takes [3] out of [2]"),
    Broken("dynamic_update", [arith(2), arith(1), bit(1)], {}, "the corner must be public integers"),
    Broken("dynamic_update", [arith(2), public(1), public(1)], {}, "puts public.0 [1] into arith.18 [2]"),
    Broken("dynamic_update", [arith(2), arith(1, 1), public(1)], {}, "wants one number an axis"),
    Broken("dynamic_update", [arith(2), arith(3), public(1)], {}, "puts arith.18 [3] into arith.18 [2]"),
    # arithmetic
    Broken("mul", [arith(), bit()], {}, "an arith and a bit value do not mix: inject the bit first"),
    Broken("add", [arith(frac=36), arith()], {}, "binary points 36 and 18 differ: a truncation is missing"),
    Broken("sub", [arith(2), arith(1)], {}, "shapes [2] and [1] differ"),
    Broken("mul", [arith(2), public()], {}, "shapes [2] and [] differ"),
    *(
        Broken(name, [bit(2)] * OPS[name].arity, attrs, "a bit is no ring element: inject it first")  # type: ignore[operator]
        for name, attrs in (
            ("add", {}),
            ("neg", {}),
            ("sum", {"axes": ()}),
            ("scale", {"by": 1, "frac": 0}),
            ("mul", {}),
        )
    ),
    Broken("dot", [arith(2, 3), arith(2, 3)], {}, "arith.18 [2,3] and arith.18 [2,3] do not multiply"),
    Broken("dot", [arith(2, 2), arith(2, 2)], {"twice": 2}, "twice must be 0 or 1"),
    Broken("dot", [arith(3), arith(3)], {}, "arith.18 [3] and arith.18 [3] do not multiply"),
    Broken("dot", [arith(2, 1, 1), arith(3, 1, 1)], {}, "arith.18 [2,1,1] and arith.18 [3,1,1] do not multiply"),
    Broken("dot", [bit(1, 1), bit(1, 1)], {}, "a bit is no ring element: inject it first"),
    *(
        Broken("conv", args, WINDOW | attrs, message)
        for args, attrs, message in (
            (
                [arith(1, 2, 5, 3), arith(1, 2, 4, 1)],
                {},
                APART.format("1,2,5,3", "1,2,4,1"),
            ),
            (
                [arith(1, 2, 5, 3), arith(2, 2, 3, 1)],
                {},
                APART.format("1,2,5,3", "2,2,3,1"),
            ),
            ([arith(1, 2, 3), arith(1, 3, 1)], {}, APART.format("1,2,3", "1,3,1")),
            ([arith(1, 2, 5, 3), arith(1, 2, 3, 1)], {"low": (0, 0)}, "its window has not one entry an axis"),
            ([arith(1, 2, 5, 3), arith(1, 2, 3, 1)], {"stride": (0,)}, STEPS),
            ([arith(1, 2, 5, 3), arith(1, 2, 3, 1)], {"base_dilation": (0,)}, STEPS),
            ([arith(1, 2, 5, 3), arith(1, 0, 3, 1)], {}, STEPS),
            ([arith(1, 2, 5, 3), arith(1, 2, 3, 1)], {"low": (1 << 33,), "high": (-(1 << 33),)}, "pads out of bounds"),
            ([arith(1, 2, 5, 3), arith(1, 2, 3, 1)], {"base_dilation": (1 << 40,)}, "pads out of bounds"),
            ([bit(1, 2, 5, 3), bit(1, 2, 3, 1)], {}, "a bit is no ring element: inject it first"),
        )
    ),
    Broken("trunc", [public(frac=18)], {"by": 1}, "truncates arith values only"),
    Broken("trunc", [arith()], {"by": 0}, "by must be 1 to 62"),
    Broken("trunc", [arith()], {"by": 63}, "by must be 1 to 62"),
    Broken("mul", [arith(2), arith(2)], {"by": 0}, "by must be 1 to 62"),
    Broken("mul", [public(2), arith(2)], {"by": 1}, "truncates arith values only"),
    Broken("mul", [arith(2), public(2)], {"by": 1}, "truncates on the way to a product of arith values only"),
    Broken("square", [arith(2)], {"by": 63}, "by must be 1 to 62"),
    Broken("square", [public(2)], {"by": 1}, "truncates arith values only"),
    Broken("rescale", [public(2)], {"by": 1, "times": 1, "frac": 0}, "rescales arith values only"),
    Broken("rescale", [arith(2)], {"by": 63, "times": 1, "frac": 0}, "by must be 1 to 62"),
    Broken("rescale", [arith(2)], {"by": 3, "times": 9, "frac": 0}, "times must be 1 to 2^by, and below 2^31"),
    Broken("rescale", [arith(2)], {"by": 40, "times": 1 << 31, "frac": 0}, "times must be 1 to 2^by, and below 2^31"),
    Broken("rescale", [arith(2)], {"by": 3, "times": 0, "frac": 0}, "times must be 1 to 2^by, and below 2^31"),
    Broken("select", [bit(2), arith(2)], {"keep": 0, "by": 0}, "by must be 1 to 62"),
    Broken("select", [bit(2), arith(2)], {"keep": 0, "axes": ()}, "sums up over no axis"),
    Broken("select", [bit(2), arith(2)], {"keep": 0, "axes": (1,)}, "axes [1] are not axes of [2]"),
    # bits
    *(
        Broken(name, args, {}, "wants a bit, and a bit or public zeros and ones")
        for name in ("xor", "and", "or")
        for args in ([public(), public()], [bit(), public(frac=1)], [arith(), arith()])
    ),
    Broken("and", [bit(2), bit(3)], {}, "shapes [2] and [3] differ"),
    Broken("and", [bit(2), bit(2), bit(3)], {}, "shapes [2] and [3] differ"),
    Broken("and", [bit(2)], {}, "joins 2 to 8 bits"),
    Broken("and", [bit(2)] * 9, {}, "joins 2 to 8 bits"),
    Broken("and", [bit(2), bit(2), public(2)], {}, "joins more than two bits only if all are shared"),
    Broken("not", [public()], {}, "wants a bit"),
    Broken("inject", [arith()], {}, "wants a bit"),
    Broken("onehot", [public()], {"size": 4}, "wants arith integers"),
    Broken("onehot", [arith()], {"size": 4}, "wants arith integers"),
    Broken("onehot", [arith(frac=0)], {"size": 0}, "size must be 1 to 65536"),
    Broken("onehot", [arith(frac=0)], {"size": 65537}, "size must be 1 to 65536"),
    Broken("sign", [bit()], {"lo": 0}, "wants an arith value"),
    Broken("sign", [arith()], {"lo": 63}, "wants 0 <= lo < top <= 63"),
    Broken("sign", [arith()], {"lo": -1}, "wants 0 <= lo < top <= 63"),
    Broken("sign", [arith()], {"lo": 18, "top": 18}, "wants 0 <= lo < top <= 63"),
    Broken("sign", [arith()], {"lo": 0, "top": 64}, "wants 0 <= lo < top <= 63"),
    Broken("sign", [arith()], {"lo": 0, "cuts": ()}, "compares with 1 to 65536 numbers"),
    Broken("sign", [arith()], {"lo": 0, "cuts": tuple(range(65537))}, "compares with 1 to 65536 numbers"),
    Broken("sign", [arith()], {"lo": 0, "cuts": (1 << 63,)}, "compares with ring elements of 64 bits"),
    Broken("sign", [arith()], {"lo": 0, "cuts": 5}, "attribute cuts is ill-typed"),
    Broken("sign", [arith()], {"lo": 0, "top": 8, "bottom": 1}, "has attributes ['bottom', 'lo'], not ['lo']"),
    Broken("select", [bit(), public()], {"keep": 1}, "wants a bit and an arith value"),
    Broken("select", [public(), arith()], {"keep": 1}, "wants a bit and an arith value"),
    Broken("select", [bit(), arith()], {"keep": 2}, "keep must be 0 or 1"),
    Broken("select", [bit(1), arith()], {"keep": 1}, "shapes [1] and [] differ"),
    # loops
    Broken("loop", [arith(2)], loop_attrs(ECHO, length=0), "wants a length >= 1 and reverse 0 or 1"),
    Broken("loop", [arith(2)], loop_attrs(ECHO, reverse=2), "wants a length >= 1 and reverse 0 or 1"),
    Broken("loop", [arith(2)], loop_attrs(ECHO, consts=1), "has fewer arguments than consts and carried values"),
    Broken("loop", [arith(2)], loop_attrs(ECHO, consts=-1), "has fewer arguments than consts and carried values"),
    Broken("loop", [arith(2), arith(2)], loop_attrs(ECHO), "scans arith.18 [2] in 3 steps"),
    Broken("loop", [arith(2), arith()], loop_attrs(ECHO), "scans arith.18 [] in 3 steps"),
    Broken("loop", [arith(2)], loop_attrs(Graph((param(0, arith(2)),))), "returns fewer values than it carries"),
    Broken(
        "loop",
        [arith(2)],
        loop_attrs(Graph((param(0, arith(2)), Op("reveal", (0,), {"to": ("b",), "name": "x"}, arith(2))), (0,))),
        "reveal stands outside of loops only",
    ),
    Broken(
        "loop",
        [arith(2)],
        loop_attrs(Graph((param(0, arith(2)), Op("input", (), INPUT, arith(3, 2))), (0,))),
        "input stands outside of loops only",
    ),
    *(
        Broken("loop", [arith(2)], loop_attrs(body), "the body has not one param an argument, in order")
        for body in (
            Graph((param(0, arith(2)), param(1, arith(2))), (0,)),
            Graph((param(0, arith(2)), param(0, arith(2))), (0,)),
            Graph((param(1, arith(2)),), (0,)),
        )
    ),
    Broken("loop", [arith(3)], loop_attrs(ECHO), "param 0 is arith.18 [2], its argument arith.18 [3]"),
    Broken("loop", [bit(2)], loop_attrs(ECHO), "param 0 is arith.18 [2], its argument bit [2]"),
    Broken("loop", [arith(3, 3)], loop_attrs(ECHO, carry=0), "param 0 is arith.18 [2], its argument arith.18 [3]"),
    Broken(
        "loop",
        [arith(2)],
        loop_attrs(Graph((param(0, arith(2)), Op("mul", (0, 0), {}, arith(2, frac=36))), (1,))),
        "carries arith.18 [2] in and arith.36 [2] out",
    ),
    Broken(
        "loop",
        [arith(2)],
        loop_attrs(Graph((param(0, arith(2)), Op("loop", (0,), loop_attrs(ECHO), TUPLE)), (0, 1))),
        "a loop's results must be picked with get",
    ),
    Broken(
        "loop",
        [arith(2)],
        loop_attrs(Graph((param(0, arith(2)),), (0, 0)), length=MAX_ELEMENTS),
        f"stacks arith.18 [2] in {MAX_ELEMENTS} steps, which is out of bounds",
    ),
    Broken("get", [arith()], {"index": 0}, "picks a result of a loop"),
]


def refusal(broken: Broken) -> str:
    ops = [Op("unspecified", (), {}, t) for t in broken.args]
    with pytest.raises(GraphError) as caught:
        infer(Op(broken.name, tuple(range(len(ops))), broken.attrs, broken.type), ops)
    return str(caught.value)


@pytest.mark.parametrize("broken", BROKEN, ids=lambda b: f"{b.name}-{b.why}"[:60])
def test_a_broken_rule_is_named(broken: Broken) -> None:
    assert refusal(broken) == broken.why


# ---- rules on a graph ------------------------------------------------------------------------------------------------
CONST = Op("const", (), {"value": np.arange(2)}, public(2))


def nested(depth: int, length: int = 1) -> Graph:
    """Loops in each other."""
    inside = Graph((param(0, public(2)),), (0,))
    for _ in range(depth - 1):
        loop = Op("loop", (0,), loop_attrs(inside, length=length), TUPLE)
        inside = Graph((param(0, public(2)), loop, Op("get", (1,), {"index": 0}, public(2))), (2,))
    return Graph((CONST, Op("loop", (0,), loop_attrs(inside, length=length), TUPLE)))


PASS = Op("loop", (0,), loop_attrs(Graph((param(0, public(2)),), (0,))), TUPLE)


def revealed(name: str) -> Op:
    return Op("reveal", (0,), {"to": ("bob",), "name": name}, public(2))


def joined(*inputs: tuple[str, Type]) -> Graph:
    """A join of inputs of one owner: their datasets and types."""
    ops = [Op("input", (), {**INPUT, "dataset": name}, type) for name, type in inputs]
    return Graph((*ops, Op("join", tuple(range(len(ops))), {}, arith(2, 4))))


def kept(**change: Attr) -> Op:
    return Op("store", (0,), {**STORE, **change}, arith())


LOADED = Op("load", (), LOAD, arith())
BROKEN_GRAPHS: list[tuple[str, Graph]] = [
    ("%1 = join: joins two and more datasets, each once", joined(("d", arith(2, 2)))),
    ("%2 = join: joins two and more datasets, each once", joined(("d", arith(2, 2)), ("d", arith(2, 2)))),
    (
        "%2 = join: joins inputs of different rows or binary points",
        joined(("d", arith(2, 2)), ("e", arith(3, 2))),
    ),
    (
        "%2 = join: joins inputs of different rows or binary points",
        joined(("d", arith(2, 2)), ("e", arith(2, 2, frac=0))),
    ),
    ("two outputs share a name", Graph((CONST, revealed("x"), revealed("x")))),
    ("two kept arrays share a place", Graph((LOADED, kept(), kept()))),
    (
        "the arrays of a kept value differ in who may use it",
        Graph((LOADED, kept(), kept(path=(".b",), to=("bob",)))),
    ),
    (
        "%1 = loop: load stands outside of loops only",
        Graph((CONST, Op("loop", (0,), loop_attrs(Graph((param(0, public(2)), LOADED), (0,))), TUPLE))),
    ),
    ("%1 = neg: an argument does not come earlier", Graph((CONST, Op("neg", (1,), {}, public(2))))),
    ("%1 = neg: an argument does not come earlier", Graph((CONST, Op("neg", (-1,), {}, public(2))))),
    ("%1 = neg: an argument does not come earlier", Graph((CONST, Op("neg", (False,), {}, public(2))))),
    ("%0 = param: a param stands in a loop's body only", Graph((param(0, arith()),))),
    ("%1 = neg: is public.0 [3], should be public.0 [2]", Graph((CONST, Op("neg", (0,), {}, public(3))))),
    ("%1 = neg: is arith.0 [2], should be public.0 [2]", Graph((CONST, Op("neg", (0,), {}, arith(2, frac=0))))),
    (": an output is no op", Graph((CONST,), (1,))),
    (": an output is no op", Graph((CONST,), (-1,))),
    (": more than 1048576 ops", Graph((CONST,) * ((1 << 20) + 1))),
    (
        "%1 = loop" + " / %1 = loop" * (MAX_DEPTH - 1) + f" / %1 = loop / : loops nest deeper than {MAX_DEPTH}",
        nested(9),
    ),
    (f"%1 = loop: runs an op more than {MAX_STEPS} times", nested(3, 1 << 20)),
    (
        "%2 = get: picks result 3 of 1 (train.py:7)",
        Graph((CONST, PASS, Op("get", (1,), {"index": 3}, public(2), "train.py:7"))),
    ),
    ("%2 = get: picks result -1 of 1", Graph((CONST, PASS, Op("get", (1,), {"index": -1}, public(2))))),
]


@pytest.mark.parametrize(("why", "graph"), BROKEN_GRAPHS, ids=lambda v: v[:50] if isinstance(v, str) else "")
def test_a_broken_graph_is_refused_at_its_place(why: str, graph: Graph) -> None:
    with pytest.raises(GraphError) as caught:
        verify(graph)
    assert str(caught.value) == why


def test_the_place_and_the_users_line_are_named() -> None:
    body = Graph((param(0, public(2)), Op("trunc", (0,), {"by": 1}, public(2), "train.py:7")), (1,))
    graph = Graph((CONST, Op("loop", (0,), loop_attrs(body), TUPLE, "train.py:3")))
    with pytest.raises(GraphError, match=re.escape("%1 = loop / %1 = trunc: truncates arith values only (train.py:7)")):
        verify(graph)


def test_as_deep_and_as_often_as_allowed() -> None:
    verify(nested(MAX_DEPTH))
    verify(nested(2, 1 << 20))


def test_every_rule_of_the_verifier_is_broken_here() -> None:
    """The messages in the source, with anything in their braces, against those that the cases above brought about."""
    seen = [b.why for b in BROKEN] + [why for why, _ in BROKEN_GRAPHS]
    source = "".join(inspect.getsource(module) for module in (graph, optable, verifier))
    calls = [
        call
        for call in ast.walk(ast.parse(source.replace("from __future__ import annotations", "")))
        if isinstance(call, ast.Call)
    ]
    assert len(calls) > 100
    for call in calls:
        if isinstance(call.func, ast.Name) and call.func.id in ("need", "GraphError"):
            text = call.args[-1]
            if isinstance(text, (ast.Constant, ast.JoinedStr)):
                parts = text.values if isinstance(text, ast.JoinedStr) else [text]
                pattern = "".join(
                    re.escape(str(part.value)) if isinstance(part, ast.Constant) else ".*" for part in parts
                )
                assert any(re.search(pattern, why) for why in seen), f"no case breaks: {pattern}"


# ---- text ------------------------------------------------------------------------------------------------------------
def relu() -> Graph:
    body = Graph(
        (
            param(0, arith(2, 2)),
            Op("dot", (0, 0), {}, arith(2, 2, frac=36), "net.py:4"),
            Op("trunc", (1,), {"by": 18}, arith(2, 2)),
        ),
        (2,),
    )
    ops = (
        Op("input", (), {"owner": "clinic_a", "dataset": "wdbc", "columns": ("x", 'y"')}, arith(2, 2), "net.py:1"),
        Op("const", (), {"value": np.arange(4, dtype=INT).reshape(2, 2)}, public(2, 2, frac=18)),
        Op("const", (), {"value": np.arange(7, dtype=INT)}, public(7)),
        Op("add", (0, 1), {}, arith(2, 2)),
        Op("loop", (3,), loop_attrs(body), TUPLE),
        Op("get", (4,), {"index": 0}, arith(2, 2)),
        Op("sign", (5,), {"lo": 18}, bit(2, 2)),
        Op("select", (6, 5), {"keep": 0}, arith(2, 2), "net.py:9"),
        Op("reveal", (7,), {"to": ("analyst", "clinic_a"), "name": "out"}, arith(2, 2)),
    )
    return Graph(ops)


def test_the_text_form() -> None:
    verify(relu())
    assert relu().text() == (
        '%0 = input {columns ["x","y\\""], dataset "wdbc", owner "clinic_a"} : arith.18 [2,2]  # net.py:1\n'
        "%1 = const {value [[0,1],[2,3]]} : public.18 [2,2]\n"
        "%2 = const {value sha256:81845a01dafa} : public.0 [7]\n"
        "%3 = add %0 %1 : arith.18 [2,2]\n"
        "%4 = loop %3 {carry 1, consts 0, length 3, reverse 0} : tuple\n"
        "    %0 = param {index 0} : arith.18 [2,2]\n"
        "    %1 = dot %0 %0 : arith.36 [2,2]  # net.py:4\n"
        "    %2 = trunc %1 {by 18} : arith.18 [2,2]\n"
        "    -> %2\n"
        "%5 = get %4 {index 0} : arith.18 [2,2]\n"
        "%6 = sign %5 {lo 18} : bit [2,2]\n"
        "%7 = select %6 %5 {keep 0} : arith.18 [2,2]  # net.py:9\n"
        '%8 = reveal %7 {name "out", to ["analyst","clinic_a"]} : arith.18 [2,2]\n'
        "-> \n"
    )


def test_walking_goes_into_loops() -> None:
    names = [op.name for op in relu().walk()]
    assert names == [
        *("input", "const", "const", "add", "loop"),
        *("param", "dot", "trunc"),
        *("get", "sign", "select", "reveal"),
    ]


# ---- digest ----------------------------------------------------------------------------------------------------------
def changed(graph: Graph, i: int, **fields: Any) -> Graph:
    return graph._replace(ops=tuple(op._replace(**fields) if k == i else op for k, op in enumerate(graph.ops)))


def attrs(graph: Graph, i: int, **new: Attr) -> Graph:
    return changed(graph, i, attrs={**graph.ops[i].attrs, **new})


def in_body(change: Callable[[Graph], Graph]) -> Callable[[Graph], Graph]:
    return lambda graph: attrs(graph, 4, body=change(graph.ops[4].body))


CHANGES: dict[str, Callable[[Graph], Graph]] = {
    "an op's name": lambda g: changed(g, 3, name="sub"),
    "the order of arguments": lambda g: changed(g, 3, args=(1, 0)),
    "an argument": lambda g: changed(g, 3, args=(1, 1)),
    "a binary point": lambda g: changed(g, 0, type=arith(2, 2, frac=17)),
    "a shape": lambda g: changed(g, 0, type=arith(2, 3)),
    "a kind": lambda g: changed(g, 0, type=public(2, 2, frac=18)),
    "an owner": lambda g: attrs(g, 0, owner="clinic_b"),
    "a column's name": lambda g: attrs(g, 0, columns=("x", "y")),
    "how columns are cut": lambda g: attrs(g, 0, columns=('x","y"',)),
    "the order of columns": lambda g: attrs(g, 0, columns=('y"', "x")),
    "a small constant": lambda g: attrs(g, 1, value=np.array([[0, 1], [2, 4]])),
    "a constant's shape": lambda g: changed(
        attrs(g, 1, value=np.arange(4).reshape(4, 1)), 1, type=public(4, 1, frac=18)
    ),
    "a large constant": lambda g: attrs(g, 2, value=np.array([0, 1, 2, 3, 4, 5, 7])),
    "an integer": lambda g: attrs(g, 6, lo=17),
    "a recipient": lambda g: attrs(g, 8, to=("analyst", "clinic_b")),
    "one recipient less": lambda g: attrs(g, 8, to=("analyst",)),
    "an output's name": lambda g: attrs(g, 8, name="out2"),
    "a loop's length": lambda g: attrs(g, 4, length=4),
    "a loop's direction": lambda g: attrs(g, 4, reverse=1),
    "an op of a body": in_body(lambda b: changed(b, 1, name="mul")),
    "an attribute in a body": in_body(lambda b: attrs(b, 2, by=17)),
    "a type in a body": in_body(lambda b: changed(b, 2, type=arith(2, 2, frac=17))),
    "a body's outputs": in_body(lambda b: b._replace(outputs=(2, 2))),
    "one op less": lambda g: g._replace(ops=g.ops[:-1]),
    "outputs": lambda g: g._replace(outputs=(7,)),
}


def test_the_digest_covers_all() -> None:
    digests = {name: change(relu()).digest() for name, change in CHANGES.items()}
    digests["nothing"] = relu().digest()
    assert len(set(digests.values())) == len(digests)
    assert all(len(digest) == 32 for digest in digests.values())


def test_the_digest_does_not_cover_source_lines() -> None:
    elsewhere = in_body(lambda b: changed(b, 1, where="x.py:1"))(changed(relu(), 0, where="other.py:99"))
    assert elsewhere.digest() == relu().digest()
    assert elsewhere.text() != relu().text()


def test_the_digest_does_not_depend_on_how_attributes_are_kept() -> None:
    graph = changed(relu(), 0, attrs=dict(reversed(list(relu().ops[0].attrs.items()))))
    assert graph.digest() == relu().digest()
    other = attrs(relu(), 2, value=np.arange(14)[::2] // 2)  # a view with steps
    assert other.digest() == relu().digest()


def test_types_know_their_size() -> None:
    assert [t.size for t in (arith(), arith(3, 4), arith(2, 0))] == [1, 12, 0]
    assert [str(t) for t in (arith(), public(3, 4), bit(1), TUPLE)] == [
        "arith.18 []",
        "public.0 [3,4]",
        "bit [1]",
        "tuple",
    ]
