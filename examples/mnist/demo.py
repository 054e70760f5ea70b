"""Two owners train LeNet on MNIST and keep it; a client, who computes nothing, has its digits read.

    python examples/mnist/demo.py FOLDER        (with the four files of MNIST, gzipped or not)

Five processes on this machine: helper, owner_a and owner_b with half of the training images each, client with some test
images, and a coordinator.  Between training and prediction every node is stopped and started again: the model is in
their folders only, encrypted, and in no folder whole.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import typer
from idx import load
from rich.console import Console
from rich.table import Table

from coordinator import jobfile
from coordinator.cli import watch_job
from coordinator.client import Client
from coordinator.local import INTERRUPTED, LocalCluster, end_on_signals, workdir
from coordinator.results import Arrays
from mpcnode import protocols
from mpcnode.errors import MpcError
from mpcnode.kept import Kept
from mpcnode.wire import coordinator_pb2 as wire

HERE = Path(__file__).parent
OWNERS, CLIENT = ("owner_a", "owner_b"), "client"
COLUMNS = [*(f"p{i}" for i in range(784)), *(f"is_{i}" for i in range(10))]
KEPT = "mnist-lenet"
console = Console()


def register(cluster: LocalCluster, owner: str, images: np.ndarray, digits: np.ndarray, *, keep: bool) -> None:
    """Write and register an owner's images: 784 columns of grey values, and ten of which the digit's is 1."""
    file = cluster.folder / owner / "letters.npy"
    np.save(file, np.concatenate([images.astype(np.int64), np.eye(10, dtype=np.int64)[digits]], axis=1))
    groups = {"pixels": ["p*"], "digit": ["is_*"]}
    recipients = OWNERS if keep else (owner,)
    cluster.datasets(owner).add("letters", file, recipients, columns=COLUMNS, groups=groups, keep=keep)
    console.print(f"{owner} registered {len(images)} images" + (", for models that are kept" if keep else ""))


def finished(cluster: LocalCluster, who: str, path: Path, function: Callable[..., Any]) -> tuple[wire.Job, Arrays]:
    """Compile a job file with its function, allow what it computes from the kept model, and run it; the job, and what
    `who` learns.
    """
    job = jobfile.read(path)
    sections = job.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    with Client(cluster.identities[who], cluster.cluster) as client:
        begun = time.perf_counter()
        compiled = client.trace(function, sections["inputs"], sections["outputs"], name=job.job.name)
        console.print(f"compiled {path.name} in {time.perf_counter() - begun:.1f} s")
        if compiled.plan.kept:
            digest = compiled.graph.digest().hex()
            console.print(f"each owner looks at it and says: mpcnode kept allow {KEPT} --program {digest}")
            for owner in OWNERS:
                Kept(cluster.identities[owner]).allow(KEPT, programs=[digest])
        number = client.submit(compiled)
        watch_job(client, number)
        return client.get(number), client.result(number)


def restart(cluster: LocalCluster) -> None:
    """Every node ends and starts again, with nothing but its folder."""
    for name in cluster.nodes:
        cluster.kill(name)
        cluster.start(name)
    for name in cluster.nodes:
        cluster.wait(name)


def functions(epochs: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """What train.toml and predict.toml name, the first with its number of epochs."""
    paths = HERE / "train.toml", HERE / "predict.toml"
    fit, read = (jobfile.load_function(path, jobfile.read(path)) for path in paths)

    def train(images: Any, digits: Any) -> Any:
        return fit(images, digits, epochs)

    return train, read


def run(cluster: LocalCluster, data: dict[str, tuple[np.ndarray, np.ndarray]], epochs: int) -> dict[str, Any]:
    """Train, restart, predict, and compare with plain JAX; the summary."""
    train, predict = functions(epochs)
    trained, learned = finished(cluster, OWNERS[0], HERE / "train.toml", train)
    console.print("stopping every node, and starting it again ...")
    restart(cluster)
    predicted, seen = finished(cluster, CLIENT, HERE / "predict.toml", predict)
    images, digits = data[CLIENT]
    model = plain_model(train, *(np.concatenate([data[owner][i] for owner in OWNERS]) for i in range(2)))
    clear = np.asarray(predict(model["model"], images)["scores"])
    steps = trained.progress.total
    seconds = [max(report.finished.seconds for report in job.reports) for job in (trained, predicted)]
    return {
        "steps": steps,
        "seconds": seconds[0],
        "seconds_a_step": seconds[0] / max(1, steps),
        "predicting_seconds": seconds[1],
        "loss": float(learned["loss"]),
        "plain_loss": float(model["loss"]),
        "accuracy": float((seen["scores"].argmax(1) == digits).mean()),
        "plain_accuracy": float((clear.argmax(1) == digits).mean()),
        "largest_score_difference": float(np.abs(seen["scores"] - clear).max()),
        "sent_bytes": {
            report.party: sum(link.sent_bytes for link in report.finished.traffic) for report in trained.reports
        },
        "threat_model": protocols.get(cluster.cluster.protocol).threat_model,
    }


def plain_model(train: Callable[..., Any], images: np.ndarray, digits: np.ndarray) -> Any:
    """The same training in JAX alone, on the images of both."""
    return jax.jit(train)(images.astype(np.int32), np.eye(10, dtype=np.int32)[digits])


def split(folder: Path, images: int, test: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Who holds which images and digits: of the training images every second one, and the client test images."""
    pixels, digits = load(folder, "train")
    pixels, digits = pixels[:images], digits[:images]
    held = {owner: (pixels[first::2], digits[first::2]) for first, owner in enumerate(OWNERS)}
    mine = load(folder, "test")
    return {**held, CLIENT: (mine[0][:test], mine[1][:test])}


def show(summary: dict[str, Any]) -> None:
    table = Table(title="a model that nobody has", title_justify="left", show_header=False)
    table.add_row("training", f"{summary['steps']} steps, {summary['seconds_a_step']:.2f} s a step")
    table.add_row("loss", f"{summary['loss']:.4f}, in plain JAX on pooled data {summary['plain_loss']:.4f}")
    table.add_row("read right", f"{summary['accuracy']:.2%}, in plain JAX {summary['plain_accuracy']:.2%}")
    table.add_row("largest difference of a score", f"{summary['largest_score_difference']:.2e}")
    table.add_row("predicting", f"{summary['predicting_seconds']:.1f} s")
    table.add_row("threat model", summary["threat_model"])
    console.print(table)


def main(
    data: Annotated[Path, typer.Argument(help="The folder with MNIST's four IDX files.")],
    *,
    images: Annotated[int, typer.Option(min=64, help="How many training images the owners have together.")] = 60000,
    epochs: Annotated[int, typer.Option(min=1, help="How often they are gone over.")] = 1,
    test: Annotated[int, typer.Option(min=1, help="How many test images the client has.")] = 1000,
    threads: Annotated[int, typer.Option(min=1, help="For computing, at each node.")] = 1,
    deadline: Annotated[float, typer.Option(metavar="SECONDS", help="How long a node waits for another.")] = 120.0,
    folder: Annotated[Path, typer.Option(help="Where the members' folders go.")] = Path(".demo"),
) -> None:
    """Train, keep, restart, predict; write summary.json into the folder."""
    try:
        held = split(data, images, test)
        with workdir(folder) as place:
            cluster = LocalCluster(place, OWNERS, (), owners=(CLIENT,), threads=threads, deadline_s=deadline)
            end_on_signals(cluster, "demo")
            for owner, (pixels, digits) in held.items():
                register(cluster, owner, pixels, digits, keep=owner in OWNERS)
            with cluster:
                summary = run(cluster, held, epochs)
            (place / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
            show(summary)
            console.print(f"wrote {place / 'summary.json'}")
    except MpcError as error:
        print(f"demo: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    typer.run(main)
