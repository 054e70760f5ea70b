"""MNIST's files: arrays of bytes in the IDX format (http://yann.lecun.com/exdb/mnist), gzipped or not."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mpcnode.errors import DataError

NAMES = {"train": "train", "test": "t10k"}


def load(folder: Path, part: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """The images of `part` ("train" or "test"), [n, 784] grey values, and their digits, [n].

    DataError for a file that is not there or is none of MNIST's.
    """
    images = read(folder / f"{NAMES[part]}-images-idx3-ubyte", 3)
    digits = read(folder / f"{NAMES[part]}-labels-idx1-ubyte", 1)
    if len(images) != len(digits) or images.shape[1:] != (28, 28):
        raise DataError(f"{folder} has {list(images.shape)} images and {len(digits)} digits: these are not MNIST's")
    return images.reshape(-1, 784), digits


def read(path: Path, axes: int) -> npt.NDArray[np.uint8]:
    """The bytes of an IDX file with that many axes: two zeros, 8 for bytes, the number of axes, their lengths, data."""
    found = path if path.exists() else path.with_name(path.name + ".gz")
    try:
        raw = found.read_bytes()
        raw = gzip.decompress(raw) if found.suffix == ".gz" else raw
    except (OSError, EOFError) as error:
        raise DataError(f"{found} cannot be read: give the folder with MNIST's four files") from error
    start = 4 + 4 * axes
    shape = tuple(int.from_bytes(raw[at : at + 4], "big") for at in range(4, start, 4))
    if raw[:4] != bytes([0, 0, 8, axes]) or len(raw) != start + np.prod(shape, dtype=np.int64):
        raise DataError(f"{found} is no IDX file of bytes with {axes} axes")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)
