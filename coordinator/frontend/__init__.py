"""From a jax function to a graph.  Nothing else imports jax.

The function is traced on the shapes of its inputs.  What does not depend on their values is evaluated right here, loop
counters, random permutations and learning rates included (`visibility`, `known`); the rest is written by one rule per
primitive (`emit`, `lower.rules`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from traceback import walk_tb
from typing import Any, NamedTuple

import jax
import numpy as np

from coordinator import trees
from coordinator.calibration import Calibration
from coordinator.frontend.emit import Block
from coordinator.frontend.flat import Flat, flatten, prune, user_line
from coordinator.frontend.measured import Calibrated
from coordinator.frontend.observe import check
from coordinator.frontend.scope import Scope
from coordinator.jobfile import Input, Keep, KeptInput, Leaf, Piece
from coordinator.lower.builder import Builder, Value
from coordinator.lower.rules import INSTEAD, CompileError, Operand, Site
from mpcnode.graph import Graph, Kind, Type
from mpcnode.ring import FRAC
from mpcnode.verify import verify

CONCRETE = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)


class Output(NamedTuple):
    """One array that is revealed.  name: the output and its place in it, as in weights/0/w.  dtype: float32, int32 or
    bool.  A recipient decodes the ring elements with `frac`.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    frac: int
    to: tuple[str, ...]


class Traced(NamedTuple):
    """outputs: what is revealed."""

    graph: Graph
    outputs: tuple[Output, ...]


def trace(
    function: Callable[..., Any],
    inputs: Mapping[str, Input],
    outputs: Mapping[str, Sequence[str]],
    frac: int = FRAC,
    calibration: Calibration | None = None,
    assume: bool = False,
    *,
    kept: Mapping[str, KeptInput] | None = None,
    keeps: Mapping[str, Keep] | None = None,
) -> Traced:
    """The verified graph of `function` on these inputs.

    The function gets its inputs by name, if it has parameters of these names, else in their order; each is float32,
    int32 (integer columns) or bool (boolean ones), [rows, columns] or [rows]; behind them come the kept ones, each
    in the dicts, lists and tuples it was kept in.  It returns a dict with the names of `outputs`, which say who
    learns each, and of `keeps`, which nobody does; values may be any pytrees.  calibration: what it has met sets
    binary points; `assume`: and is taken as certain. Raises CompileError for what cannot be computed on secret
    data, for what it raises, and for another program's calibration.
    """
    kept, keeps = kept or {}, keeps or {}
    flat, structure = flat_of(function, inputs, (*outputs, *keeps), kept)
    if calibration is not None:
        check(calibration, flat, inputs)
    scope = Scope(frac, calibrated=Calibrated(calibration.seen, assume) if calibration else None)
    values = [_read(scope, f"in{k}", item) for k, item in enumerate(inputs.values())]
    for item in kept.values():
        values += jax.tree_util.tree_leaves(
            whole(item, [_load(scope, item, leaf) for leaf in item.leaves]), is_leaf=_is_value
        )
    found = Block(scope, flat, values).run()
    places = {name: iter(_places(name, structure[name])) for name in keeps}
    leaves: list[Output] = []
    for (name, leaf), result in zip(_leaves(structure), found, strict=True):
        output = name.split("/")[0]
        if output in keeps:
            _store(scope, keeps[output], next(places[output]), result, leaf)
        else:
            leaves.append(_reveal(scope, name, result, leaf, tuple(outputs[output])))
    graph = scope.builder.graph()
    verify(graph)
    return Traced(graph, tuple(leaves))


def flat_of(
    function: Callable[..., Any],
    inputs: Mapping[str, Input],
    outputs: Collection[str],
    kept: Mapping[str, KeptInput] | None = None,
) -> tuple[Flat, Any]:
    """The function as a flat program, and the pytree of its results' shapes."""
    kept = kept or {}
    loaded = [whole(item, [_struct(leaf) for leaf in item.leaves]) for item in kept.values()]
    call = _called_by(function, (*inputs, *kept))
    try:
        closed, structure = jax.make_jaxpr(call, return_shape=True)(*(_shape(i) for i in inputs.values()), *loaded)
    except CompileError:
        raise  # it names its place
    except Exception as error:
        raise CompileError(_told(error)) from error
    _named(structure, outputs, getattr(function, "__name__", "the function"))
    flat, _ = prune(flatten(closed), [True] * len(closed.jaxpr.outvars))
    return flat, structure


def _told(error: Exception) -> str:
    """What the user's function raised, in one sentence, behind its line."""
    line = next((place for f, n in reversed(list(walk_tb(error.__traceback__))) if (place := user_line(f, n))), "")
    place = f"{line}: " if line else ""
    if isinstance(error, CONCRETE) and "size argument" in str(error):
        return f"{place}the shape of a result would depend on secret data; pass size=, or choose with jnp.where"
    if isinstance(error, CONCRETE):
        return f"{place}Python asks for the value of an array that is secret or traced; {INSTEAD['cond']}"
    return f"{place}{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"


def _shape(item: Input) -> Any:
    return jax.ShapeDtypeStruct(item.shape, np.dtype(item.dtype))  # type: ignore[no-untyped-call]


def _called_by(function: Callable[..., Any], names: tuple[str, ...]) -> Callable[..., Any]:
    """The function of positional arguments, called by name where it knows the names."""
    parameters = inspect.signature(function).parameters
    if all(n in parameters and parameters[n].kind is not inspect.Parameter.POSITIONAL_ONLY for n in names):
        return lambda *args: function(**dict(zip(names, args, strict=True)))
    return function


def whole(item: KeptInput, leaves: Sequence[Any]) -> Any:
    """Arrays of a kept value, in the order of its leaves, in the tree that was kept."""
    try:
        return trees.build([(leaf.path, array) for leaf, array in zip(item.leaves, leaves, strict=True)])
    except ValueError as error:
        raise CompileError(f"the kept {item.name} cannot be put together: {error}") from error


def _struct(leaf: Leaf) -> Any:
    return jax.ShapeDtypeStruct(leaf.type.shape, np.dtype(leaf.dtype))  # type: ignore[no-untyped-call]


def _is_value(node: Any) -> bool:
    return isinstance(node, Value)


def _places(name: str, tree: Any) -> list[trees.Path]:
    try:
        return list(trees.paths(tree))
    except ValueError as error:
        raise CompileError(f"output {name!r} cannot be kept: {error}") from error


def _named(structure: Any, outputs: Collection[str], who: str) -> list[tuple[str, Any]]:
    """Every array of the result with its name, in jax's order.  Raises CompileError when the outputs do not match."""
    if not isinstance(structure, dict):
        raise CompileError(f"{who} returns no dict: it wants one entry for each of {', '.join(outputs)}")
    for name in structure:
        if name not in outputs:
            raise CompileError(f"{who} returns {name!r}, and the job does not say who learns it: add it to [outputs]")
    for name in outputs:
        if name not in structure:
            raise CompileError(f"{who} does not return {name!r}, which the job's [outputs] name")
    return _leaves(structure)


def _leaves(structure: Any) -> list[tuple[str, Any]]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(structure)
    return [("/".join(_key(part) for part in path), leaf) for path, leaf in leaves]


def _key(part: Any) -> str:
    for attribute in ("key", "idx", "name"):
        if hasattr(part, attribute):
            return str(getattr(part, attribute)).replace("/", "_")
    return str(part)


def _read(scope: Scope, place: str, item: Input) -> Value:
    """An input's pieces, stacked or joined."""
    b, seen = scope.builder, scope.calibrated.seen.get(place) if scope.calibrated and not item.integer else None
    frac = 0 if item.integer else seen.point(b.frac) if seen else b.frac
    with b.aiming(b.frac, seen.room if seen else 0):
        return _pieces(b, item, frac)


def _pieces(b: Builder, item: Input, frac: int) -> Value:
    pieces = [
        b.emit(
            "input", owner=p.owner, dataset=p.dataset, columns=tuple(p.columns),
            type=Type(Kind.ARITH, frac, (p.rows, len(p.columns))),
        )
        for p in item.pieces
    ]  # fmt: skip
    if item.joined:
        whole = b.emit("join", *pieces)
    else:
        whole = pieces[0] if len(pieces) == 1 else b.emit("concat", *pieces, axis=0)
    if item.boolean:  # shared as numbers 0 and 1
        whole = b.emit("sign", b.emit("neg", whole), lo=0, top=2)
    return b.reshape(whole, item.shape)


def _load(scope: Scope, item: KeptInput, leaf: Leaf) -> Value:
    """One array of a kept value, with this job's fraction bits; a calibrated job takes it as it is."""
    b = scope.builder
    value = b.emit("load", kept=item.name, run=item.run, path=leaf.path, type=leaf.type)
    return b.align(value, b.frac) if leaf.dtype == "float32" and not scope.calibrated else value


def _store(scope: Scope, keep: Keep, path: trees.Path, result: Operand | None, leaf: Any) -> None:
    dtype = _dtype(leaf)
    shared = scope.builder.lift(_value(scope, result), Kind.BIT if dtype == "bool" else Kind.ARITH)
    scope.builder.emit(
        "store", shared, kept=keep.name, path=path, dtype=dtype, to=keep.recipients, replace=int(keep.replace)
    )


def _reveal(scope: Scope, name: str, result: Operand | None, leaf: Any, to: tuple[str, ...]) -> Output:
    value = _value(scope, result)
    scope.builder.emit("reveal", value, to=to, name=name)
    return Output(name, tuple(leaf.shape), _dtype(leaf), value.frac, to)


def _dtype(leaf: Any) -> str:
    """Of an output's array: float32, int32 or bool."""
    return {"f": "float32", "b": "bool"}.get(np.dtype(leaf.dtype).kind, "int32")


def _value(scope: Scope, result: Operand | None) -> Value:
    """An output as a value, whatever it is."""
    assert result is not None
    if isinstance(result, Value):
        return result
    return Site("output", {}, [result.shape], [result.kind], "", scope, lambda index: index).value(result)


__all__ = ["CompileError", "Input", "Output", "Piece", "Traced", "trace"]
