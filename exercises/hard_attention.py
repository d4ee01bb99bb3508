"""Your answers to exercises 15 to 26: replace each `raise`. The tasks are in hard_attention_exercises.md.

Write in exercises/answers/hard_attention.py, a copy of this file: `python -m exercises.start` creates it.

B batch, T tokens, C channels, D head size, N tokens of the whole batch, V vocabulary; `...` any leading dimensions.
Answers have the dtype of their inputs: create new tensors with `x.new_zeros(shape)` and the like.
"""

import math  # noqa: F401

import torch  # noqa: F401
from torch import Tensor


def log_sum_exp(scores: Tensor) -> Tensor:
    """The logarithm of the sum of the exponentials over the last dimension: (..., S) to (...).

    Right for scores of any size. An entry of -inf adds nothing; a row of only -inf gives -inf.
    """
    raise NotImplementedError("exercise 15")


def softmax_backward(probabilities: Tensor, gradient: Tensor) -> Tensor:
    """The gradient of the scores (..., S) from the gradient (..., S) of their softmax, without an (S, S) matrix.

    probabilities: the softmax of the scores over the last dimension, (..., S).
    """
    raise NotImplementedError("exercise 16")


def attention_backward(
    queries: Tensor, keys: Tensor, values: Tensor, gradient: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of queries, keys and values, each (..., T, D), from the gradient (..., T, D) of the output.

    The output is that of causal attention with scores divided by sqrt(D). By hand: no autograd.
    """
    raise NotImplementedError("exercise 17")


def blockwise_attention(queries: Tensor, keys: Tensor, values: Tensor, block: int) -> Tensor:
    """Causal attention with scores divided by sqrt(D): queries, keys and values (..., T, D) to (..., T, D).

    Processes `block` keys and values at a time and creates no tensor larger than (..., T, max(D, block)).
    """
    raise NotImplementedError("exercise 18")


def chunked_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """The summed cross-entropy of the logits `hidden @ weight.T`, and its gradients: (), (N, C), (V, C).

    hidden (N, C), weight (V, C), targets int64 (N,). Logits exist for at most `rows` tokens at a time. No autograd.
    """
    raise NotImplementedError("exercise 19")


def tied_gradient(ids: Tensor, embedded_gradient: Tensor, hidden: Tensor, logits_gradient: Tensor) -> Tensor:
    """The gradient (V, C) of a matrix that embeds the ids (B, T) and is also the head, `hidden @ matrix.T`.

    embedded_gradient (B, T, C) and logits_gradient (B, T, V) are the gradients of the loss with respect to the
    embedded ids and to the logits; hidden is (B, T, C).
    """
    raise NotImplementedError("exercise 20")


def packed_inputs(lengths: list[int]) -> tuple[Tensor, Tensor]:
    """Mask (T, T) and positions (T,) for documents of these lengths, packed into one row of T tokens.

    mask[i, j] is True if token i may look at token j; positions are int64.
    """
    raise NotImplementedError("exercise 21")


def parameter_count(config: dict, tied: bool) -> int:
    """The number of parameters of a GPT-2 of this config, an entry of GPT_CONFIGS.

    tied: the output head is the token embedding; otherwise it is a separate (V, C) matrix without bias.
    """
    raise NotImplementedError("exercise 22")


def forward_flops(config: dict, batch_size: int, tokens: int) -> int:
    """FLOPs of the matrix products in one forward pass over (batch_size, tokens) ids, with logits for all tokens.

    A multiply-add is two FLOPs; a masked score costs as much as any other.
    """
    raise NotImplementedError("exercise 23")


def crossover_length(d_model: int, share: float) -> float:
    """The number of tokens, not always whole, at which scores and weighted sums are `share` of a block's multiply-adds.

    share is between 0 and 1. The block has the four projections of attention and an MLP of 4 * d_model channels.
    """
    raise NotImplementedError("exercise 24")


def cache_bytes(config: dict, batch_size: int, tokens: int, bytes_per_number: int, kv_heads: int | None = None) -> int:
    """Bytes of the KV cache of all layers for `batch_size` sequences of `tokens` tokens.

    kv_heads: the number of heads with keys and values of their own; None means all n_heads.
    """
    raise NotImplementedError("exercise 25")


def tokens_per_second(
    config: dict, batch_size: int, seen: int, *, bandwidth: float, compute: float, bytes_per_number: int
) -> float:
    """The upper limit of tokens per second for `batch_size` sequences together, one token each per decode step.

    seen: cached tokens that a step reads for each sequence, including the new one. bandwidth: bytes per second from
    memory. compute: FLOPs per second. Reading and computing overlap; the slower one sets the pace.
    """
    raise NotImplementedError("exercise 26")
