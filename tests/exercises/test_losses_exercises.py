"""Exercises 39 to 45: solutions pass, stubs fail, common mistakes are named, and examples hold."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from exercises import losses as stubs
from exercises.checks.losses import CHECKS
from exercises.solutions import losses as solutions
from exercises.solutions.losses import IGNORE, response_targets
from src.data.batching import IGNORE as IGNORE_OF_THE_PROJECT
from tests.exercises.proof import prove_mistake, prove_solution_and_stub, prove_texts

NAMES = {name: getattr(solutions, name) for name, _ in CHECKS.values()}


@pytest.mark.parametrize("number", CHECKS)
def test_solution_passes_and_stub_fails(number: int) -> None:
    prove_solution_and_stub(number, CHECKS, stubs, solutions)


def test_tasks_and_answers_are_complete_and_right() -> None:
    prove_texts("losses", CHECKS, stubs, NAMES)


def test_the_ignored_target_is_the_one_of_torch_and_of_the_project() -> None:
    assert stubs.IGNORE == IGNORE == IGNORE_OF_THE_PROJECT == torch.nn.CrossEntropyLoss().ignore_index


def picked(logits: Tensor, targets: Tensor) -> Tensor:
    return logits[torch.arange(len(targets)), targets]


def by_position(logits: Tensor, targets: Tensor) -> Tensor:
    """The losses (B, T), 0 where there is no target."""
    return F.cross_entropy(logits.mT, targets, reduction="none")


def count(targets: Tensor) -> Tensor:
    return (targets != IGNORE).sum(1)


def windows(ids: Tensor, starts: Tensor, length: int, first: int = 0, after: int = 0) -> Tensor:
    return torch.stack([ids[start + first : start + length + after] for start in starts.tolist()])


def shifted(i: Tensor, s: Tensor, n: int, turn: int) -> tuple[Tensor, Tensor]:
    return windows(i, s, n), windows(i, s, n).roll(turn, 1)


def with_loss_from(first: Callable[[list[int]], int]) -> Callable[..., Any]:
    """Targets of which those from this position on have a loss."""

    def answer(prompt: list[int], response: list[int], end_of_text: int) -> tuple[Tensor, Tensor]:
        ids = torch.tensor([*prompt, *response, end_of_text])
        targets = ids[1:].clone()
        targets[: max(0, first(prompt))] = IGNORE
        return ids[:-1], targets

    return answer


def unshifted(prompt: list[int], response: list[int], end_of_text: int) -> tuple[Tensor, Tensor]:
    inputs = torch.tensor(prompt + response)
    return inputs, torch.tensor([IGNORE] * len(prompt) + response)


def without_end(prompt: list[int], response: list[int], end_of_text: int) -> tuple[Tensor, Tensor]:
    inputs, targets = response_targets(prompt, response, end_of_text)
    targets[-1] = IGNORE
    return inputs, targets


def changed(answer: Callable[[Tensor, Tensor], Any]) -> Callable[..., Any]:
    """The inputs and targets of exercise 42, changed."""
    return lambda prompt, response, end: answer(*response_targets(prompt, response, end))


def dpo(of: Callable[..., Tensor]) -> Callable[..., Any]:
    """A loss of the two log-ratios and beta."""
    return lambda pc, pr, rc, rr, beta: of(pc - rc, pr - rr, beta)


MISTAKES: list[tuple[int, Callable[..., Any], str]] = [
    (39, lambda x, t: (x.exp().sum(1).log() - picked(x, t)).mean(), "exp overflows"),
    (39, lambda x, t: ((x - x.max()).exp().sum(1).log() + x.max() - picked(x, t)).mean(), "each row's own largest"),
    (39, lambda x, t: -picked(x.softmax(1), t).log().mean(), "log(0) is -inf"),
    (39, lambda x, t: solutions.cross_entropy(x, t) * len(t), "sum of the losses"),
    (39, lambda x, t: -solutions.cross_entropy(x, t), "sign is wrong"),
    (39, lambda x, t: -picked(x.softmax(1), t).mean().log(), "not the logarithm of the mean"),
    (39, lambda x, t: picked(x.softmax(1), t).mean(), "mean probability"),
    (39, lambda x, t: picked(x, t).mean(), "mean logit"),
    (39, lambda x, t: solutions.cross_entropy(x, t) / math.log(2), "natural logarithm"),
    (39, F.cross_entropy, "torch's own cross_entropy"),
    (39, lambda x, t: -picked(x.log_softmax(1), t).mean(), "torch's own log_softmax"),
    (39, lambda x, t: (x.logsumexp(1) - picked(x, t)).mean(), "torch's own logsumexp"),
    (40, lambda losses, n: losses.mean().exp(), "weight the loss of each batch"),
    (40, lambda losses, n: (losses.exp() * n).sum() / n.sum(), "a mean of perplexities"),
    (40, lambda losses, n: losses.exp().mean(), "plain mean of perplexities"),
    (40, lambda losses, n: 2 ** ((losses * n).sum() / n.sum()), "not a power of 2"),
    (40, lambda losses, n: (losses * n).sum() / n.sum(), "this is the mean loss"),
    (40, lambda losses, n: (losses * n).sum().exp(), "not of the sum"),
    (41, lambda i, s, n: (windows(i, s, n), windows(i, s, n)), "not shifted"),
    (41, lambda i, s, n: shifted(i, s, n, -1), "not the first one of the window"),
    (41, lambda i, s, n: shifted(i, s, n, 1), "wrong way"),
    (41, lambda i, s, n: (windows(i, s, n), windows(i, s, n, first=1)), "last token is missing"),
    (41, lambda i, s, n: (windows(i, s, n, after=-1), windows(i, s, n, first=1)), "inputs have the length"),
    (41, lambda i, s, n: (windows(i, s, n, after=1), windows(i, s, n)), "all but the last"),
    (41, lambda i, s, n: (windows(i, s, n, 1, 1), windows(i, s, n)), "are swapped"),
    (41, lambda i, s, n: windows(i, s, n), "expected a tuple of 2"),
    (42, unshifted, "not shifted"),
    (42, with_loss_from(lambda prompt: 0), "prompt has a loss too"),
    (42, with_loss_from(lambda prompt: len(prompt)), "first token of the response has no loss"),
    (42, with_loss_from(lambda prompt: len(prompt) - 2), "one position too many"),
    (42, without_end, "never learns to stop"),
    (42, changed(lambda inputs, targets: (inputs, targets[:-1])), "put it after the response"),
    (42, changed(lambda inputs, targets: (torch.cat([inputs, targets[-1:]]), targets)), "all tokens but the last"),
    (42, lambda p, r, end: (torch.tensor(r), response_targets(p, r, end)[1]), "the prompt belongs to the inputs"),
    (43, lambda x, t: by_position(x, t).mean(), "not by all positions"),
    (43, lambda x, t: (by_position(x, t).sum(1) / count(t)).mean(), "rows' means"),
    (43, lambda x, t: by_position(x, t.clamp(min=0)).mean(), "have a loss here"),
    (43, lambda x, t: by_position(x, t % 6).mean(), "used as an index"),
    (43, lambda x, t: by_position(x, t).sum(), "sum of the losses"),
    (43, lambda x, t: by_position(x, t).sum(1).mean(), "number of rows"),
    (44, lambda x, t: -by_position(x, t).sum(1) / count(t), "DPO needs the sum"),
    (44, lambda x, t: by_position(x, t).sum(1), "sign is wrong"),
    (44, lambda x, t: -by_position(x, t.clamp(min=0)).sum(1), "IGNORE are included"),
    (44, lambda x, t: -by_position(x, t).sum(), "over the tokens only"),
    (44, lambda x, t: -by_position(x, t), "sum them up"),
    (44, lambda x, t: (-by_position(x, t)).sum(1).exp(), "return their logarithms"),
    (45, dpo(lambda c, r, beta: -torch.sigmoid(beta * (c - r)).log()), "use F.logsigmoid"),
    (45, dpo(lambda c, r, beta: -F.logsigmoid(c - r)), "beta is missing"),
    (45, dpo(lambda c, r, beta: -F.logsigmoid(beta * (r - c))), "wrong sign"),
    (45, dpo(lambda c, r, beta: -F.logsigmoid(beta * (c + r))), "subtracted, not added"),
    (45, dpo(lambda c, r, beta: F.logsigmoid(beta * (c - r))), "minus the logarithm"),
    (45, dpo(lambda c, r, beta: beta * (r - c)), "the sigmoid is missing"),
    (45, dpo(lambda c, r, beta: -beta * F.logsigmoid(c - r)), "inside the sigmoid"),
    (45, dpo(lambda c, r, beta: -F.logsigmoid(beta * (c - r)).mean()), "not their mean"),
    (45, lambda pc, pr, rc, rr, beta: -F.logsigmoid(beta * (pc - pr)), "reference is missing"),
]  # fmt: skip


@pytest.mark.parametrize(("number", "wrong", "named"), MISTAKES, ids=[f"{n}: {named}" for n, _, named in MISTAKES])
def test_common_mistakes_are_named(number: int, wrong: Callable[..., Any], named: str) -> None:
    prove_mistake(CHECKS[number][1], wrong, named)
