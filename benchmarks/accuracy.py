"""How well models train in fixed point: MNIST, beside the same steps in floating point.

    python benchmarks/accuracy.py MNIST_FOLDER [mlp] [adam] [lenet] [--steps N] [--calibrate] [--on-shares]

With --calibrate the job runs with binary points as well that follow from a calibration on the first SAMPLE images.
MNIST_FOLDER holds the gzipped IDX files.  The job's graph runs in clear, in one process, on the arithmetic that every
protocol has: numbers of Z_2^64 with 18 fraction bits, and truncations that go up or down at random, as under masks.
With --on-shares it is submitted instead to a helper and two evaluators, processes of this machine, and runs on shares.
Floating point takes the same initial weights and the same batches.  Both models are judged on the test images.  Prints
a table and writes benchmarks/results/accuracy.json.
"""

from __future__ import annotations

import datetime
import gzip
import itertools
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import typer
from measure import RECIPIENT, cluster
from rich.console import Console
from rich.progress import track
from rich.table import Table

from coordinator.calibration import Calibration
from coordinator.cli import watch_job
from coordinator.frontend import Input, Piece, flat_of, observe, trace
from coordinator.lower.passes import compile as lower
from mpcnode import ring, simulate
from mpcnode.engine import execute
from mpcnode.graph import Op
from mpcnode.kernels.reference import scaled
from mpcnode.party import Party, Place, seeded_keys
from mpcnode.protocols import Sharing
from mpcnode.protocols.cleartext import Cleartext

RESULTS = Path(__file__).parent / "results" / "accuracy.json"
OWNER = "owner"
BATCH, SAMPLE = 128, 4096
Params = Any


class RoundedAtRandom(Cleartext):
    """In clear, with truncations that go up or down without bias, as those of masked evaluation do."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)

    async def trunc(self, p: Place, x: Sharing, by: int, times: int = 1) -> Sharing:
        """With a factor as masks do it: x + 2^62 = c - r, of which both are shifted."""
        if times == 1:
            noise = self.random.integers(0, 1 << by, x.shape, np.int64)
            return ((x.view(np.int64) + noise) >> np.int64(by)).view(np.uint64)
        r = self.random.integers(0, 1 << 62, x.shape, np.uint64)  # without a wrap
        c = x + r + np.uint64(1 << 62)
        return scaled(c, times, by) - scaled(r, times, by) - np.uint64(times << (62 - by))


# ---- models ----------------------------------------------------------------------------------------------------------
class Model(NamedTuple):
    """A classifier of images [rows, 784]: its initial weights, its logits, and how it is trained."""

    what: str
    start: Callable[[], Params]
    logits: Callable[[Params, Any], Any]
    optimizer: optax.GradientTransformation
    epochs: int


def _weights(rng: np.random.Generator, *shape: int) -> Any:
    """As He et al. (ICCV 2015); the last axis are the outputs."""
    return jnp.asarray(rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[:-1])), jnp.float32)


def _dense_layers(rng: np.random.Generator, *sizes: int) -> Params:
    return [(_weights(rng, i, o), jnp.zeros(o)) for i, o in itertools.pairwise(sizes)]


def _dense(layers: Params, h: Any) -> Any:
    for w, c in layers[:-1]:
        h = jax.nn.relu(h @ w + c)
    w, c = layers[-1]
    return h @ w + c


def _perceptron() -> Params:
    return _dense_layers(np.random.default_rng(0), 784, 128, 128, 10)


def _lenet() -> Params:
    rng = np.random.default_rng(0)
    kernels = [(_weights(rng, 5, 5, i, o), jnp.zeros(o)) for i, o in ((1, 20), (20, 50))]
    return {"convolutions": kernels, "dense": _dense_layers(rng, 800, 500, 10)}


def _pooled(x: Any) -> Any:
    """The largest of each 2 x 2 pixels."""
    rows = jnp.maximum(x[:, ::2], x[:, 1::2])
    return jnp.maximum(rows[:, :, ::2], rows[:, :, 1::2])


def _lenet_logits(params: Params, x: Any) -> Any:
    h = x.reshape(-1, 28, 28, 1)
    for kernel, c in params["convolutions"]:
        h = jax.lax.conv_general_dilated(h, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        h = _pooled(jax.nn.relu(h + c))
    return _dense(params["dense"], h.reshape(h.shape[0], -1))


MODELS = {
    "mlp": Model("MLP 784-128-128-10 (W2)", _perceptron, _dense, optax.sgd(0.05, momentum=0.9), 3),
    "adam": Model("MLP 784-128-128-10, Adam", _perceptron, _dense, optax.adam(1e-3), 1),
    "lenet": Model("LeNet 20-50-500-10 (W3)", _lenet, _lenet_logits, optax.sgd(0.02, momentum=0.9), 1),
}


def training(model: Model, steps: int) -> Callable[[Any, Any], dict[str, Any]]:
    """The job: images [rows, 784] and one-hot labels [rows, 10] in, weights out; batches in an order that all know."""

    def train(x: Any, y: Any) -> dict[str, Any]:
        per_epoch = len(x) // BATCH + (len(x) % BATCH > 0)
        rng, rows = np.random.default_rng(1), []
        for _ in range(-(-steps // per_epoch)):
            order = rng.permutation(len(x))
            rows.append(np.resize(order, per_epoch * BATCH).reshape(per_epoch, BATCH))
        batches = jnp.asarray(np.concatenate(rows)[:steps])

        def loss(params: Params, xb: Any, yb: Any) -> Any:
            return optax.softmax_cross_entropy(model.logits(params, xb), yb).mean()

        def step(state: Any, index: Any) -> tuple[Any, None]:
            params, memory = state
            updates, memory = model.optimizer.update(jax.grad(loss)(params, x[index], y[index]), memory, params)
            return (optax.apply_updates(params, updates), memory), None

        params = model.start()
        (params, _), _ = jax.lax.scan(step, (params, model.optimizer.init(params)), batches)
        return {"weights": params}

    return train


# ---- data ------------------------------------------------------------------------------------------------------------
def read_mnist(folder: Path, part: str) -> tuple[Any, Any]:
    """Images [rows, 784] in 0 .. 1 and labels [rows] of `train` or `t10k`."""
    with gzip.open(folder / f"{part}-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 784)
    with gzip.open(folder / f"{part}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    return images.astype(np.float32) / 255, labels.astype(np.int64)


# ---- runs ------------------------------------------------------------------------------------------------------------
class OneOwner(simulate.SimulatedHooks):
    """Hands out the data and shows how far the loop is."""

    def __init__(self, data: dict[tuple[str, str], Any], steps: int) -> None:
        super().__init__(data)
        self._bar = iter(track(range(steps), "fixed point"))

    def step(self, done: int, total: int) -> None:
        next(self._bar, None)

    def read(self, op: Op) -> Any:
        return ring.encode(self._data[op.text("owner"), op.text("dataset")], op.type.frac)


def inputs_of(arrays: dict[str, Any]) -> dict[str, Input]:
    return {
        name: Input((Piece(OWNER, name, len(a), tuple(f"c{i}" for i in range(a.shape[1]))),), False, False)
        for name, a in arrays.items()
    }


def calibrated(train: Callable[..., Any], x: Any, y: Any) -> Calibration:
    """What the values of the training come to on the first images."""
    arrays = {"x": x[:SAMPLE], "y": y[:SAMPLE]}
    flat, _ = flat_of(train, inputs_of(arrays), {"weights": [OWNER]})
    return observe.record(flat, inputs_of(arrays), arrays)


def fixed_point(
    train: Callable[..., Any], x: Any, y: Any, steps: int, calibration: Calibration | None
) -> tuple[dict[str, Any], int]:
    """The job's outputs on the machine's arithmetic, in clear; and the number of ops of its graph."""
    arrays = {"x": x, "y": y}
    traced = trace(train, inputs_of(arrays), {"weights": [OWNER]}, calibration=calibration)
    graph = list(lower(traced.graph).values())[-1]
    hooks = OneOwner({(OWNER, name): a for name, a in arrays.items()}, steps)
    party = Party(0, [OWNER], seeded_keys(1, b"accuracy")[0])
    [[parts], _] = simulate.run([execute(party, RoundedAtRandom(2), graph, hooks)])
    types = {op.text("name"): op.type for op in graph.ops if op.name == "reveal"}
    return {name: simulate.decode(part, types[name]) for name, part in parts.items()}, sum(1 for _ in graph.walk())


def on_shares(train: Callable[..., Any], x: Any, y: Any) -> tuple[dict[str, Any], int]:
    """The job's outputs from three nodes of this machine; and the number of ops of its graph."""
    with tempfile.TemporaryDirectory() as folder, cluster(Path(folder)) as (local, client):
        inputs = {}
        for argument, owner, array in (("x", "clinic_a", x), ("y", "clinic_b", y)):
            file, columns = local.folder / owner / f"{argument}.npy", [f"c{i}" for i in range(array.shape[1])]
            np.save(file, array)
            local.datasets(owner).add(argument, file, [RECIPIENT], columns=columns)
            inputs[argument] = {"rows": [f"{owner}/{argument}"], "columns": columns}
        compiled = client.trace(train, inputs, {"weights": [RECIPIENT]}, name="accuracy")
        job = client.submit(compiled)
        watch_job(client, job)
        arrays = client.result(job)
        names = [op.text("name") for op in compiled.graph.ops if op.name == "reveal"]
        return {name: arrays[name] for name in names}, sum(1 for _ in compiled.graph.walk())


def accuracy(model: Model, params: Params, x: Any, labels: Any) -> float:
    """The share of images that are classified rightly, in floating point."""
    classify = jax.jit(lambda p, xb: jnp.argmax(model.logits(p, xb), axis=1))
    return float(np.mean(np.concatenate([classify(params, xb) for xb in np.split(x, 20)]) == labels))


def measure(model: Model, folder: Path, steps: int | None, calibrate: bool, shares: bool) -> dict[str, Any]:
    """Train in floating and in fixed point, and judge both."""
    (x, labels), (test_x, test_labels) = read_mnist(folder, "train"), read_mnist(folder, "t10k")
    y = np.eye(10, dtype=np.float32)[labels]
    count = steps or model.epochs * -(-len(x) // BATCH)
    train = training(model, count)
    plain = jax.jit(train)(x, y)["weights"]
    began = time.monotonic()
    if shares:
        outputs, ops = on_shares(train, x, y)
    else:
        outputs, ops = fixed_point(train, x, y, count, calibrated(train, x, y) if calibrate else None)
    leaves, structure = jax.tree.flatten(plain)
    assert len(leaves) == len(outputs)
    fixed = jax.tree.unflatten(structure, [jnp.asarray(v, jnp.float32) for v in outputs.values()])
    pairs = zip(leaves, jax.tree.leaves(fixed), strict=True)
    gap = max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in pairs)
    found = {"float": accuracy(model, plain, test_x, test_labels), "fixed": accuracy(model, fixed, test_x, test_labels)}
    seconds = time.monotonic() - began
    return {"what": model.what, "steps": count, **found, "largest_weight_gap": gap, "ops": ops, "seconds": seconds}


def main(
    folder: Annotated[Path, typer.Argument(help="A folder with MNIST's gzipped IDX files.")],
    names: Annotated[list[str] | None, typer.Argument(help="Models; all, if none is named.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps, in the place of the model's epochs.")] = None,
    calibrate: Annotated[bool, typer.Option("--calibrate", help="With binary points from a calibration.")] = False,
    nodes: Annotated[bool, typer.Option("--on-shares", help="Over three nodes of this machine.")] = False,
) -> None:
    """Train on MNIST in fixed and in floating point, and compare."""
    unknown = set(names or ()) - MODELS.keys()
    if unknown:
        raise typer.BadParameter(f"there is no {min(unknown)}; there is {', '.join(MODELS)}")
    if nodes and calibrate:
        raise typer.BadParameter("--on-shares runs with the job's own binary points: leave --calibrate out")
    table = Table("model", "steps", "float", "fixed point", "difference", title="accuracy on the test images")
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in names or MODELS:
        result = measure(MODELS[name], folder, steps, calibrate, nodes)
        difference = f"{100 * (result['fixed'] - result['float']):+.2f} %"
        shares = (f"{result['float']:.2%}", f"{result['fixed']:.2%}", difference)
        how = "calibrated" if calibrate else "on shares" if nodes else ""
        what = result["what"] + (f", {how}" if how else "")
        table.add_row(what, f"{result['steps']:,}", *shares)
        found[name + (f"-{how.replace(' ', '-')}" if how else "")] = {
            "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            **result,
        }
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
