"""The program that parties run: straight-line SSA over typed values, with one text form.

    type  ::= public.F [shape] | arith.F [shape] | bit [shape] | tuple          F: the binary point
    op    ::= %i = name %arg ... {attr value, ...} : type                       arguments come earlier
    graph ::= op ...  -> %output ...

A value's name is its position.  `public` values are known to every party, `arith` values are shared in Z_2^64 as
fixed-point numbers with F fraction bits, `bit` values are shared in Z_2.  Products add binary points, sums want equal
ones, and only `trunc` moves one back, so a missing truncation is a type error.  `loop` carries values through a body
graph; `get` picks one of its results.  Which ops there are stands in optable.py, that a graph is one in verify.py.
"""

from __future__ import annotations

import enum
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypeAlias, Union

import numpy as np
import numpy.typing as npt

MAX_ELEMENTS = 1 << 32
MAX_AXES = 32  # numpy's limit is 64, and a sharing has one more
MAX_OPS = 1 << 20
MAX_DEPTH = 8
MAX_FRAC = 127  # products of small numbers have more fraction bits than the ring has
TOP = 63  # the bit of the sign
MAX_ONEHOT = 1 << 16
MAX_AND = 8  # bits of one conjunction
MAX_CUTS = 1 << 16  # public numbers that one op compares with
MAX_STEPS = 1 << 40  # iterations of one op, over all the loops around it: they address randomness


class GraphError(ValueError):
    """A graph that no party may run: the message names the op and the rule that it breaks."""


class Kind(enum.Enum):
    PUBLIC = "public"
    ARITH = "arith"
    BIT = "bit"
    TUPLE = "tuple"  # the results of a loop, before `get`


class Type(NamedTuple):
    kind: Kind
    frac: int
    shape: tuple[int, ...]

    def __str__(self) -> str:
        if self.kind is Kind.TUPLE:
            return "tuple"
        point = "" if self.kind is Kind.BIT else f".{self.frac}"
        return f"{self.kind.value}{point} [{','.join(map(str, self.shape))}]"

    @property
    def size(self) -> int:
        """Elements of the value."""
        return math.prod(self.shape)


Attr: TypeAlias = Union[int, str, tuple[int, ...], tuple[str, ...], npt.NDArray[np.int64], "Graph"]
Attrs: TypeAlias = Mapping[str, Attr]


class Op(NamedTuple):
    name: str
    args: tuple[int, ...]
    attrs: Attrs
    type: Type
    where: str = ""  # file:line of the user's function, for messages and profiles; no part of the digest
    most: int = 0  # fraction bits that this number has room for, 0: nobody measured it; the compiler's, not sent

    def integer(self, key: str, default: int | None = None) -> int:
        """The attribute of that name, which the op table says is an integer; the default if it is left out."""
        value = self.attrs[key] if default is None else self.attrs.get(key, default)
        assert isinstance(value, int)
        return value

    def integers(self, key: str, default: tuple[int, ...] | None = None) -> tuple[int, ...]:
        """As `integer`, for a tuple of them."""
        value = self.attrs[key] if default is None else self.attrs.get(key, default)
        assert isinstance(value, tuple)
        return tuple(int(v) for v in value)

    def text(self, key: str) -> str:
        value = self.attrs[key]
        assert isinstance(value, str)
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.attrs[key]
        assert isinstance(value, tuple)
        return tuple(str(v) for v in value)

    @property
    def value(self) -> npt.NDArray[np.int64]:
        """The array of a `const`."""
        value = self.attrs["value"]
        assert isinstance(value, np.ndarray)
        return value

    @property
    def body(self) -> Graph:
        """The body of a `loop`: its parameters are consts, carried values and one slice of each scanned value, its
        outputs the next carried values and one slice of each stacked result.
        """
        value = self.attrs["body"]
        assert isinstance(value, Graph)
        return value


class Graph(NamedTuple):
    ops: tuple[Op, ...]
    outputs: tuple[int, ...] = ()

    def text(self) -> str:
        """For people: one line an op, loops indented, source lines behind a hash sign."""
        return "\n".join(_lines(self, "", for_people=True)) + "\n"

    def digest(self) -> bytes:
        """SHA-256 of the canonical text: equal digests mean equal programs."""
        return hashlib.sha256("\n".join(_lines(self, "", for_people=False)).encode()).digest()

    def walk(self) -> Iterator[Op]:
        """Every op, those of loop bodies included, in order."""
        for op in self.ops:
            yield op
            if op.name == "loop":
                yield from op.body.walk()


# ---- text ----------------------------------------------------------------------------------------------------------
def _attr_text(value: Attr, for_people: bool) -> str:
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, tuple):
        return "[" + ",".join(_attr_text(v, for_people) for v in value) + "]"
    if isinstance(value, np.ndarray):
        if value.size <= 6:
            return str(value.tolist()).replace(" ", "")
        whole = hashlib.sha256(np.ascontiguousarray(value, dtype="<i8").tobytes()).hexdigest()
        return "sha256:" + (whole[:12] if for_people else whole)
    return str(value)


def _lines(graph: Graph, indent: str, for_people: bool) -> Iterator[str]:
    for i, op in enumerate(graph.ops):
        attrs = ", ".join(f"{k} {_attr_text(v, for_people)}" for k, v in sorted(op.attrs.items()) if k != "body")
        line = f"{indent}%{i} = {op.name}" + "".join(f" %{a}" for a in op.args) + (f" {{{attrs}}}" if attrs else "")
        line += f" : {op.type}"
        yield line + (f"  # {op.where}" if for_people and op.where else "")
        if op.name == "loop":
            yield from _lines(op.body, indent + "    ", for_people)
    yield f"{indent}-> " + " ".join(f"%{o}" for o in graph.outputs)
