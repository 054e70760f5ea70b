"""LeNet for 28 x 28 images: two convolutions with rectified, pooled results, two dense layers.  Ordinary JAX."""

import jax
import jax.numpy as jnp
import numpy as np

SHAPES = {"conv1": (5, 5, 1, 20), "conv2": (5, 5, 20, 50), "dense1": (800, 500), "dense2": (500, 10)}
GREY = 256  # values of a pixel; a power of two divides without rounding


def start(seed):
    """Random weights (He et al., ICCV 2015), offsets of zero."""
    keys = jax.random.split(jax.random.key(seed), len(SHAPES))
    return {
        name: {
            "w": jax.random.normal(key, shape) * np.sqrt(2 / np.prod(shape[:-1])),
            "b": jnp.zeros(shape[-1]),
        }
        for key, (name, shape) in zip(keys, SHAPES.items(), strict=True)
    }


def logits(params, images):
    """images: [n, 784] grey values from 0 to 255.  One number for each digit, the largest for the one that is read."""
    x = images.astype(jnp.float32).reshape(-1, 28, 28, 1) / GREY
    for name in ("conv1", "conv2"):
        x = pooled(jax.nn.relu(convolved(x, params[name])))
    x = x.reshape(len(x), -1)
    x = jax.nn.relu(x @ params["dense1"]["w"] + params["dense1"]["b"])
    return x @ params["dense2"]["w"] + params["dense2"]["b"]


def convolved(x, layer):
    found = jax.lax.conv_general_dilated(x, layer["w"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return found + layer["b"]


def pooled(x):
    """The largest of every 2 x 2 pixels."""
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
