"""Masked multi-head self-attention.

B batch, T new tokens, S tokens seen so far (cache included), C channels, H heads, D head size.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.model.config import GPTConfig
from src.model.kv_cache import KeyValueCache

# Several sequences packed into one row. Per segment: its length, and the index of its parent, the segment that it
# continues (None if it starts a sequence).
Packing = Sequence[tuple[int, int | None]]
BLOCK_QUERIES = 128  # of `attend_in_blocks`; 64 and 256 were slower


class MultiHeadAttention(nn.Module):
    """Each token attends to itself and to the tokens before it, in every head (Vaswani et al. 2017, section 3.2)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.dropout = config.dropout
        self.c_attn = nn.Linear(config.d_model, 3 * config.d_model)  # queries, keys and values in one product
        self.c_proj = nn.Linear(config.d_model, config.d_model)
        self.resid_dropout = nn.Dropout(config.dropout)

    def forward(
        self, x: Tensor, cache: KeyValueCache | None = None, layer_index: int = 0, packing: Packing | None = None
    ) -> Tensor:
        """(B, T, C) to (B, T, C). With a cache, x continues the cached tokens; with a packing, x holds its segments."""
        B, T, C = x.shape
        q, k, v = (self._split_heads(part) for part in self.c_attn(x).split(C, dim=2))  # (B, H, T, D)
        if cache is not None:
            k, v = cache.extend(layer_index, k, v)  # (B, H, S, D)
        y = self._attend(q, k, v) if packing is None else self._attend_in_segments(q, k, v, packing)
        y = y.transpose(1, 2).reshape(B, T, C)  # from (B, H, T, D)
        return self.resid_dropout(self.c_proj(y))

    def _split_heads(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, H, T, D)."""
        B, T, C = x.shape
        return x.view(B, T, self.n_heads, C // self.n_heads).transpose(1, 2)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Queries (B, H, T, D) of the last T of S tokens, keys and values (B, H, S, D), to (B, H, T, D)."""
        T, S = q.shape[2], k.shape[2]
        causal = T > 1 and T == S  # several tokens, none of them cached: the mask is a triangle
        dropout = self.dropout if self.training else 0.0
        if causal and _trains_in_bf16_on_cpu(q):
            return attend_in_blocks(q, k, v, dropout)
        mask = _continuation_mask(T, S, q.device)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=causal)

    def _attend_in_segments(self, q: Tensor, k: Tensor, v: Tensor, packing: Packing) -> Tensor:
        """`_attend` for a packing, all (B, H, T, D). A segment sees itself and everything that its parent sees."""
        lengths = [length for length, _ in packing]
        queries, keys, values = (list(part.split(lengths, dim=2)) for part in (q, k, v))
        for i, (_, parent) in enumerate(packing):
            if parent is not None:
                keys[i] = torch.cat([keys[parent], keys[i]], dim=2)
                values[i] = torch.cat([values[parent], values[i]], dim=2)
        return torch.cat([self._attend(*part) for part in zip(queries, keys, values, strict=True)], dim=2)


def attend_in_blocks(q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0) -> Tensor:
    """Causal attention, (B, H, T, D) each, from plain matrix products: a block of queries at a time.

    For training in bf16 on a CPU, where the backward of PyTorch's fused attention takes four times as long.
    """
    T = q.shape[2]
    q = q / math.sqrt(q.shape[3])
    later = torch.full((BLOCK_QUERIES, BLOCK_QUERIES), -math.inf, dtype=q.dtype, device=q.device).triu(1)
    blocks = []
    for start in range(0, T, BLOCK_QUERIES):
        end = min(start + BLOCK_QUERIES, T)
        scores = q[:, :, start:end] @ k[:, :, :end].transpose(2, 3)  # (B, H, queries, keys)
        scores[..., start:] += later[: end - start, : end - start]
        blocks.append(F.dropout(torch.softmax(scores, dim=-1), dropout) @ v[:, :, :end])
    return torch.cat(blocks, dim=2)


def _trains_in_bf16_on_cpu(q: Tensor) -> bool:
    return torch.is_grad_enabled() and q.is_cpu and q.dtype == torch.bfloat16


def _continuation_mask(T: int, S: int, device: torch.device) -> Tensor | None:
    """The mask (T, S) of T new tokens after S - T cached ones, True where a token may attend; None if none is needed.

    `is_causal` aligns its triangle to the top left, so it is wrong as soon as the cache holds earlier tokens.
    """
    if T == S or T == 1:
        return None
    return torch.ones(T, S, dtype=torch.bool, device=device).tril(S - T)
