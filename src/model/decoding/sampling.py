"""From logits to the next token: how the sampling options apply.

To add an option, declare its field in settings.py and add its `if` to `candidates`. Say there how many of the largest
logits it needs; if it needs more than top-k keeps, `top_logits_needed` must return None for it.

V vocabulary, n candidates.
"""

from collections.abc import Collection

import torch
from torch import Tensor

from src.model.decoding.settings import SamplingSettings

__all__ = ["SamplingSettings", "candidates", "penalise_repetition", "sample"]


def sample(logits: Tensor, seen: Collection[int], settings: SamplingSettings, generator: torch.Generator) -> int:
    """The id of the next token, drawn from the logits (V,); see `candidates`."""
    ids, probabilities = candidates(logits, seen, settings)
    if len(ids) == 1:
        return int(ids)
    return int(ids[torch.multinomial(probabilities, 1, generator=generator)])


def candidates(logits: Tensor, seen: Collection[int], settings: SamplingSettings) -> tuple[Tensor, Tensor]:
    """The possible next tokens and their probabilities: float32 logits (V,) to ids (n,) and probabilities (n,).

    `seen` are the ids that the repetition penalty applies to. The order is Hugging Face's: penalty, temperature,
    top-k, top-p, min-p. The most likely token always remains. The comment at each step says which logits it needs,
    because generation may compute only the largest ones exactly (`SamplingSettings.top_logits_needed`).
    """
    if settings.repetition_penalty != 1.0:  # needs all logits
        logits = penalise_repetition(logits, torch.tensor(sorted(seen)), settings.repetition_penalty)
    if settings.temperature == 0:  # needs the largest logit
        return logits.argmax().view(1), torch.ones(1)
    top_k, top_p, min_p = settings.top_k or len(logits), settings.top_p or 1.0, settings.min_p or 0.0
    if settings.top_k is None and top_p == 1 and min_p == 0:  # none of the filters below: needs all logits, unsorted
        return torch.arange(len(logits)), torch.softmax(_apply_temperature(logits, settings.temperature), dim=0)
    # Top-k needs the k largest logits. They are sorted, so each later filter keeps the first n.
    top_logits, ids = logits.topk(min(top_k, len(logits)))
    probabilities = torch.softmax(_apply_temperature(top_logits, settings.temperature), dim=0)
    if top_p < 1:  # needs what top-k keeps; top_p 1 keeps all, and rounding must not drop any
        ids, probabilities = _keep_first(_nucleus_size(probabilities, top_p), ids, probabilities)
    if min_p > 0:  # needs what top-k keeps
        n = int((probabilities >= min_p * probabilities[0]).sum())
        ids, probabilities = _keep_first(n, ids, probabilities)
    return ids, probabilities


def penalise_repetition(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Logits (V,) with those of the ids `seen` divided by the penalty if positive and multiplied if negative.

    Dividing a negative logit would make the token more likely.
    """
    scores = logits[seen]
    return logits.index_copy(0, seen, torch.where(scores > 0, scores / penalty, scores * penalty))


def _keep_first(n: int, ids: Tensor, probabilities: Tensor) -> tuple[Tensor, Tensor]:
    """The first n candidates, but at least one, with probabilities that sum to 1 again."""
    n = max(1, n)
    if n >= len(ids):
        return ids, probabilities
    return ids[:n], probabilities[:n] / probabilities[:n].sum()


def _nucleus_size(probabilities: Tensor, top_p: float) -> int:
    more_likely = probabilities.cumsum(0) - probabilities  # (n,), the probability of all tokens before each one
    return int((more_likely < top_p).sum())  # the token that crosses top_p stays


def _apply_temperature(logits: Tensor, temperature: float) -> Tensor:
    """logits / temperature, relative to the largest one so that a tiny temperature cannot overflow."""
    return (logits - logits.max()).double().div(temperature).float()
