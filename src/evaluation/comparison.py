"""Several models on the same text: a table of their losses, and samples side by side."""

import shutil
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

from src.data.text import TokenArray
from src.evaluation.perplexity import Result
from src.model.generate import TextGenerator
from src.tokenizer import Encoding

PROMPTS, PROMPT_TOKENS, SAMPLE_TOKENS = 3, 12, 40
NAMES = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"  # of the models in the table


@dataclass(frozen=True)
class Sample:
    """A prompt, and how each model continues it."""

    prompt: str
    outputs: list[str]


def sample_prompts(ids: TokenArray, encoding: Encoding) -> list[str]:
    """Passages from the evaluated text, evenly spaced."""
    starts = sorted({len(ids) * i // PROMPTS for i in range(PROMPTS)})
    return [encoding.decode(np.asarray(ids[start : start + PROMPT_TOKENS]).tolist()) for start in starts]


def samples_of(generators: Sequence[TextGenerator], prompts: Sequence[str], seed: int) -> list[Sample]:
    """Every model's continuation of each prompt, with the same seed and settings."""
    settings = {"temperature": 0.8, "top_k": 40, "seed": seed}
    return [Sample(p, [each.generate(p, SAMPLE_TOKENS, **settings) for each in generators]) for p in prompts]


def print_comparison(results: Sequence[Result], samples: Sequence[Sample]) -> None:
    """A table with a row for each model, the differences from the first one, and the samples in columns."""
    print(f"\n{'':4}{'loss':>8} {'perplexity':>11} {'bits per byte':>14} {'against A':>10}  model")
    for name, each in zip(NAMES, results, strict=False):
        bits = "" if each.bits_per_byte is None else f"{each.bits_per_byte:.4f}"
        against = _difference(each, results[0])
        print(f"{name:4}{each.loss:8.4f} {each.perplexity:11,.2f} {bits:>14} {against:>10}  {each.model}")
    if len({each.tokens for each in results}) > 1:
        print("The tokenizers differ: compare only the bits per byte.")
    width = max(16, shutil.get_terminal_size().columns // len(results) - 2)
    for sample in samples:
        print(f"\nprompt: {' '.join(sample.prompt.split())}")
        columns = [
            textwrap.wrap(f"{name}: {' '.join(text.split())}", width)
            for name, text in zip(NAMES, sample.outputs, strict=False)
        ]
        for line in zip_longest(*columns, fillvalue=""):
            print("  ".join(part.ljust(width) for part in line).rstrip())


def _difference(result: Result, first: Result) -> str:
    """The relative difference in bits per byte, or in nats per token if there are none."""
    a, b = (first.bits_per_byte, result.bits_per_byte) if result.bits_per_byte else (first.loss, result.loss)
    return f"{100 * (b - a) / a:+.2f} %" if a and b and result is not first else ""
