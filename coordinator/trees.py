"""The shape of a kept value: where each of its arrays stands in dicts, lists and tuples, as texts.

    {"dense": [w, b]}   ->   (".dense", "[0")  (".dense", "[1")

A part says what holds the rest: "." a dict under a text, ":" a dict under a whole number, "[" a list, "(" a tuple.
Other containers are refused where a value is kept: whoever loads it gets exactly these, and nothing that came over the
network is ever imported to make it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

Path: TypeAlias = tuple[str, ...]


def paths(tree: Any, at: Path = ()) -> Iterator[Path]:
    """Where the arrays of `tree` stand, in jax's order of leaves.  Raises ValueError for another kind of container."""
    if type(tree) is dict and tree:
        whole = all(type(key) is int for key in tree)
        if not whole and not all(isinstance(key, str) for key in tree):
            raise ValueError(f"{title(at)} is a dict under keys that are neither all texts nor all whole numbers")
        for key in sorted(tree):
            yield from paths(tree[key], (*at, f"{':' if whole else '.'}{key}"))
    elif type(tree) in (list, tuple) and tree:
        for i, part in enumerate(tree):
            yield from paths(part, (*at, f"{'[' if type(tree) is list else '('}{i}"))
    elif hasattr(tree, "shape") and hasattr(tree, "dtype"):
        yield at
    else:
        raise ValueError(
            f"{title(at)} is {'empty' if isinstance(tree, (dict, list, tuple)) and not tree else type(tree).__name__}: "
            "what is kept is made of arrays in dicts, lists and tuples; of anything else keep jax.tree.leaves(...)"
        )


def build(leaves: Sequence[tuple[Path, Any]]) -> Any:
    """The tree whose arrays stand at these paths.  Raises ValueError if there is none."""
    if [path for path, _ in leaves] == [()]:
        return leaves[0][1]
    branches: dict[str, list[tuple[Path, Any]]] = {}
    for path, leaf in leaves:
        if not path or not path[0]:
            raise ValueError("an array stands where others stand too")
        branches.setdefault(path[0], []).append((path[1:], leaf))
    kinds = {part[0] for part in branches}
    built = {part[1:]: build(inner) for part, inner in branches.items()}
    match kinds.pop() if len(kinds) == 1 else "":
        case ".":
            return built
        case ":":
            return {int(key): value for key, value in built.items()}
        case "[" | "(" as kind:
            parts = [built[str(i)] for i in range(len(built)) if str(i) in built]
            if len(parts) == len(built):
                return parts if kind == "[" else tuple(parts)
    raise ValueError("its arrays do not stand in one dict, list or tuple")


def title(path: Path) -> str:
    """A path for people."""
    return "/".join(part[1:] for part in path) or "the value"
