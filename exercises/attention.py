"""Your answers to exercises 1 to 14: replace each `raise`. The tasks are in attention_exercises.md.

Write in exercises/answers/attention.py, a copy of this file: `python -m exercises.start` creates it.

Later answers may call earlier ones. Check an answer with `python -m exercises.check 1`.

B batch, T tokens, S tokens attended to, C channels of the model, H heads, D channels of a head.
"""

import math  # noqa: F401
from collections.abc import Callable

import torch  # noqa: F401
from torch import Tensor, nn


def dot_product(a: Tensor, b: Tensor) -> Tensor:
    """The sum of the products of two vectors, (D,) and (D,): one number, a tensor of shape ()."""
    raise NotImplementedError("exercise 1")


def score_matrix(queries: Tensor, keys: Tensor) -> Tensor:
    """The dot product of every query (T, D) with every key (S, D): (T, S), row t for query t."""
    raise NotImplementedError("exercise 2")


def scaled_scores(queries: Tensor, keys: Tensor) -> Tensor:
    """All dot products divided by the square root of D: (..., T, D) and (..., S, D) to (..., T, S)."""
    raise NotImplementedError("exercise 3")


def softmax(scores: Tensor) -> Tensor:
    """Weights, none negative, that sum to 1 along the last dimension: (..., S) to (..., S).

    Use torch.exp, not torch.softmax. Scores may be of any size, and some may be -inf.
    """
    raise NotImplementedError("exercise 4")


def weighted_sum(weights: Tensor, values: Tensor) -> Tensor:
    """For every row of weights (..., T, S), the weighted sum of the values (..., S, D): (..., T, D)."""
    raise NotImplementedError("exercise 5")


def self_attention(x: Tensor, w_query: Tensor, w_key: Tensor, w_value: Tensor) -> Tensor:
    """Self-attention of the tokens x (T, C) without a mask: (T, D). The three matrices are (C, D), used as x @ w."""
    raise NotImplementedError("exercise 6")


def causal_mask(n_tokens: int) -> Tensor:
    """True where the row's token may look at the column's token: bool, (T, T)."""
    raise NotImplementedError("exercise 7")


def causal_weights(scores: Tensor) -> Tensor:
    """Attention weights of scores (..., T, T): 0 for later tokens, and each row sums to 1."""
    raise NotImplementedError("exercise 8")


def newest_token_attention(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attention of the newest token, (D,), from its query (D,) and the keys and values (S, D) of all tokens so far."""
    raise NotImplementedError("exercise 9")


def split_heads(x: Tensor, n_heads: int) -> Tensor:
    """Split the channels into consecutive heads: (B, T, C) to (B, H, T, D), with C = H * D."""
    raise NotImplementedError("exercise 10")


def merge_heads(y: Tensor) -> Tensor:
    """Put the heads of each token side by side again: (B, H, T, D) to (B, T, C), with C = H * D."""
    raise NotImplementedError("exercise 11")


def multi_head_attention(x: Tensor, c_attn: nn.Linear, c_proj: nn.Linear, n_heads: int) -> Tensor:
    """GPT-2's causal self-attention, without dropout: (B, T, C) to (B, T, C).

    c_attn gives queries, keys and values, in this order, in one product: C to 3 * C. c_proj is C to C.
    """
    raise NotImplementedError("exercise 12")


def order_gap(attention: Callable[[Tensor], Tensor], x: Tensor, order: Tensor) -> float:
    """How much attention depends on the order of the tokens x (T, C); `order` is a permutation, int64 (T,).

    The largest absolute difference between the attention of the reordered tokens and the reordered attention of the
    tokens. `attention` is a function from (T, C) to (T, D).
    """
    raise NotImplementedError("exercise 13")


def cached_attention(
    q: Tensor, k: Tensor, v: Tensor, cached_keys: Tensor, cached_values: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Causal attention of T new tokens that follow the S tokens of a cache.

    q, k and v of the new tokens are (B, H, T, D). The cached keys and values are (B, H, S, D); S may be 0. Returns the
    attention of the new tokens (B, H, T, D), then the keys and the values of all tokens, (B, H, S + T, D) each.
    """
    raise NotImplementedError("exercise 14")
