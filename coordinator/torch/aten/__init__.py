"""PyTorch's operators in jax: one rule per operator, in the file where its relatives are.

An operator with a rule is kept as it is when a module is exported; others are decomposed to PyTorch's core operators
first.  So a composite wants a rule only where the rule is better than its parts: a softmax, an LSTM, an attention.
"""

from coordinator.torch.aten import (
    creation,
    elementwise,
    indexing,
    layers,
    losses,
    pooling,
    recurrent,
    reductions,
    shapes,
)
from coordinator.torch.aten.registry import RULES

__all__ = [
    "RULES", "creation", "elementwise", "indexing", "layers", "losses", "pooling", "recurrent", "reductions", "shapes",
]  # fmt: skip
