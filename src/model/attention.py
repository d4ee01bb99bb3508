"""Masked multi-head self-attention, and the cache that lets generation read each token once.

B batch, T new tokens, S tokens seen so far (cache included), C channels, H heads, D head size.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.model.config import GPTConfig

# Texts behind each other in one row: for each the number of its tokens, and the earlier segment that it goes on from.
Segments = Sequence[tuple[int, int | None]]


class KeyValueCache:
    """Keys and values of every layer in memory reserved once: a tensor of shape (layers, B, 2, H, capacity, D)."""

    def __init__(
        self, config: GPTConfig, batch_size: int, capacity: int, *, device: torch.device, dtype: torch.dtype
    ) -> None:
        head_size = config.d_model // config.n_heads
        shape = (config.n_layers, batch_size, 2, config.n_heads, capacity, head_size)
        self._hold(torch.empty(shape, device=device, dtype=dtype))

    def _hold(self, both: Tensor) -> None:
        self.both = both
        self.capacity = both.shape[4]
        self.length = 0  # tokens every layer holds; the model moves it on after its last layer

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store the new (B, H, T, D) keys and values of one layer and return all of them, (B, H, S, D)."""
        end = self.length + keys.shape[2]
        known = self.both[layer]  # (B, 2, H, capacity, D)
        known[:, 0, :, self.length : end] = keys
        known[:, 1, :, self.length : end] = values
        return known[:, 0, :, :end], known[:, 1, :, :end]

    def row(self, i: int) -> "KeyValueCache":
        """The cache of one row alone, in the same memory, with a length of its own."""
        alone = object.__new__(KeyValueCache)
        alone._hold(self.both[:, i : i + 1])
        return alone

    def take(self, other: "KeyValueCache", length: int) -> None:
        """Hold the first `length` tokens that another cache of the same model holds."""
        self.both[..., :length, :] = other.both[..., :length, :]
        self.length = length


class MultiHeadAttention(nn.Module):
    """Each token looks at itself and the tokens before it, once per head (Vaswani et al. 2017, section 3.2)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.dropout = config.dropout
        self.c_attn = nn.Linear(config.d_model, 3 * config.d_model)  # queries, keys and values in one product
        self.c_proj = nn.Linear(config.d_model, config.d_model)
        self.resid_dropout = nn.Dropout(config.dropout)

    def forward(
        self, x: Tensor, cache: KeyValueCache | None = None, layer: int = 0, segments: Segments | None = None
    ) -> Tensor:
        """(B, T, C) to (B, T, C). With a cache, x continues what it holds; with segments, it is texts in a row."""
        B, T, C = x.shape
        heads = (B, T, self.n_heads, C // self.n_heads)
        q, k, v = (part.view(heads).transpose(1, 2) for part in self.c_attn(x).split(C, dim=2))  # (B, H, T, D)
        if cache is not None:
            k, v = cache.extend(layer, k, v)  # (B, H, S, D)
        y = self._attend(q, k, v) if segments is None else self._attend_in_segments(q, k, v, segments)  # (B, H, T, D)
        y = y.transpose(1, 2).reshape(B, T, C)  # (B, T, C)
        return self.resid_dropout(self.c_proj(y))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Queries (B, H, T, D) of the last T of S tokens, keys and values (B, H, S, D), to (B, H, T, D)."""
        T, S = q.shape[2], k.shape[2]
        return F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=_continuation_mask(T, S, q.device),
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=T > 1 and T == S,
        )

    def _attend_in_segments(self, q: Tensor, k: Tensor, v: Tensor, segments: Segments) -> Tensor:
        """The same, all (B, H, T, D): each segment sees itself, and all that the one sees that it goes on from."""
        lengths = [length for length, _ in segments]
        queries, keys, values = (list(part.split(lengths, dim=2)) for part in (q, k, v))
        for i, (_, before) in enumerate(segments):
            if before is not None:
                keys[i] = torch.cat([keys[before], keys[i]], dim=2)
                values[i] = torch.cat([values[before], values[i]], dim=2)
        return torch.cat([self._attend(*part) for part in zip(queries, keys, values, strict=True)], dim=2)


def _continuation_mask(new: int, seen: int, device: torch.device) -> Tensor | None:
    """True where a new token may look, (T, S); None where `is_causal` or no mask says the same.

    `is_causal` aligns the triangle top left, so it is wrong as soon as the cache holds earlier tokens.
    """
    if new == seen or new == 1:
        return None
    return torch.ones(new, seen, dtype=torch.bool, device=device).tril(seen - new)
