"""The answers to exercises 1 to 14, explained in attention.md. Try the exercises first.

B batch, T tokens, S tokens attended to, C channels of the model, H heads, D channels of a head.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn


def dot_product(a: Tensor, b: Tensor) -> Tensor:
    """The sum of the products of two vectors, (D,) and (D,): one number, a tensor of shape ()."""
    return (a * b).sum()


def score_matrix(queries: Tensor, keys: Tensor) -> Tensor:
    """The dot product of every query (T, D) with every key (S, D): (T, S), row t for query t."""
    return queries @ keys.T


def scaled_scores(queries: Tensor, keys: Tensor) -> Tensor:
    """All dot products divided by the square root of D: (..., T, D) and (..., S, D) to (..., T, S)."""
    return queries @ keys.transpose(-2, -1) / math.sqrt(queries.shape[-1])


def softmax(scores: Tensor) -> Tensor:
    """Weights, none negative, that sum to 1 along the last dimension: (..., S) to (..., S)."""
    exponentials = torch.exp(scores - scores.amax(dim=-1, keepdim=True))
    return exponentials / exponentials.sum(dim=-1, keepdim=True)


def weighted_sum(weights: Tensor, values: Tensor) -> Tensor:
    """For every row of weights (..., T, S), the weighted sum of the values (..., S, D): (..., T, D)."""
    return weights @ values


def self_attention(x: Tensor, w_query: Tensor, w_key: Tensor, w_value: Tensor) -> Tensor:
    """Self-attention of the tokens x (T, C) without a mask: (T, D). The three matrices are (C, D), used as x @ w."""
    weights = softmax(scaled_scores(x @ w_query, x @ w_key))  # (T, T)
    return weighted_sum(weights, x @ w_value)


def causal_mask(n_tokens: int) -> Tensor:
    """True where the row's token may look at the column's token: bool, (T, T)."""
    return torch.ones(n_tokens, n_tokens, dtype=torch.bool).tril()


def causal_weights(scores: Tensor) -> Tensor:
    """Attention weights of scores (..., T, T): 0 for later tokens, and each row sums to 1."""
    allowed = causal_mask(scores.shape[-1])
    return softmax(scores.masked_fill(~allowed, -math.inf))


def newest_token_attention(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attention of the newest token, (D,), from its query (D,) and the keys and values (S, D) of all tokens so far."""
    weights = softmax(scaled_scores(query[None], keys))  # (1, S)
    return weighted_sum(weights, values)[0]  # (D,)


def split_heads(x: Tensor, n_heads: int) -> Tensor:
    """Split the channels into consecutive heads: (B, T, C) to (B, H, T, D), with C = H * D."""
    B, T, C = x.shape
    return x.view(B, T, n_heads, C // n_heads).transpose(1, 2)


def merge_heads(y: Tensor) -> Tensor:
    """Put the heads of each token side by side again: (B, H, T, D) to (B, T, C), with C = H * D."""
    B, H, T, D = y.shape
    return y.transpose(1, 2).reshape(B, T, H * D)


def multi_head_attention(x: Tensor, c_attn: nn.Linear, c_proj: nn.Linear, n_heads: int) -> Tensor:
    """GPT-2's causal self-attention, without dropout: (B, T, C) to (B, T, C)."""
    q, k, v = (split_heads(part, n_heads) for part in c_attn(x).split(x.shape[2], dim=2))  # (B, H, T, D)
    weights = causal_weights(scaled_scores(q, k))  # (B, H, T, T)
    return c_proj(merge_heads(weighted_sum(weights, v)))


def order_gap(attention: Callable[[Tensor], Tensor], x: Tensor, order: Tensor) -> float:
    """The largest absolute difference between attention of reordered tokens and the reordered attention."""
    return (attention(x[order]) - attention(x)[order]).abs().max().item()


def cached_attention(
    q: Tensor, k: Tensor, v: Tensor, cached_keys: Tensor, cached_values: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Causal attention of T new tokens (B, H, T, D) that follow S cached ones; also all keys and all values."""
    keys = torch.cat([cached_keys, k], dim=2)  # (B, H, S + T, D)
    values = torch.cat([cached_values, v], dim=2)
    T, seen = q.shape[2], keys.shape[2]
    allowed = causal_mask(seen)[seen - T :]  # the last T rows of the square causal mask
    scores = scaled_scores(q, keys).masked_fill(~allowed, -math.inf)  # (B, H, T, S + T)
    return weighted_sum(softmax(scores), values), keys, values
