"""Who will not repay?  A small network on what a bank and a credit bureau know of the same customers: ordinary JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

EPOCHS, BATCH, RATE, HIDDEN, SEED = 5, 64, 0.05, 16, 5
TEST_SHARE = 0.25

# What one unit of each column is, so that all are about 1, which suits fixed-point numbers.  Nothing here is data.
BANK = {"income": 32, "loan": 32, "months": 32, "employed_years": 8}
BUREAU = {"utilisation": 0.5, "open_accounts": 4, "late_payments": 1, "inquiries": 1, "history_years": 16}
UNITS = np.array([*BANK.values(), *BUREAU.values()], np.float32)


def train(x, y):
    """x: [customers, 9], the bank's columns first, y: [customers] 1 for a default.  Returns a network on all columns,
    what standardises its input (in UNITS), and the share of a quarter of the customers, whom it has not seen, that it
    gets right; and the same share for a network on the bank's columns alone.
    """
    test, fit, batches = split(len(x))
    y = y.astype(jnp.float32)
    x = x / UNITS
    mean = x[fit].mean(axis=0)
    centred = x - mean
    scale = jax.lax.rsqrt((centred[fit] ** 2).mean(axis=0))
    x = centred * scale
    seen = {"joined": x, "bank_alone": x[:, : len(BANK)]}
    optimizer = optax.sgd(RATE, momentum=0.9)
    params = {name: start(jax.random.key(SEED), columns.shape[1]) for name, columns in seen.items()}

    def loss(params, rows):
        each = [
            optax.sigmoid_binary_cross_entropy(logits(params[name], columns[rows]), y[rows]).mean()
            for name, columns in seen.items()
        ]
        return sum(each)

    def step(carry, rows):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params, rows), state)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), batches)
    right = {n: (logits(params[n], columns[test]) > 0) == (y[test] > 0.5) for n, columns in seen.items()}
    return {
        "weights": {**params["joined"], "standardise": {"mean": mean, "scale": scale}},
        "accuracy": {name: hits.astype(jnp.float32).mean() for name, hits in right.items()},
    }


def split(count):
    """Numbers of the customers to test on, of those to fit on, and of the batches [steps, BATCH] to fit on."""
    rng = np.random.default_rng(SEED)
    test, fit = np.split(rng.permutation(count), [int(count * TEST_SHARE)])
    used = len(fit) // BATCH * BATCH
    return test, fit, np.concatenate([rng.permutation(fit)[:used].reshape(-1, BATCH) for _ in range(EPOCHS)])


def start(key, columns):
    one, two = jax.random.split(key)
    return {
        "hidden": {"w": jax.random.normal(one, (columns, HIDDEN)) * np.sqrt(2 / columns), "b": jnp.zeros(HIDDEN)},
        "out": {"w": jax.random.normal(two, (HIDDEN, 1)) * np.sqrt(1 / HIDDEN), "b": jnp.zeros(1)},
    }


def logits(params, x):
    h = jax.nn.relu(x @ params["hidden"]["w"] + params["hidden"]["b"])
    return (h @ params["out"]["w"] + params["out"]["b"])[:, 0]
