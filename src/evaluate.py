"""python -m src.evaluate: loss, perplexity and bits per byte of a text under a model.

A window slides over the text by --stride tokens. Each token is predicted once, from the tokens before it in its window.
A smaller stride gives each token more context, and takes longer. Compare perplexities only if text, tokenizer, context
and stride are the same. Bits per byte can be compared across lossless tokenizers: GPT-2's and learned byte pairs.
"""

if __name__ == "__main__":  # at the top: see run_module
    from src.entry import run_module

    run_module("src.evaluate")

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from tqdm import tqdm

from src.checkpoint import MODEL_HELP, load_base
from src.cli import flag, parse
from src.common.messages import naming_file
from src.data.shakespeare import SHAKESPEARE_PATH
from src.data.split import split_tokens, token_bytes
from src.data.text import DOCUMENTS_HELP, TEXT_HELP, Documents, TokenArray, as_paths, load_tokens
from src.model.generate import TextGenerator
from src.model.gpt import GPTModel
from src.model.quantize import quantize_int8
from src.runtime import choose_runtime, keep_freed_memory
from src.tokenizer.protocols.interfaces import Encoding, WordEncoding

BATCH_TOKENS = 2048  # tokens per forward pass
HEAD_ROWS = 512  # positions whose logits are in memory together


@dataclass(frozen=True, kw_only=True)
class Flags:
    model: str = flag("auto", MODEL_HELP, path=True)
    data: Path | tuple[Path, ...] = flag(SHAKESPEARE_PATH, TEXT_HELP)
    documents: Documents = flag(None, DOCUMENTS_HELP)
    val_fraction: float = flag(0.1, "share of the text to evaluate, counted from its end; 1 is all of it")
    context_length: int | None = flag(None, "tokens in a window (default: the model's context)")
    stride: int | None = flag(None, "tokens that the window moves by (default: half the window)")
    quantize: Literal["none", "int8"] = flag("none", "int8: quantize the weights to 8 bits, on the CPU")
    device: Literal["auto", "cpu", "cuda", "mps"] = flag("auto", "where to compute")

    def __post_init__(self) -> None:
        problems = []
        if not 0 < self.val_fraction <= 1:
            problems.append(f"--val-fraction must be above 0 and at most 1, got {self.val_fraction:g}")
        if self.context_length is not None and self.context_length < 2:
            problems.append(f"--context-length must be at least 2, got {self.context_length}")
        if self.stride is not None and self.stride < 1:
            problems.append(f"--stride must be at least 1, got {self.stride}")
        if self.quantize == "int8" and self.device not in ("auto", "cpu"):
            problems.append(f"--quantize int8 is for the CPU; leave --device {self.device} out")
        if problems:
            raise ValueError("; ".join(problems))


def windows(n_tokens: int, context_length: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """Yields (start, first_target, end) for each window: ids[start:end], of which ids[first_target:end] are targets."""
    # The scheme of Hugging Face's perplexity guide. Token 0 is never a target.
    first_target = 1
    for start in range(0, n_tokens, stride):
        end = min(start + context_length, n_tokens)
        yield start, first_target, end
        if end == n_tokens:
            return
        first_target = end


@torch.no_grad()
def text_loss(model: GPTModel, ids: TokenArray, context_length: int, stride: int) -> float:
    """Mean cross-entropy per token in nats. Each token but the first is predicted once, in its first window.

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
    return loss_sum / (len(ids) - 1)


def check_lengths(model: GPTModel, context_length: int, stride: int) -> None:
    """Raises ValueError if a window does not fit the model, or if the windows would skip tokens."""
    if not 1 < context_length <= (limit := model.config.context_length):
        raise ValueError(f"--context-length must be from 2 to the model's {limit}, got {context_length}")
    if not 0 < stride < context_length:
        raise ValueError(f"--stride must be at least 1 and below the window's {context_length} tokens, got {stride}")


def _loss_sum(model: GPTModel, ids: TokenArray, spans: Sequence[tuple[int, int, int]]) -> float:
    """Summed cross-entropy of the targets in a batch of windows. The last window of the text may be shorter."""
    device = model.wpe.weight.device
    longest = max(end - start for start, _, end in spans)
    tokens = torch.zeros(len(spans), longest, dtype=torch.long)  # (B, T), padded on the right
    is_target = torch.zeros(len(spans), longest - 1, dtype=torch.bool)  # whether the next token is a target
    for row, (start, first_target, end) in enumerate(spans):
        tokens[row, : end - start] = torch.from_numpy(ids[start:end].astype("int64"))
        is_target[row, first_target - start - 1 : end - start - 1] = True
    hidden = model.hidden_states(tokens[:, :-1].to(device))[is_target.to(device)]  # (targets, C)
    targets = tokens[:, 1:][is_target].to(device)
    chunks = zip(hidden.split(HEAD_ROWS), targets.split(HEAD_ROWS), strict=True)
    return sum(float(F.cross_entropy(model.head(h).float(), t, reduction="sum")) for h, t in chunks)


def load_eval_tokens(flags: Flags, encoding: Encoding) -> TokenArray:
    """The token ids of the end of the text: the part that main.py keeps for validation."""
    ids = load_tokens(flags.data, encoding, flags.documents)
    return split_tokens(ids, encoding, flags.val_fraction)[1] if flags.val_fraction < 1 else ids


def print_result(loss: float, ids: TokenArray, encoding: Encoding, seconds: float) -> None:
    perplexity = torch.tensor(loss, dtype=torch.float64).exp()  # inf if it overflows
    parts = [f"{loss:.4f} nats per token", f"perplexity {perplexity:,.2f}"]
    if not isinstance(encoding, WordEncoding):  # it does not keep all bytes
        n_bytes = int(token_bytes(encoding)[ids[1:].astype("int64")].sum())
        parts.append(f"{loss * (len(ids) - 1) / math.log(2) / n_bytes:.4f} bits per byte")
    print("loss     " + " | ".join([*parts, f"{seconds:.1f} s"]))


def main(argv: Sequence[str] | None = None) -> int:
    flags, _ = parse(Flags, argv, __doc__)
    keep_freed_memory()
    base = load_base(flags.model)
    int8 = flags.quantize == "int8"
    device = choose_runtime("cpu" if int8 else flags.device, "fp32").device
    with naming_file(base.path):  # TextGenerator checks that the model has an embedding for every id of the tokenizer
        model = TextGenerator(quantize_int8(base.model) if int8 else base.model, base.encoding, device).model
    context_length = flags.context_length or model.config.context_length
    stride = flags.stride or max(1, context_length // 2)
    check_lengths(model, context_length, stride)
    ids, start = load_eval_tokens(flags, base.encoding), time.perf_counter()
    part = "all of it" if flags.val_fraction == 1 else f"the last {100 * flags.val_fraction:g}%"
    print(f"text     {' '.join(map(str, as_paths(flags.data)))}, {part}: {len(ids):,} tokens")
    print(f"model    {base.path}, {base.reason}, on {device}" + ", int8" * int8)
    print(f"windows  {context_length} tokens, stride {stride}", flush=True)
    loss = text_loss(model, ids, context_length, stride)
    print_result(loss, ids, base.encoding, time.perf_counter() - start)
    return 0
