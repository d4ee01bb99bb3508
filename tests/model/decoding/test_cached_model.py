"""Draft tokens, prefix caches and interrupts change no text, and leave a cache that the next stream can use."""

import pytest
import torch

from src.model.decoding import cached_model
from src.model.decoding.cached_model import CachedModel, default_draft_tokens
from src.model.decoding.output_head import OutputHead
from src.model.decoding.sequence import Sequence
from src.model.generate import PrefixCache, TextGenerator
from src.model.gpt import GPTModel
from src.model.quantize import quantize_int8
from tests.fakes import BYTE_MODEL, ByteEncoding

ALPHABET = "abcdefghijklmnopqrstuvwxyzabcd"


def test_logits_after_rollback_equal_those_of_a_fresh_cache(model: GPTModel) -> None:
    head, ids = OutputHead(model, 257), list(b"some words and more")
    cached = CachedModel(model, head, model.new_cache())
    cached.forward(ids[:9])
    cached.forward([1, 2, 3])  # rejected
    cached.rollback(3)
    one_by_one = [cached.forward([token]) for token in ids[9:14]]
    together = cached.forward(ids[14:], n_logits=5)
    with model.evaluating():
        expected = model(torch.tensor([ids]))[0, 9:]
    torch.testing.assert_close(torch.cat([*one_by_one, together]), expected, atol=1e-4, rtol=1e-4)
    assert cached.cache.length == len(ids)


@pytest.mark.parametrize("settings", [{"temperature": 0}, {"temperature": 0.7, "seed": 4}, {"seed": 1, "top_p": 0.9}])
@pytest.mark.parametrize("prompt", [ALPHABET, "qrst" * 15, "no word twice", ""])
def test_draft_tokens_change_no_text(alphabet_generator: TextGenerator, prompt: str, settings: dict) -> None:
    plain = alphabet_generator.stream(prompt, 40, draft_tokens=0, **settings)
    text = "".join(plain)
    for draft_tokens in (1, 2, 5, 100, None):
        drafted = alphabet_generator.stream(prompt, 40, draft_tokens=draft_tokens, **settings)
        assert "".join(drafted) == text
        assert (drafted.ids, drafted.finish_reason) == (plain.ids, plain.finish_reason)


def test_accepted_draft_tokens_save_forward_passes_and_are_cached(
    alphabet_generator: TextGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes, prefix_cache, model = [], PrefixCache(), alphabet_generator.model
    hidden_states = model.hidden_states
    monkeypatch.setattr(model, "hidden_states", lambda *ids: passes.append(1) or hidden_states(*ids))
    stream = alphabet_generator.stream(ALPHABET, 16, temperature=0, draft_tokens=3, prefix_cache=prefix_cache)
    assert "".join(stream) == "efghijklmnopqrst"
    assert len(passes) == 4  # the prompt with three draft tokens, then a token with three draft tokens three times
    conversation = [*ALPHABET.encode(), *stream.ids]
    assert prefix_cache.ids == conversation[: prefix_cache.cache.length]
    assert prefix_cache.cache.length >= len(conversation) - 1
    assert alphabet_generator.generate(conversation, 2, temperature=0, prefix_cache=prefix_cache) == "uv"
    assert alphabet_generator.generate(conversation, 2, temperature=0) == "uv"


def test_a_stream_closed_between_draft_tokens_leaves_a_usable_cache(alphabet_generator: TextGenerator) -> None:
    prefix_cache = PrefixCache()
    stream = alphabet_generator.stream(ALPHABET, 16, temperature=0, draft_tokens=3, prefix_cache=prefix_cache)
    pieces = [next(stream), next(stream)]
    del stream
    assert pieces == ["e", "f"]
    assert alphabet_generator.generate(ALPHABET + "ef", 2, temperature=0, prefix_cache=prefix_cache) == "gh"


@pytest.mark.parametrize("method", ["sample", "accept"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_an_interrupt_leaves_a_usable_cache(
    alphabet_generator: TextGenerator, monkeypatch: pytest.MonkeyPatch, method: str, moment: str
) -> None:
    prefix_cache, steps, real = PrefixCache(), [], getattr(Sequence, method)

    def interrupted(self: Sequence, argument, *draft):
        if method == "sample" and len(steps) == 1:
            argument = torch.zeros_like(argument)  # differs from the draft
        steps.append(1)
        if len(steps) == 2 and moment == "before":
            raise KeyboardInterrupt
        result = real(self, argument, *draft)
        if len(steps) == 2:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(Sequence, method, interrupted)
    stream = alphabet_generator.stream(ALPHABET, 16, temperature=0, draft_tokens=3, prefix_cache=prefix_cache)
    with pytest.raises(KeyboardInterrupt):
        list(stream)
    monkeypatch.undo()
    conversation = [*ALPHABET.encode(), *b"efgh"]
    assert prefix_cache.ids[: len(conversation)] == conversation[: len(prefix_cache.ids)]
    assert len(prefix_cache.ids) >= len(ALPHABET)
    assert alphabet_generator.generate(conversation, 4, temperature=0, prefix_cache=prefix_cache) == "ijkl"


def test_an_interrupt_after_a_rejected_draft_leaves_a_usable_cache(
    alphabet_generator: TextGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix_cache, accept = PrefixCache(), Sequence.accept
    monkeypatch.setattr(Sequence, "sample", lambda self, logits, draft: [ord("?")])  # differs from the draft

    def interrupted(self: Sequence, tokens: list[int]) -> list[int]:
        accept(self, tokens)
        raise KeyboardInterrupt

    monkeypatch.setattr(Sequence, "accept", interrupted)
    with pytest.raises(KeyboardInterrupt):
        alphabet_generator.generate(ALPHABET, 16, temperature=0, draft_tokens=3, prefix_cache=prefix_cache)
    monkeypatch.undo()
    assert prefix_cache.ids == [*ALPHABET.encode()]
    text = alphabet_generator.generate(ALPHABET + "?abc", 4, temperature=0, prefix_cache=prefix_cache)
    assert text == alphabet_generator.generate(ALPHABET + "?abc", 4, temperature=0)


@pytest.mark.parametrize("draft_tokens", [-1, True, 1.0, "2"])
def test_a_bad_number_of_draft_tokens_is_refused(model: GPTModel, draft_tokens: object) -> None:
    with pytest.raises(ValueError, match="draft_tokens must be a whole number of at least 0"):
        TextGenerator(model, ByteEncoding()).stream("a", draft_tokens=draft_tokens)


def test_only_fp32_has_draft_tokens_by_default_and_not_on_amd(monkeypatch: pytest.MonkeyPatch) -> None:
    model = GPTModel(BYTE_MODEL)
    monkeypatch.setattr(cached_model, "parts_are_faster", lambda: True)
    assert default_draft_tokens(model) == 0
    monkeypatch.setattr(cached_model, "parts_are_faster", lambda: False)
    assert default_draft_tokens(model) == 2
    assert default_draft_tokens(model.bfloat16()) == 0
    assert default_draft_tokens(quantize_int8(GPTModel(BYTE_MODEL))) == 0
