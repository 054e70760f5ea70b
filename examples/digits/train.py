"""A multi-layer perceptron 64-32-10 on 8 x 8 images of handwritten digits: ordinary JAX and optax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

EPOCHS, BATCH, RATE, HIDDEN, SEED = 5, 64, 0.2, 32, 3
TEST_SHARE = 0.2


def train(images, digits):
    """images: [n, 64] numbers from 0 to 16, digits: [n, 10] with a 1 for the digit.  Returns the weights, and the share
    of a fifth of the images, which the model has not seen, that it reads right.
    """
    test, batches = split(len(images))
    x, y = images.astype(jnp.float32) / 16, digits.astype(jnp.float32)
    optimizer = optax.sgd(RATE, momentum=0.9)
    params = start(jax.random.key(SEED))

    def loss(params, x, y):
        return optax.softmax_cross_entropy(logits(params, x), y).mean()

    def step(carry, rows):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params, x[rows], y[rows]), state)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), batches)
    found = logits(params, x[test])
    right = (found * y[test]).sum(axis=1) >= found.max(axis=1)  # the digit's own logit is the largest
    return {"weights": params, "accuracy": right.astype(jnp.float32).mean()}


def split(count):
    """Numbers of the images to test on, and of the batches [steps, BATCH] to fit on."""
    rng = np.random.default_rng(SEED)
    test, fit = np.split(rng.permutation(count), [int(count * TEST_SHARE)])
    used = len(fit) // BATCH * BATCH
    return test, np.concatenate([rng.permutation(fit)[:used].reshape(-1, BATCH) for _ in range(EPOCHS)])


def start(key):
    one, two = jax.random.split(key)
    return {
        "hidden": {"w": jax.random.normal(one, (64, HIDDEN)) * np.sqrt(2 / 64), "b": jnp.zeros(HIDDEN)},
        "out": {"w": jax.random.normal(two, (HIDDEN, 10)) * np.sqrt(1 / HIDDEN), "b": jnp.zeros(10)},
    }


def logits(params, x):
    h = jax.nn.relu(x @ params["hidden"]["w"] + params["hidden"]["b"])
    return h @ params["out"]["w"] + params["out"]["b"]
