"""Dynamic int8 quantization for the CPU: a quarter of the memory traffic per token.

Embedding and head each have a copy of the tied matrix, so the weights take half of fp32's memory at micro, a third at
124M and a quarter at 1558M.

Weights are quantized per row to 255 levels (symmetric), activations per token to 256 levels (asymmetric) on the fly:
"zeropoint vector-wise" in Dettmers et al. 2022, LLM.int8(), table 1. LayerNorms, biases, positions and attention stay
in fp32. A token alone is rounded slightly differently from the same token in a batch, so if two tokens are almost
equally likely, a text can depend on how tokens were batched. C channels in, O channels out, V vocabulary.
"""

import copy
import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from src.model.gpt import GPTModel
from src.model.meta_device import on_meta_device

LEVELS = 127  # on each side of zero


class Int8Linear(nn.Module):
    """`F.linear` with an int8 weight (O, C)."""

    def __init__(self, quantized: Tensor, scale: Tensor, bias: Tensor | None = None) -> None:
        """quantized: int8 (O, C), scale and bias: float (O,); the weight is quantized * scale."""
        super().__init__()
        self.row_sums = quantized.sum(dim=1) * scale  # (O,), response to an all-ones input, excluding the bias
        self.bias = bias
        self.packed = _packed(quantized, scale, bias)
        self.reduce_range = _needs_reduced_range()

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) to (..., O)."""
        if x.dim() == 1:  # the kernel needs a 2-D input
            return self(x[None])[0]
        if x.numel() == x.shape[-1]:
            return torch.ops.quantized.linear_dynamic(x, self.packed, self.reduce_range)
        # The kernel uses one range for all rows, so scale each row to [0, 1] and undo that in the result.
        low = x.amin(dim=-1, keepdim=True)  # amin and amax: two passes, and six times as fast as aminmax
        width = (x.amax(dim=-1, keepdim=True) - low).clamp_min(torch.finfo(x.dtype).tiny)
        y = torch.ops.quantized.linear_dynamic((x - low).div_(width), self.packed, self.reduce_range)
        y = y.mul_(width).addcmul_(low, self.row_sums)
        return y if self.bias is None else y.addcmul_(1 - width, self.bias)


class Int8Embedding(nn.Module):
    """`F.embedding` of an int8 table (V, C) with one scale per row."""

    def __init__(self, table: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.table, self.scale = table, scale

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids (...) to (..., C)."""
        return self.table[ids] * self.scale[ids, None]


class Int8GPT(GPTModel):
    """A GPTModel made by `quantize_int8`, without gradients or a state dict: save the original model instead."""

    lm_head: Int8Linear

    def head(self, hidden: Tensor) -> Tensor:
        """Logits (..., V) of hidden states (..., C)."""
        return self.lm_head(hidden)


@torch.no_grad()
def quantize_int8(model: GPTModel) -> GPTModel:
    """An int8 copy of a model on the CPU, for generation.

    Raises ValueError for a model on another device, or if this PyTorch has no int8 kernel for the processor.
    """
    if model.wpe.weight.device.type != "cpu":
        raise ValueError(f"int8 runs on the CPU, the model is on {model.wpe.weight.device}; leave --quantize out")
    if torch.backends.quantized.engine == "none":
        raise ValueError("this PyTorch has no int8 matrix product for this processor; leave --quantize out")
    quantized_model = on_meta_device(model.config, Int8GPT)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            quantized_model.set_submodule(name, Int8Linear(*quantize_rows(module.weight), module.bias.detach().clone()))
        elif isinstance(module, nn.LayerNorm) or name == "wpe":
            quantized_model.set_submodule(name, copy.deepcopy(module))
    table, scale = quantize_rows(model.wte.weight)
    quantized_model.set_submodule("wte", Int8Embedding(table, scale))
    quantized_model.add_module("lm_head", Int8Linear(table, scale))
    return quantized_model.eval()


def quantize_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A weight (O, C) as int8 levels (O, C) and float scales (O,), whose product approximates it."""
    scale = weight.abs().amax(dim=1).clamp_min(torch.finfo(torch.float32).tiny * LEVELS) / LEVELS
    return (weight / scale[:, None]).round_().to(torch.int8), scale


def _packed(quantized: Tensor, scale: Tensor, bias: Tensor | None) -> Any:
    """A weight in the int8 kernel's format."""
    with warnings.catch_warnings():
        # Deprecated, but nothing else builds the weight format that the fastest int8 kernel accepts.
        warnings.filterwarnings("ignore", message=".*are deprecated", category=UserWarning)
        zeros = torch.zeros(len(scale), dtype=torch.int64)
        as_quantized = torch._make_per_channel_quantized_tensor(quantized, scale.double(), zeros, 0)
    return torch.ops.quantized.linear_prepack(as_quantized, bias)


@cache
def _needs_reduced_range() -> bool:
    """Whether inputs must fit 7 bits: on processors without VNNI, sums of two products overflow."""
    largest = _packed(torch.full((1, 64), LEVELS, dtype=torch.int8), torch.ones(1), None)
    x = torch.ones(1, 64)
    x[0, 0] = 0
    return abs(float(torch.ops.quantized.linear_dynamic(x, largest)) / (63 * LEVELS) - 1) > 0.01
