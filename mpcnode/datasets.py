"""A node's own datasets: files that stay where they are, and `datasets.toml` that says which there are.

Only a `Schema` ever leaves the owner: names, types and the number of rows.  Registering a file checks all of it and
keeps its SHA-256; reading it for a job checks that hash, so that a file cannot change behind its schema or policy.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from io import BufferedReader
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from mpcnode import tables, tomlfile
from mpcnode.errors import ConfigError, DataError
from mpcnode.identity import Name, check_name
from mpcnode.policy import Terms
from mpcnode.terms import Allowed

LABEL, FEATURES = "label", "features"
REGISTRY = "datasets.toml"


class Column(NamedTuple):
    """A column's name and its type as the file has it; a job may read int64 and bool as float64."""

    name: str
    dtype: tables.Dtype


class Schema(BaseModel):
    """What others may know of a dataset."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, populate_by_name=True)

    name: Name
    rows: int = Field(ge=1)
    columns: tuple[Column, ...] = Field(min_length=1)
    groups: dict[str, tuple[str, ...]] = {}
    key: str | None = None  # the column that says whom a row is about, if one does; no column of the above

    def expand(self, columns: str | Sequence[str]) -> tuple[str, ...]:
        """Names of columns, for names of columns and of groups, in the order asked for.

        DataError if a name is neither, or if a column comes twice.
        """
        asked = (columns,) if isinstance(columns, str) else tuple(columns)
        known = {column.name for column in self.columns}
        found: list[str] = []
        for name in asked:
            if name not in self.groups and name not in known:
                groups = f", nor a group (there is {', '.join(self.groups)})" if self.groups else ""
                raise DataError(f"dataset {self.name} has no column {name!r}{groups}: see `mpcnode data list`")
            found += self.groups.get(name, (name,))
        if not found:
            raise DataError(f"no column of dataset {self.name} is asked for: name at least one column or group")
        if len(set(found)) < len(found):
            twice = next(name for i, name in enumerate(found) if name in found[:i])
            raise DataError(f"column {twice!r} of dataset {self.name} is asked for twice: name it once")
        return tuple(found)


class Entry(Schema, Allowed):
    """What the owner itself keeps of a dataset, and whom and what it allows: see terms.py."""

    path: str  # absolute, or relative to the identity's folder for a file inside of it
    sha256: str
    names_given: bool  # the columns' names are the owner's, not the file's
    key_place: int | None = None  # where among these names the key stands
    keys_sha256: str | None = None  # of the keys, in order: see `keys_digest`
    keep: bool = False  # what is computed from it may be kept, as shares, for later jobs

    def schema_only(self) -> Schema:
        """Without path, hash and policy."""
        return Schema(name=self.name, rows=self.rows, columns=self.columns, groups=self.groups, key=self.key)

    def file_columns(self) -> list[str] | None:
        """The names of the file's columns, where it has none itself."""
        if not self.names_given:
            return None
        names = [column.name for column in self.columns]
        if self.key is not None and self.key_place is not None:
            names.insert(self.key_place, self.key)
        return names


class _Registry(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    dataset: tuple[Entry, ...] = ()


class Datasets:
    """The registry in an identity's folder, read afresh at every call: `data add` works while the node serves."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self._file = self.folder / REGISTRY

    def entries(self) -> tuple[Entry, ...]:
        """Everything registered, in the order of registration."""
        return tomlfile.read(self._file, _Registry).dataset if self._file.exists() else ()

    def entry(self, name: str) -> Entry:
        """The dataset `name`; DataError if there is none."""
        for entry in self.entries():
            if entry.name == name:
                return entry
        raise DataError(f"there is no dataset {name} here: see `mpcnode data list`, or add it with `mpcnode data add`")

    def schemas(self) -> tuple[Schema, ...]:
        """What others may know."""
        return tuple(entry.schema_only() for entry in self.entries())

    def schema(self, name: str) -> Schema:
        """What others may know of the dataset `name`; DataError if there is none."""
        return self.entry(name).schema_only()

    def terms(self) -> dict[str, Terms]:
        """For each dataset, what its owner allows."""
        return {entry.name: entry.terms(keep=entry.keep) for entry in self.entries()}

    def add(
        self,
        name: str,
        file: Path | str,
        recipients: Sequence[str],
        *,
        columns: Sequence[str] | None = None,
        groups: Mapping[str, Sequence[str]] | None = None,
        label: str | None = None,
        key: str | None = None,
        replace: bool = False,
        keep: bool = False,
        programs: Sequence[str] | None = None,
    ) -> Schema:
        """Check every value of `file` and register it; the file is neither copied nor moved.

        `recipients` are those who may learn what any program computes from it.  With `programs`, by digest, none but
        these may read it (see `allow`; there may be none yet).  `columns` are names for a file that has
        none.  `groups` are names for sets of columns, in which * and ? match as in a shell; `label` puts one column
        into the group "label" and all others into "features".  `key` names the column that says whom a row is about,
        whole numbers or text, no two alike: rows are used in the order of their keys, and the keys themselves for
        nothing but making sure that another owner's rows are of the same ones.  `keep`: jobs may keep what they
        compute from it, as shares that later jobs load; each node's own terms then say what those may reveal
        (policy.py).  DataError says what is wrong, ConfigError which name.
        """
        path = Path(file)
        if not recipients and programs is None:
            raise ConfigError(f"nobody is allowed to learn anything computed from {name}: say who is")
        try:
            check_name(name)
        except ValueError as error:
            raise ConfigError(f"{error}") from error
        if recipients and programs is not None and not programs:
            raise ConfigError(
                f"no program may read {name} yet, so nothing is for {recipients[0]}: leave one of both away"
            )
        allowed = Allowed().allowing(recipients, programs or ())
        others = [entry for entry in self.entries() if entry.name != name]
        if len(others) < len(self.entries()) and not replace:
            raise DataError(f"dataset {name} exists already: give another name, or --replace to register it anew")
        with _opened(path) as opened:
            sha256 = _sha256(opened)
            arrays = tables.read(path, opened, columns, without=key)
            opened.seek(0)
            keys = tables.read_keys(path, opened, columns, key) if key is not None else None
        entry = Entry(
            name=name,
            rows=len(next(iter(arrays.values()))),
            columns=tuple(Column(column, tables.dtype_of(array)) for column, array in arrays.items()),
            groups=make_groups(list(arrays), groups or {}, label),
            path=self._portable(path),
            sha256=sha256,
            names_given=columns is not None,
            key=key,
            key_place=columns.index(key) if columns is not None and key is not None else None,
            keys_sha256=keys_digest(keys).hex() if keys is not None else None,
            recipients=allowed.recipients,
            programs=allowed.programs,
            keep=keep,
        )
        self._save([*others, entry])
        return entry.schema_only()

    def allow(self, name: str, recipients: Sequence[str] = (), programs: Sequence[str] = ()) -> Entry:
        """Let these programs tell the recipients (none: whomever they name) what they say; or, without programs, let
        the recipients learn whatever jobs compute from it.
        """
        return self._change(self.entry(name).allowing(recipients, programs))

    def forbid(self, name: str) -> Entry:
        """Allow nobody and no program anything any more: the dataset is then for approved programs only."""
        return self._change(self.entry(name).forbidding())

    def _change(self, new: Entry) -> Entry:
        self._save([new if entry.name == new.name else entry for entry in self.entries()])
        return new

    def remove(self, name: str) -> None:
        """Forget the dataset `name` and leave its file alone; DataError if there is none."""
        gone = self.entry(name)
        self._save([entry for entry in self.entries() if entry.name != gone.name])

    def load(self, name: str, columns: str | Sequence[str]) -> npt.NDArray[np.float64] | npt.NDArray[np.int64]:
        """The columns and groups asked for, as [rows, columns]: int64 if none of them is float64, else float64.
        Rows come in the order of their keys, if there is one, else in the file's.

        DataError if the dataset or a column is unknown, or if the file is gone or is not the one that was added.
        """
        entry = self.entry(name)
        asked = entry.expand(columns)
        path = self.folder / entry.path
        names = entry.file_columns()
        with _opened(path) as opened:
            if _sha256(opened) != entry.sha256:
                raise DataError(
                    f"{path} has changed since it was added as {name}: restore it, or register it anew with "
                    "`mpcnode data add --replace`"
                )
            order = slice(None) if entry.key is None else _order(tables.read_keys(path, opened, names, entry.key))
            opened.seek(0)
            arrays = tables.read(path, opened, names, asked)
        chosen = [arrays[column][order] for column in asked]
        if any(array.dtype == np.float64 for array in chosen):
            return np.column_stack([array.astype(np.float64, copy=False) for array in chosen])
        return np.column_stack([array.astype(np.int64, copy=False) for array in chosen])

    def keys_sha256(self, name: str) -> bytes:
        """`keys_digest` of a dataset's keys; DataError if it has none."""
        entry = self.entry(name)
        if entry.keys_sha256 is None:
            raise DataError(
                f"dataset {name} has no key, and the program joins it: register it anew with "
                "`mpcnode data add --replace --key COLUMN`"
            )
        return bytes.fromhex(entry.keys_sha256)

    def _portable(self, path: Path) -> str:
        """Relative for a file in the identity's folder, which may be mounted elsewhere; absolute otherwise."""
        path, folder = path.resolve(), self.folder.resolve()
        return str(path.relative_to(folder) if path.is_relative_to(folder) else path)

    def _save(self, entries: Sequence[Entry]) -> None:
        documents: list[dict[str, Any]] = [entry.model_dump(by_alias=True, exclude_none=True) for entry in entries]
        tomlfile.write(self._file, {"dataset": documents})


def keys_digest(keys: Sequence[str]) -> bytes:
    """SHA-256 over the keys in their order, each behind its length: equal for equal sets of keys."""
    digest = hashlib.sha256()
    for key in sorted(key.encode() for key in keys):
        digest.update(len(key).to_bytes(8, "big") + key)
    return digest.digest()


def _order(keys: Sequence[str]) -> npt.NDArray[np.intp]:
    """The rows in the order of their keys, compared by their bytes."""
    encoded = [key.encode() for key in keys]
    return np.array(sorted(range(len(keys)), key=encoded.__getitem__), np.intp)


def make_groups(
    columns: Sequence[str], patterns: Mapping[str, Sequence[str]], label: str | None
) -> dict[str, tuple[str, ...]]:
    """Each group's columns, in the file's order where a pattern matches several; DataError if one fits nothing."""
    groups = {name: _matching(columns, wanted, f"group {name}") for name, wanted in patterns.items()}
    if label is not None:
        groups[LABEL] = _matching(columns, [label], "the label")
        groups[FEATURES] = tuple(column for column in columns if column not in groups[LABEL])
    for name, members in groups.items():
        if name in patterns and label is not None and name in (LABEL, FEATURES):
            raise DataError(f"--label makes the group {name} already: leave --label or that --group away")
        if not members:
            raise DataError(f"group {name} has no columns: name at least one")
        # A column "label" that alone makes the group "label" means the same either way.
        if name in columns and members != (name,):
            raise DataError(f"group {name} has the name of a column: rename one of them")
    return groups


def _matching(columns: Sequence[str], wanted: Sequence[str], what: str) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for pattern in wanted:
        matches = [pattern] if pattern in columns else [c for c in columns if fnmatchcase(c, pattern)]
        if not matches:
            raise DataError(f"{what} asks for {pattern!r}, which fits no column: there is {_listing(columns)}")
        found |= dict.fromkeys(matches)
    return tuple(found)


def _listing(names: Sequence[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


@contextmanager
def _opened(path: Path) -> Iterator[BufferedReader]:
    """The file, open: hashed and read by way of one handle, so that both see the same file."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise DataError(f"{path} does not exist: give the path of a data file") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    with file:
        yield file


def _sha256(file: BufferedReader) -> str:
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    file.seek(0)
    return digest
