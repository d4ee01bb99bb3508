"""Worked answers to exercises 46 to 49, explained in generation.md. Try the exercises first.

T tokens, V vocabulary.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor


def temperature_softmax(logits: Tensor, temperature: float) -> Tensor:
    """The probabilities of the next token at a temperature: (V,) to (V,). Temperature 0: 1 for the largest logit."""
    if temperature == 0:
        probabilities = torch.zeros_like(logits)
        probabilities[logits.argmax()] = 1.0
        return probabilities
    return torch.softmax(logits / temperature, dim=-1)


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """The logits (V,) with all but the k largest set to -inf: (V,). If k is larger than V, all stay."""
    smallest_kept = logits.topk(min(k, len(logits))).values[-1]
    return logits.masked_fill(logits < smallest_kept, -math.inf)


def keep_top_p(probabilities: Tensor, p: float) -> Tensor:
    """Nucleus sampling: only the most likely tokens, which reach p together: (V,) to (V,)."""
    in_order, ids = probabilities.sort(descending=True)
    before = in_order.cumsum(0) - in_order  # (V,), the probability of all tokens that are more likely
    kept = torch.zeros_like(probabilities)
    kept[ids] = in_order.where(before < p, 0.0)  # back to the order of the vocabulary
    return kept / kept.sum()


def generate(
    model: Callable[[Tensor], Tensor], prompt: list[int], n_tokens: int, settings: dict, generator: torch.Generator
) -> list[int]:
    """Up to n_tokens new ids that continue the prompt; the prompt is not part of the result."""
    ids = list(prompt)
    for _ in range(n_tokens):
        window = torch.tensor([ids[-settings["context_length"] :]])  # (1, T)
        logits = keep_top_k(model(window)[0, -1], settings["top_k"])  # (V,)
        probabilities = keep_top_p(temperature_softmax(logits, settings["temperature"]), settings["top_p"])
        next_id = int(torch.multinomial(probabilities, 1, generator=generator))
        if next_id == settings["end_of_text"]:
            break
        ids.append(next_id)
    return ids[len(prompt) :]
