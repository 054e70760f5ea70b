"""A jaxpr as a flat list of equations: calls inlined, variables numbered, dead equations dropped.

jax writes nested calls (jit, custom derivatives, checkpoints) and open terms for constants.  Here an equation reads and
writes numbers of variables, constants are variables with a value, and only loops and branches have bodies.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

LOOPS = ("scan", "while", "cond")
CALLS = ("jaxpr", "call_jaxpr", "fun_jaxpr")  # where a call keeps what it calls
FOLDS = ("reduce", "reduce_window")  # keep what they fold with, and call it on single elements
OPAQUE = ("logaddexp",)  # library functions that have a rule of their own


class Variable(NamedTuple):
    """kind: f(loat), i(nteger), b(oolean), k(ey of a random generator) or ? (what we do not compute on)."""

    shape: tuple[int, ...]
    kind: str


class Equation(NamedTuple):
    """bodies: of scan one, of while its condition and its body, of cond its branches.  where: file:line."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    params: Mapping[str, Any]
    where: str
    origin: Any = None  # the jaxpr's equation, to evaluate it
    bodies: tuple[Flat, ...] = ()


class Flat(NamedTuple):
    inputs: tuple[int, ...]
    equations: tuple[Equation, ...]
    outputs: tuple[int, ...]
    constants: dict[int, Any]
    variables: list[Variable]


def flatten(closed: Any, place: str = "") -> Flat:
    """The closed jaxpr, flat.  place: the file:line of what it belongs to, for equations that know none."""
    writer = _Writer()
    inputs = tuple(writer.new(v.aval) for v in closed.jaxpr.invars)
    outputs = writer.inline(closed.jaxpr, closed.consts, inputs, Call("", place))
    return Flat(inputs, tuple(writer.equations), outputs, writer.constants, writer.variables)


class Call(NamedTuple):
    name: str
    where: str


class _Writer:
    def __init__(self) -> None:
        self.equations: list[Equation] = []
        self.constants: dict[int, Any] = {}
        self.variables: list[Variable] = []

    def new(self, aval: Any) -> int:
        self.variables.append(Variable(tuple(getattr(aval, "shape", ())), _kind(getattr(aval, "dtype", None))))
        return len(self.variables) - 1

    def constant(self, value: Any, aval: Any) -> int:
        number = self.new(aval)
        array = isinstance(value, (jax.Array, np.ndarray))
        self.constants[number] = value if array else np.asarray(value, aval.dtype)
        return number

    def inline(self, jaxpr: Any, consts: Sequence[Any], args: Sequence[int], call: Call) -> tuple[int, ...]:
        names: dict[Any, int] = dict(zip(jaxpr.invars, args, strict=True))
        names.update((v, self.constant(c, v.aval)) for v, c in zip(jaxpr.constvars, consts, strict=True))

        def read(atom: Any) -> int:
            return self.constant(atom.val, atom.aval) if isinstance(atom, core.Literal) else names[atom]

        for origin in jaxpr.eqns:
            where = source_line(origin, call)
            inputs = tuple(read(atom) for atom in origin.invars)
            called = _called(origin)
            if called is not None:
                inner, inner_consts = (called.jaxpr, called.consts) if hasattr(called, "consts") else (called, ())
                outputs = self.inline(inner, inner_consts, inputs, Call(str(origin.params.get("name", "")), where))
                names.update(zip(origin.outvars, outputs, strict=True))
            else:
                outputs = tuple(self.new(v.aval) for v in origin.outvars)
                names.update(zip(origin.outvars, outputs, strict=True))
                self.equations.append(_equation(origin, inputs, outputs, where))
        return tuple(read(atom) for atom in jaxpr.outvars)


def _called(origin: Any) -> Any | None:
    """The jaxpr that a call calls; None for other equations."""
    if origin.primitive.name in (*LOOPS, *FOLDS) or _own_rule(origin):
        return None
    return next((origin.params[key] for key in CALLS if hasattr(origin.params.get(key), "eqns")), None)


def _own_rule(origin: Any) -> str | None:
    """The name of a function of jax's own that has a rule."""
    if origin.primitive.name != "custom_jvp_call":
        return None
    source = getattr(origin.params["call_jaxpr"].jaxpr.debug_info, "func_src_info", None) or ""
    name, _, place = source.partition(" at ")
    return name if name in OPAQUE and "/jax/" in place else None


def _equation(origin: Any, inputs: tuple[int, ...], outputs: tuple[int, ...], where: str) -> Equation:
    name, params = origin.primitive.name, origin.params
    bodies: list[Any] = []
    if name == "scan":
        bodies = [params["jaxpr"]]
    elif name == "while":
        bodies = [params["cond_jaxpr"], params["body_jaxpr"]]
    elif name == "cond":
        bodies = list(params["branches"])
    flats = tuple(_whole(flatten(body, where)) for body in bodies)
    return Equation(_own_rule(origin) or name, inputs, outputs, params, where, origin, flats)


def _whole(flat: Flat) -> Flat:
    return prune(flat, [True] * len(flat.outputs))[0]


def _kind(dtype: Any) -> str:
    if dtype is None or not isinstance(dtype, np.dtype):
        return "k"
    for kind, family in (("f", jnp.floating), ("b", jnp.bool_), ("i", jnp.integer)):
        if jnp.issubdtype(dtype, family):
            return kind
    return "?"


# ---- the user's line -----------------------------------------------------------------------------------------------
@cache
def _library_folders() -> tuple[str, ...]:
    """Where installed packages and this compiler live: their lines are not the user's."""
    paths = sysconfig.get_paths()
    own, packages = Path(__file__).parents[1], Path(jax.__file__).parents[1]  # jax may be installed elsewhere
    return tuple({*(paths[key] for key in ("purelib", "platlib", "stdlib")), str(own), str(packages)})


def user_line(frame: FrameType, line: int) -> str:
    """file:line of a frame of the user's program; nothing for a library's."""
    name = frame.f_code.co_filename
    return "" if name.startswith(_library_folders()) else f"{Path(name).name}:{line}"


def source_line(origin: Any, call: Call) -> str:
    """file:line of the user's program that an equation stems from, or that of the call around it."""
    traceback = getattr(origin.source_info, "traceback", None)
    frames = list(traceback.frames) if traceback is not None else []
    users = [f for f in frames if not f.file_name.startswith(_library_folders())]
    if not users:
        return call.where
    # a library function is traced once, at its first call: its lines are right only where it is the user's
    if call.where and call.name and all(f.function_name.split(".")[-1] != call.name for f in users):
        return call.where
    return f"{Path(users[0].file_name).name}:{users[0].line_num}"


# ---- dead equations ------------------------------------------------------------------------------------------------
def prune(flat: Flat, used: Sequence[bool]) -> tuple[Flat, list[bool]]:
    """The flat jaxpr with the used outputs only and what they need, and which inputs these are.  Effects stay."""
    outputs = tuple(o for o, u in zip(flat.outputs, used, strict=True) if u)
    live, kept = set(outputs), []
    for e in reversed(flat.equations):
        wanted = [o in live for o in e.outputs]
        if not any(wanted) and not getattr(e.origin, "effects", ()):
            continue
        equation = _prune_scan(e, wanted) if e.name == "scan" else e
        kept.append(equation)
        live.update(equation.inputs)
    pruned = flat._replace(equations=tuple(reversed(kept)), outputs=outputs)
    return pruned, [i in live for i in flat.inputs]


def _prune_scan(e: Equation, wanted: Sequence[bool]) -> Equation:
    """A scan that carries and stacks only what somebody reads."""
    consts, carry = e.params["num_consts"], e.params["num_carry"]
    used = list(wanted)
    while True:
        body, needs = prune(e.bodies[0], used)
        carried = [u or n for u, n in zip(used[:carry], needs[consts : consts + carry], strict=True)]
        if carried == used[:carry]:
            break
        used[:carry] = carried
    keep = [*needs[:consts], *used[:carry], *needs[consts + carry :]]
    body = body._replace(inputs=tuple(i for i, k in zip(body.inputs, keep, strict=True) if k))
    params = {**e.params, "num_consts": sum(needs[:consts]), "num_carry": sum(used[:carry])}
    return e._replace(
        inputs=tuple(i for i, k in zip(e.inputs, keep, strict=True) if k),
        outputs=tuple(o for o, u in zip(e.outputs, used, strict=True) if u),
        params=params,
        bodies=(body,),
    )
