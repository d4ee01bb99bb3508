"""What only the checks of exercises 15 to 26 need: answers that are tuples or counts, and the memory on the way."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

from exercises.checks.judging import require


def parts(where: str, answer: Any, count: int) -> tuple[Any, ...]:
    """The answer, if it is a tuple of `count` parts. Raises AssertionError with one sentence otherwise."""
    came = f"{len(answer)} parts" if isinstance(answer, tuple | list) else f"a {type(answer).__name__}"
    require(came == f"{count} parts", f"{where} came {came}, expected a tuple of {count} tensors")
    return tuple(answer)


def compare_number(where: str, answer: Any, expected: float, mistakes: Mapping[str, float]) -> None:
    """Raises AssertionError with one sentence unless the answer is the expected number; a known mistake is named."""
    is_number = isinstance(answer, int | float) and not isinstance(answer, bool)
    require(is_number, f"{where} came {'None' if answer is None else 'a ' + type(answer).__name__}, expected a number")
    hints = [f": {mistake}" for mistake, wrong in mistakes.items() if _is_close(answer, wrong)]
    if not _is_close(answer, expected):
        raise AssertionError(f"{where} came {_shown(answer)}, expected {_shown(expected)}{(hints or [''])[0]}")


def _is_close(answer: float, expected: float) -> bool:
    return math.isclose(answer, expected, rel_tol=1e-9)


def _shown(number: float) -> str:
    return f"{number:,.0f}" if number == int(number) else f"{number:,.6g}"


def require_small_tensors(where: str, call: Callable[[], Any], most: int, advice: str) -> None:
    """Raises AssertionError with one sentence if the call makes a tensor of more than `most` numbers on its way."""
    with _LargestTensor() as watch:
        call()
    made = f"made a tensor of shape {watch.shape} on the way, {watch.largest:,} numbers"
    require(watch.largest <= most, f"{where} the function {made}, where {most:,} are enough: {advice}")


class _LargestTensor(TorchFunctionMode):
    """Remembers the largest tensor that any torch function or method inside gave back."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0
        self.shape: tuple[int, ...] = ()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for part in made if isinstance(made, tuple | list) else [made]:
            if isinstance(part, Tensor) and part.numel() > self.largest:
                self.largest, self.shape = part.numel(), tuple(part.shape)
        return made
