"""Evaluating, at compile time and by jax itself, what does not depend on secrets.

`interpret` runs a flat jaxpr on arrays, where None stands for a secret; loops with secrets in them run with their known
part.  Inside loops of the program, known values are stacks over the steps (`Public`); `evaluate` maps over them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from coordinator.frontend.flat import OPAQUE, Equation, Flat
from coordinator.frontend.visibility import known_outputs, known_variables, outputs_of, scan_carry, while_carry
from coordinator.lower.rules import Public, refuse

LIMIT_BYTES = 1 << 30  # of known values that one loop may need
FAST = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}  # it runs once: compile soon
Arrays: TypeAlias = Sequence[Any]  # None for a secret


# ---- one evaluation, inside jax.jit --------------------------------------------------------------------------------
def interpret(flat: Flat, inputs: Arrays, wanted: Collection[int]) -> dict[int, Any]:
    """The wanted variables; those that are secret are None.  Only what they need is evaluated."""
    values: dict[int, Any] = {**flat.constants, **dict(zip(flat.inputs, inputs, strict=True))}
    for e in _needed(flat, wanted):
        results = _apply(e, [values.get(v) for v in e.inputs])
        values.update(zip(e.outputs, results, strict=True))
    return {v: values.get(v) for v in wanted}


def _needed(flat: Flat, wanted: Collection[int]) -> list[Equation]:
    live, kept = set(wanted), []
    for e in reversed(flat.equations):
        if any(o in live for o in e.outputs):
            kept.append(e)
            live.update(e.inputs)
    return kept[::-1]


def _run(flat: Flat, inputs: Arrays) -> list[Any]:
    values = interpret(flat, inputs, set(flat.outputs))
    return [values[v] for v in flat.outputs]


def _apply(e: Equation, inputs: Arrays) -> list[Any]:
    known = known_outputs(e, [x is not None for x in inputs])
    if not any(known):
        return [None] * len(e.outputs)
    if e.name == "scan":
        return _scan(e, inputs, ())[0]
    if e.name == "while":
        return _while(e, inputs)
    if e.name == "cond":
        return _cond(e, inputs, known)
    if e.name in OPAQUE:
        return list(core.jaxpr_as_fun(e.params["call_jaxpr"])(*inputs))
    results = e.origin.primitive.bind(*inputs, **e.params)
    return list(results) if e.origin.primitive.multiple_results else [results]


def _scan(e: Equation, inputs: Arrays, wanted: Sequence[int]) -> tuple[list[Any], list[Any]]:
    """The known part of a scan: its outputs, and the wanted variables of its body stacked over the steps."""
    consts, carry = e.params["num_consts"], e.params["num_carry"]
    carried = scan_carry(e, [x is not None for x in inputs])
    body, fixed = e.bodies[0], list(inputs[:consts])
    scanned = inputs[consts + carry :]

    def step(state: list[Any], slices: list[Any]) -> tuple[list[Any], tuple[list[Any], list[Any]]]:
        known, moving = iter(state), iter(slices)
        arguments = [
            *fixed,
            *(next(known) if k else None for k in carried),
            *(None if x is None else next(moving) for x in scanned),
        ]
        values = interpret(body, arguments, {*body.outputs, *wanted})
        outputs = [values[v] for v in body.outputs]
        after = [v for v, k in zip(outputs, carried, strict=False) if k]
        return after, ([v for v in outputs[carry:] if v is not None], [values[v] for v in wanted])

    start = [x for x, k in zip(inputs[consts:], carried, strict=False) if k]
    end, (stacked, found) = jax.lax.scan(
        step, start, [x for x in scanned if x is not None], length=e.params["length"], reverse=e.params["reverse"]
    )
    last = iter(end)
    outputs = [next(last) if k else None for k in carried]
    known = known_variables(body, [x is not None for x in (*fixed, *outputs, *scanned)])
    rest = iter(stacked)
    return [*outputs, *(next(rest) if v in known else None for v in body.outputs[carry:])], found


def _while(e: Equation, inputs: Arrays, count: bool = False) -> list[Any]:
    """The known part of a while loop; with `count`, the number of its turns besides."""
    a, b = e.params["cond_nconsts"], e.params["body_nconsts"]
    carried = while_carry(e, [x is not None for x in inputs])

    def spread(state: Iterable[Any]) -> list[Any]:
        known = iter(state)
        return [next(known) if k else None for k in carried]

    def holds(state: tuple[Any, list[Any]]) -> Any:
        return _run(e.bodies[0], [*inputs[:a], *spread(state[1])])[0]

    def turn(state: tuple[Any, list[Any]]) -> tuple[Any, list[Any]]:
        after = _run(e.bodies[1], [*inputs[a : a + b], *spread(state[1])])
        return state[0] + 1, [v for v, k in zip(after, carried, strict=True) if k]

    start = [x for x, k in zip(inputs[a + b :], carried, strict=True) if k]
    turns, end = jax.lax.while_loop(holds, turn, (jnp.int32(0), start))
    return [turns] if count else spread(end)


def _cond(e: Equation, inputs: Arrays, known: Sequence[bool]) -> list[Any]:
    def branch(flat: Flat) -> Callable[[], list[Any]]:
        return lambda: [v for v, k in zip(_run(flat, inputs[1:]), known, strict=True) if k]

    found = iter(jax.lax.switch(inputs[0], [branch(flat) for flat in e.bodies]))
    return [next(found) if k else None for k in known]


# ---- over the steps of the loops around ----------------------------------------------------------------------------
def mapped(
    function: Callable[[list[Any]], list[Any]], publics: Sequence[Public], where: str, name: str
) -> list[Public]:
    """function on the arrays of `publics`, for every step of the loops over which any of them changes.

    Raises CompileError when the results are too large.  (Their kinds are f; the caller knows better.)
    """
    loops = tuple(sorted({loop for p in publics for loop in p.over}))

    def run(arrays: list[Any], overs: list[tuple[int, ...]]) -> list[Any]:
        loop = min((o[0] for o in overs if o), default=0)
        if not loop:
            return function(arrays)
        moving = [bool(o) and o[0] == loop for o in overs]
        inner = [o[1:] if m else o for o, m in zip(overs, moving, strict=True)]

        def one(slices: list[Any]) -> list[Any]:
            rest = iter(slices)
            return run([next(rest) if m else a for a, m in zip(arrays, moving, strict=True)], inner)

        return list(jax.lax.map(one, [a for a, m in zip(arrays, moving, strict=True) if m]))

    arrays, overs = [p.array for p in publics], [p.over for p in publics]

    def whole(arrays: list[Any]) -> list[Any]:
        return run(arrays, overs)

    sizes = jax.eval_shape(whole, arrays)
    total = sum(math.prod(s.shape) * s.dtype.itemsize for s in sizes)
    if total > LIMIT_BYTES:
        refuse(
            where,
            name,
            f"needs {total >> 20} MiB of known numbers, more than {LIMIT_BYTES >> 20}",
            "compute them in the loop from something smaller, or make fewer steps",
        )
    return [Public(_host(array), loops, "f") for array in jax.jit(whole, compiler_options=FAST)(arrays)]


def _host(array: Any) -> Any:
    return np.asarray(array) if isinstance(array.dtype, np.dtype) else array


def evaluate(flat: Flat, publics: Mapping[int, Public], wanted: Collection[int]) -> dict[int, Public]:
    """The wanted variables of a flat jaxpr from its known ones, evaluated together where the loops are the same."""
    over = _loops(flat, publics)
    groups: dict[tuple[int, ...], list[int]] = {}
    for v in wanted:
        if v not in publics:
            groups.setdefault(over[v], []).append(v)
    found = {v: publics[v] for v in wanted if v in publics}
    for members in groups.values():
        slice_ = _needed(flat, members)
        given = sorted({v for e in slice_ for v in e.inputs if v in publics})

        def function(arrays: list[Any], given: list[int] = given, members: list[int] = members) -> list[Any]:
            some = dict(zip(given, arrays, strict=True))
            part = flat._replace(constants={**flat.constants, **some}, inputs=())
            values = interpret(part, (), members)
            return [values[v] for v in members]

        first = next(e for e in slice_ if members[0] in e.outputs)
        results = mapped(function, [publics[v] for v in given], first.where, first.name)
        found.update((v, p._replace(kind=flat.variables[v].kind)) for v, p in zip(members, results, strict=True))
    return found


def _loops(flat: Flat, publics: Mapping[int, Public]) -> dict[int, tuple[int, ...]]:
    """The loops over which each variable may change."""
    over: dict[int, tuple[int, ...]] = {v: p.over for v, p in publics.items()}
    for e in flat.equations:
        loops = tuple(sorted({loop for v in e.inputs for loop in over.get(v, ())}))
        over.update((o, loops) for o in e.outputs if o not in publics)
    return over


def evaluate_scan(e: Equation, inputs: Sequence[Public | None], wanted: Sequence[int]) -> list[Public]:
    """The wanted known variables of a scan's body.  The axis of its steps follows those of the loops in `over`."""

    def function(arrays: list[Any]) -> list[Any]:
        rest = iter(arrays)
        return _scan(e, [None if p is None else next(rest) for p in inputs], wanted)[1]

    results = mapped(function, [p for p in inputs if p is not None], e.where, e.name)
    variables = e.bodies[0].variables
    return [p._replace(kind=variables[v].kind) for p, v in zip(results, wanted, strict=True)]


def count_turns(e: Equation, inputs: Sequence[Public | None]) -> Public | None:
    """How often a while loop turns; None if that is not known."""
    a, flags = e.params["cond_nconsts"], [p is not None for p in inputs]
    if not outputs_of(e.bodies[0], [*flags[:a], *while_carry(e, flags)])[0]:
        return None

    def function(arrays: list[Any]) -> list[Any]:
        rest = iter(arrays)
        return _while(e, [None if p is None else next(rest) for p in inputs], count=True)

    return mapped(function, [p for p in inputs if p is not None], e.where, e.name)[0]


def positions(e: Equation, shapes: Sequence[tuple[int, ...]], index: Public) -> Public:
    """For a gather, the position in the flattened operand of each element of the result; for a scatter, of each element
    of the updates; -1 where there is none.  shapes: of the operand, and of the updates of a scatter.
    """
    size = math.prod(shapes[0])
    params = e.origin.params
    numbers, sizes = params["dimension_numbers"], params.get("slice_sizes")
    if e.name != "gather":
        sizes = _window(numbers, shapes[0], shapes[1])
        numbers = jax.lax.GatherDimensionNumbers(
            offset_dims=numbers.update_window_dims,
            collapsed_slice_dims=numbers.inserted_window_dims,
            start_index_map=numbers.scatter_dims_to_operand_dims,
            operand_batching_dims=numbers.operand_batching_dims,
            start_indices_batching_dims=numbers.scatter_indices_batching_dims,
        )

    def function(arrays: list[Any]) -> list[Any]:
        operand = jnp.arange(size, dtype=jnp.int32).reshape(shapes[0])
        return [jax.lax.gather(operand, arrays[0], numbers, sizes, mode=params["mode"], fill_value=-1)]

    return mapped(function, [index], e.where, e.name)[0]._replace(kind="i")


def _window(numbers: Any, operand: tuple[int, ...], updates: tuple[int, ...]) -> tuple[int, ...]:
    """The sizes of a scatter's window, one an axis of the operand."""
    inner = iter(updates[d] for d in numbers.update_window_dims)
    whole = {*numbers.inserted_window_dims, *numbers.operand_batching_dims}
    return tuple(1 if axis in whole else next(inner) for axis in range(len(operand)))
