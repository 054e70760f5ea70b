"""PyTorch modules as jax functions: trained, with state, refused with their line, and on shares."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is an optional extra: make test-models")

from compiling import agree, ops, traced  # noqa: E402
from torch import nn  # noqa: E402

from coordinator import weights  # noqa: E402
from coordinator.frontend import CompileError  # noqa: E402
from coordinator.torch import Unsupported, from_module, load  # noqa: E402
from mpcnode.errors import ConfigError  # noqa: E402
from mpcnode.simulate import simulate  # noqa: E402

RNG = np.random.default_rng(5)


def lenet(size: int = 28, channels: tuple[int, int] = (6, 16), hidden: int = 120) -> nn.Module:
    torch.manual_seed(2)
    flat = channels[1] * ((size // 2 - 4) // 2) ** 2
    return nn.Sequential(
        nn.Conv2d(1, channels[0], 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(channels[0], channels[1], 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(flat, hidden), nn.ReLU(), nn.Linear(hidden, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 8)
        self.norm = nn.BatchNorm1d(8)
        self.drop = nn.Dropout(0.25)
        self.last = nn.Linear(8, 2)

    def forward(self, x: Any) -> Any:
        x = torch.relu(self.norm(self.first(x)))
        return self.last(self.drop(x))


# ---- training ------------------------------------------------------------------------------------------------------
def test_lenet_trains_as_in_pytorch() -> None:
    """Three steps of torch.optim.SGD with momentum."""
    module = lenet()
    model = from_module(module)
    xs, ys = RNG.normal(size=(3, 8, 1, 28, 28)).astype(np.float32), RNG.integers(0, 10, (3, 8)).astype(np.int32)
    criterion = from_module(nn.CrossEntropyLoss())

    @jax.jit
    def step(params: Any, velocity: Any, x: Any, y: Any) -> Any:
        gradient = jax.grad(lambda p: criterion.apply({}, model.apply(p, x), y))(params)
        velocity = jax.tree.map(lambda v, g: 0.9 * v + g, velocity, gradient)
        return jax.tree.map(lambda p, v: p - 0.05 * v, params, velocity), velocity

    params, velocity = model.params, jax.tree.map(np.zeros_like, model.params)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
    for x, y in zip(xs, ys, strict=True):
        params, velocity = step(params, velocity, x, y)
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(torch.tensor(x)), torch.tensor(y, dtype=torch.int64)).backward()
        optimizer.step()
    for name, parameter in module.named_parameters():
        np.testing.assert_allclose(params[name], parameter.detach().numpy(), rtol=1e-4, atol=1e-5, err_msg=name)


def test_running_statistics_are_returned() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).train()
    model = from_module(module)
    state: dict[str, Any] = {**model.params, **model.buffers}
    for x in RNG.normal(size=(2, 5, 3)).astype(np.float32):
        found, updated = model.update(state, x)
        state |= updated
        np.testing.assert_allclose(found, module(torch.tensor(x)).detach().numpy(), atol=1e-5)
    assert set(updated) == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    for name, buffer in module.named_buffers():
        np.testing.assert_allclose(state[name], buffer.numpy(), atol=1e-5)
    with pytest.raises(Unsupported, match=r"updates its buffers, .* model.update.* module.eval\(\)"):
        model.apply(model.params, x)
    module.eval()
    assert np.allclose(from_module(module).apply(state, x), module(torch.tensor(x)).detach().numpy(), atol=1e-5)


def test_dropout_draws_from_a_key() -> None:
    model = from_module(nn.Dropout(0.25).train())
    x = np.ones((50, 40), np.float32)
    found, again, other = (np.asarray(model.apply({}, x, key=jax.random.key(k))) for k in (0, 0, 1))
    assert np.array_equal(found, again)
    assert not np.array_equal(found, other)
    assert set(np.unique(found)) == {0, np.float32(4 / 3)}
    assert abs((found == 0).mean() - 0.25) < 0.05
    with pytest.raises(
        Unsupported, match=r"Dropout: PyTorch operator '.*dropout.*' draws random numbers; call the .* key="
    ):
        model.apply({}, x)


# ---- state ---------------------------------------------------------------------------------------------------------
def test_what_is_not_given_is_the_modules_own() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    model, x = from_module(module), RNG.normal(size=(5, 3)).astype(np.float32)
    head = {name: array for name, array in model.params.items() if name.startswith("2.")}
    gradient = jax.grad(lambda p: model.apply(p, x).sum())(head)
    assert set(gradient) == {"2.weight", "2.bias"}
    with torch.no_grad():
        module[0].weight.zero_()  # the model is a copy
    assert not np.allclose(model.apply(head, x), module(torch.tensor(x)).detach().numpy())
    with pytest.raises(Unsupported, match=r"no parameter or buffer '3.bias': it has 0.weight, 0.bias, 2.weight"):
        model.apply({"3.bias": np.zeros(2)}, x)


def test_tied_weights() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(5, 3)
            self.out = nn.Linear(3, 5, bias=False)
            self.out.weight = self.embed.weight

        def forward(self, x: Any) -> Any:
            return self.out(self.embed(x))

    module, x = Tied(), np.array([0, 3], np.int32)
    model = from_module(module)
    doubled = {name: 2 * array for name, array in model.params.items()}
    load(module, doubled)
    assert np.allclose(model.apply(doubled, x), module(torch.tensor(x)).detach().numpy(), atol=1e-5)


def test_results_go_back_into_the_module() -> None:
    module = Net()
    arrays = {f"weights/{name}": np.full(p.shape, 0.5) for name, p in module.named_parameters()}
    assert load(module, arrays) is module
    assert all(bool((p == 0.5).all()) for p in module.parameters())
    with pytest.raises(ConfigError, match=r"no parameter or buffer 'weights/second.bias': it has first.weight"):
        load(module, {"weights/second.bias": np.zeros(2)})
    with pytest.raises(ConfigError, match=r"last.bias is \[3\], and the module's is \[2\]"):
        load(module, {"first.bias": np.zeros(8), "last.bias": np.zeros(3)})
    assert bool((module.first.bias == 0.5).all()), "nothing changes when something does not fit"


def test_arguments_may_be_lists_numbers_and_nothing() -> None:
    class Many(nn.Module):
        def forward(self, pair: Any, scale: float, mask: Any = None) -> Any:
            assert mask is None
            return {"sum": pair[0] + pair[1], "scaled": (pair[0] * scale, scale)}

    x, y = RNG.normal(size=(2, 3)).astype(np.float32)
    found = from_module(Many()).apply({}, [x, y], 0.5, None)
    assert np.allclose(found["sum"], x + y)
    assert np.allclose(found["scaled"][0], x / 2)
    assert found["scaled"][1] == 0.5


# ---- refusals ------------------------------------------------------------------------------------------------------
class Sines(nn.Module):
    def forward(self, x: Any) -> Any:
        return torch.special.bessel_j0(x)


class Asks(nn.Module):
    def forward(self, x: Any) -> Any:
        if x.sum() > 0:
            return x
        return -x


class Chooses(nn.Module):
    def forward(self, x: Any) -> Any:
        return x[x > 0]


@pytest.mark.parametrize(
    ("module", "line", "why"),
    [
        (Sines(), 2, "Sines: PyTorch operator 'special_bessel_j0.default' is not supported"),
        (Asks(), 2, r"the module cannot be exported: asks for the value of a tensor .*; choose with torch.where"),
        (Chooses(), 2, "Chooses: PyTorch operator 'index.Tensor' chooses by a mask .*; choose with torch.where"),
    ],
)
def test_refusals_name_the_modules_line(module: nn.Module, line: int, why: str) -> None:
    at = type(module).forward.__code__.co_firstlineno + line - 1
    with pytest.raises(Unsupported, match=rf"^test_torch.py:{at}(, |: ){why}"):
        from_module(module).apply({}, np.ones(3, np.float32))
    with pytest.raises(CompileError, match=rf"^test_torch.py:{at}(, |: ){why}"):
        traced(lambda x: from_module(module).apply({}, x), np.ones((3, 2), np.float32))


def test_only_modules_come_in() -> None:
    with pytest.raises(ConfigError, match=r"wants an nn.Module, not builtin_function_or_method"):
        from_module(torch.relu)


def test_without_pytorch_there_is_one_sentence() -> None:
    program = "import sys; sys.modules['torch'] = None; import coordinator.client, coordinator.torch"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert found.stderr.splitlines()[-1].endswith(
        "PyTorch is not installed: pip install 'mpcnode[torch]', or torch itself"
    )


# ---- on shares -----------------------------------------------------------------------------------------------------
def test_ops_stand_at_the_modules_lines() -> None:
    model = from_module(Net().eval())
    graph = traced(lambda x: model.apply(model.params, x), np.ones((4, 3), np.float32)).graph
    first = Net.forward.__code__.co_firstlineno
    assert {op.where for op in ops(graph, "sign")} == {f"test_torch.py:{first + 1}"}
    assert {op.where for op in ops(graph, "dot")} == {f"test_torch.py:{first + n}" for n in (1, 2)}


def test_a_network_trains_on_shares() -> None:
    """Two steps, with dropout and batch normalisation."""
    model = from_module(Net().train())
    criterion = from_module(nn.CrossEntropyLoss())

    def train(x: Any, y: Any) -> Any:
        def loss(params: Any, buffers: Any, key: Any) -> Any:
            logits, updated = model.update({**params, **buffers}, x, key=key)
            return criterion.apply({}, logits, y), updated

        def step(carry: Any, key: Any) -> Any:
            params, buffers = carry
            gradient, updated = jax.grad(loss, has_aux=True)(params, buffers, key)
            return (jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient), {**buffers, **updated}), None

        start = jax.tree.map(jnp.asarray, (model.params, model.buffers))
        return jax.lax.scan(step, start, jax.random.split(jax.random.key(0), 2))[0]

    agree(train, RNG.normal(size=(16, 3)), RNG.integers(0, 2, 16), tolerance=5e-3)


def test_a_small_lenet_on_shares() -> None:
    """Convolution, pooling and their gradients: one step's."""
    model = from_module(lenet(12, (2, 3), 8))
    label = np.array([3, 1], np.int32)

    def gradients(x: Any) -> Any:
        def loss(params: Any) -> Any:
            logits = model.apply(params, x.reshape(-1, 1, 12, 12))
            return -jnp.take_along_axis(jax.nn.log_softmax(logits), label[:, None], 1).mean()

        return jax.grad(loss)(model.params)

    agree(gradients, RNG.normal(size=(2, 144)), tolerance=2e-3)


def test_a_secret_model_predicts_on_secret_data() -> None:
    """One owner has the data, another the weights, as the one column that `weights.save` writes."""
    public = from_module(Net().eval())  # the architecture: weights that nobody uses
    torch.manual_seed(9)
    theirs = Net().eval()
    with torch.no_grad():
        theirs.norm.running_mean.uniform_()
    secret = from_module(theirs)
    like = {**public.params, **public.buffers}
    column = weights.pack({**secret.params, **secret.buffers})

    def predict(x: Any, model: Any) -> Any:
        return public.apply(weights.unpack(model, like), x)

    x = RNG.normal(size=(4, 3)).astype(np.float32)
    graph = traced(predict, x, column.astype(np.float32)[:, None]).graph
    data = {("owner", "d0"): x, ("owner", "d1"): column[:, None]}
    found = simulate(graph, data, "masked").outputs["out"]
    np.testing.assert_allclose(found, theirs(torch.tensor(x)).detach().numpy(), atol=2e-3)
