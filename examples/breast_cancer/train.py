"""Logistic regression and a small neural network on the Wisconsin breast cancer data: ordinary JAX.

`train` runs as it is on plain arrays, and compiled on data that two clinics keep to themselves.  What is random has a
seed, so both give the same model up to rounding.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

EPOCHS, BATCH, RATE, HIDDEN, SEED = 10, 64, 0.1, 32, 7
TEST_SHARE = 0.2

# What one unit of each measurement is: its mean, its standard error and its worst value in a sample.  The raw columns
# run from 0.001 to 4254; in these units all are about 1, which suits fixed-point numbers.  Nothing here is data.
MEASURES = {
    "radius": (4, 1 / 4, 4),
    "texture": (4, 1 / 2, 8),
    "perimeter": (32, 2, 32),
    "area": (512, 64, 512),
    "smoothness": (1 / 64, 1 / 256, 1 / 32),
    "compactness": (1 / 16, 1 / 64, 1 / 4),
    "concavity": (1 / 16, 1 / 32, 1 / 4),
    "concave points": (1 / 32, 1 / 128, 1 / 16),
    "symmetry": (1 / 32, 1 / 128, 1 / 16),
    "fractal dimension": (1 / 128, 1 / 256, 1 / 64),
}
UNITS = np.array(list(MEASURES.values()), np.float32).T.reshape(-1)


def train(x, y):
    """x: [patients, 30] measurements, y: [patients] 1 for malignant.  Returns both models with what standardises their
    input (in UNITS), and the share of patients that each gets right, of a fifth that it has not seen.
    """
    test, fit, batches = split(len(x))
    y = y.astype(jnp.float32)
    x = x / UNITS
    mean = x[fit].mean(axis=0)
    centred = x - mean
    scale = jax.lax.rsqrt((centred[fit] ** 2).mean(axis=0))
    x = centred * scale

    optimizer = optax.sgd(RATE)
    params = {"logistic": logistic(), "network": network(jax.random.key(SEED))}

    def loss(params, x, y):
        each = [optax.sigmoid_binary_cross_entropy(logits(p, x), y).mean() for p in params.values()]
        return sum(each)

    def step(carry, rows):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params, x[rows], y[rows]), state)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), batches)
    right = {name: (logits(p, x[test]) > 0) == (y[test] > 0.5) for name, p in params.items()}
    return {
        "weights": {**params, "standardise": {"mean": mean, "scale": scale}},
        "accuracy": {name: hits.astype(jnp.float32).mean() for name, hits in right.items()},
    }


def split(count):
    """Numbers of the patients to test on, of those to fit on, and of the batches [steps, BATCH] to fit on, which leave
    out others in each epoch.
    """
    rng = np.random.default_rng(SEED)
    test, fit = np.split(rng.permutation(count), [int(count * TEST_SHARE)])
    used = len(fit) // BATCH * BATCH
    epochs = [rng.permutation(fit)[:used].reshape(-1, BATCH) for _ in range(EPOCHS)]
    return test, fit, np.concatenate(epochs)


def logistic():
    return [{"w": jnp.zeros((len(UNITS), 1)), "b": jnp.zeros(1)}]


def network(key):
    """30 inputs, HIDDEN rectified units, 1 output."""
    sizes = (len(UNITS), HIDDEN, 1)
    return [
        {"w": jax.random.normal(k, (m, n)) * np.sqrt(2 / m), "b": jnp.zeros(n)}
        for k, m, n in zip(jax.random.split(key, 2), sizes, sizes[1:], strict=False)
    ]


def logits(layers, x):
    for layer in layers[:-1]:
        x = jax.nn.relu(x @ layer["w"] + layer["b"])
    return (x @ layers[-1]["w"] + layers[-1]["b"])[:, 0]
