"""Exercises 46 to 49: solutions pass, stubs fail, common mistakes are named, and examples hold."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from exercises import generation as stubs
from exercises.checks.generation import CHECKS
from exercises.solutions import generation as solutions
from exercises.solutions.generation import keep_top_k, keep_top_p, temperature_softmax
from tests.exercises.proof import prove_mistake, prove_solution_and_stub, prove_texts

NAMES = {name: getattr(solutions, name) for name, _ in CHECKS.values()}


@pytest.mark.parametrize("number", CHECKS)
def test_solution_passes_and_stub_fails(number: int) -> None:
    prove_solution_and_stub(number, CHECKS, stubs, solutions)


def test_tasks_and_answers_are_complete_and_right() -> None:
    prove_texts("generation", CHECKS, stubs, NAMES)


def but_at_0(of: Callable[[Tensor, float], Tensor]) -> Callable[..., Tensor]:
    """A mistake that knows temperature 0."""
    return lambda logits, t: of(logits, t) if t else temperature_softmax(logits, 0)


def without_the_crossing(probabilities: Tensor, p: float, normalise: bool) -> Tensor:
    values, ids = probabilities.sort(descending=True)
    kept = torch.zeros_like(probabilities).scatter(0, ids, values.where(values.cumsum(0) <= p, 0.0))
    return kept / kept.sum() if normalise else kept


def unsorted(probabilities: Tensor, p: float) -> Tensor:
    kept = probabilities.where(probabilities.cumsum(0) - probabilities < p, 0.0)
    return kept / kept.sum()


def still_sorted(probabilities: Tensor, p: float) -> Tensor:
    return keep_top_p(probabilities, p).sort(descending=True).values


def loop(
    window: Callable[[list[int], int, int], list[int]] = lambda ids, context, prompt: ids[-context:],
    position: int = -1,
    off: dict[str, Any] | None = None,
    choose: Callable[..., int] = lambda p, generator: torch.multinomial(p, 1, generator=generator).item(),
    result: Callable[[list[int], list[int], int], Any] = lambda prompt, new, end: new,
    stop: bool = True,
) -> Callable[..., Any]:
    """The generation loop with one thing changed."""

    def answer(model: Any, prompt: list[int], n_tokens: int, settings: Any, generator: torch.Generator) -> Any:
        ids, use = list(prompt), {**settings, **(off or {})}
        for _ in range(n_tokens):
            logits = model(torch.tensor([window(ids, use["context_length"], len(prompt))]))[0, position]
            p = keep_top_p(temperature_softmax(keep_top_k(logits, use["top_k"]), use["temperature"]), use["top_p"])
            new = choose(p, generator)
            if stop and new == use["end_of_text"]:
                break
            ids.append(new)
        return result(list(prompt), ids[len(prompt) :], use["end_of_text"])

    return answer


def top_p_first(model: Any, prompt: list[int], n_tokens: int, settings: Any, generator: torch.Generator) -> Any:
    """The generation loop with the temperature after top-p."""

    def nucleus_only(ids: Tensor) -> Tensor:
        logits = model(ids)
        logits[0, -1] = logits[0, -1].where(keep_top_p(logits[0, -1].softmax(0), settings["top_p"]) > 0, -math.inf)
        return logits

    return solutions.generate(nucleus_only, prompt, n_tokens, {**settings, "top_p": 1.0}, generator)


MISTAKES: list[tuple[int, Callable[..., Any], str]] = [
    (46, but_at_0(lambda x, t: x.softmax(-1) / t), "before softmax"),
    (46, but_at_0(lambda x, t: (p := x.softmax(-1) / t) / p.sum()), "has no effect"),
    (46, but_at_0(lambda x, t: (x * t).softmax(-1)), "multiplied by it"),
    (46, but_at_0(lambda x, t: (e := (x / t).exp()) / e.sum()), "exp overflows"),
    (46, but_at_0(lambda x, t: x / t), "softmax is missing"),
    (46, lambda x, t: (x / t).softmax(-1), "divides by zero"),
    (46, lambda x, t: (x / (t or 1.0)).softmax(-1), "limit of low temperatures"),
    (46, lambda x, t: temperature_softmax(x, t) if t else x.argmax(), "id of the largest logit"),
    (47, lambda x, k: x.where(x >= x.topk(min(k, len(x))).values[-1], 0.0), "set the others to -inf"),
    (47, lambda x, k: x.where(x > x.topk(min(k, len(x))).values[-1], -math.inf), "k-th largest stays"),
    (47, lambda x, k: x.topk(min(k, len(x))).values, "keep the shape (V,)"),
    (47, lambda x, k: -keep_top_k(-x, k), "expected"),
    (47, lambda x, k: x.where(x <= x.sort().values[min(k, len(x)) - 1], -math.inf), "k smallest"),
    (47, lambda x, k: x.where(torch.arange(len(x)) < k, -math.inf), "first k logits"),
    (47, lambda x, k: x.masked_fill_(x < x.topk(min(k, len(x))).values[-1], -math.inf), "changed its argument logits"),
    (48, lambda x, p: without_the_crossing(x, p, normalise=True), "with a small p nothing would be left"),
    (48, lambda x, p: without_the_crossing(x, p, normalise=False), "the result must sum to 1"),
    (48, lambda x, p: x.where(keep_top_p(x, p) > 0, 0.0), "divide by the sum"),
    (48, unsorted, "sort by probability first"),
    (48, still_sorted, "still sorted"),
    (48, lambda x, p: keep_top_p(x, p)[keep_top_p(x, p) > 0].sort(descending=True).values, "the nucleus alone"),
    (48, lambda x, p: x, "no token was removed"),
    (49, loop(result=lambda prompt, new, end: prompt + new), "prompt is not part"),
    (49, loop(result=lambda prompt, new, end: [*new, end]), "end_of_text is not part"),
    (49, loop(result=lambda prompt, new, end: torch.tensor(new)), "got a tensor, expected a list"),
    (49, loop(choose=lambda p, generator: torch.multinomial(p, 1, generator=generator)), "use .item()"),
    (49, loop(stop=False), "stop at end_of_text"),
    (49, loop(position=0), "logits of the last position"),
    (49, loop(window=lambda ids, context, n: ids[:n]), "append each new id"),
    (49, loop(window=lambda ids, context, n: ids[-1:]), "only the newest token"),
    (49, loop(window=lambda ids, context, n: ids[:context]), "must keep the last ones"),
    (49, loop(window=lambda ids, context, n: ids), "pass only the last context_length"),
    (49, loop(choose=lambda p, generator: int(p.argmax())), "draw from the probabilities"),
    (49, loop(choose=lambda p, generator: int(torch.multinomial(p, 1))), "global random state"),
    (49, loop(choose=lambda p, generator: int((p.cumsum(0) > torch.rand(1, generator=generator)).int().argmax())),
     "draw each id with torch.multinomial"),
    (49, top_p_first, "top_p comes last"),
    (49, loop(off={"temperature": 1.0}), "the temperature has no effect"),
    (49, loop(off={"top_k": 8}), "top_k has no effect"),
    (49, loop(off={"top_p": 1.0}), "top_p has no effect"),
]  # fmt: skip


@pytest.mark.parametrize(("number", "wrong", "named"), MISTAKES, ids=[f"{n}: {named}" for n, _, named in MISTAKES])
def test_common_mistakes_are_named(number: int, wrong: Callable[..., Any], named: str) -> None:
    prove_mistake(CHECKS[number][1], wrong, named)
