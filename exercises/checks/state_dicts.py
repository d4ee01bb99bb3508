"""Helpers for the checks of exercises 31 to 56: answers that take a dict of named weights."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from exercises.checks.judging import call, compare, given, random, require
from src.model.gpt import GPTModel

Weights = dict[str, Tensor]


def random_model(**config: Any) -> GPTModel:
    """A model in float64 whose weights, biases and LayerNorms are all random, so that none of them hides a mistake."""
    model = GPTModel(config).double().eval()
    for seed, (name, parameter) in enumerate(model.named_parameters()):
        spread = 1.0 if "ln_" in name or "wte" in name or "wpe" in name else 0.5
        parameter.data = spread * random(*parameter.shape, seed=seed)
    return model


def weights_of(model: torch.nn.Module, prefix: str = "") -> Weights:
    """The model's weights by name, each name with the prefix."""
    return {prefix + name: parameter.detach() for name, parameter in model.named_parameters()}


def judge_with_weights(
    function: Callable[..., Any],
    arguments: Mapping[str, Any],
    expected: Tensor,
    mistakes: Mapping[str, Tensor] | None = None,
) -> None:
    """Like `judge`, for arguments with a dict of `weights` among them. Messages leave the weights out."""
    shown = {name: value for name, value in arguments.items() if name not in ("weights", "config")}
    copies = {name: weight.clone() for name, weight in arguments["weights"].items()}

    def with_weights(*values: Any) -> Any:
        every = {**arguments, **dict(zip(shown, values, strict=True)), "weights": copies}
        return function(*every.values())

    with torch.no_grad():
        answer = call(with_weights, shown)
    require_same_weights(copies, arguments["weights"])
    compare(given(shown), answer, expected, mistakes)


def require_same_weights(answer: Weights, original: Weights) -> None:
    """Raise AssertionError if the answer changed, added or removed a weight."""
    same = list(answer) == list(original) and all(torch.equal(answer[name], original[name]) for name in original)
    require(same, "the call changed its argument weights: leave the arguments unchanged")
