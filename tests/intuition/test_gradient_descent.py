"""The gradient and the steps match PyTorch, and the lowest loss is the entropy."""

import math

import pytest
import torch
import torch.nn.functional as F

from src.intuition.gradient_descent import descend, gradient, loss


def test_loss_and_gradient_match_autograd() -> None:
    scores = torch.tensor([0.3, -1.2, 2.0], dtype=torch.float64, requires_grad=True)
    shares = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    expected = F.cross_entropy(scores, shares)
    (slopes,) = torch.autograd.grad(expected, scores)
    assert loss(scores.tolist(), shares.tolist()) == pytest.approx(expected.item(), rel=1e-12)
    assert gradient(scores.tolist(), shares.tolist()) == pytest.approx(slopes.tolist(), rel=1e-12)


def test_steps_match_autograd() -> None:
    scores, shares = torch.zeros(2, dtype=torch.float64), torch.tensor([0.75, 0.25], dtype=torch.float64)
    for expected in descend([0.75, 0.25], 0.5, 10):
        assert scores.tolist() == pytest.approx(expected, rel=1e-12)
        scores.requires_grad_()
        (slopes,) = torch.autograd.grad(F.cross_entropy(scores, shares), scores)
        scores = scores.detach() - 0.5 * slopes


def test_the_loss_falls_to_the_entropy_and_diverges_at_a_large_rate() -> None:
    shares, entropy = [0.75, 0.25], -0.75 * math.log(0.75) - 0.25 * math.log(0.25)
    losses = [loss(scores, shares) for scores in descend(shares, 1.0, 20)]
    assert losses[0] == pytest.approx(math.log(2)) and losses[-1] == pytest.approx(entropy, rel=1e-6)
    assert losses == sorted(losses, reverse=True)
    assert loss(descend(shares, 10.0, 10)[-1], shares) > losses[0]
