"""python -m src.evaluate: loss, perplexity and bits per byte of a text under a model.

A window slides over the text by --stride tokens. Each token is predicted once, from the tokens before it in its window.
A smaller stride gives each token more context, and takes longer. Compare perplexities only if text, tokenizer, context
and stride are the same. Bits per byte can be compared across lossless tokenizers: GPT-2's and learned byte pairs.
"""

if __name__ == "__main__":  # at the top: see run_module
    from src.entry import run_module

    run_module("src.evaluate")

import json
import math
import os
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from src.checkpoint import MODEL_HELP, LoadedModel, load_base
from src.cli import flag, parse
from src.common.messages import naming_file
from src.data.shakespeare import SHAKESPEARE_PATH
from src.data.split import split_tokens
from src.data.text import DOCUMENTS_HELP, TEXT_HELP, Documents, TokenArray, as_paths, load_tokens
from src.evaluation.comparison import Sample, print_comparison, sample_prompts, samples_of
from src.evaluation.perplexity import Result, check_lengths, print_result, result_of, text_loss
from src.model.generate import TextGenerator
from src.model.quantize import quantize_int8
from src.runtime import choose_runtime, keep_freed_memory
from src.tokenizer import Encoding


@dataclass(frozen=True, kw_only=True)
class Flags:
    model: str = flag("auto", MODEL_HELP, path=True)
    compare: str | tuple[str, ...] | None = flag(None, "two or more models, as for --model: a table, and samples")
    data: Path | tuple[Path, ...] = flag(SHAKESPEARE_PATH, TEXT_HELP)
    documents: Documents = flag(None, DOCUMENTS_HELP)
    val_fraction: float = flag(0.1, "share of the text to evaluate, counted from its end; 1 is all of it")
    context_length: int | None = flag(None, "tokens in a window (default: the model's context)")
    stride: int | None = flag(None, "tokens that the window moves by (default: half the window)")
    quantize: Literal["none", "int8"] = flag("none", "int8: quantize the weights to 8 bits, on the CPU")
    device: Literal["auto", "cpu", "cuda", "mps"] = flag("auto", "where to compute")
    seed: int = flag(1, "seed of the samples of --compare")
    json: bool = flag(False, "print one JSON object and nothing else on stdout")

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
        if isinstance(self.compare, str):
            problems.append("--compare needs two models or more; for one, pass --model")
        if self.compare is not None and self.model != "auto":
            problems.append("pass --model or --compare, not both")
        if problems:
            raise ValueError("; ".join(problems))


def load_eval_tokens(flags: Flags, encoding: Encoding) -> TokenArray:
    """The token ids of the end of the text: the part that main.py keeps for validation."""
    ids = load_tokens(flags.data, encoding, flags.documents)
    return split_tokens(ids, encoding, flags.val_fraction)[1] if flags.val_fraction < 1 else ids


def main(argv: Sequence[str] | None = None) -> int:
    """Print the losses of the models that the flags name, as lines or as JSON; returns the exit code."""
    flags, _ = parse(Flags, argv, __doc__)
    keep_freed_memory()
    with redirect_stdout(sys.stderr) if flags.json else nullcontext():  # the data and the downloads print notes
        results, samples = evaluate_all(flags)
    if flags.json:
        print(json.dumps(_as_json(results, samples, flags), indent=1, allow_nan=False))
    elif flags.compare:
        print_comparison(results, samples)
    return 0


def evaluate_all(flags: Flags) -> tuple[list[Result], list[Sample]]:
    """The result of each model, and samples of all of them if --compare is given.

    The models of a comparison share the windows: the shortest of their contexts, unless --context-length is given.
    """
    names = flags.compare if isinstance(flags.compare, tuple) else (flags.model,)
    int8 = flags.quantize == "int8"
    device = choose_runtime("cpu" if int8 else flags.device, "fp32").device
    bases = [load_base(os.path.expanduser(name)) for name in names]
    generators = [_generator(base, int8, device) for base in bases]
    context_length = flags.context_length or min(each.model.config.context_length for each in generators)
    stride = flags.stride or max(1, context_length // 2)
    for generator in generators:
        check_lengths(generator.model, context_length, stride)
    results = []
    for base, generator in zip(bases, generators, strict=True):
        ids, start = load_eval_tokens(flags, base.encoding), time.perf_counter()
        part = "all of it" if flags.val_fraction == 1 else f"the last {100 * flags.val_fraction:g}%"
        print(f"text     {' '.join(map(str, as_paths(flags.data)))}, {part}: {len(ids):,} tokens")
        print(f"model    {base.path}, {base.reason}, on {device}" + ", int8" * int8)
        print(f"windows  {context_length} tokens, stride {stride}", flush=True)
        loss = text_loss(generator.model, ids, context_length, stride)
        results.append(
            result_of(str(base.path), base.encoding, ids, loss, (context_length, stride), time.perf_counter() - start)
        )
        print_result(results[-1])
    if len(names) == 1:
        return results, []
    return results, samples_of(generators, sample_prompts(ids, bases[-1].encoding), flags.seed)


def _generator(base: LoadedModel, int8: bool, device: torch.device) -> TextGenerator:
    with naming_file(base.path):  # TextGenerator checks that the model has an embedding for every id of the tokenizer
        return TextGenerator(quantize_int8(base.model) if int8 else base.model, base.encoding, device)


def _as_json(results: Sequence[Result], samples: Sequence[Sample], flags: Flags) -> dict[str, Any]:
    """All figures as one JSON object; a perplexity that overflows is null."""
    models = [
        {**asdict(each), "perplexity": each.perplexity if math.isfinite(each.perplexity) else None} for each in results
    ]
    text = {"data": [str(path) for path in as_paths(flags.data)], "val_fraction": flags.val_fraction}
    if len(models) == 1:
        return {**text, "quantize": flags.quantize, **models[0]}
    return {**text, "quantize": flags.quantize, "models": models, "samples": [asdict(each) for each in samples]}
