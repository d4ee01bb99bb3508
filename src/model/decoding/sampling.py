"""From logits to the next token: the sampling options, each declared once, and how they apply.

To add an option, declare its field here and add its `if` to `candidates`. Say there how many of the largest logits it
needs; if it needs more than top-k keeps, `top_logits_needed` must return None for it. The keywords of `TextGenerator`,
the flags and commands of the chats and the Semantic Kernel settings follow from the field.

V vocabulary, n candidates.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from src.common.checks import is_count, is_number


def option(default: Any, help: str, *, command: str, is_valid: Callable[[Any], bool], expected: str) -> Any:
    """A dataclass field that is an option of generation.

    help: text for --help and /help. command: the chat command that changes the option. is_valid: whether a value is
    allowed. expected: the allowed values, for error messages.
    """
    return field(
        default=default, metadata={"help": help, "command": command, "is_valid": is_valid, "expected": expected}
    )


def with_default(name: str, default: Any) -> Any:
    """The sampling option `name` with another default, for subclasses of SamplingSettings."""
    return field(default=default, metadata=SamplingSettings.__dataclass_fields__[name].metadata)


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """How the next token is chosen. None disables a filter.

    top_p is nucleus sampling (Holtzman et al. 2020), min_p is from Nguyen et al. (2024), and repetition_penalty
    from CTRL (Keskar et al. 2019).

    Raises ValueError naming every bad value at once; subclasses check their own options the same way.
    """

    temperature: float = option(
        1.0,
        "0 takes the most likely token, below 1 sharpens the distribution, above 1 flattens it",
        command="/temp",
        is_valid=lambda value: is_number(value) and value >= 0,
        expected="a number of at least 0",
    )
    top_k: int | None = option(
        None,
        "sample from this many most likely tokens; none disables it",
        command="/topk",
        is_valid=lambda value: value is None or is_count(value),
        expected="a whole number of at least 1, or None to disable it",
    )
    top_p: float | None = option(
        None,
        "sample from the most likely tokens that together have this probability; none disables it",
        command="/topp",
        is_valid=lambda value: value is None or (is_number(value) and 0 < value <= 1),
        expected="above 0 and at most 1, or None to disable it",
    )
    min_p: float | None = option(
        None,
        "sample from tokens with at least this fraction of the top token's probability; none disables it",
        command="/minp",
        is_valid=lambda value: value is None or (is_number(value) and 0 <= value <= 1),
        expected="from 0 to 1, or None to disable it",
    )
    repetition_penalty: float = option(
        1.0,
        "above 1 makes tokens that already occurred less likely",
        command="/penalty",
        is_valid=lambda value: is_number(value) and value > 0,
        expected="a number above 0",
    )

    def __post_init__(self) -> None:
        checked = (self.problem(name, getattr(self, name)) for name in self.__dataclass_fields__)
        if problems := [problem for problem in checked if problem]:
            raise ValueError("; ".join(problems))

    @classmethod
    def problem(cls, name: str, value: Any) -> str | None:
        """The reason why a field cannot have this value, or None."""
        declared = cls.__dataclass_fields__.get(name)
        if declared is None or "is_valid" not in declared.metadata or declared.metadata["is_valid"](value):
            return None
        return f"{name} must be {declared.metadata['expected']}, got {value!r:.100}"

    def sampling_options(self) -> dict[str, Any]:
        """The options of SamplingSettings alone, as keywords of `TextGenerator.stream`."""
        return {declared.name: getattr(self, declared.name) for declared in fields(SamplingSettings)}

    @property
    def top_logits_needed(self) -> int | None:
        """How many of the largest logits can affect the next token; None if all can. Same order as `candidates`."""
        if self.repetition_penalty != 1.0:
            return None
        if self.temperature == 0:
            return 1
        return self.top_k


def sample(logits: Tensor, seen: Collection[int], settings: SamplingSettings, generator: torch.Generator) -> int:
    """The id of the next token, drawn from the logits (V,); see `candidates`."""
    ids, probabilities = candidates(logits, seen, settings)
    if len(ids) == 1:
        return int(ids)
    return int(ids[torch.multinomial(probabilities, 1, generator=generator)])


def candidates(logits: Tensor, seen: Collection[int], settings: SamplingSettings) -> tuple[Tensor, Tensor]:
    """The possible next tokens and their probabilities: float32 logits (V,) to ids (n,) and probabilities (n,).

    `seen` are the ids that the repetition penalty applies to. The order is Hugging Face's: penalty, temperature,
    top-k, top-p, min-p. The most likely token always remains.
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
