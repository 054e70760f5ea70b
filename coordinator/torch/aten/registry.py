"""The rules of PyTorch's operators (ATen), by name; arguments are those of the operator's schema."""

from coordinator.foreign.program import Refusal, Rules

SHAPE = "choose with torch.where(condition, x, y): a result must not have a shape that depends on the data"
RULES = Rules(
    "PyTorch",
    {
        "_local_scalar_dense": "do not ask for a tensor's value (.item(), if, int()) in forward",
        "item": "do not ask for a tensor's value (.item(), if, int()) in forward",
        "nonzero": SHAPE,
        "masked_select": SHAPE,
        "unique": SHAPE,
        "_fft_r2c": "let the owner of the data transform it",
        "_embedding_bag": "take nn.Embedding and sum or average over the bag",
        "_linalg_svd": "let the owner of the data decompose it",
        "_linalg_eigh": "let the owner of the data decompose it",
        "grid_sampler_2d": "let the owner of the data resample it",
        "wrap_with_set_grad_enabled": "use .detach() instead of torch.no_grad() in forward",
        "cond": "compute both branches and choose with torch.where",
        "while_loop": "write a Python loop with a fixed number of turns",
    },
)
rule = RULES.rule

__all__ = ["RULES", "Refusal", "rule"]
