"""PyTorch's LeNet trained on shares: the module and its loss come in, optax takes the steps."""

from math import isqrt

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from model import LeNet
from torch import nn

from coordinator.torch import from_module

EPOCHS, BATCH, RATE, SEED = 3, 32, 0.05, 3
TEST_SHARE = 0.2


def train(images, digits):
    """images: [n, pixels] numbers from 0 to 16, digits: [n, 10] with a 1 for the digit.  Returns the weights by the
    module's names, and the share of a fifth of the images, which the model has not seen, that it reads right.
    """
    torch.manual_seed(SEED)
    side = isqrt(images.shape[1])
    model, criterion = from_module(LeNet(side)), from_module(nn.CrossEntropyLoss())
    x = images.astype(jnp.float32).reshape(-1, 1, side, side) / 8 - 1
    y = digits.astype(jnp.float32)
    test, batches = split(len(images))
    optimizer = optax.sgd(RATE, momentum=0.9)

    def loss(params, rows):
        return criterion.apply({}, model.apply(params, x[rows]), y[rows])

    def step(carry, rows):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params, rows), state)
        return (optax.apply_updates(params, updates), state), None

    start = jax.tree.map(jnp.asarray, model.params)
    (params, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), batches)
    found = model.apply(params, x[test])
    right = (found * y[test]).sum(axis=1) >= found.max(axis=1)  # the digit's own logit is the largest
    return {"weights": params, "accuracy": right.astype(jnp.float32).mean()}


def split(count):
    """Numbers of the images to test on, and of the batches [steps, BATCH] to fit on."""
    rng = np.random.default_rng(SEED)
    test, fit = np.split(rng.permutation(count), [int(count * TEST_SHARE)])
    used = len(fit) // BATCH * BATCH
    return test, np.concatenate([rng.permutation(fit)[:used].reshape(-1, BATCH) for _ in range(EPOCHS)])
