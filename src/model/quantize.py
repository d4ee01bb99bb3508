"""A model with its matrices in 8 bits: a quarter of the memory, and of what a token has to read from it.

Weights are rounded row by row to 255 levels (symmetric), activations token by token to 256 (asymmetric) at the moment
of use: "zeropoint vector-wise" in Dettmers et al. 2022, LLM.int8(), table 1. LayerNorms, biases, positions and
attention stay as they are. A token read alone is rounded a little otherwise than one among several, so where two tokens
are nearly as likely, a text can depend on what was read at once. C channels in, O channels out, V vocabulary.
"""

import copy
import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from src.model.gpt import GPTModel, on_meta_device

LEVELS = 127  # on either side of zero


class Int8Linear(nn.Module):
    """`F.linear` with a weight (O, C) of 8 bits."""

    def __init__(self, quantized: Tensor, scale: Tensor, bias: Tensor | None = None) -> None:
        """quantized: int8 (O, C), scale and bias: float (O,); the weight is quantized * scale."""
        super().__init__()
        self.row_sums = quantized.sum(dim=1) * scale  # (O,): what an input of ones gives, without the bias
        self.bias = bias
        self.packed = _packed(quantized, scale, bias)
        self.reduce_range = _overflows()

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) to (..., O)."""
        if x.dim() == 1:  # fewer than the kernel takes
            return self(x[None])[0]
        if x.numel() == x.shape[-1]:
            return torch.ops.quantized.linear_dynamic(x, self.packed, self.reduce_range)
        # The kernel takes one range for all rows. So each row is stretched to [0, 1], and its product put back.
        low = x.amin(dim=-1, keepdim=True)  # twice through x, and six times as fast as aminmax
        width = (x.amax(dim=-1, keepdim=True) - low).clamp_min(torch.finfo(x.dtype).tiny)
        y = torch.ops.quantized.linear_dynamic((x - low).div_(width), self.packed, self.reduce_range)
        y = y.mul_(width).addcmul_(low, self.row_sums)
        return y if self.bias is None else y.addcmul_(1 - width, self.bias)


class Int8Embedding(nn.Module):
    """`F.embedding` of a table (V, C) of 8 bits, each row with a scale of its own."""

    def __init__(self, table: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.table, self.scale = table, scale

    def forward(self, ids: Tensor) -> Tensor:
        """Whole numbers (...) to (..., C)."""
        return self.table[ids] * self.scale[ids, None]


class Int8GPT(GPTModel):
    """A GPTModel made by `quantize_int8`. It has no gradients and no state dict: save what it was made from."""

    lm_head: Int8Linear

    def head(self, hidden: Tensor) -> Tensor:
        return self.lm_head(hidden)


@torch.no_grad()
def quantize_int8(model: GPTModel) -> GPTModel:
    """A copy of a model on the CPU that writes text with its matrices in 8 bits. `model` stays as it is.

    Raises ValueError for a model on another device, and where this PyTorch has no 8-bit product for the processor.
    """
    if model.wpe.weight.device.type != "cpu":
        raise ValueError(f"int8 runs on the CPU, the model is on {model.wpe.weight.device}; leave --quantize out")
    if torch.backends.quantized.engine == "none":
        raise ValueError("this PyTorch has no 8-bit matrix product for this processor; leave --quantize out")
    small = on_meta_device(model.config, Int8GPT)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            small.set_submodule(name, Int8Linear(*rounded(module.weight), module.bias.detach().clone()))
        elif isinstance(module, nn.LayerNorm) or name == "wpe":
            small.set_submodule(name, copy.deepcopy(module))
    table, scale = rounded(model.wte.weight)
    small.set_submodule("wte", Int8Embedding(table, scale))
    small.add_module("lm_head", Int8Linear(table, scale))
    return small.eval()


def rounded(weight: Tensor) -> tuple[Tensor, Tensor]:
    """int8 (O, C) and float scales (O,) whose product is nearly the weight."""
    scale = weight.abs().amax(dim=1).clamp_min(torch.finfo(torch.float32).tiny * LEVELS) / LEVELS
    return (weight / scale[:, None]).round_().to(torch.int8), scale


def _packed(quantized: Tensor, scale: Tensor, bias: Tensor | None) -> Any:
    """A weight in the form that the 8-bit product takes."""
    with warnings.catch_warnings():
        # PyTorch announces the end of this constructor, and has no other that its fastest int8 product takes.
        warnings.filterwarnings("ignore", message=".*are deprecated", category=UserWarning)
        zeros = torch.zeros(len(scale), dtype=torch.int64)
        as_quantized = torch._make_per_channel_quantized_tensor(quantized, scale.double(), zeros, 0)
    return torch.ops.quantized.linear_prepack(as_quantized, bias)


@cache
def _overflows() -> bool:
    """Whether inputs have to keep to 7 bits: processors without VNNI add pairs of products in too few bits."""
    largest = _packed(torch.full((1, 64), LEVELS, dtype=torch.int8), torch.ones(1), None)
    x = torch.ones(1, 64)
    x[0, 0] = 0
    return abs(float(torch.ops.quantized.linear_dynamic(x, largest)) / (63 * LEVELS) - 1) > 0.01
