"""The user's function as it is, in floating point on plain numbers: what the secure computation is compared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import numpy.typing as npt

from coordinator.frontend import _called_by, _named
from coordinator.jobfile import Input


def run_plain(
    function: Callable[..., Any],
    inputs: Mapping[str, Input],
    outputs: Mapping[str, Sequence[str]],
    arrays: Mapping[str, npt.NDArray[Any]],
) -> dict[str, npt.NDArray[Any]]:
    """The function's outputs by the names that `trace` gives them.  arrays: [rows, columns], one for each input."""
    arguments = []
    for name, item in inputs.items():
        array = arrays[name].astype(np.int32 if item.integer else np.float32)
        arguments.append(array.reshape(item.shape))
    found = jax.jit(_called_by(function, tuple(inputs)))(*arguments)
    named = _named(found, outputs, getattr(function, "__name__", "the function"))
    return {name: np.asarray(leaf) for name, leaf in named}
