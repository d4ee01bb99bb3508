"""Shared by the checks: call an answer, compare its result, and describe a mistake in one sentence."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from itertools import permutations
from typing import Any, TypeVar

import torch
from torch import Tensor

from exercises.checks.forbidden import ForbiddenCallError

T = TypeVar("T")

TOLERANCE = 1e-6  # relative and absolute: float32 answers pass, a missing factor does not
SHOWN_CHARACTERS = 120  # of a list, a dict or bytes
SHOWN_VALUES = 12  # of all arguments together; larger tensors are shown by their shapes


class CallFailedError(Exception):
    """The answer raised an error, which is the cause; the message gives the arguments."""


def require(condition: bool, sentence: str) -> None:
    """Raise AssertionError with the sentence unless the condition holds."""
    if not condition:
        raise AssertionError(sentence)


def random(*shape: int, seed: int) -> Tensor:
    """Standard normal float64 values for a seed; the global random state is not touched."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def judge(
    function: Callable[..., Any],
    arguments: Mapping[str, Any],
    expected: Tensor,
    mistakes: Mapping[str, Tensor] | None = None,
) -> None:
    """Call the function with the arguments, in order, and compare its result with the expected tensor.

    `mistakes` maps the description of a common mistake to the answer it leads to; a match is added to the message.
    Raises AssertionError with one sentence: the arguments, what the function returned, and what was expected.
    """
    compare(given(arguments), call(function, arguments), expected, mistakes)


def call(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """Call the function on copies of the arguments and return its answer.

    Raises AssertionError if it changes an argument, and CallFailedError if the function raises.
    """
    copies = {name: _copy(value) for name, value in arguments.items()}
    try:
        answer = function(*copies.values())
    except ForbiddenCallError:
        raise
    except (Exception, SystemExit) as error:
        raise CallFailedError(given(arguments)) from error
    for name, value in arguments.items():
        if isinstance(value, Tensor):
            unchanged = value.shape == copies[name].shape and torch.equal(copies[name], value)
        else:
            unchanged = not isinstance(value, list | dict) or copies[name] == value
        require(unchanged, f"the call changed its argument {name}: leave the arguments unchanged")
    return answer


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else deepcopy(value) if isinstance(value, list | dict) else value


def compare(where: str, answer: Any, expected: Tensor, mistakes: Mapping[str, Tensor] | None = None) -> None:
    """Raise AssertionError with a sentence that starts with `where` unless the answer is the expected tensor."""
    answer = as_tensor(where, answer)
    if is_close(answer, expected):
        return
    hint = next((name for name, wrong in (mistakes or {}).items() if is_close(answer, wrong)), None)
    hint = hint or difference(answer, expected)
    ending = f": {hint}" if hint else ""
    if answer.shape != expected.shape:
        got, wanted = (shown(tensor).replace("of shape", "a tensor of shape") for tensor in (answer, expected))
        raise AssertionError(f"{where}, got {got}, expected {wanted}{ending}")
    place = worst_place(answer, expected)
    got, wanted = (shown(tensor[place]) for tensor in (answer, expected))
    at = f" at {list(place)}" if place else ""
    raise AssertionError(f"{where}, got {got}{at}, expected {wanted}{ending}")


def difference(answer: Tensor, expected: Tensor) -> str | None:
    """How the answer differs from the expected tensor, if it does so in a simple way that fits any task."""
    orders = permutations(range(answer.dim()))
    if any(is_close(answer.permute(order), expected) for order in orders):
        return "the dimensions are in the wrong order: transpose the result"
    if is_close(answer.flatten(), expected.flatten()):
        return "the numbers are right, but not the shape"
    if answer.shape != expected.shape or expected.numel() == 0:
        return None
    if answer.isnan().any() and not expected.isnan().any():
        return "NaN comes from inf - inf, inf / inf, 0 / 0 or 0 * inf"
    if is_close(answer, -expected.double()):
        return "the sign is wrong"
    place = worst_place(expected, torch.zeros_like(expected))
    factor = (answer[place].double() / expected[place]).item()
    times = expected.numel() > 1 and factor and is_close(answer, factor * expected.double())
    return f"every number is {factor:.4g} times the expected one" if times else None


def scale_mistakes(attend: Callable[[float], T], size: int) -> dict[str, T]:
    """The results of attention with wrongly scaled scores. attend: attention as a function of the factor of the scores.

    size: the channels of a query, D.
    """
    return {
        "the scores are not divided by the square root of D": attend(1.0),
        "the scores are divided by D, or twice by its square root: divide once by the square root": attend(1 / size),
        "the scores are multiplied by the square root of D: divide by it": attend(size**0.5),
    }


def as_tensor(where: str, answer: Any) -> Tensor:
    """The answer, detached. Raises AssertionError if it is not a tensor."""
    if answer is None:
        raise AssertionError(f"{where}, got None: the function needs a return")
    if not isinstance(answer, Tensor):
        raise AssertionError(f"{where}, got {kind_of(answer)}, expected a tensor")
    return answer.detach()


def kind_of(answer: Any) -> str:
    """The type of the answer with its article: 'an int', 'a float', 'a tensor'."""
    kind = "tensor" if isinstance(answer, Tensor) else type(answer).__name__
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def is_close(answer: Tensor, expected: Tensor) -> bool:
    """Same shape and same values, whatever the precision."""
    if answer.shape != expected.shape:
        return False
    return torch.allclose(answer.double(), expected.double(), rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)


def worst_place(answer: Tensor, expected: Tensor) -> tuple[int, ...]:
    """The index of the largest difference; NaN counts as the largest, equal infinities as none."""
    gap = (answer.double() - expected.double()).abs().masked_fill(answer == expected, 0.0)
    return tuple(int(index) for index in torch.unravel_index(gap.argmax(), gap.shape))


def given(arguments: Mapping[str, Any]) -> str:
    """The arguments as words: 'for scores [0.0, 1.0] and n_heads 2'."""
    values = sum(value.numel() for value in arguments.values() if isinstance(value, Tensor))
    named = [f"{name} {shown(value, in_full=values <= SHOWN_VALUES)}" for name, value in arguments.items()]
    return "for " + ", ".join(named[:-1]) + (" and " if named[1:] else "") + named[-1]


def shown(value: Any, *, in_full: bool = True) -> str:
    """A tensor as its values, or as its shape if it is large or not `in_full`; a function as its name."""
    if isinstance(value, bytes | list | tuple | dict):
        text = repr(dict(value) if isinstance(value, dict) else value)
        return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."
    if not isinstance(value, Tensor):
        return str(value) if isinstance(value, int | float | str) else getattr(value, "__name__", type(value).__name__)
    if not (in_full and 0 < value.numel() <= SHOWN_VALUES):
        return f"of shape {tuple(value.shape)}"
    if value.dim() == 0 and value.is_floating_point():
        return f"{round(value.item(), 9) + 0.0:.6g}"  # hide rounding errors of 1e-16
    return str(torch.round(value, decimals=4).tolist() if value.is_floating_point() else value.tolist())
