"""A model's weights as one column."""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from coordinator import weights
from mpcnode.datasets import Datasets
from mpcnode.errors import ConfigError, DataError
from mpcnode.identity import create_identity

PARAMS = {
    "fc.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "steps": np.array(7),
    "fc.bias": np.array([0.5, -0.25], np.float32),
    "scale": np.float32(3.5),
}


@pytest.mark.parametrize(
    "column", [weights.pack(PARAMS), weights.pack(PARAMS)[:, None], jnp.asarray(weights.pack(PARAMS))]
)
def test_unpack_is_the_inverse_of_pack(column: np.ndarray) -> None:
    like = {name: np.zeros_like(array) for name, array in PARAMS.items()} | {"steps": np.array(7)}
    found = weights.unpack(column, like)
    assert list(found) == list(PARAMS)
    for name, array in PARAMS.items():
        assert np.shape(found[name]) == array.shape
        assert np.array_equal(found[name], array)


def test_another_models_weights_are_refused() -> None:
    with pytest.raises(ConfigError, match="there are 9 weights, and the model has 7: they are another model's"):
        weights.unpack(weights.pack(PARAMS), {"w": np.zeros((7, 1), np.float32)})
    with pytest.raises(DataError, match="no weights to pack"):
        weights.pack({"steps": np.array(7)})


def test_a_node_registers_what_is_saved(tmp_path: Path) -> None:
    folder = create_identity(tmp_path / "owner", "owner").folder
    assert weights.save(PARAMS, tmp_path / "weights.npy") == 9
    schema = Datasets(folder).add("model", tmp_path / "weights.npy", ["analyst"], columns=["weight"])
    assert (schema.rows, [c.name for c in schema.columns]) == (9, ["weight"])
    assert np.array_equal(Datasets(folder).load("model", ["weight"])[:, 0], weights.pack(PARAMS))
    with pytest.raises(ConfigError, match=r"should end in .npy"):
        weights.save(PARAMS, tmp_path / "weights.npz")
    with pytest.raises(ConfigError, match="cannot be written: No such file"):
        weights.save(PARAMS, tmp_path / "nowhere" / "weights.npy")
