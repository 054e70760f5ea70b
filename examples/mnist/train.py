"""Train LeNet on the images of two owners by stochastic gradient descent with momentum."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from lenet import logits, start

EPOCHS, BATCH, RATE, MOMENTUM, SEED = 1, 64, 0.02, 0.9, 11


def train(images, digits, epochs=EPOCHS):
    """images: [n, 784] grey values, digits: [n, 10] with a 1 for the digit.  Returns the model, and the mean loss of
    the last tenth of the steps.
    """
    y = digits.astype(jnp.float32)
    optimizer = optax.sgd(RATE, momentum=MOMENTUM)
    params = start(SEED)

    def loss(params, rows):
        return optax.softmax_cross_entropy(logits(params, images[rows]), y[rows]).mean()

    def step(carry, rows):
        params, state = carry
        value, gradient = jax.value_and_grad(loss)(params, rows)
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(params, updates), state), value

    batches = order(len(images), epochs)
    (params, _), losses = jax.lax.scan(step, (params, optimizer.init(params)), batches)
    return {"model": params, "loss": losses[-max(1, len(batches) // 10) :].mean()}


def order(count, epochs):
    """Numbers of the images of each batch, [steps, BATCH], another order in each epoch."""
    rng = np.random.default_rng(SEED)
    used = count // BATCH * BATCH
    return np.concatenate([rng.permutation(count)[:used].reshape(-1, BATCH) for _ in range(epochs)])
