"""Batched generation gives the same texts as single generation, and reuses rows."""

import pytest
import torch

from src.model.decoding.step import SingleTokenStep
from src.model.generate import TextGenerator
from src.model.gpt import GPTModel
from tests.fakes import ByteEncoding


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0},
        {"temperature": 1.0, "seed": 7},
        {"temperature": 0.8, "top_k": 20, "top_p": 0.9, "repetition_penalty": 1.2, "seed": 3},
        {"temperature": 1.5, "min_p": 0.02, "seed": 5, "stop": ["e", "A"]},
    ],
)
def test_batched_generation_equals_single_generation(
    model: GPTModel, monkeypatch: pytest.MonkeyPatch, batch_size: int, settings: dict
) -> None:
    generator, new_cache = TextGenerator(model, ByteEncoding()), model.new_cache

    def cache_of_nan(*arguments, **named):
        cache = new_cache(*arguments, **named)
        cache.keys_values.fill_(torch.nan)  # uninitialised memory may hold anything
        return cache

    monkeypatch.setattr(model, "new_cache", cache_of_nan)
    prompts = ["", "a", "some words", list(b"ids"), "a prompt that is longer than all of the model's context is: " * 2]
    single = [
        generator.generate(prompt, 20, **{**settings, **({"seed": settings["seed"] + i} if "seed" in settings else {})})
        for i, prompt in enumerate(prompts)
    ]
    assert generator.generate_batch(prompts, 20, batch_size=batch_size, **settings) == single
    assert len(set(single)) > 3


def test_waiting_sequences_take_the_rows_of_finished_ones(model: GPTModel) -> None:
    generator, batch_sizes = TextGenerator(model, ByteEncoding()), []
    step = SingleTokenStep.hidden_states
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            SingleTokenStep,
            "hidden_states",
            lambda self, ids, *rest: batch_sizes.append(len(ids)) or step(self, ids, *rest),
        )
        generator.generate_batch(["one", "two", "three", "four", "five"], 6, batch_size=2, temperature=0)
    assert batch_sizes == [2] * 12 + [1] * 6
    assert generator.generate_batch([], 6) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"batch_size": 0}, "batch_size"), ({"max_new_tokens": 0}, "max_new_tokens"), ({"top_p": 2}, "top_p")],
)
def test_a_bad_batch_setting_is_refused(model: GPTModel, settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"{message} must be"):
        TextGenerator(model, ByteEncoding()).generate_batch(["a"], **settings)


def test_a_single_string_instead_of_prompts_is_refused(model: GPTModel) -> None:
    with pytest.raises(ValueError, match="prompts must be a list of prompts, got a single string"):
        TextGenerator(model, ByteEncoding()).generate_batch("abc")


def test_batched_generation_works_under_autocast(model: GPTModel) -> None:
    generator = TextGenerator(model, ByteEncoding())
    with torch.autocast("cpu", torch.bfloat16):
        texts = generator.generate_batch(["abc", "a"], 5, temperature=0)
    assert len(texts) == 2
