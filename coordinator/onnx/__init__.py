"""ONNX models as jax functions: a model of any framework predicts on data that nobody shows.

    from coordinator.onnx import from_file

    model = from_file("lenet.onnx")

    def predict(images):                               # the function of a job
        return {"scores": model.apply(model.params, images)}

An ONNX file holds its weights in clear.  An owner who keeps them secret saves them as a dataset, and gives away the
architecture alone:

    weights.save(model.params, "weights.npy")          # mpcnode data add model weights.npy --columns weight --for ...
    without_weights("lenet.onnx", "architecture.onnx")

    def predict(images, column):                       # the column is another input of the job
        return {"scores": model.apply(weights.unpack(column, model.params), images)}

Wants the extra `onnx`: pip install 'mpcnode[onnx]'.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from coordinator.foreign.program import Unsupported, run
from mpcnode.errors import ConfigError

try:
    from coordinator.onnx import program
except ModuleNotFoundError as error:
    if error.name != "onnx":
        raise
    raise ConfigError("the onnx package is not installed: pip install 'mpcnode[onnx]', or onnx itself") from None

from coordinator.onnx.rules import RULES


class Model:
    """A model as a pure function of its weights.

    params: the weights by name, float32; zeros where the file says only their shapes.
    inputs, outputs: the names of what the model reads and returns.
    """

    def __init__(self, source: Any) -> None:
        self._read = program.read(*program.load(source))
        self.inputs, self.outputs = self._read.inputs, self._read.outputs
        self.params = {
            name: self._read.weights.get(name, np.zeros(shape, np.float32)) for name, shape in self._read.shapes.items()
        }

    def apply(self, params: Mapping[str, Any], *args: Any) -> Any:
        """What the model computes of its inputs, in their order: an array, or a tuple if it has several outputs.

        Weights that are not in `params` are those of the file, and public.  Raises Unsupported for an operator without
        a rule, and for weights that are nowhere.
        """
        if len(args) != len(self.inputs):
            raise Unsupported(f"the model has {len(self.inputs)} inputs, not {len(args)}: {', '.join(self.inputs)}")
        program.check_names(params, self.params)
        missing = [name for name in self.params if name not in params and name not in self._read.weights]
        if missing:
            raise Unsupported(f"the file holds no weights {missing[0]!r}: pass them in params")
        values = self._read.weights | {name: jnp.asarray(a) for name, a in params.items()}
        values |= {name: jnp.asarray(a) for name, a in zip(self.inputs, args, strict=True)}
        found = run(self._read.program, RULES, values)
        return found[0] if len(found) == 1 else tuple(found)


def from_file(source: Path | str | Any) -> Model:
    """The model of an ONNX file, or of an onnx.ModelProto.  Raises DataError if it is none."""
    return Model(source)


def without_weights(source: Path | str | Any, target: Path | str) -> None:
    """Write the model's architecture: the weights become inputs of their shapes, and `from_file` reads them as such.

    Weights are the floats with at least one axis.  Single numbers and integers stay: they say what is computed.
    """
    model, _ = program.load(source)
    program.save(program.strip(model), Path(target))


__all__ = ["Model", "Unsupported", "from_file", "without_weights"]
