"""One more token of each of several texts: what generation does most, without the cost of calling modules.

A token alone makes so little work for each operation that a third of the time would go into calls, checks and views.
So this is the arithmetic of `GPTModel.hidden_states` once more, in one flat loop over what the modules hold.
n texts, S tokens of the longest with its new one, C channels, H heads, D head size.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.model.attention import KeyValueCache
from src.model.gpt import GPTModel
from src.model.quantize import Int8GPT
from src.model.transformerBlock import TransformerBlock


class SingleTokenStep:
    """Reads single tokens with a model. It holds the model's weights as they are when it is made."""

    def __init__(self, model: GPTModel) -> None:
        self._model = model
        self._layers = [
            (
                _function(block.ln_1),
                _function(block.attn.c_attn),
                _function(block.attn.c_proj),
                _function(block.ln_2),
                _function(block.mlp.c_fc),
                block.mlp.activation,
                _function(block.mlp.c_proj),
            )
            for block in cast(Iterable[TransformerBlock], model.h)
        ]

    def states(self, ids: Sequence[int], cache: KeyValueCache, lengths: Sequence[int]) -> Tensor:
        """The states (n, C) that the head reads, of one new token each for the first n rows of a cache.

        lengths: how many tokens each row holds already; the new one's keys and values are added behind them.
        Equal to `hidden_states` of each text, without dropout. The cache's own length is neither read nor moved on.
        """
        model, n = self._model, len(ids)
        device, H = model.wpe.weight.device, model.config.n_heads
        at = torch.tensor(lengths, device=device)  # (n,), positions and places in the cache
        longest = max(lengths)
        equal = longest == min(lengths)
        mask = None if equal else (torch.arange(longest + 1, device=device) <= at[:, None])[:, None, None]
        rows, places = (slice(n), longest) if equal else (torch.arange(n, device=device), at)
        x = model.wte(torch.tensor(ids, device=device)) + model.wpe(at)  # (n, C)
        for known, (ln_1, c_attn, c_proj, ln_2, c_fc, activation, mlp_proj) in zip(
            cache.keys_values.unbind(0), self._layers, strict=True
        ):
            qkv = c_attn(ln_1(x)).view(n, 3, H, -1)  # (n, 3, H, D)
            known[rows, :, :, places] = qkv[:, 1:].to(known.dtype)  # autocast makes other ones
            k, v = known[:n, :, :, : longest + 1].unbind(1)  # (n, H, S, D)
            y = F.scaled_dot_product_attention(qkv[:, 0, :, None], k, v, attn_mask=mask)  # (n, H, 1, D)
            x = x + c_proj(y.reshape(n, -1))
            x = x + mlp_proj(activation(c_fc(ln_2(x))))
        return model.ln_f(x)


def default_draft_tokens(model: GPTModel) -> int:
    """Draft tokens that cost almost nothing extra to verify.

    0 in int8, where three rows take nearly twice the time of one, and in half precision, where batching changes which
    of two nearly equal logits is the larger.
    """
    return 2 if model.wpe.weight.dtype in (torch.float32, torch.float64) and not isinstance(model, Int8GPT) else 0


def _function(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """What a module computes, without the way through `Module.__call__`."""
    if type(module) is nn.Linear:
        return partial(_linear, module.weight, module.bias)
    if type(module) is nn.LayerNorm:
        return partial(_layer_norm, list(module.normalized_shape), module.weight, module.bias, module.eps)
    return module.forward


def _linear(weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    return F.linear(x, weight, bias)


def _layer_norm(shape: list[int], weight: Tensor, bias: Tensor, eps: float, x: Tensor) -> Tensor:
    return torch.layer_norm(x, shape, weight, bias, eps)
