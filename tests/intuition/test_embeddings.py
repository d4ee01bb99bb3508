"""The lookup, the similarities and the scores match PyTorch and closed forms."""

import math

import pytest
import torch
import torch.nn.functional as F

from src.intuition.custom_tokenizers import build_vocabulary
from src.intuition.embeddings import TEXT, embedding_table, next_token_scores, similarity
from src.intuition.softmax import softmax


def test_rows_similarities_and_scores_match_torch() -> None:
    words = TEXT.split()
    vocabulary = build_vocabulary(words)
    rows = embedding_table(words, vocabulary)
    weight = torch.tensor(rows, dtype=torch.float64)
    assert weight.sum() == len(words) - 1  # each pair of neighbours is counted once
    cat, dog = (F.embedding(torch.tensor(vocabulary[word]), weight) for word in ("cat", "dog"))
    assert similarity(cat.tolist(), dog.tolist()) == pytest.approx(F.cosine_similarity(cat, dog, dim=0).item())
    last = (cat + dog) / 2
    assert next_token_scores(last.tolist(), rows) == pytest.approx(F.linear(last, weight).tolist())


def test_cat_and_dog_share_two_of_three_followers() -> None:
    words = TEXT.split()
    vocabulary = build_vocabulary(words)
    table = embedding_table(words, vocabulary)
    cat, dog, sat = (table[vocabulary[word]] for word in ("cat", "dog", "sat"))
    assert similarity(cat, dog) == pytest.approx(2 / 3) and similarity(cat, sat) == 0
    scores = next_token_scores([(a + b) / 2 for a, b in zip(cat, dog, strict=True)], table)
    assert sorted(scores) == [0] * 7 + [2.5, 2.5]
    assert max(softmax(scores)) == pytest.approx(math.exp(2.5) / (2 * math.exp(2.5) + 7))
