"""The recipient's side: open what the evaluators sealed, add their parts, write arrays.

Each evaluator seals its part of an output in pieces, each for exactly one job, attempt, sender, recipient, output,
type and place in the row.  So the coordinator, who keeps the pieces, can lose or withhold some, which shows; and
nothing else.
"""

from __future__ import annotations

import re
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from coordinator.jobs import Run
from coordinator.programs import Output
from mpcnode import protocols, sealing, simulate
from mpcnode.cluster import Cluster
from mpcnode.errors import ConfigError, SealError
from mpcnode.graph import Kind, Type
from mpcnode.identity import Identity
from mpcnode.wire import node_pb2

Arrays = dict[str, npt.NDArray[Any]]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", re.ASCII)


def collect(
    identity: Identity,
    cluster: Cluster,
    run: Run,
    expected: Mapping[str, Output],
    sealed: Iterable[node_pb2.Sealed],
) -> Arrays:
    """The outputs of `expected` that are for `identity`, as numbers: float64, int64 for whole numbers, bool for bits.

    Raises SealError for a piece that is missing, comes twice, was altered, or belongs to another run.
    """
    rules = protocols.get(cluster.protocol)
    senders = cluster.parties[rules.helpers :]
    mine = {name: output for name, output in expected.items() if identity.name in output.recipients}
    parts = {(name, sender): _Part(name, sender, output.type) for name, output in mine.items() for sender in senders}
    for piece in sealed:
        part = parts.get((piece.output, piece.sender))
        if part is None:
            raise SealError(
                f"the coordinator passed on a result {piece.output!r} of {piece.sender!r}, which {run.job} does not "
                f"promise to {identity.name}: mistrust it"
            )
        part.add(identity, cluster, run, piece)
    return {
        name: simulate.decode(rules.combine([parts[name, sender].array(run) for sender in senders]), output.type)
        for name, output in mine.items()
    }


class _Part:
    """One evaluator's part of one output, while its pieces come in."""

    def __init__(self, output: str, sender: str, type: Type) -> None:
        self.output, self.sender, self.type = output, sender, type
        self._pieces: dict[int, bytes] = {}
        self._count = 1

    def add(self, identity: Identity, cluster: Cluster, run: Run, piece: node_pb2.Sealed) -> None:
        """Open a piece and keep it."""
        purpose = sealing.Purpose(
            job=run.job,
            attempt=run.attempt,
            sender=self.sender,
            recipient=identity.name,
            output=self.output,
            type=str(self.type),
            piece=piece.piece,
            pieces=piece.pieces,
        )
        opened = sealing.open_result(identity, cluster.card(self.sender), purpose, piece.data)
        if piece.piece in self._pieces:
            raise SealError(f"piece {piece.piece} of {self.output} from {self.sender} came twice: fetch it again")
        self._pieces[piece.piece], self._count = opened, piece.pieces

    def array(self, run: Run) -> npt.NDArray[Any]:
        """The part, if all of it came."""
        missing = [i for i in range(self._count) if i not in self._pieces]
        if missing:
            raise SealError(
                f"{len(missing)} of {self._count} pieces of {self.output} from {self.sender} are missing in {run.job}: "
                "fetch the result again, and if they stay away run the job again"
            )
        raw = b"".join(self._pieces[i] for i in range(self._count))
        dtype = np.dtype("u1" if self.type.kind is Kind.BIT else "<u8")
        if len(raw) != self.type.size * dtype.itemsize:
            raise SealError(f"{self.sender} sealed {len(raw)} bytes of {self.output}, which do not make {self.type}")
        return np.frombuffer(raw, dtype).astype(dtype.newbyteorder("=")).reshape(self.type.shape)


def write(arrays: Arrays, folder: Path) -> list[Path]:
    """Write each output to `folder`/OUTPUT.npz and return the files.

    An output of several arrays, such as a model's parameters, is one file with the rest of their names as keys; a
    single array stands under the output's own name.  `numpy.load` reads the files without pickle.
    """
    files: dict[str, Arrays] = {}
    for name, array in arrays.items():
        for part in name.split("/"):
            if not _NAME.fullmatch(part):  # the name comes over the network, and becomes a path
                raise SealError(f"{name!r} cannot name a file: a name has letters, digits and _ . - only")
        output, _, key = name.partition("/")
        files.setdefault(output, {})[key or output] = array
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return [_write_npz(folder / f"{output}.npz", content) for output, content in files.items()]
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror}") from error


def _write_npz(path: Path, arrays: Arrays) -> Path:
    """As numpy.savez does, for any key (its own has no key "file"); a reader sees the whole file or none."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as new:
        try:
            with zipfile.ZipFile(new, "w", allowZip64=True) as archive:
                for key, array in arrays.items():
                    with archive.open(f"{key}.npy", "w", force_zip64=True) as member:
                        np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)
            Path(new.name).replace(path)
        except OSError:
            Path(new.name).unlink(missing_ok=True)
            raise
    return path
