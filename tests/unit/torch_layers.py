"""Every layer and function of PyTorch that docs/pytorch.md promises: what it is called there, how it is made, and the
shapes of its inputs.  An input that is a list of integers' limits, as int(5), holds class numbers below it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn


class Case(NamedTuple):
    """shapes: of the inputs; a pair (shape, n) is of integers below n, (shape, "+") of positive numbers."""

    name: str
    make: Callable[[], nn.Module]
    shapes: tuple[Any, ...]
    train: bool = False


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any) -> Any:
        return self.function(*args)


def call(function: Callable[..., Any]) -> Callable[[], nn.Module]:
    return lambda: Call(function)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Any) -> Any:
        return self.inner(x, x, x, need_weights=False)[0]


class Parametric(nn.Module):
    """A parameter, a constant and a mask of the module's own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([0.5, -1.5, 2.0]))
        self.register_buffer("offset", torch.tensor([1.0, 2.0, 3.0]), persistent=False)
        self.register_buffer("mask", torch.tensor([True, False, True]))

    def forward(self, x: Any) -> Any:
        return torch.where(self.mask, x * self.scale, self.offset) + torch.tensor([0.25, 0.5, 0.75])


def _written(x: Any) -> Any:
    y = x.clone()
    y[1:, 0] = 0.5
    y[2] = x[0]
    y[:, 3] += 1
    return y


def _made(x: Any) -> Any:
    made = torch.zeros(4, 6) + torch.ones_like(x) + torch.full((6,), 0.5) + torch.arange(6) + torch.arange(0.0, 3, 0.5)
    return x + made + torch.eye(4, 6) + torch.zeros_like(x) + x.new_ones(6) + torch.linspace(0, 1, 6)


X, IMAGE = (4, 6), (2, 4, 9, 8)
MASK = torch.ones(5, 5).tril().bool()

LAYERS = [
    # linear
    Case("Linear", lambda: nn.Linear(6, 3), (X,)),
    Case("Linear", lambda: nn.Linear(6, 3, bias=False), ((2, 5, 6),)),
    Case("Bilinear", lambda: nn.Bilinear(3, 4, 2), ((5, 3), (5, 4))),
    Case("Embedding", lambda: nn.Embedding(7, 3, padding_idx=2), (((4, 5), 7),)),
    # convolution
    Case("Conv1d", lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2), ((2, 4, 11),)),
    Case("Conv2d", lambda: nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2)), (IMAGE,)),
    Case("Conv2d", lambda: nn.Conv2d(4, 8, 3, padding="same", groups=4, bias=False), (IMAGE,)),
    Case("Conv2d", lambda: nn.Conv2d(4, 2, 3, padding=1, padding_mode="reflect"), (IMAGE,)),
    Case("Conv3d", lambda: nn.Conv3d(2, 3, 2, padding=1), ((2, 2, 4, 5, 3),)),
    Case("ConvTranspose1d", lambda: nn.ConvTranspose1d(4, 2, 3, stride=2), ((2, 4, 5),)),
    Case("ConvTranspose2d", lambda: nn.ConvTranspose2d(4, 6, 3, 2, 1, output_padding=1, groups=2), (IMAGE,)),
    Case("ConvTranspose2d", lambda: nn.ConvTranspose2d(4, 6, 2, dilation=2), (IMAGE,)),
    # pooling
    Case("MaxPool1d", lambda: nn.MaxPool1d(3, 2), ((2, 4, 11),)),
    Case("MaxPool2d", lambda: nn.MaxPool2d(2), (IMAGE,)),
    Case("MaxPool2d", lambda: nn.MaxPool2d(3, 2, padding=1, ceil_mode=True), (IMAGE,)),
    Case("MaxPool2d", lambda: nn.MaxPool2d(2, 3, dilation=2), (IMAGE,)),
    Case("MaxPool3d", lambda: nn.MaxPool3d(2), ((1, 2, 4, 5, 6),)),
    Case("AvgPool1d", lambda: nn.AvgPool1d(3, 2), ((2, 4, 11),)),
    Case("AvgPool2d", lambda: nn.AvgPool2d(2), (IMAGE,)),
    Case("AvgPool2d", lambda: nn.AvgPool2d(3, 2, padding=1, ceil_mode=True), (IMAGE,)),
    Case("AvgPool2d", lambda: nn.AvgPool2d(3, 2, padding=1, count_include_pad=False), (IMAGE,)),
    Case("AvgPool2d", lambda: nn.AvgPool2d(2, divisor_override=3), (IMAGE,)),
    Case("AvgPool3d", lambda: nn.AvgPool3d(2), ((1, 2, 4, 5, 6),)),
    Case("AdaptiveAvgPool1d", lambda: nn.AdaptiveAvgPool1d(3), ((2, 4, 11),)),
    Case("AdaptiveAvgPool2d", lambda: nn.AdaptiveAvgPool2d((4, 3)), (IMAGE,)),
    Case("AdaptiveAvgPool2d", lambda: nn.AdaptiveAvgPool2d(1), (IMAGE,)),
    Case("AdaptiveMaxPool2d", lambda: nn.AdaptiveMaxPool2d((3, 4)), (IMAGE,)),
    # normalisation
    Case("BatchNorm1d", lambda: nn.BatchNorm1d(6), (X,)),
    Case("BatchNorm2d", lambda: nn.BatchNorm2d(4), (IMAGE,)),
    Case("BatchNorm2d", lambda: nn.BatchNorm2d(4), (IMAGE,), train=True),
    Case("BatchNorm2d", lambda: nn.BatchNorm2d(4, track_running_stats=False, affine=False), (IMAGE,), train=True),
    Case("LayerNorm", lambda: nn.LayerNorm((9, 8)), (IMAGE,)),
    Case("GroupNorm", lambda: nn.GroupNorm(2, 4), (IMAGE,)),
    Case("InstanceNorm2d", lambda: nn.InstanceNorm2d(4), (IMAGE,)),
    Case("RMSNorm", lambda: nn.RMSNorm(6), (X,)),
    # attention and recurrence
    Case("scaled_dot_product_attention", call(F.scaled_dot_product_attention), ((2, 3, 5, 4),) * 3),
    Case(
        "scaled_dot_product_attention",
        call(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.3)),
        ((2, 3, 5, 4),) * 3,
    ),
    Case(
        "scaled_dot_product_attention",
        call(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, MASK, enable_gqa=True)),
        ((2, 4, 5, 4), (2, 2, 5, 4), (2, 2, 5, 4)),
    ),
    Case("MultiheadAttention", Attention, ((2, 5, 8),)),
    Case("TransformerEncoderLayer", lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), ((2, 5, 8),)),
    Case("RNN", lambda: nn.RNN(6, 3, nonlinearity="relu"), ((5, 2, 6),)),
    Case("GRU", lambda: nn.GRU(6, 3, 2, batch_first=True), ((2, 5, 6),)),
    Case("LSTM", lambda: nn.LSTM(6, 3, 2, batch_first=True, bidirectional=True), ((2, 5, 6),)),
    Case("LSTM", lambda: nn.LSTM(6, 4, proj_size=2), ((5, 6),)),
    Case("LSTMCell", lambda: nn.LSTMCell(6, 3), (X,)),
    Case("GRUCell", lambda: nn.GRUCell(6, 3), (X,)),
    # activations
    *(
        Case(name, getattr(nn, name), (X,))
        for name in (
            "ReLU",
            "ReLU6",
            "LeakyReLU",
            "PReLU",
            "ELU",
            "SELU",
            "CELU",
            "GELU",
            "SiLU",
            "Mish",
            "Sigmoid",
            "Tanh",
            "Softplus",
            "Softsign",
            "LogSigmoid",
            "Hardtanh",
            "Hardsigmoid",
            "Hardswish",
            "Tanhshrink",
            "Identity",
            "Flatten",
        )
    ),
    Case("GELU", lambda: nn.GELU("tanh"), (X,)),
    Case("Softmax", lambda: nn.Softmax(-1), (X,)),
    Case("LogSoftmax", lambda: nn.LogSoftmax(1), (X,)),
    Case("GLU", nn.GLU, (X,)),
    Case("Dropout", lambda: nn.Dropout(0.5), (X,)),
    # images
    Case("ZeroPad2d", lambda: nn.ZeroPad2d((1, 2, 0, 1)), (IMAGE,)),
    Case("ReflectionPad2d", lambda: nn.ReflectionPad2d((1, 2, 0, 1)), (IMAGE,)),
    Case("ReplicationPad2d", lambda: nn.ReplicationPad2d((1, 2, 0, 1)), (IMAGE,)),
    Case("PixelShuffle", lambda: nn.PixelShuffle(2), (IMAGE,)),
    Case("PixelUnshuffle", lambda: nn.PixelUnshuffle(2), ((1, 2, 4, 6),)),
    Case("Upsample", lambda: nn.Upsample(scale_factor=2), (IMAGE,)),
    Case("Upsample", lambda: nn.Upsample((12, 5), mode="bilinear"), (IMAGE,)),
    Case("Upsample", lambda: nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), (IMAGE,)),
    # losses
    Case("CrossEntropyLoss", nn.CrossEntropyLoss, (X, ((4,), 6))),
    Case("CrossEntropyLoss", lambda: nn.CrossEntropyLoss(label_smoothing=0.1), (X, ((4,), 6))),
    Case("CrossEntropyLoss", lambda: nn.CrossEntropyLoss(torch.arange(1.0, 7), reduction="none"), (X, ((4,), 6))),
    Case("CrossEntropyLoss", lambda: nn.CrossEntropyLoss(torch.arange(1.0, 7), ignore_index=2), (X, ((4,), 6))),
    Case("CrossEntropyLoss", lambda: nn.CrossEntropyLoss(reduction="sum"), ((2, 3, 4, 5), ((2, 4, 5), 3))),
    Case("CrossEntropyLoss", lambda: Call(lambda x, p: F.cross_entropy(x, p.softmax(1))), (X, X)),
    Case("NLLLoss", nn.NLLLoss, (X, ((4,), 6))),
    Case("MSELoss", nn.MSELoss, (X, X)),
    Case("L1Loss", nn.L1Loss, (X, X)),
    Case("SmoothL1Loss", lambda: nn.SmoothL1Loss(beta=0.5), (X, X)),
    Case("HuberLoss", lambda: nn.HuberLoss(delta=0.5), (X, X)),
    Case("BCELoss", lambda: Call(lambda x, y: F.binary_cross_entropy(x.sigmoid(), y.sigmoid())), (X, X)),
    Case("BCEWithLogitsLoss", lambda: nn.BCEWithLogitsLoss(pos_weight=torch.arange(1.0, 7)), (X, X)),
    Case(
        "KLDivLoss", lambda: Call(lambda x, y: F.kl_div(x.log_softmax(1), y.softmax(1), reduction="batchmean")), (X, X)
    ),
    Case("PoissonNLLLoss", nn.PoissonNLLLoss, (X, (X, "+"))),
    Case("HingeEmbeddingLoss", lambda: Call(lambda x: F.hinge_embedding_loss(x, torch.ones(4, 6))), (X,)),
    Case("CosineSimilarity", nn.CosineSimilarity, (X, X)),
    Case("PairwiseDistance", nn.PairwiseDistance, (X, X)),
    Case("parameters, buffers and constants", Parametric, ((4, 3),)),
]

FUNCTIONS = [
    Case("+ - * /", call(lambda x, y: 2 - (x + 3 * y) / (y * y + 1) - x.add(y, alpha=2)), (X, X)),
    Case("// %", call(lambda x: x.detach() // 0.7 + x % 0.7 + torch.div(x, 0.3, rounding_mode="trunc")), (X,)),
    Case("**", call(lambda x: x**3 + x**2 + 2**x + x.abs() ** 0.5 + x.abs() ** -1.5), (X,)),
    Case("abs neg sign", call(lambda x: x.abs() - (-x).sign()), (X,)),
    Case("exp log", call(lambda x: x.exp() + (-x).expm1() + torch.exp2(x)), (X,)),
    Case("exp log", call(lambda x: x.log() + x.log2() + x.log10() + x.log1p()), ((X, "+"),)),
    Case("sqrt rsqrt reciprocal", call(lambda x: x.sqrt() + x.rsqrt() + x.reciprocal()), ((X, "+"),)),
    Case("sin cos tan", call(lambda x: x.sin() * x.cos() + (0.1 * x).tan()), (X,)),
    Case("sinh cosh atan asinh", call(lambda x: x.sinh() + x.cosh() + x.atan() + x.asinh()), (X,)),
    Case("acos asin atanh", call(lambda x: x.tanh().acos() + (0.9 * x.tanh()).asin() + (x / 9).atanh()), (X,)),
    Case("erf tanh sigmoid", call(lambda x: x.erf() + x.tanh() * x.sigmoid()), (X,)),
    Case("floor ceil round trunc", call(lambda x: x.floor() + x.ceil() + x.round() + x.trunc()), (X,)),
    Case("clamp", call(lambda x: x.clamp(-0.5, 0.5) + x.clamp(min=0.1) + x.clip(max=torch.tensor(0.2))), (X,)),
    Case("maximum minimum", call(lambda x, y: torch.maximum(x, y) - torch.minimum(x, y).max()), (X, X)),
    Case("max min", call(lambda x: x.max(1).values + x.min(dim=1, keepdim=True)[0].squeeze(1) + x.min()), (X,)),
    Case("amax amin aminmax", call(lambda x: x.amax(0) + x.amin((0, 1)) + x.aminmax(dim=0).max), (X,)),
    Case("argmax argmin", call(lambda x: (x.argmax(), x.argmax(1), x.argmin(0, keepdim=True))), (X,)),
    Case("sum mean", call(lambda x: x.sum() + x.mean(0) + x.sum((0, 1), keepdim=True) + x.mean()), (X,)),
    Case("var std", call(lambda x: x.var() + x.std(1)[0] + x.var(0, unbiased=False) + torch.var_mean(x, 0)[1]), (X,)),
    Case("norm", call(lambda x: x.norm() + x.norm(1, dim=0) + torch.linalg.vector_norm(x, float("inf"))), (X,)),
    Case("prod cumsum cumprod", call(lambda x: x.prod(0) + x.cumsum(1) + x.cumprod(1)), (X,)),
    Case("logsumexp", call(lambda x: x.logsumexp(1) + torch.logaddexp(x, 2 * x).sum(1)), (X,)),
    Case("any all", call(lambda x: ((x > 0).any(1), (x > -9).all(), (x > 0).any())), (X,)),
    Case("== != < <= > >=", call(lambda x, y: (x == y, x != y, x < y, x <= 0, x > y, x >= 0.5)), (X, X)),
    Case("and or xor not", call(lambda x, y: (x > 0) & (y > 0) | ~(x > y) ^ (y < 1)), (X, X)),
    Case("logical_and", call(lambda x, y: (x > 0).logical_and(y > 0).logical_not()), (X, X)),
    Case("isnan isinf", call(lambda x: (x.isnan(), x.isinf(), x.isfinite())), (X,)),
    Case("where masked_fill", call(lambda x, y: torch.where(x > 0, x, y).masked_fill(y > 1, 0.5)), (X, X)),
    Case("lerp addcmul addcdiv", call(lambda x, y: x.lerp(y, 0.3) + x.addcmul(y, y) + x.addcdiv(y, y * y + 1)), (X, X)),
    Case("matmul mm bmm", call(lambda x, y: x @ y + torch.mm(x[0], y[0]) + x.bmm(y)), ((2, 3, 4), (2, 4, 5))),
    Case("matmul mm bmm", call(lambda x, y: (x[0] @ y[0], x @ y[0], x[0] @ x[0])), ((3, 4), (4, 4))),
    Case("addmm baddbmm", call(lambda z, x, y: z.addmm(x, y, beta=0.5, alpha=2)), ((3, 5), (3, 4), (4, 5))),
    Case("einsum", call(lambda x, y: torch.einsum("bij,bjk->ik", x, y)), ((2, 3, 4), (2, 4, 5))),
    Case("outer dot", call(lambda x, y: x.outer(y) * x.dot(x)), ((3,), (4,))),
    Case("view reshape flatten", call(lambda x: x.view(2, -1).reshape(8, 3).flatten().unflatten(0, (4, 6))), (X,)),
    Case("permute transpose", call(lambda x: x.permute(3, 1, 0, 2).transpose(1, -1).movedim(0, 1)), (IMAGE,)),
    Case("t mT", call(lambda x: x.t() @ x.mT.mT), (X,)),
    Case("squeeze unsqueeze", call(lambda x: x.unsqueeze(1).unsqueeze(-1).squeeze(1).squeeze()), (X,)),
    Case("cat stack", call(lambda x, y: torch.cat([x, y], 1).sum() + torch.stack([x, y], -1)), (X, X)),
    Case(
        "split chunk unbind", call(lambda x: (*x.split(4, 1), *x.chunk(3, 1), *x.split([1, 5], 1), *x.unbind())), (X,)
    ),
    Case("expand repeat", call(lambda x: x.expand(2, -1, 6) + x.repeat(2, 1, 6)), ((4, 1),)),
    Case("repeat_interleave", call(lambda x: x.repeat_interleave(2, 1)), (X,)),
    Case("flip roll", call(lambda x: x.flip(0, 1) + x.roll(2, 1) + x.roll(3)), (X,)),
    Case("tril triu diagonal", call(lambda x: x.tril() + x.triu(1) + x.diagonal(1).sum()), (X,)),
    Case("unfold", call(lambda x: x.unfold(1, 3, 2)), (X,)),
    Case("pad", call(lambda x: F.pad(x, (1, 2), value=0.5).sum() + F.pad(x, (1, -1, 2, 0))), (X,)),
    Case("x[...]", call(lambda x: x[1:, ::2] + x[0, -1] + x[..., None, 0, :3] + x[torch.tensor([0, 2, 1]), :3]), (X,)),
    Case("x[...] = y", call(_written), (X,)),
    Case("gather index_select", call(lambda x, i: x.gather(1, i) + x.index_select(1, i[0])), (X, ((4, 3), 6))),
    Case("scatter", call(lambda x, i: x.scatter(1, i, 0.5) + x.scatter_add(1, i, x)), (X, (X, 6))),
    Case("one_hot", call(lambda i: F.one_hot(i, 5).float()), (((4,), 5),)),
    Case("sort topk", call(lambda x: (*x.sort(1), *x.topk(2), *x.topk(2, 0, largest=False), x.argsort(0))), (X,)),
    Case("zeros ones full arange eye", call(_made), (X,)),
    Case("float long bool", call(lambda x: x.bool().float() + (x * 3).long().double()), (X,)),
    Case("detach", call(lambda x: x * x.detach()), (X,)),
    Case("normalize", call(F.normalize), (X,)),
    Case("cdist", call(lambda x: math.pi * (x[:, None] - x[None]).square().sum(-1)), (X,)),
]
