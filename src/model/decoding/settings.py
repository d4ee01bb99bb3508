"""The options of sampling, each declared once: the keywords of `TextGenerator`, the flags and commands of the chats and
the Semantic Kernel settings follow from them.

To add an option, declare its field here and add its `if` to `candidates` in sampling.py. Imports no PyTorch, so that a
chat can check its flags at once.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

from src.common.checks import is_count, is_number


def option(
    default: Any, help: str, *, is_valid: Callable[[Any], bool], expected: str, aliases: tuple[str, ...] = ()
) -> Any:
    """A dataclass field that is an option of generation.

    help: text for --help and /help. is_valid: whether a value is allowed. expected: the allowed values, for error
    messages. aliases: other names of its flag and of its chat command.
    """
    return field(
        default=default, metadata={"help": help, "is_valid": is_valid, "expected": expected, "aliases": aliases}
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
        is_valid=lambda value: is_number(value) and value >= 0,
        expected="a finite number, 0 or higher",
        aliases=("temp",),
    )
    top_k: int | None = option(
        None,
        "sample from this many of the most likely tokens; none disables it",
        is_valid=lambda value: value is None or is_count(value),
        expected="a whole number of at least 1, or None to disable it",
        aliases=("topk",),
    )
    top_p: float | None = option(
        None,
        "sample from the most likely tokens that add up to this probability; none disables it",
        is_valid=lambda value: value is None or (is_number(value) and 0 < value <= 1),
        expected="above 0 and at most 1, or None to disable it",
        aliases=("topp",),
    )
    min_p: float | None = option(
        None,
        "sample from the tokens that have at least this fraction of the top probability; none disables it",
        is_valid=lambda value: value is None or (is_number(value) and 0 <= value <= 1),
        expected="from 0 to 1, or None to disable it",
        aliases=("minp",),
    )
    repetition_penalty: float = option(
        1.0,
        "above 1 makes tokens that already occurred less likely",
        is_valid=lambda value: is_number(value) and value > 0,
        expected="a number above 0",
        aliases=("penalty",),
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
