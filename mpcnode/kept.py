"""Kept values: this node's shares of what a job computed and nobody learned, encrypted in its folder.

    kept/NAME@JOB@ATTEMPT.share    one making of a value: a header in clear (names and types), then all of this node's
                                   parts, encrypted
    kept.toml                      which makings count, and who may learn what later jobs compute from them

A share is written when the node is done with an attempt, and counts when the coordinator says that every node is: so a
job that fails at any node leaves nothing.  A node that was away when it was said finds out when a job asks for that
making by name: its share was complete before.

At rest every making has a key of its own, HKDF-SHA256 of the node's seal key, a fresh salt and the header; so no share
can be read as that of another name, job, party or program, and no file put in another's place.  Pieces are sealed with
AES-256-GCM under their number.  Whoever has the node's private keys can read its shares, and nobody's values: that
takes the shares of other nodes as well.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, Any, Literal, NamedTuple

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mpcnode import tomlfile
from mpcnode.errors import ConfigError, DataError
from mpcnode.graph import MAX_AXES, MAX_ELEMENTS, Kind, Op, Type
from mpcnode.identity import Identity, Name
from mpcnode.policy import Terms
from mpcnode.rounds import Array
from mpcnode.terms import Allowed, Program, Recipient

REGISTRY, FOLDER = "kept.toml", "kept"
PIECE_BYTES = 1 << 24  # sealed at once
MAX_HEADER = 1 << 26
_MAGIC = b"mpcnode kept share v1\n"
_SALT_BYTES = 32
_KEY_INFO, _FILE_INFO = b"mpcnode kept shares v1", b"mpcnode kept share v1"
_RUN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,127})/([1-9][0-9]{0,9})", re.ASCII)
_STRICT = ConfigDict(strict=True, extra="forbid", frozen=True)


class Leaf(BaseModel):
    """One array of a kept value.  path: where it stands in the value, as `store` has it; dtype: of the program's array
    (the type's numbers are ring elements).
    """

    model_config = _STRICT

    path: tuple[str, ...]
    kind: Literal["arith", "bit"]
    frac: int = Field(ge=0, le=63)
    shape: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(max_length=MAX_AXES)]
    dtype: Literal["float32", "int32", "bool"]

    @property
    def type(self) -> Type:
        """As the graph writes it."""
        return Type(Kind(self.kind), self.frac, self.shape)


def leaf_of(op: Op) -> Leaf:
    """What a `store` keeps.  Raises ValidationError for what its file cannot name."""
    fields = {"kind": op.type.kind.value, "frac": op.type.frac, "shape": op.type.shape, "dtype": op.text("dtype")}
    return Leaf.model_validate({"path": op.texts("path"), **fields})


class Making(BaseModel):
    """What others may know of a share: which value it is of, who holds the others, and what made them."""

    model_config = _STRICT

    name: Name
    job: str
    attempt: int = Field(ge=1)
    program: Program  # that made it
    protocol: str
    parties: tuple[Name, ...]  # by rank, who hold the shares
    leaves: tuple[Leaf, ...] = Field(min_length=1)
    recipients: tuple[Recipient, ...] = ()  # who may learn what is computed from it, as the job that made it says
    kept_at: float  # unix seconds

    @property
    def run(self) -> str:
        """As a `load` names it."""
        return f"{self.job}/{self.attempt}"


class Header(BaseModel):
    """What stands in clear in a share's file."""

    model_config = _STRICT

    making: Making
    party: Name  # whose share it is
    parts: tuple[Annotated[int, Field(ge=1, le=64)], ...]  # of each leaf: the leading axis of this party's sharing
    tags: dict[Name, str]  # by other party: what it and this one alone know of the making


class Entry(Allowed):
    """A making that counts, and this node's terms for it."""

    name: Name
    job: str
    attempt: int = Field(ge=1)


class _Registry(BaseModel):
    model_config = _STRICT

    kept: tuple[Entry, ...] = ()


class Share(NamedTuple):
    """A making as it is read for a job."""

    header: Header
    arrays: dict[tuple[str, ...], Array]  # by path: [parts, *shape]


class Kept:
    """The kept values in an identity's folder.  Read afresh at every call, as other processes change them too."""

    def __init__(self, identity: Identity) -> None:
        self.me = identity.name
        self._file, self._folder = identity.folder / REGISTRY, identity.folder / FOLDER
        raw = identity.seal_private.private_bytes_raw()
        self._key = HKDF(SHA256(), 32, salt=None, info=_KEY_INFO).derive(raw)

    # ---- what there is ---------------------------------------------------------------------------------------------
    def entries(self) -> tuple[Entry, ...]:
        """What counts, in the order in which it was kept."""
        return tomlfile.read(self._file, _Registry).kept if self._file.exists() else ()

    def entry(self, name: str) -> Entry:
        """The kept value `name`; DataError if there is none."""
        for entry in self.entries():
            if entry.name == name:
                return entry
        raise DataError(f"{self.me} keeps nothing named {name}: see `mpcnode kept list`")

    def terms(self, name: str) -> Terms:
        """What this node allows of a kept value."""
        return self.entry(name).terms()

    def makings(self) -> list[tuple[Making, bool]]:
        """Every share that lies here, and whether it counts; a file that cannot be read is passed over."""
        found = []
        counted = {(entry.name, entry.job, entry.attempt) for entry in self.entries()}
        for path in sorted(self._folder.glob("*.share")):
            try:
                with path.open("rb") as file:
                    making = _read_header(file, path)[0].making
            except (OSError, DataError):
                continue
            found.append((making, (making.name, making.job, making.attempt) in counted))
        return found

    # ---- keeping ---------------------------------------------------------------------------------------------------
    def hold(self, header: Header, arrays: Mapping[tuple[str, ...], Array]) -> None:
        """Write a share, which does not count yet.  ConfigError if it cannot be written."""
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            path = self._path(header.making.name, header.making.job, header.making.attempt)
            # A temporary file is private from its first moment on.
            with tempfile.NamedTemporaryFile(dir=self._folder, prefix=".", delete=False) as new:
                try:
                    self._write(new, header, arrays)
                    new.flush()
                    os.fsync(new.fileno())
                    Path(new.name).replace(path)
                except BaseException:
                    Path(new.name).unlink(missing_ok=True)
                    raise
            _sync(self._folder)
        except OSError as error:
            raise ConfigError(f"{self._folder} cannot be written: {error.strerror}") from error

    def confirm(self, job: str, attempt: int) -> list[str]:
        """From now on the attempt's shares count, in place of others under their names; the names."""
        with self._locked():
            names = [path.name.partition("@")[0] for path in self._folder.glob(f"*@{job}@{attempt}.share")]
            for name in names:
                self._count(name, job, attempt)
            return names

    def drop(self, job: str, attempt: int) -> None:
        """The attempt failed: its shares go, unless they count."""
        counted = {self._path(*entry_key) for entry_key in self._counted()}
        for path in self._folder.glob(f"*@{job}@{attempt}.share"):
            if path not in counted:
                path.unlink(missing_ok=True)

    def _count(self, name: str, job: str, attempt: int) -> None:
        path = self._path(name, job, attempt)
        if (name, job, attempt) in self._counted():
            return
        with path.open("rb") as file:
            making = _read_header(file, path)[0].making
        entry = Entry(name=name, job=job, attempt=attempt, recipients=making.recipients)
        self._save([*(other for other in self.entries() if other.name != name), entry])
        for other in self._folder.glob(f"{name}@*.share"):
            if other != path:
                other.unlink(missing_ok=True)

    def _counted(self) -> set[tuple[str, str, int]]:
        return {(entry.name, entry.job, entry.attempt) for entry in self.entries()}

    # ---- using -----------------------------------------------------------------------------------------------------
    def load(self, name: str, run: str) -> Share:
        """This node's share of a making, which counts from now on.  DataError if it is not here, or was altered."""
        job, attempt = split_run(run)
        path = self._path(name, job, attempt)
        try:
            with path.open("rb") as file:
                header, head, salt = _read_header(file, path)
                share = Share(header, self._read(file, path, header, self._seal(salt, head)))
        except FileNotFoundError:
            raise DataError(self._lacks(name, run)) from None
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}") from error
        made = header.making
        if (made.name, made.run, header.party) != (name, run, self.me):
            raise DataError(f"{path} is not {self.me}'s share of {name} as {run} made it: restore the right file")
        with self._locked():
            self._count(name, job, attempt)
        return share

    def _lacks(self, name: str, run: str) -> str:
        other = next((f"{entry.job}/{entry.attempt}" for entry in self.entries() if entry.name == name), None)
        has = f", but the one of {other}: compile the job anew" if other not in (None, run) else ""
        return f"{self.me} does not hold its share of {name} as {run} made it{has}"

    # ---- terms -----------------------------------------------------------------------------------------------------
    def allow(self, name: str, recipients: Sequence[str] = (), programs: Sequence[str] = ()) -> Entry:
        """Let these programs tell the recipients (none: whomever they name) what they say; or, without programs, let
        the recipients learn whatever jobs compute from it.
        """
        with self._locked():
            return self._change(self.entry(name).allowing(recipients, programs))

    def forbid(self, name: str) -> None:
        """Allow nobody anything any more."""
        with self._locked():
            self._change(self.entry(name).forbidding())

    def _change(self, new: Entry) -> Entry:
        self._save([new if entry.name == new.name else entry for entry in self.entries()])
        return new

    def remove(self, name: str) -> None:
        """Delete every share of that name; DataError if there is none.  No job can use the value any more."""
        with self._locked():
            files = list(self._folder.glob(f"{name}@*.share"))
            if not files:
                self.entry(name)
            self._save([entry for entry in self.entries() if entry.name != name])
            for path in files:
                path.unlink(missing_ok=True)

    # ---- files -----------------------------------------------------------------------------------------------------
    def _path(self, name: str, job: str, attempt: int) -> Path:
        return self._folder / f"{name}@{job}@{attempt}.share"

    def _save(self, entries: Sequence[Entry]) -> None:
        documents: list[dict[str, Any]] = [entry.model_dump(by_alias=True) for entry in entries]
        tomlfile.write(self._file, {"kept": documents})

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """The node and its operator's commands change the registry one after the other."""
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            lock = (self._folder / ".lock").open("w")
        except OSError as error:
            raise ConfigError(f"{self._folder} cannot be written: {error.strerror}") from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _seal(self, salt: bytes, head: bytes) -> AESGCM:
        info = _FILE_INFO + hashlib.sha256(head).digest()
        return AESGCM(HKDF(SHA256(), 32, salt=salt, info=info).derive(self._key))

    def _write(self, file: IO[bytes], header: Header, arrays: Mapping[tuple[str, ...], Array]) -> None:
        head, salt = header.model_dump_json().encode(), os.urandom(_SALT_BYTES)
        file.write(_MAGIC + len(head).to_bytes(4, "big") + head + salt)
        key, number = self._seal(salt, head), 0
        for leaf in header.making.leaves:
            array = np.ascontiguousarray(arrays[leaf.path])
            data = array.astype(_dtype(leaf), copy=False).reshape(-1).view(np.uint8).data
            for at in range(0, len(data), PIECE_BYTES):
                file.write(key.encrypt(number.to_bytes(12, "big"), data[at : at + PIECE_BYTES], None))
                number += 1

    def _read(self, file: IO[bytes], path: Path, header: Header, key: AESGCM) -> dict[tuple[str, ...], Array]:
        number = 0
        found: dict[tuple[str, ...], Array] = {}
        for leaf, parts in zip(header.making.leaves, header.parts, strict=True):
            shape = (parts, *leaf.shape)
            raw = bytearray()
            nbytes = int(np.prod(shape)) * _dtype(leaf).itemsize
            while len(raw) < nbytes:
                piece = file.read(min(PIECE_BYTES, nbytes - len(raw)) + 16)
                try:
                    raw += key.decrypt(number.to_bytes(12, "big"), piece, None)
                except InvalidTag:
                    raise DataError(
                        f"{path} was altered, or belongs to another node or identity: restore it, or make the value "
                        "anew"
                    ) from None
                number += 1
            array = np.frombuffer(raw, _dtype(leaf))
            found[leaf.path] = array.astype(array.dtype.newbyteorder("="), copy=False).reshape(shape)
        if file.read(1):
            raise DataError(f"{path} is longer than what was kept: restore it, or make the value anew")
        return found


def split_run(run: str) -> tuple[str, int]:
    """JOB/ATTEMPT as the two; DataError for what no making is named by."""
    found = _RUN.fullmatch(run)
    if found is None:
        raise DataError(f"{run[:200]!r} names no making of a kept value: that is JOB/ATTEMPT")
    return found[1], int(found[2])


def _dtype(leaf: Leaf) -> np.dtype[Any]:
    return np.dtype("u1" if leaf.kind == "bit" else "<u8")


def _read_header(file: IO[bytes], path: Path) -> tuple[Header, bytes, bytes]:
    """The header, its bytes and the salt; DataError for a file that does not start as a share does."""
    start = file.read(len(_MAGIC) + 4)
    size = int.from_bytes(start[len(_MAGIC) :], "big")
    if not start.startswith(_MAGIC) or size > MAX_HEADER:
        raise DataError(f"{path} is no kept share: restore it, or make the value anew")
    head, salt = file.read(size), file.read(_SALT_BYTES)
    try:
        header = Header.model_validate_json(head)
    except ValidationError:
        raise DataError(f"{path} is damaged: restore it, or make the value anew") from None
    leaves = header.making.leaves
    too_large = any(leaf.type.size > MAX_ELEMENTS for leaf in leaves)
    if len(salt) < _SALT_BYTES or too_large or len(header.parts) != len(leaves):
        raise DataError(f"{path} is damaged: restore it, or make the value anew")
    return header, head, salt


def _sync(folder: Path) -> None:
    """A file's name survives a power cut once its folder is written."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
