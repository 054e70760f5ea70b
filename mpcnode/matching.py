"""Joined inputs: before anything is computed, owners make sure that their rows are of the same keys.

Each owner sorts its rows by their keys and holds a SHA-256 of all of them (datasets.py).  Every two owners of a `join`
send each other an HMAC of it, under a key that only the two know and only for this attempt: neither the coordinator
nor another party can test a guess, and nothing of it is good for another run.

The two themselves learn whether their keys are the same, and nothing else as long as they cannot guess the other's
whole list.  Who can (all but one of the keys are known, say, and that one has few candidates) may check the guess; so
owners agree on their rows before, in the open or by a private set intersection, which is not part of this system.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from mpcnode.errors import DataError
from mpcnode.graph import Graph, Op
from mpcnode.party import Party
from mpcnode.rounds import Recv, Send, exchange

TAG_BYTES = 32
PURPOSE = 255  # of the randomness at a join, which has no other


class Join(NamedTuple):
    """number: of the op; inputs: what it joins."""

    number: int
    inputs: tuple[Op, ...]

    def owned_by(self, owner: str) -> list[Op]:
        return [op for op in self.inputs if op.text("owner") == owner]


def joins(graph: Graph, numbers: Sequence[int]) -> list[Join]:
    """All joins of a verified graph whose ops have these numbers."""
    return [
        Join(number, tuple(graph.ops[a] for a in op.args))
        for number, op in zip(numbers, graph.ops, strict=True)
        if op.name == "join"
    ]


def sent_bytes(graph: Graph) -> int:
    """That all parties send together: one tag from each owner of a join to each other one."""
    owners = [len({op.text("owner") for op in join.inputs}) for join in joins(graph, range(len(graph.ops)))]
    return sum(TAG_BYTES * n * (n - 1) for n in owners)


async def match_rows(party: Party, found: Sequence[Join], keys: Callable[[Op], bytes]) -> None:
    """Compare this party's keys with those of every owner that it shares a join with.  One round, if there are joins.

    keys: the digest of the keys of one of this party's inputs.  Raises DataError if they are not the same.
    """
    if not found:
        return
    me = party.names[party.rank]
    send, due, wanted = [], [], []
    for join in found:
        mine = {keys(op) for op in join.owned_by(me)}
        if not mine:
            continue
        if len(mine) > 1:
            raise DataError(_sentence(join.owned_by(me)))
        [digest] = mine
        for peer, theirs in _others(party, join):
            send.append(Send(peer, _tag(party, join, peer, party.rank, digest), join.number))
            due.append(Recv(peer, np.dtype(np.uint8), (TAG_BYTES,), join.number))
            wanted.append((_tag(party, join, peer, peer, digest), join.inputs, theirs))
    got = await exchange(send, due)
    for tag, (want, inputs, theirs) in zip(got, wanted, strict=True):
        if not hmac.compare_digest(tag.tobytes(), want.tobytes()):
            raise DataError(_sentence([op for op in inputs if op.text("owner") in (me, theirs)]))


def _others(party: Party, join: Join) -> Iterator[tuple[int, str]]:
    """The other owners of a join, by rank."""
    for rank, name in enumerate(party.names):
        if rank != party.rank and join.owned_by(name):
            yield rank, name


def _tag(party: Party, join: Join, peer: int, sender: int, digest: bytes) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    """What `sender`, one of this party and `peer`, says of its keys: nobody can hand the other's own tag back."""
    key = party.at(join.number).common(peer, PURPOSE, np.empty(TAG_BYTES, np.uint8))
    return np.frombuffer(hmac.digest(key.tobytes(), bytes([sender]) + digest, "sha256"), np.uint8)


def _sentence(inputs: Sequence[Op]) -> str:
    named = " and ".join(dict.fromkeys(f"{op.text('owner')}/{op.text('dataset')}" for op in inputs))
    return (
        f"the rows of {named} are not of the same keys, so they cannot be joined: "
        "the owners agree on the keys to keep, and each registers exactly those rows"
    )
