"""A kept value has the shape it was kept in, and nothing else can be kept."""

from typing import Any, NamedTuple

import numpy as np
import pytest

from coordinator import trees

A, B, C = (np.zeros(n) for n in (1, 2, 3))


class State(NamedTuple):
    count: Any


TREES: list[tuple[Any, list[trees.Path]]] = [
    (A, [()]),
    ({"w": A, "b": B}, [(".b",), (".w",)]),
    ({2: A, 10: B}, [(":2",), (":10",)]),
    ([A, (B, {"x/y": [C]})], [("[0",), ("[1", "(0"), ("[1", "(1", ".x/y", "[0")]),
    ([A] * 12, [(f"[{i}",) for i in range(12)]),
]


@pytest.mark.parametrize(("tree", "paths"), TREES)
def test_a_tree_is_its_paths_and_back(tree: Any, paths: list[trees.Path]) -> None:
    import jax

    assert list(trees.paths(tree)) == paths
    built = trees.build(list(zip(paths, jax.tree.leaves(tree), strict=True)))
    assert jax.tree.structure(built) == jax.tree.structure(tree)
    assert all(a is b for a, b in zip(jax.tree.leaves(built), jax.tree.leaves(tree), strict=True))


@pytest.mark.parametrize(
    ("tree", "why"),
    [
        ({"opt": State(A)}, "opt is State: what is kept is made of arrays in dicts, lists and tuples"),
        ({"a": {}}, "a is empty"),
        ([A, None], "1 is NoneType"),
        ({"a": A, 1: B}, "neither all texts nor all whole numbers"),
    ],
)
def test_other_containers_are_refused(tree: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        list(trees.paths(tree))


@pytest.mark.parametrize(
    "paths",
    [[], [(), (".a",)], [("[0",), ("[2",)], [("[0",), ("(1",)], [("",)], [("?a",)], [(".a",), (".a", ".b")], [(":x",)]],
)
def test_what_is_no_tree_is_refused(paths: list[trees.Path]) -> None:
    with pytest.raises(ValueError):
        trees.build([(path, A) for path in paths])
