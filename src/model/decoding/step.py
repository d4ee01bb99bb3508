"""A fast path for decoding one token per sequence.

At batch size 1, module calls and checks cost a third of the time, so this repeats `GPTModel.hidden_states` as one flat
loop. n sequences, S tokens of the longest one (the new token included), C channels, H heads, D head size.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.model.attention import KeyValueCache
from src.model.few_rows import linear
from src.model.gpt import GPTModel
from src.model.transformerBlock import TransformerBlock


class SingleTokenStep:
    """One decode step of a model. Captures references to the weights at construction."""

    def __init__(self, model: GPTModel) -> None:
        self._model = model
        self._layers = [
            (
                _direct_call(block.ln_1),
                _direct_call(block.attn.c_attn),
                _direct_call(block.attn.c_proj),
                _direct_call(block.ln_2),
                _direct_call(block.mlp.c_fc),
                block.mlp.activation,
                _direct_call(block.mlp.c_proj),
            )
            for block in cast(Iterable[TransformerBlock], model.h)
        ]

    def hidden_states(self, ids: list[int], cache: KeyValueCache, lengths: list[int]) -> Tensor:
        """Hidden states (n, C) after the final LayerNorm, for one new token in each of the first n rows of a cache.

        lengths: cached tokens of each row; the new token's keys and values are stored after them. The cache's own
        length is neither used nor changed. Equal to `GPTModel.hidden_states` of each sequence, without dropout.
        """
        model, n = self._model, len(ids)
        device, H = model.wpe.weight.device, model.config.n_heads
        positions = torch.tensor(lengths, device=device)  # (n,)
        longest = max(lengths)
        rows: slice | Tensor  # `cached[rows, :, :, ends]` is where the new keys and values go, (n, 2, H, D)
        ends: int | Tensor
        if min(lengths) == longest:
            rows, ends, mask = slice(n), longest, None
        else:
            rows, ends = torch.arange(n, device=device), positions
            mask = (torch.arange(longest + 1, device=device) <= positions[:, None])[:, None, None]  # (n, 1, 1, S)
        x = model.wte(torch.tensor(ids, device=device)) + model.wpe(positions)  # (n, C)
        for cached, (ln_1, c_attn, attn_proj, ln_2, c_fc, activation, mlp_proj) in zip(
            cache.keys_values.unbind(0), self._layers, strict=True
        ):
            qkv = c_attn(ln_1(x)).view(n, 3, H, -1)  # (n, 3, H, D)
            cached[rows, :, :, ends] = qkv[:, 1:].to(cached.dtype)  # under autocast q, k, v may have another dtype
            k, v = cached[:n, :, :, : longest + 1].unbind(1)  # (n, H, S, D)
            y = F.scaled_dot_product_attention(qkv[:, 0, :, None], k, v, attn_mask=mask)  # (n, H, 1, D)
            x = x + attn_proj(y.reshape(n, -1))
            x = x + mlp_proj(activation(c_fc(ln_2(x))))
        return model.ln_f(x)


def _direct_call(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """The computation of a module without the overhead of `Module.__call__`."""
    if type(module) is nn.Linear:
        return partial(linear, weight=module.weight, bias=module.bias)
    if type(module) is nn.LayerNorm:
        return partial(_layer_norm, list(module.normalized_shape), module.weight, module.bias, module.eps)
    return module.forward


def _layer_norm(shape: list[int], weight: Tensor, bias: Tensor, eps: float, x: Tensor) -> Tensor:
    return torch.layer_norm(x, shape, weight, bias, eps)
