"""A job in one process on sample data: which values it meets, how near they come to the ring's limit, how exact it is.

The job runs in clear on fixed-point numbers, and under the protocol if asked; both are compared with the user's
function in plain floating point.  Nothing leaves this process, and nobody's real data is asked for.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from coordinator import trees
from coordinator.calibration import Calibration, Problem
from coordinator.compiled import Compiled, compile_job
from coordinator.jobfile import Input, KeptInput, Leaf, Plan
from mpcnode import engine, simulate, tables
from mpcnode.errors import DataError
from mpcnode.graph import Graph, Kind, Op
from mpcnode.ring import LIMIT_BITS, RangeError, encode
from mpcnode.rounds import Array

Numbers = npt.NDArray[Any]


class Range(NamedTuple):
    """What the secret numbers of one source line came to.

    largest: in absolute value; headroom_bits: how often the largest ring element could still double (a negative one
    means that values have wrapped, or are about to); op: where that was.
    """

    where: str
    largest: float
    headroom_bits: float
    op: str


class Error(NamedTuple):
    """How far an output is from that of the plain function."""

    output: str
    shape: tuple[int, ...]
    largest: float  # of the plain values, in absolute value
    error: float  # the largest, absolute
    ulps: float  # the same in units of the last fraction bit


class Simulated(NamedTuple):
    compiled: Compiled
    random: tuple[str, ...]  # inputs that are made up
    ranges: tuple[Range, ...]  # the least headroom first
    errors: tuple[Error, ...]
    traffic: simulate.Traffic | None  # of the protocol, if it ran
    kept: dict[str, Numbers]  # what the plain function makes of the outputs that are kept, by name


class Calibrated(NamedTuple):
    """What values come to, what no binary point mends, and the job simulated with the binary points that follow."""

    calibration: Calibration
    problems: tuple[Problem, ...]
    simulated: Simulated


class _Sampled(NamedTuple):
    """plan: for the samples' rows.  data: by owner and dataset, then column.  kept: by input, in leaves' order."""

    plan: Plan
    random: tuple[str, ...]
    data: dict[tuple[str, str], dict[str, Numbers]]
    kept: dict[str, list[Numbers]]


def run(
    plan: Plan,
    function: Callable[..., Any],
    samples: Mapping[str, Path],
    *,
    protocol: str = "cleartext",
    evaluators: int = 2,
    guests: Sequence[str] = (),
    seed: int = 0,
) -> Simulated:
    """Simulate a job on the files of `samples`, by input, and on made-up numbers for the other inputs.

    A sample may have more or fewer rows than the owners' data: the job is compiled for it.  `guests` are owners that do
    not compute.  Raises DataError for a file that does not fit the job.
    """
    sampled = _sampled(plan, samples, seed)
    return _simulated(sampled, function, protocol, evaluators, guests)


def calibrate(
    plan: Plan,
    function: Callable[..., Any],
    samples: Mapping[str, Path],
    *,
    protocol: str = "cleartext",
    evaluators: int = 2,
    guests: Sequence[str] = (),
    seed: int = 0,
) -> Calibrated:
    """Run the function in plain floating point on the samples, as `run` does the job, and record what its values come
    to; then simulate the job with the binary points that follow.
    """
    from coordinator.frontend import flat_of, observe
    from coordinator.frontend.domains import problems

    sampled = _sampled(plan, samples, seed)
    names = (*sampled.plan.outputs, *sampled.plan.keeps)
    flat, _ = flat_of(function, sampled.plan.inputs, names, sampled.plan.kept)
    loaded = {name: (item, sampled.kept[name]) for name, item in sampled.plan.kept.items()}
    found = observe.record(flat, sampled.plan.inputs, _stacked(sampled.plan, sampled.data), loaded)
    plan = sampled.plan._replace(calibration=found, assume_ranges=False)
    met = tuple(problems(flat, found.seen, plan.frac))
    return Calibrated(found, met, _simulated(sampled._replace(plan=plan), function, protocol, evaluators, guests))


def _sampled(plan: Plan, samples: Mapping[str, Path], seed: int) -> _Sampled:
    unknown = [name for name in samples if name not in (*plan.inputs, *plan.kept)]
    if unknown:
        there = ", ".join((*plan.inputs, *plan.kept))
        raise DataError(f"there is no input {unknown[0]!r} to sample: there is {there}")
    arrays = {name: read_sample(path, name, plan.inputs[name]) for name, path in samples.items() if name in plan.inputs}
    plan = _resized(plan, {name: len(array) for name, array in arrays.items()})
    rng = np.random.default_rng(seed)
    made_up = tuple(name for name in (*plan.inputs, *plan.kept) if name not in samples)
    arrays |= {name: _random(plan.inputs[name], rng) for name in plan.inputs if name in made_up}
    kept = {
        name: _random_kept(item, rng) if name in made_up else read_kept(samples[name], name, item)
        for name, item in plan.kept.items()
    }
    return _Sampled(plan, made_up, _owned(plan, arrays), kept)


def _simulated(
    sampled: _Sampled, function: Callable[..., Any], protocol: str, evaluators: int, guests: Sequence[str]
) -> Simulated:
    plan, made_up, data, kept = sampled
    slots = {
        (item.name, leaf.path): array
        for name, item in plan.kept.items()
        for leaf, array in zip(item.leaves, kept[name], strict=True)
    }
    compiled = compile_job(plan, function, "")
    watching = _Watching(data, slots, compiled.graph, plan.frac)
    try:
        secure = simulate.simulate(compiled.graph, data, hooks=lambda rank: watching if rank == 0 else watching.quiet)
        traffic = None
        if protocol != "cleartext":
            here = [owner for owner in guests if any(owner == own for own, _ in data)]
            secure = simulate.simulate(compiled.graph, data, protocol, evaluators=evaluators, kept=slots, guests=here)
            traffic = secure.traffic
    except RangeError as error:
        raise DataError(f"the sample data does not fit: {error}") from None
    from coordinator.frontend.plain import run_plain

    loaded = {name: (item, kept[name]) for name, item in plan.kept.items()}
    plain = run_plain(function, plan.inputs, (*plan.outputs, *plan.keeps), _stacked(plan, data), loaded)
    names = {keep.name: name for name, keep in plan.keeps.items()}
    found = secure.outputs | {
        "/".join((names[value], *(part[1:] for part in path))): array for (value, path), array in secure.kept.items()
    }
    errors = tuple(_error(name, plain[name], found[name], plan.frac) for name in plain)
    kept_ones = {key: array for key, array in plain.items() if key.partition("/")[0] in plan.keeps}
    return Simulated(compiled, made_up, watching.ranges(), errors, traffic, kept_ones)


def read_sample(path: Path, name: str, item: Input) -> Numbers:
    """The numbers of a file, [rows, columns], for an input: its columns by name, or all of them in order."""
    try:
        with path.open("rb") as file:
            columns = tables.read(path, file, None)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    wanted = [column for piece in item.pieces for column in piece.columns] if item.joined else item.pieces[0].columns
    if set(wanted) <= columns.keys() and len(set(wanted)) == len(wanted):
        chosen = [columns[column] for column in wanted]
    elif len(columns) == len(wanted):
        chosen = list(columns.values())
    else:
        raise DataError(f"{path} has {len(columns)} columns, and input {name} wants {len(wanted)}: {wanted[0]}, ...")
    if len(chosen[0]) < _stack(item):
        raise DataError(f"{path} has {len(chosen[0])} rows, and input {name} stacks {len(item.pieces)} blocks")
    return np.column_stack([column.astype(np.int64 if item.integer else np.float64) for column in chosen])


def read_kept(path: Path, name: str, item: KeptInput) -> list[Numbers]:
    """The arrays of an .npz file for a kept input, named as `coordinator result` and `simulate --kept` name those of an
    output; where there is one only, it may have any name.  DataError says which array does not fit.
    """
    found = _read_npz(path, name)
    single = len(item.leaves) == 1 and not item.leaves[0].path
    if single and len(found) == 1:
        return [_fitting(path, name, leaf, *found.popitem()) for leaf in item.leaves]
    arrays = []
    for leaf in item.leaves:
        key = name if single else trees.title(leaf.path)
        if key not in found:
            there = ", ".join(list(found)[:8]) + (", ..." if len(found) > 8 else "")
            raise DataError(f"{path} has no array {key}, which input {name} wants: it has {there or 'none'}")
        arrays.append(_fitting(path, name, leaf, key, found[key]))
    return arrays


def _read_npz(path: Path, name: str) -> dict[str, Numbers]:
    try:
        with path.open("rb") as opened:
            if not zipfile.is_zipfile(opened):
                raise DataError(
                    f"{path} is no .npz file, or is cut short, and the kept input {name} wants one: write it with "
                    "numpy.savez, or with `coordinator simulate --kept` of the job that keeps the value"
                )
            with np.load(opened, allow_pickle=False) as file:
                return {key: file[key] for key in file.files}
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except (*tables.NPY_ERRORS, zipfile.BadZipFile, zlib.error, NotImplementedError):
        raise DataError(f"{path} is damaged, or does not hold arrays of numbers: write it again") from None


def _fitting(path: Path, name: str, leaf: Leaf, key: str, array: Numbers) -> Numbers:
    """The array if it can stand for a leaf; whole numbers may be given for floats, and 0 and 1 for truths."""
    what = f"{path}: the array {key}"
    if array.shape != leaf.type.shape:
        raise DataError(f"{what} is of shape {list(array.shape)}, and input {name} wants {list(leaf.type.shape)}")
    kinds = {"float32": "fiub", "int32": "iub", "bool": "biu"}[leaf.dtype]
    if array.dtype.kind not in kinds:
        raise DataError(f"{what} holds {array.dtype}, and input {name} wants {leaf.dtype}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError(f"{what} holds a value that is infinite or no number")
    if leaf.dtype == "bool" and not np.isin(array, (0, 1)).all():
        raise DataError(f"{what} holds other numbers than 0 and 1, and input {name} wants bool")
    limits = np.iinfo(np.int32)
    if leaf.dtype == "int32" and not np.all((limits.min <= array) & (array <= limits.max)):
        raise DataError(f"{what} holds a number beyond those of int32, which input {name} wants")
    try:
        encode(array, leaf.type.frac)
    except RangeError as error:
        raise DataError(f"{what} cannot stand for what is kept: {error}") from None
    return array


def _random_kept(item: KeptInput, rng: np.random.Generator) -> list[Numbers]:
    """Numbers as weights may be: normal, a tenth in size, or less where the kept ones' binary points leave no room;
    zeros and ones for bits and whole ones.
    """
    return [
        min(0.1, 2.0 ** (LIMIT_BITS - 3 - leaf.type.frac)) * rng.standard_normal(leaf.type.shape)
        if leaf.dtype == "float32"
        else rng.integers(0, 2, leaf.type.shape)
        for leaf in item.leaves
    ]


def _stack(item: Input) -> int:
    """How many blocks stand one below the other."""
    return 1 if item.joined else len(item.pieces)


def _resized(plan: Plan, rows: Mapping[str, int]) -> Plan:
    """The plan with the samples' numbers of rows, spread evenly over the blocks; inputs from the same blocks follow."""
    sizes: dict[tuple[str, str], int] = {}
    for name, count in rows.items():
        item = plan.inputs[name]
        for i, piece in enumerate(item.pieces):
            height = _stack(item)
            size = count // height + (i < count % height)
            if sizes.setdefault((piece.owner, piece.dataset), size) != size:
                raise DataError(f"the samples of inputs from {piece.owner}/{piece.dataset} differ in their rows")
    inputs = {
        name: item._replace(pieces=tuple(p._replace(rows=sizes.get((p.owner, p.dataset), p.rows)) for p in item.pieces))
        for name, item in plan.inputs.items()
    }
    for name, item in inputs.items():
        if item.joined and len({piece.rows for piece in item.pieces}) > 1:
            raise DataError(f"input {name} joins blocks that other inputs' samples give different rows: sample it too")
    return plan._replace(inputs=inputs)


def _random(item: Input, rng: np.random.Generator) -> Numbers:
    """Standard-normal numbers; for whole ones, zeros and ones."""
    return rng.integers(0, 2, item.size) if item.integer else rng.standard_normal(item.size)


def _owned(plan: Plan, arrays: Mapping[str, Numbers]) -> dict[tuple[str, str], dict[str, Numbers]]:
    """The samples as the owners would hold them: by dataset and column."""
    data: dict[tuple[str, str], dict[str, Numbers]] = {}
    for name, item in plan.inputs.items():
        for piece, rows, wide in item.blocks():
            block = arrays[name][rows, wide]
            columns = data.setdefault((piece.owner, piece.dataset), {})
            columns.update({column: block[:, i] for i, column in enumerate(piece.columns)})
    return data


def _stacked(plan: Plan, data: Mapping[tuple[str, str], Mapping[str, Numbers]]) -> dict[str, Numbers]:
    """The inputs as the function gets them; a column that two inputs share is the same in both."""
    return {
        name: np.concatenate(
            [np.column_stack([data[p[:2]][column] for column in p.columns]) for p in item.pieces],
            axis=int(item.joined),
        )
        for name, item in plan.inputs.items()
    }


def counting(plan: engine.Plan) -> set[int]:
    """Numbers of the ops whose values must not wrap.  What only a `select` reads may: of a piecewise polynomial all
    pieces are evaluated at every x, and those that x does not lie in are dropped whatever they came to.
    """
    graph, found = plan.graph, set()
    read = set(graph.outputs)
    for i in reversed(range(len(graph.ops))):
        op = graph.ops[i]
        if i in read or op.name in ("sign", "reveal", "store", "loop"):
            found.add(plan.numbers[i])
            read.update(op.args[:1] if op.name == "select" else op.args)
    return found.union(*(counting(body) for body in plan.bodies.values()))


class _Watching(simulate.SimulatedHooks):
    """Notes the largest number and the largest ring element of every source line, where it counts."""

    def __init__(
        self,
        data: Mapping[tuple[str, str], Mapping[str, Numbers]],
        kept: Mapping[simulate.Slot, Numbers],
        graph: Graph,
        frac: int,
    ) -> None:
        super().__init__(data, kept)
        self._frac = frac
        self._counting = counting(engine.Plan(graph))
        self.quiet = simulate.SimulatedHooks(data, kept)
        self._found: dict[str, Range] = {}

    def value(self, number: int, op: Op, value: Array) -> None:
        if op.type.kind is not Kind.ARITH or not value.size or number not in self._counting:
            return
        signed = value.view(np.int64)
        raw = max(int(signed.max()), -int(signed.min()))
        headroom = LIMIT_BITS - math.log2(raw) if raw else float(LIMIT_BITS)
        before = self._found.get(op.where, Range(op.where, 0.0, float(LIMIT_BITS), op.name))
        # With fewer fraction bits than the job's, it is no number of the user's but one that the compiler has scaled.
        number_of_theirs = op.type.frac >= self._frac or op.name in ("input", "load")
        largest = max(before.largest, raw / 2.0**op.type.frac) if number_of_theirs else before.largest
        if headroom < before.headroom_bits:
            before = before._replace(headroom_bits=headroom, op=op.name)
        self._found[op.where] = before._replace(largest=largest)

    def ranges(self) -> tuple[Range, ...]:
        return tuple(sorted(self._found.values(), key=lambda found: found.headroom_bits))


def _error(name: str, plain: Numbers, secure: Numbers, frac: int) -> Error:
    wanted = plain.astype(np.float64)
    error = float(np.abs(wanted - secure.astype(np.float64)).max(initial=0.0))
    return Error(name, plain.shape, float(np.abs(wanted).max(initial=0.0)), error, error * 2.0**frac)
