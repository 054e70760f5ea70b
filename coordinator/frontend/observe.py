"""What values come to: the flat program in plain floating point, with a record of every float on the way.

Of each value, at its place (see `measured`): the largest absolute value, the logarithm of the geometric mean, and the
smallest absolute value that is not 0; over the steps of a loop, the largest, the least and the least of these.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.extend import core

from coordinator import trees
from coordinator.calibration import Calibration, Met
from coordinator.frontend.flat import OPAQUE, Equation, Flat
from coordinator.frontend.measured import places
from coordinator.jobfile import Input, KeptInput
from coordinator.lower.points import Seen
from coordinator.lower.rules import CompileError

Numbers: TypeAlias = npt.NDArray[Any]
Record: TypeAlias = dict[str, Any]  # by place: [largest, log2 of the geometric mean, smallest]
EMPTY = np.array([0.0, np.inf, np.inf], np.float32)  # of a value that was 0 throughout


def observe(flat: Flat, arrays: Sequence[Any]) -> dict[str, Seen]:
    """What the floats of the program come to on these inputs; a value that was 0 throughout is left out.  A value that
    was infinite or no number has an infinite `largest`.
    """
    record = jax.jit(lambda inputs: _run(flat, inputs, "")[1])(list(arrays))
    found = {}
    for place, row in record.items():
        largest, mean, least = (float(v) for v in np.asarray(row, np.float64))
        if largest and math.isfinite(largest):
            found[place] = Seen(largest, 2.0**mean, least)
        elif largest:
            found[place] = Seen(math.inf, math.inf, least)
    return found


def _run(flat: Flat, inputs: Sequence[Any], place: str) -> tuple[list[Any], Record]:
    """The outputs, and the record of what stands at `place` and below."""
    values: dict[int, Any] = {**flat.constants, **dict(zip(flat.inputs, inputs, strict=True))}
    record: Record = {}
    for i, e in enumerate(flat.equations):
        results, inner = _apply(e, [values[v] for v in e.inputs], f"{place}{i}/")
        values.update(zip(e.outputs, results, strict=True))
        record |= inner
    record |= {name: _met(values[v]) for name, v in places(flat, place) if flat.variables[v].kind == "f"}
    return [values[v] for v in flat.outputs], record


def _met(x: Any) -> Any:
    if not x.size:
        return jnp.asarray(EMPTY)
    a = jnp.abs(jnp.asarray(x, jnp.float32))
    some = a > 0
    logs = jnp.where(some & jnp.isfinite(a), jnp.log2(jnp.where(some, a, 1)), 0).sum()
    largest = jnp.where(jnp.isfinite(a), a, jnp.inf).max()
    return jnp.stack([largest, jnp.where(some.any(), logs / some.sum(), jnp.inf), jnp.where(some, a, jnp.inf).min()])


def _joined(rows: Any) -> Any:
    """One row of [steps, 3]."""
    return jnp.stack([rows[:, 0].max(), rows[:, 1].min(), rows[:, 2].min()])


def _both(one: Record, other: Record) -> Record:
    return {name: _joined(jnp.stack([one.get(name, EMPTY), other.get(name, EMPTY)])) for name in {**one, **other}}


def _apply(e: Equation, inputs: list[Any], place: str) -> tuple[list[Any], Record]:
    control = {"scan": _scan, "while": _while, "cond": _cond}
    if e.name in control:
        return control[e.name](e, inputs, place)
    if e.name in OPAQUE:
        return list(core.jaxpr_as_fun(e.params["call_jaxpr"])(*inputs)), {}
    results = e.origin.primitive.bind(*inputs, **e.params)
    return list(results) if e.origin.primitive.multiple_results else [results], {}


def _carried(e: Equation, body: Flat, consts: int, values: Sequence[Any], place: str) -> Record:
    """What a step leaves is met again as the next one's input, but for the last."""
    rows = zip(body.inputs[consts:], values, strict=False)
    return {f"{place}in{consts + i}": _met(x) for i, (v, x) in enumerate(rows) if body.variables[v].kind == "f"}


def _scan(e: Equation, inputs: list[Any], place: str) -> tuple[list[Any], Record]:
    consts, carry, body = e.params["num_consts"], e.params["num_carry"], e.bodies[0]

    def step(state: list[Any], slices: list[Any]) -> tuple[list[Any], tuple[list[Any], Record]]:
        outputs, record = _run(body, [*inputs[:consts], *state, *slices], place)
        record = _both(record, _carried(e, body, consts, outputs[:carry], place))
        return outputs[:carry], (outputs[carry:], record)

    start, scanned = inputs[consts : consts + carry], inputs[consts + carry :]
    end, (stacked, record) = jax.lax.scan(step, start, scanned, length=e.params["length"], reverse=e.params["reverse"])
    return [*end, *stacked], {name: _joined(rows) for name, rows in record.items()}


def _while(e: Equation, inputs: list[Any], place: str) -> tuple[list[Any], Record]:
    a, b, body = e.params["cond_nconsts"], e.params["body_nconsts"], e.bodies[1]

    def holds(state: tuple[list[Any], Record]) -> Any:
        return _run(e.bodies[0], [*inputs[:a], *state[0]], place)[0][0]

    def turn(state: tuple[list[Any], Record]) -> tuple[list[Any], Record]:
        outputs, record = _run(body, [*inputs[a : a + b], *state[0]], place)
        return outputs, _both(state[1], _both(record, _carried(e, body, b, outputs, place)))

    start = inputs[a + b :]
    shapes = jax.eval_shape(lambda values: _run(body, [*inputs[a : a + b], *values], place)[1], start)
    end, record = jax.lax.while_loop(holds, turn, (start, {name: jnp.asarray(EMPTY) for name in shapes}))
    return end, record


def _cond(e: Equation, inputs: list[Any], place: str) -> tuple[list[Any], Record]:
    """The branch that is taken; of the others nothing is met."""

    def branch(k: int) -> Any:
        return lambda: _run(e.bodies[k], inputs[1:], f"{place}{k}/")

    records = [jax.eval_shape(branch(k))[1] for k in range(len(e.bodies))]
    names = sorted({name for record in records for name in record})

    def filled(k: int) -> Any:
        def run() -> tuple[list[Any], Record]:
            outputs, record = branch(k)()
            return outputs, {name: record.get(name, jnp.asarray(EMPTY)) for name in names}

        return run

    found: tuple[list[Any], Record] = jax.lax.switch(inputs[0], [filled(k) for k in range(len(e.bodies))])
    return found


def record(
    flat: Flat,
    inputs: Mapping[str, Input],
    arrays: Mapping[str, Numbers],
    kept: Mapping[str, tuple[KeptInput, Sequence[Numbers]]] | None = None,
) -> Calibration:
    """A calibration of the program on these inputs: [rows, columns], one each; and on these kept ones' leaves."""
    plain = [arrays[n].astype(i.dtype).reshape(i.shape) for n, i in inputs.items()]
    for item, leaves in (kept or {}).values():
        named = [(leaf.path, np.asarray(a, leaf.dtype)) for leaf, a in zip(item.leaves, leaves, strict=True)]
        plain += jax.tree_util.tree_leaves(trees.build(named))
    lines = lines_of(flat)
    values = {place: Met(*lines[place], seen) for place, seen in observe(flat, plain).items()}
    return Calibration(_digest(structure(flat)), _digest(repr(numbers(flat))), _rows(inputs), values)


def check(calibration: Calibration, flat: Flat, inputs: Mapping[str, Input]) -> None:
    """CompileError for a calibration of another program.  Its known numbers may follow from how many rows there are, so
    they are compared only where the rows are as many.
    """
    same = calibration.program == _digest(structure(flat))
    if same and calibration.rows == _rows(inputs):
        same = calibration.numbers == _digest(repr(numbers(flat)))
    if not same:
        raise CompileError(
            "the calibration is of another program than the job's function is now: make it again with "
            "`coordinator simulate JOB.toml --calibrate`"
        )


def _rows(inputs: Mapping[str, Input]) -> dict[str, int]:
    return {name: item.shape[0] for name, item in inputs.items()}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def structure(flat: Flat) -> str:
    """The program without its shapes and numbers: what it does to what.  Equal ones have the same places."""
    lines = [f"in {flat.inputs} out {flat.outputs}"]
    for e in flat.equations:
        lines.append(f"{e.outputs} = {e.name} {e.inputs}")
        lines += [f"  {line}" for body in e.bodies for line in structure(body).splitlines()]
    return "\n".join(lines)


def numbers(flat: Flat) -> list[float]:
    """The single known numbers of the program, such as learning rates, in order."""
    few = ((flat.variables[v].kind, c) for v, c in flat.constants.items() if np.size(c) == 1)
    own = [float(np.asarray(c).reshape(())) for kind, c in few if kind in "fib"]
    return own + [number for e in flat.equations for body in e.bodies for number in numbers(body)]


def lines_of(flat: Flat, place: str = "") -> Mapping[str, tuple[str, str]]:
    """By place: the user's line, and the primitive that made the value (nothing for inputs)."""
    found = {f"{place}in{k}": ("", "") for k in range(len(flat.inputs))}
    for i, e in enumerate(flat.equations):
        for j in range(len(e.outputs)):
            found[f"{place}{i}" + (f".{j}" if j else "")] = (e.where, e.name)
        deeper = e.bodies[1:] if e.name == "while" else e.bodies
        for k, body in enumerate(deeper):
            found |= lines_of(body, f"{place}{i}/" + (f"{k}/" if e.name == "cond" else ""))
    return found
