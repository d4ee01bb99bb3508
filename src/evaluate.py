"""python -m src.evaluate: how well a model predicts a text, as loss, perplexity, and bits per byte.

A window moves over the text by --stride tokens, and each token is predicted once, from what the window holds before it.
A smaller stride leaves more before each token and takes longer. Perplexities compare only where text, tokenizer,
context and stride are the same; bits per byte need no same tokenizer, but one that loses nothing, as GPT-2's.
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from tqdm import tqdm

from src.chat.start import MODELS, naming_file
from src.checkpoint import load_base
from src.cli import flag, parse
from src.data.shakespeare import SHAKESPEARE_PATH, ensure_shakespeare
from src.data.text import TokenArray, load_tokens
from src.model.generate import TextGenerator
from src.model.gpt import GPTModel
from src.model.quantize import quantize_int8
from src.program import run_script
from src.runtime import choose_runtime, keep_freed_memory
from src.tokenizer import encoding_fingerprint

BATCH_TOKENS = 2048  # read at once
HEAD_ROWS = 512  # positions whose logits exist at once


@dataclass(frozen=True, kw_only=True)
class Config:
    model: str = flag("auto", f"auto (the first of {', '.join(MODELS)} that is there), one of these, or a path")
    data: Path = flag(SHAKESPEARE_PATH, "text file in UTF-8; Shakespeare's works are fetched if they are not there")
    val_fraction: float = flag(0.1, "share of the text that is read, its end; 1 reads all")
    context_length: int | None = flag(None, "tokens in a window (default: the model's context)")
    stride: int | None = flag(None, "tokens that the window moves by (default: half of it)")
    quantize: Literal["none", "int8"] = flag("none", "int8: the model in 8 bits, on the CPU")
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


def windows(tokens: int, context_length: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """(first, new, end) of each window: it holds the tokens first..end-1 and predicts those from `new` on.

    The convention of Hugging Face's guide to perplexity; the text's first token is predicted by none.
    """
    new = 1
    for first in range(0, tokens, stride):
        end = min(first + context_length, tokens)
        yield first, new, end
        if end == tokens:
            return
        new = end


@torch.no_grad()
def text_loss(model: GPTModel, ids: TokenArray, context_length: int, stride: int) -> float:
    """The mean cross-entropy in nats of all tokens but the first, each from the window that first holds it.

    Raises ValueError for lengths that do not fit the text, the model or each other.
    """
    if len(ids) < 2:
        raise ValueError(f"a text of {len(ids)} tokens leaves none to predict; read more of it, or give a longer one")
    check_lengths(model, context_length, stride)
    total, rows = 0.0, max(1, BATCH_TOKENS // context_length)
    ahead = list(windows(len(ids), context_length, stride))
    with model.evaluating():
        for start in tqdm(range(0, len(ahead), rows), unit="batch", leave=False, disable=None):
            total += _loss_sum(model, ids, ahead[start : start + rows])
    return total / (len(ids) - 1)


def check_lengths(model: GPTModel, context_length: int, stride: int) -> None:
    """Raises ValueError where windows do not fit the model, or where tokens would lie between two of them."""
    if not 1 < context_length <= model.config.context_length:
        most = model.config.context_length
        raise ValueError(f"--context-length must be from 2 to the model's {most}, got {context_length}")
    if not 0 < stride < context_length:
        raise ValueError(f"--stride must be below the window's {context_length} tokens and at least 1, got {stride}")


def _loss_sum(model: GPTModel, ids: TokenArray, some: Sequence[tuple[int, int, int]]) -> float:
    """The cross-entropies of what some windows predict, added up. The text's last window may be a shorter one."""
    device = model.wpe.weight.device
    longest = max(end - first for first, _, end in some)
    texts = torch.zeros(len(some), longest, dtype=torch.long)
    for row, (first, _, end) in zip(texts, some, strict=True):
        row[: end - first] = torch.from_numpy(ids[first:end].astype("int64"))
    counted = torch.zeros(len(some), longest - 1, dtype=torch.bool)
    for row, (first, new, end) in zip(counted, some, strict=True):
        row[new - first - 1 : end - first - 1] = True
    hidden = model.hidden_states(texts[:, :-1].to(device))[counted.to(device)]
    targets = texts[:, 1:][counted].to(device)
    pieces = zip(hidden.split(HEAD_ROWS), targets.split(HEAD_ROWS), strict=True)
    return sum(float(F.cross_entropy(model.head(h).float(), t, reduction="sum")) for h, t in pieces)


def read_text(flags: Config, encoding: Any) -> TokenArray:
    """The ids of the part of the text that is to be read."""
    if flags.data == SHAKESPEARE_PATH:
        ensure_shakespeare(flags.data)
    ids = load_tokens(flags.data, encoding, encoding_fingerprint(encoding))
    return ids[len(ids) - round(len(ids) * flags.val_fraction) :]


def main(argv: Sequence[str] | None = None) -> int:
    flags, _ = parse(Config, argv, __doc__)
    keep_freed_memory()
    base = load_base(flags.model, MODELS)
    in_8_bits = flags.quantize == "int8"
    device = choose_runtime("cpu" if in_8_bits else flags.device, "fp32").device
    with naming_file(base.path):  # where the tokenizer has ids that the model lacks
        model = TextGenerator(quantize_int8(base.model) if in_8_bits else base.model, base.encoding, device).model
    context_length = flags.context_length or model.config.context_length
    stride = flags.stride or max(1, context_length // 2)
    check_lengths(model, context_length, stride)
    ids, start = read_text(flags, base.encoding), time.perf_counter()
    part = "all" if flags.val_fraction == 1 else f"the last {100 * flags.val_fraction:g}%"
    print(f"text     {part} of it: {len(ids):,} tokens")
    print(f"model    {base.path}, {base.reason}, on {device}" + ", in 8 bits" * in_8_bits)
    print(f"windows  of {context_length} tokens, {stride} apart", flush=True)
    loss = text_loss(model, ids, context_length, stride)
    perplexity = torch.tensor(loss, dtype=torch.float64).exp()  # which may be infinite
    found = [f"{loss:.4f} nats a token", f"perplexity {perplexity:,.2f}"]
    if base.encoding.name == "gpt2":
        size = len(base.encoding.decode_bytes(ids[1:].tolist()))
        found.append(f"{loss * (len(ids) - 1) / math.log(2) / size:.4f} bits a byte")
    print("loss     " + " | ".join([*found, f"{time.perf_counter() - start:.1f} s"]))
    return 0


if __name__ == "__main__":
    run_script(main, out_of_memory="lower --context-length, use a smaller model, or --quantize int8")
