"""A fast path for decoding: the next token of each of n sequences, which a KV cache holds so far.

At batch size 1, the calls and checks of modules take a third of the time. So this repeats `GPTModel.hidden_states` as
one flat loop over the layers, without dropout.
n sequences, S tokens of the longest one (the new token included), C channels, H heads, D head size.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.model.few_rows import linear
from src.model.gpt import GPTModel
from src.model.kv_cache import KeyValueCache
from src.model.transformerBlock import TransformerBlock

_Function: TypeAlias = Callable[[Tensor], Tensor]


class SingleTokenStep:
    """One decode step of a model. Captures references to the weights at construction."""

    def __init__(self, model: GPTModel) -> None:
        self._model = model
        self._layers = [_functions_of(block) for block in cast(Iterable[TransformerBlock], model.h)]

    def hidden_states(self, ids: list[int], cache: KeyValueCache, lengths: list[int]) -> Tensor:
        """Hidden states (n, C) after the final LayerNorm, for one new token of each sequence.

        lengths: the tokens of sequence i that row i of the cache holds, such as [3, 7]: then the first new token has
        position 3 and attends to 4 tokens, itself included. The new keys and values are stored after the cached ones.
        The cache's own length is neither used nor changed.
        """
        model, n, S = self._model, len(ids), max(lengths) + 1
        device = model.wpe.weight.device
        positions = torch.tensor(lengths, device=device)  # (n,)
        new_entries, mask = _entries_and_mask(lengths, positions)
        x = model.wte(torch.tensor(ids, device=device)) + model.wpe(positions)  # (n, C)
        for layer_cache, (ln_1, c_attn, attn_c_proj, ln_2, c_fc, activation, mlp_c_proj) in zip(
            cache.keys_values.unbind(0), self._layers, strict=True
        ):
            qkv = c_attn(ln_1(x)).view(n, 3, model.config.n_heads, -1)  # (n, 3, H, D)
            layer_cache[new_entries] = qkv[:, 1:].to(layer_cache.dtype)  # under autocast qkv may have another dtype
            q = qkv[:, 0, :, None]  # (n, H, 1, D)
            k, v = layer_cache[:n, :, :, :S].unbind(1)  # (n, H, S, D)
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)  # (n, H, 1, D)
            x = x + attn_c_proj(y.reshape(n, -1))
            x = x + mlp_c_proj(activation(c_fc(ln_2(x))))
        return model.ln_f(x)


def _entries_and_mask(lengths: list[int], positions: Tensor) -> tuple[tuple[Any, ...], Tensor | None]:
    """Where a layer's cache (rows, 2, H, capacity, D) stores the new tokens, as an index that selects (n, 2, H, D).

    And the mask (n, 1, 1, S): True for the tokens that a sequence has. None if all sequences have the same length.
    """
    n, longest, every = len(lengths), max(lengths), slice(None)
    if min(lengths) == longest:
        return (slice(n), every, every, longest), None
    rows = torch.arange(n, device=positions.device)
    mask = torch.arange(longest + 1, device=positions.device) <= positions[:, None]  # (n, S)
    return (rows, every, every, positions), mask[:, None, None]


def _functions_of(block: TransformerBlock) -> tuple[_Function, ...]:
    """The computations of a layer, in their order."""
    return (
        _direct_call(block.ln_1),
        _direct_call(block.attn.c_attn),
        _direct_call(block.attn.c_proj),
        _direct_call(block.ln_2),
        _direct_call(block.mlp.c_fc),
        block.mlp.activation,
        _direct_call(block.mlp.c_proj),
    )


def _direct_call(module: nn.Module) -> _Function:
    """The computation of a module without the overhead of `Module.__call__`."""
    if type(module) is nn.Linear:
        return partial(linear, weight=module.weight, bias=module.bias)
    if type(module) is nn.LayerNorm:
        return partial(_layer_norm, list(module.normalized_shape), module.weight, module.bias, module.eps)
    return module.forward


def _layer_norm(shape: list[int], weight: Tensor, bias: Tensor, eps: float, x: Tensor) -> Tensor:
    return torch.layer_norm(x, shape, weight, bias, eps)
