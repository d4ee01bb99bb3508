"""The loss of a text under a model: sliding windows, as in Hugging Face's guide to perplexity."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from src.data.split import token_bytes
from src.data.text import TokenArray
from src.model.gpt import GPTModel
from src.tokenizer.protocols.interfaces import Encoding, WordEncoding

BATCH_TOKENS = 2048  # tokens per forward pass
HEAD_ROWS = 512  # positions whose logits are in memory together


@dataclass(frozen=True)
class Result:
    """The loss of a model on a text. perplexity is inf if it overflows; bits_per_byte None for a lossy tokenizer."""

    model: str
    tokens: int
    predicted_tokens: int
    context_length: int
    stride: int
    loss: float
    perplexity: float
    bits_per_byte: float | None
    seconds: float


def measure_text(
    name: str, model: GPTModel, encoding: Encoding, ids: TokenArray, *, context_length: int, stride: int
) -> Result:
    """The loss of a text under a model, with perplexity and bits per byte. Raises ValueError as `text_loss` does."""
    start = time.perf_counter()
    loss = text_loss(model, ids, context_length, stride)
    seconds = time.perf_counter() - start
    spans = list(windows(len(ids), context_length, stride))
    return Result(
        model=name,
        tokens=len(ids),
        predicted_tokens=sum(end - first for _, first, end in spans),
        context_length=context_length,
        stride=stride,
        loss=loss,
        perplexity=float(torch.tensor(loss, dtype=torch.float64).exp()),
        bits_per_byte=bits_per_byte(loss, ids, encoding, spans),
        seconds=seconds,
    )


@torch.no_grad()
def text_loss(model: GPTModel, ids: TokenArray, context_length: int, stride: int) -> float:
    """The mean cross-entropy per predicted token, in nats. ids: shape (tokens,).

    Each token but the first is predicted once, in its first window. If the stride is as long as the context, the first
    token of each window is not predicted.
    Raises ValueError if the text is too short, or if the lengths do not fit the model or each other.
    """
    if len(ids) < 2:
        raise ValueError(f"the text needs at least 2 tokens, got {len(ids)}; raise --val-fraction or use a longer text")
    check_lengths(model, context_length, stride)
    loss_sum, batch_size = 0.0, max(1, BATCH_TOKENS // context_length)
    spans = list(windows(len(ids), context_length, stride))
    with model.evaluating():
        for i in tqdm(range(0, len(spans), batch_size), unit="batch", leave=False, disable=None):
            loss_sum += _loss_sum(model, ids, spans[i : i + batch_size])
    return loss_sum / sum(end - first for _, first, end in spans)


def windows(n_tokens: int, context_length: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """Yields (start, first_target, end) for each window: ids[start:end], of which ids[first_target:end] are targets.

    As in Hugging Face's guide to perplexity. The first token of a window has no context, so it is never a target.
    """
    first_target = 1
    for start in range(0, n_tokens, stride):
        end = min(start + context_length, n_tokens)
        if (first := max(first_target, start + 1)) < end:
            yield start, first, end
        if end == n_tokens:
            return
        first_target = end


def check_lengths(model: GPTModel, context_length: int, stride: int) -> None:
    """Raises ValueError if a window does not fit the model, or if the windows would skip tokens."""
    if not 1 < context_length <= (limit := model.config.context_length):
        raise ValueError(f"--context-length must be from 2 to the model's {limit}, got {context_length}")
    if not 0 < stride <= context_length:
        raise ValueError(f"--stride must be from 1 to the window's {context_length} tokens, got {stride}")


def _loss_sum(model: GPTModel, ids: TokenArray, spans: Sequence[tuple[int, int, int]]) -> float:
    """Summed cross-entropy of the targets in a batch of windows. The last window of the text may be shorter."""
    sequences = [(ids[start:end], first_target - start) for start, first_target, end in spans]
    chunks = target_logits(model, sequences)
    return sum(float(F.cross_entropy(logits, targets, reduction="sum")) for logits, targets in chunks)


def target_logits(
    model: GPTModel, sequences: Sequence[tuple[TokenArray, int]]
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yields (logits in float32 (N, V), targets (N,)) of a batch, for up to HEAD_ROWS targets at a time.

    sequences: token ids, and the index of the first target, at least 1. All ids from there on are targets.
    """
    device = model.wpe.weight.device
    longest = max(len(ids) for ids, _ in sequences)
    tokens = torch.zeros(len(sequences), longest, dtype=torch.long)  # (B, T), padded on the right
    is_target = torch.zeros(len(sequences), longest - 1, dtype=torch.bool)  # whether the next token is a target
    for row, (ids, first_target) in enumerate(sequences):
        tokens[row, : len(ids)] = torch.from_numpy(ids.astype("int64"))
        is_target[row, first_target - 1 : len(ids) - 1] = True
    hidden = model.hidden_states(tokens[:, :-1].to(device))[is_target.to(device)]  # (targets, C)
    targets = tokens[:, 1:][is_target].to(device)
    for h, t in zip(hidden.split(HEAD_ROWS), targets.split(HEAD_ROWS), strict=True):
        yield model.head(h).float(), t


def bits_per_byte(
    loss: float, ids: TokenArray, encoding: Encoding, spans: Sequence[tuple[int, int, int]]
) -> float | None:
    """The loss over the bytes of the predicted tokens. None for the word tokenizer, which does not keep all bytes."""
    if isinstance(encoding, WordEncoding):
        return None
    lengths = token_bytes(encoding)
    n_bytes = sum(int(lengths[np.asarray(ids[first:end]).astype("int64")].sum()) for _, first, end in spans)
    return loss * sum(end - first for _, first, end in spans) / math.log(2) / n_bytes if n_bytes else None


def finite(perplexity: float | None) -> float | None:
    """None, which is null in JSON, for a perplexity that overflows."""
    return perplexity if perplexity is not None and math.isfinite(perplexity) else None


def print_result(result: Result) -> None:
    """Print the figures in one line."""
    parts = [f"{result.loss:.4f} nats per token", f"perplexity {result.perplexity:,.2f}"]
    if result.bits_per_byte is not None:
        parts.append(f"{result.bits_per_byte:.4f} bits per byte")
    print("loss     " + " | ".join([*parts, f"{result.seconds:.1f} s"]))
