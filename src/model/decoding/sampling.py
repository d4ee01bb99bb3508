"""From logits to the next token: the settings a person turns, checked once, and the filters in the order they apply.

V vocabulary.
"""

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from src.common.checks import is_count, is_number


@dataclass(frozen=True)
class SamplingSettings:
    """How the next token is chosen. `None` switches a filter off.

    temperature: 0 takes the most likely token; below 1 sharpens, above 1 flattens.
    top_k: only the k most likely tokens. top_p: only the smallest set of tokens that holds this probability
    (Holtzman et al. 2020). repetition_penalty: above 1 makes tokens already seen less likely (Keskar et al. 2019).

    Raises ValueError naming every bad value at once.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        problems = []
        if not is_number(self.temperature) or self.temperature < 0:
            problems.append(f"temperature must be a number of at least 0, got {self.temperature!r}")
        if self.top_k is not None and not is_count(self.top_k):
            problems.append(f"top_k must be a whole number of at least 1, or None for off, got {self.top_k!r}")
        if self.top_p is not None and not (is_number(self.top_p) and 0 < self.top_p <= 1):
            problems.append(f"top_p must be above 0 and at most 1, or None for off, got {self.top_p!r}")
        if not is_number(self.repetition_penalty) or self.repetition_penalty <= 0:
            problems.append(f"repetition_penalty must be a number above 0, got {self.repetition_penalty!r}")
        if problems:
            raise ValueError("; ".join(problems))

    @property
    def top_logits_needed(self) -> int | None:
        """So many of the largest logits decide which token comes and with what chance; None: all of them do."""
        if self.repetition_penalty != 1.0:
            return None
        return 1 if self.temperature == 0 else self.top_k


def candidates(logits: Tensor, seen: Collection[int], settings: SamplingSettings) -> tuple[Tensor, Tensor]:
    """The tokens that may come next and their probabilities: float32 logits (V,) to ids (n,) and probabilities (n,).

    `seen` are the ids that the repetition penalty applies to. The order of the filters is that of Hugging Face:
    penalty, temperature, top_k, top_p. The most likely token is always kept.
    """
    if settings.repetition_penalty != 1.0:
        logits = penalise_repetition(logits, torch.tensor(sorted(seen)), settings.repetition_penalty)
    if settings.temperature == 0:
        return logits.argmax().view(1), torch.ones(1)
    if settings.top_k is None and settings.top_p is None:
        return torch.arange(len(logits)), torch.softmax(_apply_temperature(logits, settings.temperature), dim=0)
    kept, ids = logits.topk(min(settings.top_k or len(logits), len(logits)))  # highest first
    probabilities = torch.softmax(_apply_temperature(kept, settings.temperature), dim=0)
    if settings.top_p is not None and settings.top_p < 1:  # 1 keeps all; rounding must not drop any
        before = probabilities.cumsum(0) - probabilities
        n = max(1, int((before < settings.top_p).sum()))  # the token that crosses top_p stays
        ids, probabilities = ids[:n], probabilities[:n] / probabilities[:n].sum()
    return ids, probabilities


def penalise_repetition(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Logits (V,) with those of the ids `seen` divided by the penalty if positive and multiplied if negative.

    Dividing a negative logit would make the token more likely.
    """
    scores = logits[seen]
    return logits.index_copy(0, seen, torch.where(scores > 0, scores / penalty, scores * penalty))


def _apply_temperature(logits: Tensor, temperature: float) -> Tensor:
    """logits / temperature, measured from the largest one so that a tiny temperature cannot overflow."""
    return (logits - logits.max()).double().div(temperature).float()
