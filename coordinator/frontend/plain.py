"""The user's function as it is, in floating point on plain numbers: what the secure computation is compared with."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import numpy.typing as npt

from coordinator.frontend import _called_by, _named, whole
from coordinator.jobfile import Input, KeptInput


def run_plain(
    function: Callable[..., Any],
    inputs: Mapping[str, Input],
    outputs: Collection[str],
    arrays: Mapping[str, npt.NDArray[Any]],
    kept: Mapping[str, tuple[KeptInput, Sequence[npt.NDArray[Any]]]] | None = None,
) -> dict[str, npt.NDArray[Any]]:
    """The function's outputs by the names that `trace` gives them.  arrays: [rows, columns], one for each input; kept:
    the arrays of each kept one, in the order of its leaves.
    """
    kept = kept or {}
    arguments: list[Any] = []
    for name, item in inputs.items():
        array = arrays[name].astype(item.dtype)
        arguments.append(array.reshape(item.shape))
    for value, leaves in kept.values():
        arguments.append(
            whole(value, [np.asarray(a, leaf.dtype) for a, leaf in zip(leaves, value.leaves, strict=True)])
        )
    found = jax.jit(_called_by(function, (*inputs, *kept)))(*arguments)
    named = _named(found, outputs, getattr(function, "__name__", "the function"))
    return {name: np.asarray(leaf) for name, leaf in named}
