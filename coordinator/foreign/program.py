"""A model of another framework as a list of steps, and how the steps are taken in jax.

A step names an operator, and a rule computes it: `@RULES.rule("relu") def relu(x): ...`.  Rules are pure functions onto
jax.numpy, so whatever jax does with functions (differentiate, vectorise, compile) it does with the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from types import FunctionType
from typing import Any, NamedTuple, NoReturn, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from coordinator.lower.rules.registry import CompileError


class Unsupported(CompileError):
    """A step without a rule, or one that its rule refuses.  The message names the model's line or node."""


class Ref(NamedTuple):
    """The value of that name."""

    name: str


class Place(NamedTuple):
    """Where a step stands: a line of a file ("" where it is not known), and which part of the model it belongs to."""

    file: str
    line: int
    part: str

    def __str__(self) -> str:
        line = f"{self.file.rpartition('/')[2]}:{self.line}" if self.file else ""
        return ", ".join(text for text in (line, self.part) if text)


class Step(NamedTuple):
    """args and kwargs: constants, and Ref for values, in lists too.  outputs: the names of the results in their order,
    "" for one that nobody reads.
    """

    op: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    outputs: tuple[str, ...]
    place: Place


class Program(NamedTuple):
    """constants: by name.  outputs: constants and Ref."""

    steps: tuple[Step, ...]
    constants: Mapping[str, Any]
    outputs: tuple[Any, ...]


class Rule(NamedTuple):
    function: Callable[..., Any]
    random: bool  # wants `draw`, which gives a key


R = TypeVar("R", bound=Callable[..., Any])


class Rules(dict[str, Rule]):
    """The rules of one framework by operator.  `max.dim` is looked up before `max`."""

    def __init__(self, framework: str, instead: Mapping[str, str]) -> None:
        """instead: ways around operators that have no rule."""
        super().__init__()
        self.framework, self.instead = framework, instead

    def rule(self, *operators: str, random: bool = False) -> Callable[[R], R]:
        """Register the function as the rule of these operators; one that may draw random numbers has a parameter
        `draw`: a function that returns this step's key, or refuses if there is none.
        """

        def register(function: R) -> R:
            self.update(dict.fromkeys(operators, Rule(function, random)))
            return function

        return register

    def find(self, step: Step) -> Rule:
        """The step's rule; Unsupported if there is none."""
        family = step.op.partition(".")[0]
        found = self.get(step.op) or self.get(family)
        if found is None:
            self.refuse(step, "is not supported", self.instead.get(step.op) or self.instead.get(family, ""))
        return found

    def refuse(self, step: Step, why: str, instead: str = "") -> NoReturn:
        """Raise Unsupported for this step."""
        place = f"{step.place}: " if str(step.place) else ""
        raise Unsupported(f"{place}{self.framework} operator '{step.op}' {why}" + (f"; {instead}" if instead else ""))


class Refusal(Exception):
    """Raised by a rule whose operator, with these arguments, cannot be computed; `run` says where."""

    def __init__(self, why: str, instead: str = "") -> None:
        super().__init__(why)
        self.why, self.instead = why, instead


def run(program: Program, rules: Rules, values: Mapping[str, Any], key: Any = None) -> list[Any]:
    """The program's outputs for `values`, which are its inputs by name.

    `key` (jax.random.key) is where random steps draw from, each its own numbers.  Raises Unsupported.
    """
    known = {**program.constants, **values}
    for number, step in enumerate(program.steps):
        found = rules.find(step)
        kwargs = {name: _read(value, known) for name, value in step.kwargs.items()}
        if found.random:
            kwargs["draw"] = partial(_draw, key, number)
        args = [_read(value, known) for value in step.args]
        try:
            results = _take(step.place, found.function, args, kwargs)
        except Refusal as error:
            rules.refuse(step, error.why, error.instead)
        known.update(zip(step.outputs, results, strict=False))
    return [_read(value, known) for value in program.outputs]


def _read(value: Any, known: Mapping[str, Any]) -> Any:
    """The value with Refs replaced."""
    if isinstance(value, Ref):
        return known[value.name]
    if isinstance(value, (list, tuple)):
        return [_read(item, known) for item in value]
    return value


def _take(place: Place, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Sequence[Any]:
    """The results of one step.  What depends on constants alone stays a numpy array: shapes can be read off it."""
    call = standing_at(place.file, place.line) if place.file else _call
    if any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves((args, dict(kwargs)))):
        return _several(call(function, args, kwargs))
    with jax.ensure_compile_time_eval():
        return [None if a is None else np.asarray(a) for a in _several(call(function, args, kwargs))]


def _draw(key: Any, number: int) -> Any:
    if key is None:
        raise Refusal("draws random numbers", "call the model with key=jax.random.key(seed)")
    return jax.random.fold_in(key, number)


def _several(results: Any) -> Sequence[Any]:
    return results if isinstance(results, (list, tuple)) else (results,)


def _call(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    return function(*args, **kwargs)


@cache
def standing_at(file: str, line: int) -> Callable[..., Any]:
    """`_call`, as if its body stood at that line: tracebacks name the model's line then, and so does jax, from which
    the compiler takes the place of what it refuses, measures or estimates.
    """
    code = _call.__code__.replace(co_filename=file, co_firstlineno=line - 1)
    return FunctionType(code, _call.__globals__)


# ---- what rules of every framework need ----------------------------------------------------------------------------
def is_known(x: Any) -> bool:
    """Is it there while jax traces: a number, a list of them, or a numpy array?"""
    return not any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(x))


def integers(x: Any) -> tuple[int, ...]:
    """Known integers: sizes, axes, indices."""
    if not is_known(x):
        raise Refusal("wants a shape, axis or index that depends on an input", "make it a constant of the model")
    return tuple(int(i) for i in np.asarray(x).reshape(-1))


def broadcast_all(arrays: Iterable[Any]) -> list[Any]:
    return list(jnp.broadcast_arrays(*arrays))
