"""Products of any number of evaluators, once and twice: every way in which masked evaluation computes them."""

from typing import Any

import numpy as np
import pytest

from coordinator.lower.builder import Builder
from mpcnode.graph import Kind, Type
from mpcnode.protocols.masked import unit
from mpcnode.simulate import simulate
from mpcnode.verify import verify


@pytest.mark.parametrize("evaluators", range(2, 10))
def test_a_unit_undoes_the_number_of_evaluators(evaluators: int) -> None:
    for times in (1, 2):
        c = unit(evaluators, times)
        if c is None:
            assert evaluators % 4 == 0 or (times == 1 and evaluators % 2 == 0)
        else:
            assert c * evaluators % (1 << 64) == times


@pytest.mark.parametrize("twice", [0, 1])
@pytest.mark.parametrize("evaluators", range(2, 8))
def test_a_product_is_exact(evaluators: int, twice: int) -> None:
    rng = np.random.default_rng(evaluators)
    x, y = (rng.integers(-(1 << 20), 1 << 20, shape) for shape in ((5, 7), (7, 3)))
    data: dict[tuple[str, str], Any] = {("evaluator_1", "x"): x, ("evaluator_2", "y"): y}
    b = Builder(0)
    factors = [
        b.emit("input", owner=o, dataset=d, columns=("c",) * v.shape[1], type=Type(Kind.ARITH, 0, v.shape))
        for (o, d), v in data.items()
    ]
    left = b.emit("sub", factors[0], b.raw(np.full(x.shape, 5), 0))  # masks that are not as they were shared
    b.emit("reveal", b.emit("dot", left, factors[1], twice=twice), to=("evaluator_1",), name="z")
    graph = b.graph()
    verify(graph)
    found = simulate(graph, data, "masked", evaluators=evaluators).outputs["z"]
    np.testing.assert_array_equal(found, (x - 5) @ y)
