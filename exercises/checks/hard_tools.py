"""Helpers for the checks of exercises 15 to 26: tuples, counts, and the size of intermediate tensors."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

from exercises.checks.judging import kind_of, require


def parts(where: str, answer: Any, count: int) -> tuple[Any, ...]:
    """The answer, if it is a tuple of `count` parts; otherwise raises AssertionError."""
    require(answer is not None, f"{where}, got None: the function needs a return")
    got = f"{len(answer)} parts" if isinstance(answer, tuple | list) else kind_of(answer)
    require(got == f"{count} parts", f"{where}, got {got}, expected a tuple of {count} tensors")
    return tuple(answer)


def compare_number(where: str, answer: Any, expected: float, mistakes: Mapping[str, float]) -> None:
    """Raise AssertionError unless the answer is the expected number; the message names a known mistake."""
    is_number = isinstance(answer, int | float) and not isinstance(answer, bool)
    require(is_number, f"{where}, got {'None' if answer is None else kind_of(answer)}, expected a number")
    hints = [f": {mistake}" for mistake, wrong in mistakes.items() if _is_close(answer, wrong)]
    if not _is_close(answer, expected):
        raise AssertionError(f"{where}, got {_shown(answer)}, expected {_shown(expected)}{(hints or [''])[0]}")


def _is_close(answer: float, expected: float) -> bool:
    return math.isclose(answer, expected, rel_tol=1e-9)


def _shown(number: float) -> str:
    return f"{number:,.0f}" if number == int(number) else f"{number:,.6g}"


def require_small_tensors(where: str, call: Callable[[], Any], most: int, advice: str) -> None:
    """Raise AssertionError if the call creates an intermediate tensor of more than `most` numbers."""
    with _LargestTensor() as watch:
        call()
    made = f"creates a tensor of shape {watch.shape}, {watch.largest:,} numbers"
    require(watch.largest <= most, f"{where}, the function {made}, but {most:,} are enough: {advice}")


class _LargestTensor(TorchFunctionMode):
    """Records the largest tensor that a torch function or method returns inside the block."""

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
