"""What the checks share: calling an answer, and saying in one sentence what is wrong with it."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

TOLERANCE = 1e-6  # relative and absolute; answers worked out in float32 pass, a missing factor does not
SHOWN_VALUES = 12  # of all arguments together; tensors of more values are shown by their shapes


class CallFailedError(Exception):
    """The function under test raised the error that is this one's cause; the message says for which arguments."""


def require(condition: bool, sentence: str) -> None:
    """Raises AssertionError with the sentence when the condition doesn't hold."""
    if not condition:
        raise AssertionError(sentence)


def random(*shape: int, seed: int) -> Tensor:
    """Standard normal float64 values, the same ones each time; the global random state is left alone."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def judge(
    function: Callable[..., Any],
    arguments: Mapping[str, Any],
    expected: Tensor,
    mistakes: Mapping[str, Tensor] | None = None,
) -> None:
    """Call the function with the arguments, in order, and compare what it returns with the expected tensor.

    `mistakes` maps what a well-known mistake is to the answer it leads to; one that fits ends the sentence.
    Raises AssertionError with one sentence: what was given, what came, what was expected.
    """
    compare(given(arguments), call(function, arguments), expected, mistakes)


def call(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """The function's answer to copies of the arguments.

    Raises AssertionError if it changes one of them, and CallFailedError from what it raises itself.
    """
    copies = {name: value.clone() if isinstance(value, Tensor) else value for name, value in arguments.items()}
    try:
        answer = function(*copies.values())
    except Exception as error:
        raise CallFailedError(given(arguments)) from error
    for name, value in arguments.items():
        if isinstance(value, Tensor):
            unchanged = value.shape == copies[name].shape and torch.equal(copies[name], value)
            require(unchanged, f"the call changed its argument {name}: leave the arguments as they are")
    return answer


def call_without(called: str, hint: str, function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """As `call`; raises AssertionError with the hint if the answer leaves the work to torch's function of this name."""
    with _CalledNames() as names:
        answer = call(function, arguments)
    require(not any(called in name for name in names.seen), f"the function calls torch's own {called}: {hint}")
    return answer


class _CalledNames(TorchFunctionMode):
    """Remembers the names of the torch functions and methods that were called inside."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.seen.add(getattr(func, "__name__", ""))
        return func(*args, **(kwargs or {}))


def compare(where: str, answer: Any, expected: Tensor, mistakes: Mapping[str, Tensor] | None = None) -> None:
    """Raises AssertionError with one sentence that begins with `where` unless the answer is the expected tensor."""
    answer = as_tensor(where, answer)
    if is_close(answer, expected):
        return
    hints = [f": {mistake}" for mistake, wrong in (mistakes or {}).items() if is_close(answer, wrong)]
    hint = hints[0] if hints else ""
    if answer.shape != expected.shape:
        came, wanted = (shown(tensor).replace("of shape", "a tensor of shape") for tensor in (answer, expected))
        raise AssertionError(f"{where} came {came}, expected {wanted}{hint}")
    place = worst_place(answer, expected)
    came, wanted = (shown(tensor[place]) for tensor in (answer, expected))
    at = f" at {list(place)}" if place else ""
    raise AssertionError(f"{where} came {came}{at}, expected {wanted}{hint}")


def as_tensor(where: str, answer: Any) -> Tensor:
    if answer is None:
        raise AssertionError(f"{where} came None: the function needs a return")
    if not isinstance(answer, Tensor):
        raise AssertionError(f"{where} came {kind_of(answer)}, expected a tensor")
    return answer.detach()


def kind_of(answer: Any) -> str:
    """'an int', 'a float', 'a tensor'."""
    kind = "tensor" if isinstance(answer, Tensor) else type(answer).__name__
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def is_close(answer: Tensor, expected: Tensor) -> bool:
    """Same shape and same values, whatever the precision."""
    if answer.shape != expected.shape:
        return False
    return torch.allclose(answer.double(), expected.double(), rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)


def worst_place(answer: Tensor, expected: Tensor) -> tuple[int, ...]:
    """Where the two differ most; a NaN comes before all else, equal infinities don't count."""
    gap = (answer.double() - expected.double()).abs().masked_fill(answer == expected, 0.0)
    return tuple(int(index) for index in torch.unravel_index(gap.argmax(), gap.shape))


def given(arguments: Mapping[str, Any]) -> str:
    """The arguments in words: 'for scores [0.0, 1.0] and n_heads 2'."""
    values = sum(value.numel() for value in arguments.values() if isinstance(value, Tensor))
    named = [f"{name} {shown(value, in_full=values <= SHOWN_VALUES)}" for name, value in arguments.items()]
    return "for " + ", ".join(named[:-1]) + (" and " if named[1:] else "") + named[-1]


def shown(value: Any, *, in_full: bool = True) -> str:
    """A tensor by its values, or by its shape when it has many or not `in_full`; functions by their name."""
    if not isinstance(value, Tensor):
        return str(value) if isinstance(value, int | float) else getattr(value, "__name__", type(value).__name__)
    if value.numel() > SHOWN_VALUES or not in_full:
        return f"of shape {tuple(value.shape)}"
    if value.dim() == 0 and value.is_floating_point():
        return f"{round(value.item(), 9) + 0.0:.6g}"  # rounding leftovers of 1e-16 would only distract
    return str(torch.round(value, decimals=4).tolist() if value.is_floating_point() else value.tolist())
