"""A model's weights as an input of a job: one column of numbers, which its owner shares like any other data.

The owner writes them:                                 weights.save(model.params, "weights.npy")
                                                       mpcnode data add model weights.npy --columns weights --for ...
The job reads the column, and puts the arrays back together in the order of another dict of the same shapes, such as the
parameters of the same model before its training:      params = weights.unpack(column, like=model.params)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mpcnode.errors import ConfigError, DataError


def pack(arrays: Mapping[str, Any]) -> npt.NDArray[np.float64]:
    """All floats of the arrays, one array after the other, as [numbers].

    Arrays of integers and booleans are left out: they count and choose, and `unpack` takes them from `like`.
    """
    floats = [np.asarray(array, np.float64).reshape(-1) for array in arrays.values() if _is_float(array)]
    if not floats:
        raise DataError("there are no weights to pack: none of the arrays holds floats")
    return np.concatenate(floats)


def unpack(column: Any, like: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays that were packed, of the names, shapes and order of `like`, from [numbers] or [numbers, 1].

    `column` may be an input of a job.  Raises ConfigError if there are more or fewer numbers than `like` has.
    """
    flat = column.reshape(-1)
    wanted = sum(math.prod(np.shape(array)) for array in like.values() if _is_float(array))
    if flat.shape[0] != wanted:
        raise ConfigError(f"there are {flat.shape[0]} weights, and the model has {wanted}: they are another model's")
    found: dict[str, Any] = {}
    at = 0
    for name, array in like.items():
        shape = np.shape(array)
        if _is_float(array):
            found[name] = flat[at : at + math.prod(shape)].reshape(shape)
            at += math.prod(shape)
        else:
            found[name] = array
    return found


def save(arrays: Mapping[str, Any], path: Path | str) -> int:
    """Write the packed arrays as an NPY file that a node can register; how many numbers these are."""
    column = pack(arrays)
    path = Path(path)
    if path.suffix != ".npy":
        raise ConfigError(f"{path} should end in .npy: weights are written as NPY")
    try:
        np.save(path, column, allow_pickle=False)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
    return len(column)


def _is_float(array: Any) -> bool:
    return bool(getattr(array, "dtype", np.asarray(array).dtype).kind == "f")
