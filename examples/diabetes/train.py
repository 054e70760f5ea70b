"""Regression with a small network on the diabetes data: ordinary JAX and optax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

EPOCHS, BATCH, RATE, HIDDEN, SEED = 6, 32, 0.02, 16, 2
TEST_SHARE = 0.2

# What one unit of each column is: age, sex, body mass index, blood pressure and six blood serum measurements run from 1
# to 300.  In these units all are about 1, which suits fixed-point numbers.  Nothing here is data.
UNITS = np.array([16, 1, 4, 16, 32, 32, 16, 1, 0.5, 16], np.float32)
PROGRESS = 64.0


def train(x, y):
    """x: [patients, 10], y: [patients] the progression.  Returns the network with what standardises its input (in
    UNITS) and its output (in PROGRESS), and which part of the variance it explains (R²) in a fifth of the patients that
    it has not seen.
    """
    test, fit, batches = split(len(x))
    x, mean, scale = standardised(x / UNITS, fit)
    y, middle, spread = standardised(y[:, None] / PROGRESS, fit)
    optimizer = optax.sgd(RATE, momentum=0.9)
    params = start(jax.random.key(SEED))

    def loss(params, x, y):
        return ((predict(params, x) - y) ** 2).mean()

    def step(carry, rows):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params, x[rows], y[rows]), state)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), batches)
    left = ((predict(params, x[test]) - y[test]) ** 2).mean()
    explained = 1 - left / ((y[test] - y[test].mean()) ** 2).mean()
    units = {"mean": mean, "scale": scale, "middle": middle, "spread": spread}
    return {"weights": {**params, "standardise": units}, "explained": explained}


def standardised(columns, fit):
    """The columns with mean 0 and deviation 1 in the rows `fit`, and what was taken and multiplied."""
    mean = columns[fit].mean(axis=0)
    centred = columns - mean
    scale = jax.lax.rsqrt((centred[fit] ** 2).mean(axis=0))
    return centred * scale, mean, scale


def split(count):
    """Numbers of the patients to test on, of those to fit on, and of the batches [steps, BATCH] to fit on."""
    rng = np.random.default_rng(SEED)
    test, fit = np.split(rng.permutation(count), [int(count * TEST_SHARE)])
    used = len(fit) // BATCH * BATCH
    return test, fit, np.concatenate([rng.permutation(fit)[:used].reshape(-1, BATCH) for _ in range(EPOCHS)])


def start(key):
    one, two = jax.random.split(key)
    return {
        "hidden": {"w": jax.random.normal(one, (len(UNITS), HIDDEN)) * np.sqrt(1 / len(UNITS)), "b": jnp.zeros(HIDDEN)},
        "out": {"w": jax.random.normal(two, (HIDDEN, 1)) * np.sqrt(1 / HIDDEN), "b": jnp.zeros(1)},
    }


def predict(params, x):
    h = jax.nn.relu(x @ params["hidden"]["w"] + params["hidden"]["b"])
    return h @ params["out"]["w"] + params["out"]["b"]
