"""The step matches autograd through the loss that dpo_train.py uses."""

import math
from collections.abc import Sequence

import pytest
import torch

from src.intuition.preference_step import (
    BETA,
    DISTINCT_WORDS,
    LEARNING_RATE,
    SHARED_WORD,
    Case,
    gradient,
    implicit_rewards,
    log_probabilities,
    preference_loss,
    step,
)  # fmt: skip
from src.training.losses import dpo_loss


@pytest.mark.parametrize("case", [DISTINCT_WORDS, SHARED_WORD])
def test_loss_and_step_match_autograd(case: Case) -> None:
    answers, weights = case
    after, words = step(*case), list(weights)
    start = torch.tensor([*weights.values()], dtype=torch.float64)
    loss, slopes = autograd(answers, start, start, words)
    assert loss == pytest.approx(math.log(2)) == preference_loss(0.0)
    assert [after[word] for word in words] == pytest.approx((start - LEARNING_RATE * slopes).tolist())

    later, slopes = autograd(answers, torch.tensor([after[word] for word in words], dtype=torch.float64), start, words)
    rewards = implicit_rewards(log_probabilities(answers, after), log_probabilities(*case))
    margin = rewards[0] - rewards[1]
    assert preference_loss(margin) == pytest.approx(later)
    assert [gradient(answers, weights, margin)[word] for word in words] == pytest.approx(slopes.tolist())


def autograd(
    answers: Sequence[str], weights: torch.Tensor, start: torch.Tensor, words: list[str]
) -> tuple[float, torch.Tensor]:
    """Loss and gradient at the weights, from PyTorch and the project's DPO loss."""
    counts = torch.tensor([[answer.split().count(word) for word in words] for answer in answers]).double()
    weights = weights.clone().requires_grad_()
    policy, reference = ((counts @ w).log_softmax(0)[:, None] for w in (weights, start))
    loss = dpo_loss(policy[0], policy[1], reference[0], reference[1], beta=BETA).sum()
    (slopes,) = torch.autograd.grad(loss, weights)
    return loss.item(), slopes


def test_margin_grows_even_if_the_chosen_answer_falls() -> None:
    for case, direction in ((DISTINCT_WORDS, 1), (SHARED_WORD, -1)):
        old, new = (log_probabilities(case[0], weights) for weights in (case[1], step(*case)))
        chosen, rejected, other = implicit_rewards(new, old)
        assert chosen > rejected and chosen * direction > 0 and rejected < 0 < other
