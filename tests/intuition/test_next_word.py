"""Counts give probabilities, and the loss is the cross-entropy used in training."""

import math

import pytest
import torch
import torch.nn.functional as F

from src.intuition.next_word import TEXT, count_followers, loss, probability


def test_probability_is_a_share_of_the_followers() -> None:
    model = count_followers("a b a c a b".split())
    assert probability(model, "a", "b") == pytest.approx(2 / 3)
    assert probability(model, "b", "c") == probability(model, "unseen", "a") == 0


def test_loss_matches_cross_entropy() -> None:
    words = TEXT.split()
    model, names = count_followers(words), sorted({*words})
    table = torch.tensor([[probability(model, word, other) for other in names] for word in names])
    ids = torch.tensor([names.index(word) for word in words])
    assert loss(model, words) == pytest.approx(F.cross_entropy(table[ids[:-1]].log(), ids[1:]).item(), rel=1e-6)


def test_an_unseen_pair_makes_the_loss_infinite() -> None:
    assert loss(count_followers("a b".split()), "b a".split()) == math.inf
