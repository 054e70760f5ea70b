"""Who I am, who my peers are, and the randomness that I share with each of them.

Randomness is addressed, not streamed: what two parties draw for (step, op, tile, purpose) is a function of that
address and of their pair key, and the pair key is bound to (job, attempt).  So parties stay in step however their
execution is scheduled, and no mask serves twice: a retried attempt has another key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from mpcnode.kernels.memory import WATCHER
from mpcnode.kernels.prg import Prg
from mpcnode.rounds import Array, Recv, Send

SEED_BYTES = 32
STEP_BYTES = 5  # of an address of randomness


def pair_key(low_seed: bytes, high_seed: bytes, *, job: str, attempt: int, low: str, high: str) -> bytes:
    """The 16-byte key of two parties for one attempt: HKDF-SHA256 (RFC 5869) over both sides' fresh seeds, bound to
    job, attempt and names.  `low` is the party of the lower rank.  Raises ValueError for a seed of another length.
    """
    if len(low_seed) != SEED_BYTES or len(high_seed) != SEED_BYTES:
        raise ValueError(f"a seed has {SEED_BYTES} bytes")
    info = "\0".join(("mpcnode pair key", job, str(attempt), low, high)).encode()
    return HKDF(SHA256(), 16, salt=None, info=info).derive(low_seed + high_seed)


def key_tag(key: bytes) -> bytes:
    """32 bytes that name a pair key to who has it, and say nothing of it to anybody else."""
    return HKDF(SHA256(), 32, salt=None, info=b"mpcnode pair key tag").derive(key)


class Party:
    """One party of a run.  rank: its number; names: all parties by rank; keys: the 16-byte key shared with each other
    rank; guests: how many of the last ranks bring data and compute nothing.
    """

    def __init__(self, rank: int, names: Sequence[str], keys: Mapping[int, bytes], guests: int = 0) -> None:
        self.rank = rank
        self.names = tuple(names)
        self.computing = len(names) - guests
        self.prg = {peer: Prg(key) for peer, key in keys.items()}

    def __repr__(self) -> str:  # never the keys
        return f"Party({self.rank}, {self.names})"

    def at(self, op: int, step: int = 0) -> Place:
        """This party at one execution of an op: `op` is its number in the graph, `step` the number of the iteration."""
        return Place(self, op, step, 0)


class Place:
    """A party at one tile of one execution of an op: the address of everything random or sent there."""

    __slots__ = ("_address", "_tile", "op", "party", "rank", "size", "step")

    def __init__(self, party: Party, op: int, step: int, tile: int) -> None:
        self.party, self.op, self.step, self.rank = party, op, step, party.rank
        self.size = party.computing  # parties that compute
        self._tile = tile
        self._address = b""  # most ops draw nothing

    def tile(self, number: int) -> Place:
        """The same execution, at tile `number`."""
        return Place(self.party, self.op, self.step, number)

    def common(self, peer: int, purpose: int, out: Array) -> Array:
        """Fill `out` with what this party and `peer` alone know for `purpose`.  Raises OverflowError for a number that
        does not fit into the address, so that addresses never collide; ValueError for what cannot be filled in place: a
        numpy scalar or a strided view would be copied, and its owner would go on without a mask.
        """
        if not self._address:  # 5 + 4 + 2 bytes, and 1 of purpose
            self._address = (
                self.step.to_bytes(STEP_BYTES, "big") + self.op.to_bytes(4, "big") + self._tile.to_bytes(2, "big")
            )
        address, prg = self._address + purpose.to_bytes(1, "big"), self.party.prg[peer]
        watcher = WATCHER.get()
        if watcher is not None:
            watcher.drawn(prg, address, out)
        return prg.fill(address, out)

    def to(self, peer: int, array: Array) -> Send:
        return Send(peer, array, self.op)

    def due(self, peer: int, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> Recv:
        return Recv(peer, np.dtype(dtype), shape, self.op)


def seeded_keys(size: int, seed: bytes) -> list[dict[int, bytes]]:
    """Pair keys for a run in one process, from one seed: for simulation, where all parties trust each other anyway."""
    keys: list[dict[int, Any]] = [{} for _ in range(size)]
    for low in range(size):
        for high in range(low + 1, size):
            key = HKDF(SHA256(), 16, salt=None, info=f"simulation {low} {high}".encode()).derive(seed)
            keys[low][high] = keys[high][low] = key
    return keys
