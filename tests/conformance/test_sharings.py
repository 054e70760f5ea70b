"""Every protocol shares, opens and reveals values of any shape and layout, beside the ops of a graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from rows import ring, zeros_and_ones

from mpcnode import kernels, protocols
from mpcnode.party import Party, Place, seeded_keys
from mpcnode.protocols import Bilinear, Protocol
from mpcnode.simulate import Message, Traffic, run

MATMUL = Bilinear((7, 7), -2, 1, 1, kernels.matmul, kernels.matmul_add)
SETTINGS = [("cleartext", 1), ("cleartext", 3), ("masked", 2), ("masked", 3), ("masked", 5)]
each_setting = pytest.mark.parametrize(("name", "evaluators"), SETTINGS, ids=str)
each_value = pytest.mark.parametrize(
    "value",
    [ring(), ring(1), ring(3, 4), ring(2, 0), ring(4, 3).T, ring(6, 6)[::2, ::-3], np.broadcast_to(ring(3), (2, 3))],
    ids=["scalar", "one", "matrix", "empty", "transposed", "strided", "broadcast"],
)


def together(
    name: str, evaluators: int, kernel: Callable[[Protocol, Place], Any], messages: list[Message] | None = None
) -> tuple[list[Any], Traffic]:
    """What each evaluator computes, in one place of all parties."""
    rules = protocols.get(name)
    size = rules.helpers + evaluators
    names, keys = [f"party_{i}" for i in range(size)], seeded_keys(size, b"sharings")

    def tap(m: Message) -> list[Message]:
        if messages is not None:
            messages.append(m)
        return [m]

    results, traffic = run([kernel(rules, Party(i, names, keys[i]).at(0)) for i in range(size)], tap)
    return results[rules.helpers :], traffic


def owners(name: str, evaluators: int) -> range:
    """Every rank may own data, the helper included."""
    return range(protocols.get(name).helpers + evaluators)


@each_value
@each_setting
def test_what_is_shared_opens(name: str, evaluators: int, value: Any) -> None:
    for owner in owners(name, evaluators):

        async def kernel(rules: Protocol, p: Place, owner: int = owner) -> Any:
            x = await rules.share(p, owner, value.shape, value.view(np.uint64) if p.rank == owner else None)
            assert x.shape == (rules.parts(p), *value.shape)
            return await rules.open(p, x)

        opened, _ = together(name, evaluators, kernel)
        for found in opened:
            assert found.shape == value.shape
            assert found.dtype == np.uint64
            assert np.array_equal(found, value.view(np.uint64))


@each_value
@each_setting
def test_what_is_shared_is_revealed_by_parts(name: str, evaluators: int, value: Any) -> None:
    for owner in owners(name, evaluators):

        async def kernel(rules: Protocol, p: Place, owner: int = owner) -> Any:
            x = await rules.share(p, owner, value.shape, value.view(np.uint64) if p.rank == owner else None)
            return rules.reveal(p, rules.add_public(p, x, np.full(value.shape, 7, np.uint64)))

        parts, traffic = together(name, evaluators, kernel)
        assert all(isinstance(part, np.ndarray | np.generic) and part.shape == value.shape for part in parts)
        assert np.array_equal(
            protocols.get(name).combine([np.asarray(p) for p in parts]), value.view(np.uint64) + np.uint64(7)
        )
        assert traffic.rounds == 1


@pytest.mark.parametrize("shape", [(), (1,), (70,), (3, 0)])
@each_setting
def test_bits_open_and_are_revealed(name: str, evaluators: int, shape: tuple[int, ...]) -> None:
    bits = zeros_and_ones(*shape)

    async def kernel(rules: Protocol, p: Place) -> Any:
        x = await rules.share(p, p.size - 1, shape, -bits.view(np.uint64) if p.rank == p.size - 1 else None)
        b = rules.add_public(p, await rules.sign(p, x, 0), np.ones(shape, np.uint8))
        return await rules.open(p, b), rules.reveal(p, b)

    found, _ = together(name, evaluators, kernel)
    for opened, _ in found:
        assert opened.shape == shape
        assert opened.dtype == np.uint8
        assert np.array_equal(opened, 1 - bits)
    assert np.array_equal(protocols.get(name).combine([np.asarray(part) for _, part in found]), 1 - bits)


@pytest.mark.parametrize("evaluators", [2, 3])
@pytest.mark.parametrize("shape", [(), (1,), (5,)])
def test_no_message_shows_what_is_shared(evaluators: int, shape: tuple[int, ...]) -> None:
    """Above all not of scalars: a mask that is drawn into a copy of a scalar would leave it bare."""
    for owner in owners("masked", evaluators):
        messages: list[Message] = []

        async def kernel(rules: Protocol, p: Place, owner: int = owner) -> Any:
            return await rules.share(p, owner, shape, np.full(shape, 77, np.uint64) if p.rank == owner else None)

        together("masked", evaluators, kernel, messages)
        assert messages
        assert not any((m.array == 77).any() for m in messages)


def test_a_sharing_is_not_changed_by_what_is_computed_from_it() -> None:
    """Masked or not, kernels write only what they made themselves: here every argument refuses to be written."""
    for name in ("cleartext", "masked"):

        async def kernel(rules: Protocol, p: Place) -> None:
            value = ring(70).view(np.uint64) if p.rank == 1 else None
            x = await rules.share(p, 1, (70,), value)
            x.flags.writeable = False
            b = await rules.sign(p, x, 0)
            b.flags.writeable = False
            square = x.reshape(len(x), 7, 10)
            at = [Place(p.party, i, 0, 0) for i in range(1, 12)]
            await rules.mul(at[0], x, x)
            await rules.bilinear(at[1], MATMUL, square, square.swapaxes(1, 2))
            await rules.trunc(at[2], x, 18)
            await rules.sign(at[3], x, 18)
            await rules.and_(at[4], b, b)
            await rules.select(at[5], b, x, 0)
            await rules.select(at[6], b, x, 1)
            await rules.inject(at[7], b)
            await rules.open(at[8], x)
            await rules.open(at[9], b)
            rules.reveal(at[10], x)
            rules.reveal(at[10].tile(1), b)

        together(name, 3, kernel)


@pytest.mark.parametrize(("name", "size"), [("cleartext", 0), ("masked", 0), ("masked", 1), ("masked", 2)])
def test_too_few_parties_are_refused(name: str, size: int) -> None:
    with pytest.raises(ValueError, match="wants"):
        protocols.get(name).check_size(size)


@pytest.mark.parametrize("name", ["cleartext", "masked"])
def test_a_protocol_says_what_it_is(name: str) -> None:
    rules = protocols.get(name)
    assert rules.name == name
    assert rules.paper
    assert rules.threat_model
    assert [rules.is_helper(rank) for rank in range(3)] == [rank < rules.helpers for rank in range(3)]
