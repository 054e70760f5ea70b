"""PyTorch modules as jax functions: trained and used on data that nobody shows.

    from coordinator.torch import from_module

    model = from_module(LeNet())                       # the module as it is now: its weights, its mode

    def train(images, labels):                         # the function of a job, ordinary JAX
        def loss(params, x, y):
            logits = model.apply(params, x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()
        ...
        return {"weights": params}

    load(LeNet(), np.load("result/weights.npz"))       # what the job returned, back in PyTorch

Wants the extra `torch`: pip install 'mpcnode[torch]'.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from coordinator.foreign.program import Unsupported, run
from mpcnode.errors import ConfigError

try:
    import torch
    from torch.utils import _pytree as pytree

    from coordinator.torch import program
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ConfigError("PyTorch is not installed: pip install 'mpcnode[torch]', or torch itself") from None

from coordinator.torch.aten import RULES

Arrays = dict[str, npt.NDArray[Any]]


class Model:
    """A module as pure functions of its state.

    params: its parameters, float32, by their names in the module.
    buffers: its buffers, such as the running statistics of batch normalisation.

    The module is exported for the shapes of each call, so that any batch size does.
    """

    def __init__(self, module: Any) -> None:
        self._module = copy.deepcopy(module)
        self.params: Arrays = {name: program.to_numpy(p) for name, p in self._module.named_parameters()}
        self.buffers: Arrays = {name: program.to_numpy(b) for name, b in self._module.named_buffers()}
        self._aliases = _aliases(self._module)
        self._exported: dict[Any, program.Exported] = {}

    def apply(self, state: Mapping[str, Any], *args: Any, key: Any = None) -> Any:
        """What forward(*args) returns, with the parameters and buffers in `state`.

        A parameter or buffer that is not in `state` is the module's own, and public.  args: arrays, numbers or None,
        or lists of them.  key: for a module that draws random numbers, as dropout does when it trains.
        Raises Unsupported for an operator without a rule, and for a module that updates buffers: see `update`.
        """
        found, updated = self.update(state, *args, key=key)
        if updated:
            raise Unsupported(
                f"the module updates its buffers, {next(iter(updated))} first: call model.update, which returns them "
                "too, or take the module after module.eval()"
            )
        return found

    def update(self, state: Mapping[str, Any], *args: Any, key: Any = None) -> tuple[Any, dict[str, Any]]:
        """As `apply`, and the buffers that forward has updated: for batch normalisation in training."""
        unknown = [name for name in state if name not in self.params and name not in self.buffers]
        if unknown:
            raise Unsupported(f"the module has no parameter or buffer {unknown[0]!r}: it has {_listing(self.params)}")
        leaves, structure = pytree.tree_flatten(args)
        arrays = [_array(leaf) for leaf in leaves]
        exported = self._export(arrays, structure)
        values = {**self.buffers, **self.params, **{name: _array(a) for name, a in state.items()}}
        values |= {alias: values[name] for alias, name in self._aliases.items()}
        values |= {f"input {i}": a for i, a in enumerate(arrays)}
        outputs = run(exported.program, RULES, values, key)
        count = len(outputs) - len(exported.updated)
        found = pytree.tree_unflatten([_array(x) for x in outputs[:count]], exported.structure)
        return found, dict(zip(exported.updated, map(_array, outputs[count:]), strict=True))

    def _export(self, arrays: list[Any], structure: Any) -> program.Exported:
        shapes = tuple((a.shape, a.dtype.name) if isinstance(a, jax.Array) else a for a in arrays)
        if (shapes, str(structure)) not in self._exported:
            args = pytree.tree_unflatten([_sample(a) for a in arrays], structure)
            self._exported[shapes, str(structure)] = program.export(self._module, args)
        return self._exported[shapes, str(structure)]


def from_module(module: Any) -> Model:
    """The nn.Module as it is now: a copy of its weights, and its mode (`module.train()` or `module.eval()`)."""
    if not isinstance(module, torch.nn.Module):
        raise ConfigError(f"from_module wants an nn.Module, not {type(module).__name__}")
    return Model(module)


def load(module: Any, arrays: Mapping[str, Any]) -> Any:
    """Set the module's parameters and buffers to the arrays of these names, and return it.

    arrays: what a job returned, as numpy.load reads it; names may be "weights/fc.bias" for "fc.bias".  What is not
    there stays as it is.  Raises ConfigError for a name that the module has not, or another shape, and changes nothing.
    """
    own = dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers(remove_duplicate=False))
    found: dict[str, Any] = {}
    for key in arrays:
        name = key if key in own else key.partition("/")[2]
        if name not in own:
            raise ConfigError(f"the module has no parameter or buffer {key!r}: it has {_listing(own)}")
        value = torch.from_numpy(np.array(arrays[key])).to(own[name].dtype)
        if value.shape != own[name].shape:
            raise ConfigError(f"{key} is {list(value.shape)}, and the module's is {list(own[name].shape)}")
        found[name] = value
    with torch.no_grad():
        for name, value in found.items():
            own[name].copy_(value)
    return module


def _aliases(module: Any) -> dict[str, str]:
    """Second names of tensors that several parts of the module share."""
    tensors = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    first: dict[int, str] = {}
    return {name: first[id(t)] for name, t in tensors if first.setdefault(id(t), name) != name}


def _array(leaf: Any) -> Any:
    """numpy arrays and numbers of numpy as jax arrays; Python's own numbers are part of the program."""
    return jnp.asarray(leaf) if isinstance(leaf, (np.ndarray, np.generic)) else leaf


def _sample(leaf: Any) -> Any:
    if not isinstance(leaf, jax.Array):
        return leaf
    kinds = {"f": torch.float32, "i": torch.int64, "u": torch.int64, "b": torch.bool}
    if leaf.dtype.kind not in kinds:
        raise Unsupported(f"an argument is {leaf.dtype}: floats, integers and booleans are supported")
    return torch.zeros(leaf.shape, dtype=kinds[leaf.dtype.kind])


def _listing(names: Mapping[str, Any], most: int = 6) -> str:
    listed = list(names)
    return ", ".join(listed[:most]) + (", ..." if len(listed) > most else "") if listed else "none"


__all__ = ["Model", "Unsupported", "from_module", "load"]
