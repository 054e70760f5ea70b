"""JOB.toml: which function runs, which data its arguments are, and who learns which result.

    [job]
    name = "breast-cancer"
    program = "train.py:train"                      # relative to the job file
    calibration = "calibration.toml"                # sets binary points; see docs/numerics.md.  May be left out
    [inputs.x]
    rows = ["clinic_a/wdbc", "clinic_b/wdbc"]       # owner/dataset; the rows are stacked
    columns = "features"                            # a group that every owner has, or a list of columns and groups
    [inputs.y]
    rows = ["clinic_a/wdbc", "clinic_b/wdbc"]
    columns = ["malignant"]
    squeeze = true                                  # [rows] instead of [rows, 1]
    [inputs.z]
    join = [                                        # columns of several owners, on the keys that they registered
        { dataset = "bank/loans", columns = "features" },
        { dataset = "bureau/scores", columns = ["inquiries"] },
    ]
    [inputs.params]
    kept = "wdbc-model"                             # what an earlier job kept, in the dicts and lists it was kept in
    [outputs]
    accuracy = ["analyst"]                          # nobody else ever sees it
    weights = { keep = "wdbc-model" }               # nobody at all: it stays shared among the nodes, for later jobs

Of what is kept, `for = ["analyst"]` says who may learn what later jobs compute from it (nobody, unless the nodes' own
terms say so), and `replace = true` that it takes the place of what has its name.

`resolve` holds the names against what the owners offer.  A name that nobody knows is answered with the nearest one.
"""

from __future__ import annotations

import difflib
import importlib.util
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from traceback import walk_tb
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple, NoReturn, Self

import tomli_w
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

from coordinator import calibration
from coordinator.calibration import Calibration
from mpcnode import tomlfile
from mpcnode.cluster import Cluster
from mpcnode.errors import ConfigError
from mpcnode.graph import GraphError, Type
from mpcnode.graph_wire import type_from_wire
from mpcnode.identity import Name
from mpcnode.ring import FRAC
from mpcnode.wire import coordinator_pb2, node_pb2

STRICT = ConfigDict(strict=True, extra="forbid", frozen=True)


def _check_block(text: str) -> str:
    owner, slash, dataset = text.partition("/")
    if not (owner and slash and dataset) or "/" in dataset:
        raise ValueError('rows are named OWNER/DATASET, such as "clinic_a/wdbc"')
    return text


def _check_columns(columns: str | tuple[str, ...]) -> str | tuple[str, ...]:
    if not columns:
        raise ValueError("names no column")
    return columns


def _check_program(text: str) -> str:
    file, colon, function = text.rpartition(":")
    if not (colon and file.endswith(".py") and function.isidentifier()):
        raise ValueError('a program is FILE.py:FUNCTION, such as "train.py:train"')
    return text


def _check_key(text: str) -> str:
    if not text.isidentifier():
        raise ValueError(f"{text!r} is no Python name")
    return text


def _check_recipients(names: tuple[Name, ...]) -> tuple[Name, ...]:
    if not names:
        raise ValueError('nobody learns it: name its recipients, such as ["analyst"], or leave it out')
    return names


Block = Annotated[str, AfterValidator(_check_block)]
Columns = Annotated[str | tuple[str, ...], AfterValidator(_check_columns)]
Key = Annotated[str, AfterValidator(_check_key)]


class JobSection(BaseModel):
    """[job]"""

    model_config = STRICT

    name: str = Field(min_length=1, max_length=100)
    program: Annotated[str, AfterValidator(_check_program)]
    frac: int = Field(FRAC, ge=4, le=28)  # fraction bits of the fixed-point numbers
    calibration: str = ""  # a file that `coordinator simulate --calibrate` wrote, relative to the job file
    assume_ranges: bool = False  # whether comparisons rely on the ranges that it has met

    @model_validator(mode="after")
    def _met(self) -> Self:
        if self.assume_ranges and not self.calibration:
            raise ValueError("assume_ranges relies on a calibration: name its file under calibration")
        return self


class JoinSection(BaseModel):
    """One entry of [inputs.NAME] join"""

    model_config = STRICT

    dataset: Block
    columns: Columns


class InputSection(BaseModel):
    """[inputs.NAME]: `rows` stacks blocks of the same columns, `join` puts columns for the same keys side by side, and
    `kept` is a value that a job kept.
    """

    model_config = STRICT

    rows: tuple[Block, ...] = Field((), min_length=1)
    columns: Columns = ()
    join: tuple[JoinSection, ...] = Field((), min_length=2)
    squeeze: bool = False
    kept: Name | None = None

    @model_validator(mode="after")
    def _either(self) -> Self:
        if self.kept is not None:
            if self.rows or self.columns or self.join or self.squeeze:
                raise ValueError("a kept value is what it was: leave all but kept away")
            return self
        if self.join and (self.rows or self.columns):
            raise ValueError("join names its columns itself: leave rows and columns away")
        if not self.join and not self.rows:
            raise ValueError("wants rows, join or kept")
        if not self.join and not self.columns:
            raise ValueError("rows want columns")
        return self

    def blocks(self) -> list[tuple[str, str | tuple[str, ...]]]:
        """OWNER/DATASET and the columns of each block, in order."""
        if self.join:
            return [(part.dataset, part.columns) for part in self.join]
        return [(block, self.columns) for block in self.rows]


class KeepSection(BaseModel):
    """[outputs.NAME] of an output that is kept"""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, populate_by_name=True)

    keep: Name
    recipients: tuple[Name, ...] = Field((), validation_alias="for", serialization_alias="for")
    replace: bool = False


def _output_kind(value: object) -> str:
    return "<table>" if isinstance(value, (Mapping, KeepSection)) else "<list>"  # tomlfile.sentence leaves these out


Recipients = Annotated[tuple[Name, ...], AfterValidator(_check_recipients)]
OutputSection = Annotated[
    Annotated[Recipients, Tag("<list>")] | Annotated[KeepSection, Tag("<table>")], Discriminator(_output_kind)
]


class JobFile(BaseModel):
    """A job as its author writes it."""

    model_config = STRICT

    job: JobSection
    inputs: dict[Key, InputSection] = Field(min_length=1)
    outputs: dict[Key, OutputSection] = Field(min_length=1)

    @model_validator(mode="after")
    def _one_name_each(self) -> Self:
        names = [section.keep for section in self.outputs.values() if isinstance(section, KeepSection)]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two outputs are kept as {name}: give each a name of its own")
        return self


class Piece(NamedTuple):
    """Rows of one owner's dataset."""

    owner: str
    dataset: str
    rows: int
    columns: tuple[str, ...]


class Input(NamedTuple):
    """An argument of the user's function: the pieces' rows, stacked, or their columns side by side."""

    pieces: tuple[Piece, ...]
    squeeze: bool
    integer: bool  # every column holds integers or booleans
    joined: bool = False  # side by side: row i of every piece has the same key
    boolean: bool = False  # every column holds booleans

    @property
    def dtype(self) -> str:
        """Of the array that the function gets."""
        return "bool" if self.boolean else "int32" if self.integer else "float32"

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        if self.joined:
            return self.pieces[0].rows, sum(len(piece.columns) for piece in self.pieces)
        return sum(piece.rows for piece in self.pieces), len(self.pieces[0].columns)

    @property
    def shape(self) -> tuple[int, ...]:
        """As the function sees it."""
        return self.size[:1] if self.squeeze else self.size

    def blocks(self) -> Iterator[tuple[Piece, slice, slice]]:
        """Each piece with its rows and its columns in the whole."""
        row = column = 0
        for piece in self.pieces:
            end, width = row + piece.rows, column + len(piece.columns)
            yield piece, slice(row, end), slice(column, width)
            row, column = (row, width) if self.joined else (end, column)


class Leaf(NamedTuple):
    """One array of a kept value; dtype: float32, int32 or bool."""

    path: tuple[str, ...]  # see trees.py
    type: Type
    dtype: str


class KeptInput(NamedTuple):
    """An argument of the user's function that an earlier job kept."""

    name: str
    run: str  # that made it: JOB/ATTEMPT
    leaves: tuple[Leaf, ...]


class Keep(NamedTuple):
    """An output that is kept.  recipients: who may learn what later jobs compute from it."""

    name: str
    recipients: tuple[str, ...] = ()
    replace: bool = False


class Plan(NamedTuple):
    """A job whose names are all known.  Where the function's parameters have other names than the inputs, kept ones
    come behind the others.
    """

    name: str
    frac: int
    inputs: dict[str, Input]
    outputs: dict[str, tuple[str, ...]]
    calibration: Calibration | None = None
    assume_ranges: bool = False
    kept: Mapping[str, KeptInput] = MappingProxyType({})
    keeps: Mapping[str, Keep] = MappingProxyType({})


def read(path: Path) -> JobFile:
    """Read a job file; ConfigError names the file and the field that is wrong."""
    return tomlfile.read(path, JobFile)


def of_function(
    function: Callable[..., Any],
    inputs: Mapping[str, Mapping[str, Any]],
    outputs: Mapping[str, Sequence[str] | Mapping[str, Any]],
    *,
    name: str | None = None,
    **options: Any,
) -> JobFile:
    """The job file that one would write for `function`; ConfigError names the field that is wrong."""
    called = getattr(function, "__name__", "job")
    program = f"notebook.py:{called if called.isidentifier() else 'function'}"
    job = {"name": name or called, "program": program, **options}
    try:
        document = json.dumps({"job": job, "inputs": inputs, "outputs": outputs})
        return JobFile.model_validate_json(document)
    except TypeError as error:
        raise ConfigError(f"the job is not made of texts, numbers and lists: {error}") from error
    except ValidationError as error:
        raise ConfigError(f"the job: {tomlfile.sentence(error)}") from error


def text(job: JobFile) -> str:
    """The job as TOML."""
    return tomli_w.dumps(job.model_dump(mode="json", by_alias=True, exclude_none=True))


def resolve(
    job: JobFile,
    place: str,
    cluster: Cluster,
    schemas: Iterable[coordinator_pb2.PartySchemas],
    values: Iterable[coordinator_pb2.KeptValue] = (),
) -> Plan:
    """The job with all names looked up.  `place` is the job file's path, for messages and for its calibration; `values`
    is what nodes keep.

    Raises ConfigError for a dataset, column, kept value, recipient or file that there is not, and for blocks that do
    not stack.
    """
    offered = {f"{party.party}/{schema.dataset}": schema for party in schemas for schema in party.schemas}
    members = [card.name for card in cluster.cards]
    for output, section in job.outputs.items():
        for recipient in section.recipients if isinstance(section, KeepSection) else section:
            if recipient not in members:
                _unknown(
                    f"{place}: outputs.{output}: there is no member {recipient!r} in the cluster", recipient, members
                )
    there = {value.kept.name: value for value in values}
    inputs: dict[str, Input] = {}
    kept: dict[str, KeptInput] = {}
    for name, item in job.inputs.items():
        if item.kept is None:
            inputs[name] = _input(item, f"{place}: inputs.{name}", offered)
        else:
            kept[name] = _kept(item.kept, f"{place}: inputs.{name}.kept", there)
    outputs: dict[str, tuple[str, ...]] = {}
    keeps: dict[str, Keep] = {}
    for name, section in job.outputs.items():
        if not isinstance(section, KeepSection):
            outputs[name] = section
            continue
        keeps[name] = Keep(section.keep, section.recipients, section.replace)
        if section.keep in there and not section.replace:
            raise ConfigError(
                f"{place}: outputs.{name}.keep: {section.keep} is kept already, made by "
                f"{there[section.keep].kept.job}: choose another name, or add `replace = true`"
            )
    settings = job.job
    met = calibration.read(Path(place).parent / settings.calibration) if settings.calibration else None
    return Plan(settings.name, settings.frac, inputs, outputs, met, settings.assume_ranges, kept, keeps)


def _kept(name: str, place: str, there: Mapping[str, coordinator_pb2.KeptValue]) -> KeptInput:
    if name not in there:
        _unknown(f"{place}: nothing is kept as {name!r}", name, list(there))
    value = there[name].kept
    if there[name].missing:
        raise ConfigError(
            f"{place}: {' and '.join(there[name].missing)} cannot be asked for, or has lost, its share of {name}, "
            f"which {value.job} made: start that node, or make the value anew"
        )
    try:
        leaves = tuple(Leaf(tuple(leaf.path), type_from_wire(leaf.type), leaf.dtype) for leaf in value.leaves)
    except GraphError as error:
        raise ConfigError(f"{place}: the nodes describe {name} in a way that makes no sense: {error}") from error
    return KeptInput(name, f"{value.job}/{value.attempt}", leaves)


def load_function(path: Path, job: JobFile) -> Callable[..., Any]:
    """The function that the job file at `path` names; ConfigError if there is none.

    Its file's folder is put on the import path, so that it may import what lies beside it.
    """
    file_name, _, name = job.job.program.rpartition(":")
    file = path.parent / file_name
    spec = importlib.util.spec_from_file_location(f"job_{file.stem}", file)
    if not file.is_file() or spec is None or spec.loader is None:
        raise ConfigError(f"{path}: job.program: there is no file {file}")
    module = importlib.util.module_from_spec(spec)
    folder = str(file.parent.resolve())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(_raised(error, file)) from error
    function = getattr(module, name, None)
    if not callable(function):
        functions = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        _unknown(f"{path}: job.program: {file} has no function {name}", name, functions)
    found: Callable[..., Any] = function
    return found


def _raised(error: Exception, file: Path) -> str:
    """What loading a program raised, as "train.py:3: NameError: ..." with its last line there, or that is no Python."""
    name = type(error).__name__
    if isinstance(error, SyntaxError):
        return f"{error.filename or file}:{error.lineno}: {name}: {error.msg}"
    lines = [line for frame, line in walk_tb(error.__traceback__) if frame.f_code.co_filename == str(file)]
    return f"{file}:{lines[-1] if lines else 1}: {name}: {(str(error).splitlines() or [''])[0]}"


def _input(section: InputSection, place: str, offered: Mapping[str, node_pb2.Schema]) -> Input:
    pieces: list[Piece] = []
    kinds: set[str] = set()
    blocks = section.blocks()
    for i, (block, wanted) in enumerate(blocks, 1):
        field = f"{place}.join[{i}]" if section.join else place
        if block not in offered:
            _unknown(f"{field}.{'dataset' if section.join else 'rows'}: nobody offers {block!r}", block, list(offered))
        schema = offered[block]
        columns = _expand(wanted, f"{field}.columns", block, schema)
        dtypes = {column.name: column.dtype for column in schema.columns}
        kinds.update(dtypes[name] for name in columns)
        owner, _, dataset = block.partition("/")
        pieces.append(Piece(owner, dataset, schema.rows, columns))
    whole = kinds <= {"int64", "bool"}
    found = Input(tuple(pieces), section.squeeze, whole, joined=bool(section.join), boolean=kinds == {"bool"})
    if found.joined:
        _check_joined(place, [offered[block] for block, _ in blocks], [block for block, _ in blocks])
    first = pieces[0]
    for (block, _), piece in zip(blocks, pieces, strict=True):
        if not found.joined and piece.columns != first.columns:
            raise ConfigError(f"{place}: {block} and {blocks[0][0]} {_difference(piece.columns, first.columns)}")
    if section.squeeze and found.size[1] != 1:
        raise ConfigError(f"{place}.squeeze: wants one column, and there are {found.size[1]}")
    return found


def _check_joined(place: str, schemas: Sequence[node_pb2.Schema], blocks: Sequence[str]) -> None:
    """Refuse what cannot be the same keys; whether they are, the nodes find out among themselves."""
    for block, schema in zip(blocks, schemas, strict=True):
        if blocks.count(block) > 1:
            raise ConfigError(f"{place}.join: {block} comes twice: name all its columns in one entry")
        if not schema.key:
            raise ConfigError(
                f"{place}.join: {block} has no key to join on: its owner registers it anew with "
                "`mpcnode data add --replace --key COLUMN`"
            )
        if schema.rows != schemas[0].rows:
            raise ConfigError(
                f"{place}.join: {block} has {schema.rows} rows and {blocks[0]} {schemas[0].rows}: "
                "the owners agree on the keys to keep, and register those rows only"
            )


def _expand(columns: str | Sequence[str], place: str, block: str, schema: node_pb2.Schema) -> tuple[str, ...]:
    """Names of columns for names of columns and groups, in the order asked for."""
    groups = {group.name: tuple(group.columns) for group in schema.groups}
    known = {column.name for column in schema.columns}
    found: list[str] = []
    for name in (columns,) if isinstance(columns, str) else columns:
        if name not in groups and name not in known:
            _unknown(f"{place}: {block} has no column or group {name!r}", name, [*groups, *known])
        found += groups.get(name, (name,))
    twice = {name for name in found if found.count(name) > 1}
    if twice:
        raise ConfigError(f"{place}: column {min(twice)!r} of {block} comes twice")
    return tuple(found)


def _difference(columns: tuple[str, ...], others: tuple[str, ...]) -> str:
    """How the columns of two blocks that should stack differ."""
    missing, more = [c for c in others if c not in columns], [c for c in columns if c not in others]
    if not missing and not more:
        return "have the same columns in another order: name them one by one"
    return f"do not stack: column {(missing or more)[0]!r} is in one of them only"


def _unknown(sentence: str, name: str, known: Sequence[str]) -> NoReturn:
    """Refuse a name, and say which one may have been meant or which there are."""
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        raise ConfigError(f"{sentence}: did you mean {near[0]!r}?")
    listed = ", ".join(sorted(known)[:10]) + (", ..." if len(known) > 10 else "")
    raise ConfigError(f"{sentence}; there is {listed or 'none'}")
