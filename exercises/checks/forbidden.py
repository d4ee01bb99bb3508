"""Torch functions that an answer may not call: the one that it should replace, or autograd in a task "by hand"."""

import re
from collections.abc import Callable
from functools import wraps
from typing import Any

from torch.overrides import TorchFunctionMode

Rule = tuple[str, str]  # a regular expression for the names of torch functions, and what to do instead
Check = Callable[[Callable[..., Any]], None]

# torch.func and torch.autograd.functional call these, too.
AUTOGRAD: Rule = (r"^grad$|backward|requires_grad_|make_dual", "compute the gradient by hand, without autograd")
FUSED_ATTENTION: Rule = ("attention", "put it together from your own functions")


class ForbiddenCallError(AssertionError):
    """The answer called a forbidden torch function."""


def forbids(*rules: Rule) -> Callable[[Check], Check]:
    """Decorate a check: it raises ForbiddenCallError when the answer calls a torch function that a rule names."""

    def decorate(check: Check) -> Check:
        @wraps(check)
        def checked(function: Callable[..., Any]) -> None:
            @wraps(function)
            def watched(*args: Any, **kwargs: Any) -> Any:
                with _Watch(rules):
                    return function(*args, **kwargs)

            check(watched)

        return checked

    return decorate


class _Watch(TorchFunctionMode):
    """Raises ForbiddenCallError at the call, so that the error has the line of the answer."""

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        super().__init__()
        self.rules = rules

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        for forbidden, advice in self.rules:
            if re.search(forbidden, name):
                raise ForbiddenCallError(f"the function calls torch's own {name}: {advice}")
        return func(*args, **(kwargs or {}))
