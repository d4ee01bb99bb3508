"""The answers to exercises 15 to 26, explained in hard_attention.md. Try the exercises first.

B batch, T tokens, C channels, D head size, N tokens of the whole batch, V vocabulary; `...` any leading dimensions.
"""

import math

import torch
from torch import Tensor


def log_sum_exp(scores: Tensor) -> Tensor:
    """log(sum(exp(scores))) over the last dimension, (..., S) to (...)."""
    top = scores.amax(dim=-1, keepdim=True)
    top = top.masked_fill(top.isinf(), 0.0)  # -inf - -inf would be nan
    return (scores - top).exp().sum(dim=-1).log() + top.squeeze(-1)


def softmax_backward(probabilities: Tensor, gradient: Tensor) -> Tensor:
    """Gradient of the scores (..., S) from the gradient of their softmax (..., S)."""
    average = (probabilities * gradient).sum(dim=-1, keepdim=True)
    return probabilities * (gradient - average)


def attention_backward(
    queries: Tensor, keys: Tensor, values: Tensor, gradient: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values, each (..., T, D), from the gradient of the output."""
    T, D = queries.shape[-2:]
    scale = 1 / math.sqrt(D)
    masked = torch.ones(T, T, dtype=torch.bool, device=queries.device).triu(1)
    scores = queries @ keys.transpose(-2, -1) * scale  # (..., T, T)
    weights = scores.masked_fill(masked, -math.inf).softmax(dim=-1)
    grad_weights = gradient @ values.transpose(-2, -1)
    grad_scores = softmax_backward(weights, grad_weights) * scale
    grad_values = weights.transpose(-2, -1) @ gradient
    return grad_scores @ keys, grad_scores.transpose(-2, -1) @ queries, grad_values


def blockwise_attention(queries: Tensor, keys: Tensor, values: Tensor, block: int) -> Tensor:
    """Causal attention, (..., T, D), `block` keys at a time (Milakov and Gimelshein 2018; Dao et al. 2022)."""
    T, D = queries.shape[-2:]
    positions = torch.arange(T, device=queries.device)
    top = queries.new_full((*queries.shape[:-1], 1), -math.inf)  # largest score so far
    total = torch.zeros_like(top)  # sum of exp(score - top)
    weighted = torch.zeros_like(queries)  # sum of exp(score - top) * value
    for start in range(0, T, block):
        part = slice(start, start + block)
        scores = queries @ keys[..., part, :].transpose(-2, -1) / math.sqrt(D)  # (..., T, block)
        scores = scores.masked_fill(positions[part] > positions[:, None], -math.inf)
        new_top = torch.maximum(top, scores.amax(dim=-1, keepdim=True))
        shrink, weights = (top - new_top).exp(), (scores - new_top).exp()
        total = total * shrink + weights.sum(dim=-1, keepdim=True)
        weighted = weighted * shrink + weights @ values[..., part, :]
        top = new_top
    return weighted / total


def chunked_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """Summed cross-entropy of `hidden @ weight.T` and its gradients (N, C) and (V, C), `rows` tokens at a time."""
    loss = hidden.new_zeros(())
    grad_hidden, grad_weight = torch.zeros_like(hidden), torch.zeros_like(weight)
    for start in range(0, len(hidden), rows):
        part = slice(start, start + rows)
        logits = hidden[part] @ weight.T  # (rows, V)
        log_z = log_sum_exp(logits)[:, None]
        target = targets[part, None]
        loss += (log_z - logits.gather(1, target)).sum()
        grad_logits = (logits - log_z).exp()  # softmax
        grad_logits.scatter_add_(1, target, torch.full_like(log_z, -1.0))
        grad_hidden[part] = grad_logits @ weight
        grad_weight += grad_logits.T @ hidden[part]
    return loss, grad_hidden, grad_weight


def tied_gradient(ids: Tensor, embedded_gradient: Tensor, hidden: Tensor, logits_gradient: Tensor) -> Tensor:
    """Gradient (V, C) of a matrix used as token embedding and as output head."""
    as_head = logits_gradient.flatten(0, 1).T @ hidden.flatten(0, 1)  # (V, C)
    return as_head.index_add(0, ids.flatten(), embedded_gradient.flatten(0, 1))


def packed_inputs(lengths: list[int]) -> tuple[Tensor, Tensor]:
    """Mask (T, T), True where a token may look, and positions (T,), for documents packed into one row."""
    length = torch.tensor(lengths)
    start = length.cumsum(0) - length
    document = torch.arange(len(lengths)).repeat_interleave(length)  # (T,)
    index = torch.arange(len(document))
    mask = (document[:, None] == document) & (index[:, None] >= index)
    return mask, index - start[document]


def parameter_count(config: dict, tied: bool) -> int:
    """Number of parameters of a GPT-2 of this config."""
    C, V = config["d_model"], config["vocab_size"]
    attention = (C * 3 * C + 3 * C) + (C * C + C)
    mlp = (C * 4 * C + 4 * C) + (4 * C * C + C)
    layer_norm = 2 * C
    block = attention + mlp + 2 * layer_norm
    embeddings = V * C + config["context_length"] * C
    return embeddings + config["n_layers"] * block + layer_norm + (0 if tied else V * C)


def forward_flops(config: dict, batch_size: int, tokens: int) -> int:
    """FLOPs of the matrix products of one forward pass, two per multiply-add."""
    C = config["d_model"]
    linear = 4 * C * C + 8 * C * C  # c_attn and attention's c_proj; the MLP
    scores_and_sums = 2 * tokens * C
    per_token = config["n_layers"] * (linear + scores_and_sums) + config["vocab_size"] * C
    return 2 * batch_size * tokens * per_token


def crossover_length(d_model: int, share: float) -> float:
    """Tokens at which scores and weighted sums are `share` of a block's multiply-adds."""
    return 6 * d_model * share / (1 - share)


def cache_bytes(config: dict, batch_size: int, tokens: int, bytes_per_number: int, kv_heads: int | None = None) -> int:
    """Bytes of the KV cache of all layers."""
    head_size = config["d_model"] // config["n_heads"]
    width = head_size * (config["n_heads"] if kv_heads is None else kv_heads)
    return 2 * config["n_layers"] * batch_size * tokens * width * bytes_per_number


def tokens_per_second(
    config: dict, batch_size: int, seen: int, *, bandwidth: float, compute: float, bytes_per_number: int
) -> float:
    """The roofline of one decode step (Williams et al. 2009), in tokens per second."""
    C, V, layers = config["d_model"], config["vocab_size"], config["n_layers"]
    read_once = parameter_count(config, tied=True) - config["context_length"] * C
    step_bytes = read_once * bytes_per_number + cache_bytes(config, batch_size, seen, bytes_per_number)
    step_flops = 2 * batch_size * (layers * (12 * C * C + 2 * seen * C) + V * C)
    return batch_size / max(step_bytes / bandwidth, step_flops / compute)
