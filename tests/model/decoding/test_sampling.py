"""Sampling: each filter equals the logits processor of transformers."""

from dataclasses import dataclass, fields

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

from src.model.decoding.sampling import SamplingSettings, candidates, penalise_repetition, sample
from src.model.decoding.settings import with_default


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
    logits = torch.tensor([2.0, -2.0, 0.0, 3.0, -3.0, 0.5])
    assert penalise_repetition(logits, torch.tensor([0, 1, 2, 5]), 4.0).tolist() == [0.5, -8.0, 0.0, 3.0, -3.0, 0.125]


@pytest.mark.parametrize(("top_p", "kept"), [(0.25, 1), (0.26, 2), (0.5, 2), (0.75, 3), (0.76, 4)])
def test_top_p_keeps_no_token_beyond_its_probability(top_p: float, kept: int) -> None:
    ids, probabilities = candidates(torch.zeros(4), [], SamplingSettings(top_p=top_p))
    assert probabilities.tolist() == pytest.approx([1 / kept] * kept)


def test_min_p_keeps_tokens_at_its_limit() -> None:
    assert len(candidates(torch.zeros(3), [], SamplingSettings(min_p=1.0))[0]) == 3


def test_sample_draws_from_the_candidates_with_the_generator() -> None:
    logits, seen = torch.tensor([1.0, 1.2, -50.0, 1.1]), [1]
    settings = SamplingSettings(repetition_penalty=1.2, top_k=3)
    generator, twin = (torch.Generator().manual_seed(5) for _ in range(2))
    ids, probabilities = candidates(logits, seen, settings)
    expected = [int(ids[torch.multinomial(probabilities, 1, generator=twin)]) for _ in range(40)]
    assert [sample(logits, seen, settings, generator) for _ in range(40)] == expected
    assert set(expected) == {0, 1, 3}
    assert [sample(torch.tensor([5.0, -5.0]), [], SamplingSettings(top_p=0.5), generator)] == [0]
    assert {sample(torch.zeros(2), [], SamplingSettings(), generator) for _ in range(20)} == {0, 1}


@pytest.mark.parametrize("temperature", [0, 1e-30, 1e-300])
def test_a_tiny_temperature_is_greedy(temperature: float) -> None:
    logits = torch.tensor([1.0, 3.0, 2.9])
    ids, probabilities = candidates(logits, torch.tensor([]), SamplingSettings(temperature=temperature))
    assert probabilities.isfinite().all()
    assert int(ids[probabilities.argmax()]) == 1
    assert ids.shape == probabilities.shape
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


@pytest.mark.parametrize("settings", [
    {"temperature": 0}, {"temperature": 5.5}, {"top_k": 1}, {"top_k": None}, {"top_p": 1e-9}, {"top_p": 1},
    {"top_p": None}, {"min_p": 0}, {"min_p": 1}, {"min_p": None},
    {"repetition_penalty": 1e-9}, {"repetition_penalty": 9},
])  # fmt: skip
def test_the_limits_of_an_option_are_allowed(settings: dict) -> None:
    SamplingSettings(**settings)


@pytest.mark.parametrize(
    ("name", "expected", "bad"),
    [
        ("temperature", "a finite number, 0 or higher", [-1e-9, None, "1", True, float("nan")]),
        ("top_k", "a whole number of at least 1, or None to disable it", [0, 1.5, "1", True]),
        ("top_p", "above 0 and at most 1, or None to disable it", [0, 1.000001, "1", True, float("nan")]),
        ("min_p", "from 0 to 1, or None to disable it", [-0.1, 1.1, "0.1", True, float("nan")]),
        ("repetition_penalty", "a number above 0", [0, -1, None, "2", True, float("inf")]),
    ],
)
def test_each_option_says_which_values_it_allows(name: str, expected: str, bad: list) -> None:
    for value in bad:
        with pytest.raises(ValueError) as error:
            SamplingSettings(**{name: value})
        assert str(error.value) == f"{name} must be {expected}, got {value!r}"


def test_a_field_without_a_check_has_no_problem() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Extended(SamplingSettings):
        note: str = "any"
        temperature: float = with_default("temperature", 0.7)

    settings = Extended(note="other", top_k=3)
    assert (Extended.problem("note", object()), Extended.problem("nothing", 1)) == (None, None)
    assert Extended.problem("temperature", -1) == "temperature must be a finite number, 0 or higher, got -1"
    assert settings.sampling_options() == {
        "temperature": 0.7, "top_k": 3, "top_p": None, "min_p": None, "repetition_penalty": 1.0,
    }  # fmt: skip


def test_by_default_nothing_is_filtered_or_penalised() -> None:
    names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
    assert SamplingSettings().sampling_options() == dict(zip(names, (1.0, None, None, None, 1.0), strict=True))


def test_options_have_their_other_name_and_help() -> None:
    helps = {field.metadata["aliases"]: field.metadata["help"] for field in fields(SamplingSettings)}
    assert list(helps) == [("temp",), ("topk",), ("topp",), ("minp",), ("penalty",)]
    assert all(len(text) > 20 for text in helps.values())
