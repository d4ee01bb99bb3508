"""Sampling: each filter equals the logits processor of transformers."""

import pytest
import torch
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from src.model.decoding.sampling import SamplingSettings, candidates, penalise_repetition


@pytest.mark.parametrize(
    "settings",
    [
        SamplingSettings(temperature=0.7),
        SamplingSettings(top_k=7),
        SamplingSettings(top_k=10**6),
        SamplingSettings(top_p=0.6),
        SamplingSettings(top_p=1e-9),
        SamplingSettings(top_p=1.0),
        SamplingSettings(min_p=0.02),
        SamplingSettings(min_p=0.0),
        SamplingSettings(min_p=1.0),
        SamplingSettings(temperature=1.7, top_k=50, top_p=0.9),
        SamplingSettings(temperature=1.7, top_k=50, top_p=0.9, min_p=0.1),
        SamplingSettings(temperature=0.3, top_k=50, top_p=0.4, repetition_penalty=1.4),
        SamplingSettings(repetition_penalty=0.5),
    ],
)
def test_filtered_distributions_equal_transformers(settings: SamplingSettings) -> None:
    torch.manual_seed(0)
    logits, seen = 4 * torch.randn(500), torch.randint(500, (30,)).unique()
    processors = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(settings.repetition_penalty)])
    processors.append(TemperatureLogitsWarper(settings.temperature))
    if settings.top_k:
        processors.append(TopKLogitsWarper(settings.top_k))
    if settings.top_p:
        processors.append(TopPLogitsWarper(settings.top_p))
    if settings.min_p is not None:
        processors.append(MinPLogitsWarper(settings.min_p))
    expected = processors(seen[None], logits[None].clone())[0].softmax(dim=0)
    ids, probabilities = candidates(logits, seen, settings)
    ours = torch.zeros(500).index_copy(0, ids, probabilities)
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-4)
    assert torch.equal(ours > 0, expected > 0)


def test_the_penalty_makes_seen_tokens_less_likely() -> None:
    logits = torch.tensor([2.0, -2.0, 0.0, 3.0, -3.0])
    assert penalise_repetition(logits, torch.tensor([0, 1, 2]), 4.0).tolist() == [0.5, -8.0, 0.0, 3.0, -3.0]


@pytest.mark.parametrize(("top_p", "kept"), [(0.25, 1), (0.26, 2), (0.5, 2), (0.75, 3), (0.76, 4)])
def test_top_p_keeps_no_token_beyond_its_probability(top_p: float, kept: int) -> None:
    ids, probabilities = candidates(torch.zeros(4), [], SamplingSettings(top_p=top_p))
    assert probabilities.tolist() == pytest.approx([1 / kept] * kept)


@pytest.mark.parametrize("temperature", [0, 1e-30, 1e-300])
def test_a_tiny_temperature_is_greedy(temperature: float) -> None:
    logits = torch.tensor([1.0, 3.0, 2.9])
    ids, probabilities = candidates(logits, torch.tensor([]), SamplingSettings(temperature=temperature))
    assert probabilities.isfinite().all()
    assert int(ids[probabilities.argmax()]) == 1
    assert probabilities.max() == 1


@pytest.mark.parametrize(
    ("settings", "top_logits_needed"),
    [
        ({"temperature": 0}, 1),
        ({"temperature": 0, "top_k": 5}, 1),
        ({"top_k": 5, "top_p": 0.5}, 5),
        ({"top_k": 5, "min_p": 0.1}, 5),
        ({"top_p": 0.5}, None),
        ({"min_p": 0.1}, None),
        ({}, None),
        ({"top_k": 5, "repetition_penalty": 1.1}, None),
        ({"temperature": 0, "repetition_penalty": 0.9}, None),
    ],
)
def test_top_logits_needed_follows_from_the_active_filters(settings: dict, top_logits_needed: int | None) -> None:
    assert SamplingSettings(**settings).top_logits_needed == top_logits_needed


@pytest.mark.parametrize("min_p", [-0.1, 1.1, float("nan"), True, "0.1"])
def test_min_p_is_from_0_to_1(min_p: object) -> None:
    with pytest.raises(ValueError, match="min_p must be from 0 to 1, or None to disable it, got"):
        SamplingSettings(min_p=min_p)
