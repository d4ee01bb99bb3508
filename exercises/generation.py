"""Your answers to exercises 46 to 49: replace each `raise`. The tasks are in generation_exercises.md.

Write in exercises/answers/generation.py, a copy of this file: `python -m exercises.start` creates it.

Later answers may call earlier ones. Check an answer with `python -m exercises.check 46`.

T tokens, V vocabulary.
"""

import math  # noqa: F401
from collections.abc import Callable

import torch
from torch import Tensor


def temperature_softmax(logits: Tensor, temperature: float) -> Tensor:
    """The probabilities of the next token at a temperature: (V,) to (V,). Temperature 0: 1 for the largest logit."""
    raise NotImplementedError("exercise 46")


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """The logits (V,) with all but the k largest set to -inf: (V,). If k is larger than V, all stay."""
    raise NotImplementedError("exercise 47")


def keep_top_p(probabilities: Tensor, p: float) -> Tensor:
    """Nucleus sampling: the most likely tokens that reach p together, with probabilities that sum to 1: (V,) to (V,).

    All other tokens get the probability 0.
    """
    raise NotImplementedError("exercise 48")


def generate(
    model: Callable[[Tensor], Tensor], prompt: list[int], n_tokens: int, settings: dict, generator: torch.Generator
) -> list[int]:
    """Up to n_tokens new ids that continue the prompt; the prompt is not part of the result.

    model: from ids, int64 (1, T), to logits (1, T, V). settings: "temperature", "top_k", "top_p", "context_length" and
    "end_of_text", the id at which generation stops.
    """
    raise NotImplementedError("exercise 49")
