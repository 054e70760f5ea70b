"""Every layer of PyTorch that the documentation promises gives PyTorch's own numbers, and PyTorch's own gradients."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is an optional extra: make test-models")

from torch_layers import FUNCTIONS, LAYERS, Case  # noqa: E402

from coordinator.torch import from_module  # noqa: E402

QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def inputs(case: Case) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    found = []
    for shape in case.shapes:
        if not isinstance(shape[0], tuple):
            found.append(rng.normal(size=shape).astype(np.float32))
        elif shape[1] == "+":
            found.append(rng.uniform(0.2, 3, size=shape[0]).astype(np.float32))
        else:
            found.append(rng.integers(0, shape[1], size=shape[0]).astype(np.int32))
    return found


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("case", LAYERS + FUNCTIONS, ids=lambda case: case.name)
def test_numbers_and_gradients_are_those_of_pytorch(case: Case) -> None:
    """The gradients are those of a fixed combination of the outputs, by parameters and inputs."""
    torch.manual_seed(1)
    rng = np.random.default_rng(4)
    module, arrays = case.make().train(case.train), inputs(case)
    tensors = [torch.tensor(a if a.dtype.kind == "f" else a.astype(np.int64)) for a in arrays]
    for tensor in tensors:
        tensor.requires_grad_(tensor.is_floating_point())
    model = from_module(module)
    wanted = [t for t in jax.tree.leaves(module(*tensors)) if isinstance(t, torch.Tensor)]
    directions = [rng.normal(size=w.shape).astype(np.float32) * w.requires_grad for w in wanted]

    def combined(params: Any, floats: list[Any]) -> tuple[Any, list[Any]]:
        rest = iter(floats)
        out = jax.tree.leaves(model.update(params, *(next(rest) if a.dtype.kind == "f" else a for a in arrays))[0])
        return sum(jnp.sum(o * d) for o, d in zip(out, directions, strict=True)) + 0.0, out

    floats = [a for a in arrays if a.dtype.kind == "f"]
    computed = jax.jit(jax.value_and_grad(combined, argnums=(0, 1), has_aux=True), compiler_options=QUICK)
    (_, found), (by_params, by_inputs) = computed(model.params, floats)
    for f, w in zip(found, wanted, strict=True):
        np.testing.assert_allclose(f, w.detach().numpy(), rtol=1e-5, atol=1e-5)
    if any(w.requires_grad for w in wanted):
        smooth = [(w, d) for w, d in zip(wanted, directions, strict=True) if w.requires_grad]
        sum((w * torch.tensor(d)).sum() for w, d in smooth).backward()
    for name, parameter in module.named_parameters():
        np.testing.assert_allclose(by_params[name], gradient(parameter), rtol=1e-4, atol=1e-5, err_msg=name)
    for f, tensor in zip(by_inputs, [t for t in tensors if t.is_floating_point()], strict=True):
        np.testing.assert_allclose(f, gradient(tensor), rtol=1e-4, atol=1e-5)


def test_the_documentation_lists_them() -> None:
    page = (Path(__file__).parents[2] / "docs" / "pytorch.md").read_text()
    for row, promised in (("layers", LAYERS), ("functions", FUNCTIONS)):
        [line] = [line for line in page.splitlines() if line.startswith(f"| {row} |")]
        assert set(re.findall(r"`([^`]+)`", line)) == {case.name for case in promised}


def gradient(tensor: Any) -> np.ndarray:
    """Zeros where backward never came by."""
    return np.zeros(tensor.shape, np.float32) if tensor.grad is None else tensor.grad.numpy()
