"""optax: optimisers, schedules and clipping, each on the same small perceptron."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from model_table import regression, row

STEPS = 4
DATA = regression(16, 4)
FINE = "the loss times 64"


def train(x: Any, y: Any, optimiser: optax.GradientTransformation, scale: float) -> Any:
    params = {
        "w": 0.5 * jax.random.normal(jax.random.key(0), (4, 6)),
        "b": jnp.zeros(6),
        "v": 0.5 * jax.random.normal(jax.random.key(1), (6,)),
    }

    def loss(p: Any) -> Any:
        return scale * jnp.mean((jax.nn.relu(x @ p["w"] + p["b"]) @ p["v"] - y) ** 2)

    def step(carry: Any, _: Any) -> Any:
        params, state = carry
        value, slopes = jax.value_and_grad(loss)(params)
        updates, state = optimiser.update(slopes, state, params)
        return (optax.apply_updates(params, updates), state), value

    (params, _), losses = lax.scan(step, (params, optimiser.init(params)), None, length=STEPS)
    return losses, params


def enter(
    name: str,
    tolerance: float,
    scale: float = 1.0,
    mind: str = "",
    masked: bool = False,
    calibrated: bool = False,
    **optimisers: Any,
) -> None:
    """A row that trains by each of the optimisers."""

    def program(x: Any, y: Any) -> Any:
        found = {label: train(x, y, optimiser, scale) for label, optimiser in optimisers.items()}
        return jnp.stack([losses for losses, _ in found.values()]), {label: p for label, (_, p) in found.items()}

    program.__name__ = name.replace(" ", "_")
    row(name, ", ".join(optimisers), DATA, tolerance, mind=mind, masked=masked, calibrated=calibrated)(program)


enter(
    "gradient descent", 1e-4, masked=True,
    sgd=optax.sgd(0.05),
    momentum=optax.sgd(0.02, momentum=0.9),
    nesterov=optax.sgd(0.02, momentum=0.9, nesterov=True),
    add_decayed_weights=optax.chain(optax.add_decayed_weights(1e-2), optax.sgd(0.05)),
    noisy_sgd=optax.noisy_sgd(0.05, 0.01, key=0),
    MultiSteps=optax.MultiSteps(optax.sgd(0.05), 2).gradient_transformation(),
)  # fmt: skip
enter(
    "schedules", 1e-4,
    cosine_decay=optax.sgd(optax.cosine_decay_schedule(0.1, 4)),
    warmup_cosine_decay=optax.sgd(optax.warmup_cosine_decay_schedule(0.0, 0.1, 2, 4)),
    exponential_decay=optax.sgd(optax.exponential_decay(0.1, 2, 0.5, staircase=True)),
    piecewise_constant=optax.sgd(optax.piecewise_constant_schedule(0.05, {2: 0.5})),
    inject_hyperparams=optax.inject_hyperparams(optax.sgd)(learning_rate=optax.linear_schedule(0.1, 0.01, 4)),
)  # fmt: skip
enter(
    "clipping", 1e-3,
    clip=optax.chain(optax.clip(0.3), optax.sgd(0.05)),
    clip_by_global_norm=optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.05, momentum=0.9)),
)  # fmt: skip
enter(
    "second moments", 1e-3, 64.0, FINE,
    adam=optax.adam(0.02),
    adamw=optax.adamw(0.02),
    nadam=optax.nadam(0.02),
    amsgrad=optax.amsgrad(0.02),
)  # fmt: skip
enter(
    "root mean squares", 2e-3, 64.0, FINE,
    rmsprop=optax.rmsprop(0.01),
    rmsprop_momentum=optax.rmsprop(0.01, momentum=0.9),
    adagrad=optax.adagrad(0.1),
)  # fmt: skip
enter(
    "calibrated", 1e-3, mind="calibrated: the loss as it is", calibrated=True,
    adam=optax.adam(0.02),
    rmsprop=optax.rmsprop(0.01),
    adamax=optax.adamax(0.02),
    adamaxw=optax.adamaxw(0.02),
)  # fmt: skip
enter(
    "signs and largest slopes", 1e-3,
    lion=optax.lion(0.01),
    sign_sgd=optax.sign_sgd(0.01),
    adamax=optax.adamax(0.02),
    adamaxw=optax.adamaxw(0.02),
)  # fmt: skip
enter(
    "second moments of another kind", 2e-3, 64.0, FINE,
    adabelief=optax.adabelief(0.02),
    yogi=optax.yogi(0.02),
    adan=optax.adan(0.02),
)  # fmt: skip
enter(
    "calibrated, with steps that grow", 1e-4, mind="calibrated: the loss as it is", calibrated=True,
    radam=optax.radam(0.02),
    adadelta=optax.adadelta(0.5),
    sm3=optax.sm3(0.02),
)  # fmt: skip
enter("radam", 1e-4, radam=optax.radam(0.02))
enter("by layer", 1e-3, 64.0, FINE, lamb=optax.lamb(0.02))
