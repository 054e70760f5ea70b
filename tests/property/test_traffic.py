"""The shape of the traffic is a function of the graph: neither secrets nor seeds change who sends what when."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from views import SECRETS, Data, every_op

from mpcnode.simulate import Message, simulate

Shape = tuple[int, int, bool, int, int, str, tuple[int, ...]]


def shapes(protocol: str, evaluators: int, secrets: Any, seed: bytes) -> tuple[list[Shape], int]:
    """Every message of a run, in order, without its content; and the number of rounds."""
    found: list[Shape] = []

    def tap(m: Message) -> list[Message]:
        found.append((m.source, m.target, m.dealt, m.op, m.sequence, str(m.array.dtype), m.array.shape))
        return [m]

    graph = every_op(64, "owner")
    result = simulate(graph, {}, protocol, evaluators=evaluators, seed=seed, tap=tap, hooks=lambda rank: Data(secrets))
    return found, result.traffic.rounds


@pytest.mark.parametrize(("protocol", "evaluators"), [("cleartext", 2), ("masked", 2), ("masked", 3)], ids=str)
def test_traffic_does_not_depend_on_secrets_or_seeds(protocol: str, evaluators: int) -> None:
    random = np.random.default_rng(7).integers(-(1 << 62), 1 << 62, (2, 64), np.int64)
    secrets = [random, *(make(64) for make in SECRETS.values())]
    first, *others = (shapes(protocol, evaluators, secret, f"{seed}".encode()) for seed, secret in enumerate(secrets))
    assert first[0]
    assert all(other == first for other in others)
