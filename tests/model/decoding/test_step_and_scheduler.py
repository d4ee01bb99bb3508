"""Every fast way of writing gives what the plain one gives: single tokens, several texts at once, guesses."""

import pytest
import torch

from src.model.decoding.sampling import SamplingSettings
from src.model.decoding.sequence import Writer
from src.model.decoding.step import SingleTokenStep, default_draft_tokens
from src.model.generate import PrefixCache, TextGenerator
from src.model.gpt import GPTModel
from src.model.quantize import quantize_int8
from tests.fakes import BYTE_MODEL, ByteEncoding


@pytest.fixture(scope="module")
def model() -> GPTModel:
    torch.manual_seed(0)
    model = GPTModel(BYTE_MODEL)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


@pytest.fixture(scope="module")
def speller() -> TextGenerator:
    """Of a model that writes the alphabet, over and over."""
    torch.manual_seed(0)
    model = GPTModel({**BYTE_MODEL, "dropout": 0.0})
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        ids = 97 + (torch.arange(40) + torch.randint(26, (8, 1))) % 26
        torch.nn.functional.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
    return TextGenerator(model.eval(), ByteEncoding())


@pytest.mark.parametrize("kind", ["fp32", "int8"])
@pytest.mark.parametrize("lengths", [[5], [7, 7, 7], [1, 9, 4]])
@torch.no_grad()
def test_one_more_token_has_the_states_that_the_whole_model_gives_it(
    model: GPTModel, kind: str, lengths: list[int]
) -> None:
    model, tolerance = (model, 1e-5) if kind == "fp32" else (quantize_int8(model), 0.05)
    ids = torch.randint(257, (len(lengths), 10), generator=torch.Generator().manual_seed(1))
    cache = model.new_cache(len(lengths) + 1)
    cache.keys_values.zero_()
    expected = torch.cat([model.hidden_states(ids[i : i + 1, : n + 1])[:, -1] for i, n in enumerate(lengths)])
    for i, n in enumerate(lengths):
        model.hidden_states(ids[i : i + 1, :n], cache.row(i))
    last = [int(ids[i, n]) for i, n in enumerate(lengths)]
    states = SingleTokenStep(model).states(last, cache, lengths)
    torch.testing.assert_close(states, expected, atol=tolerance, rtol=tolerance)
    for i, n in enumerate(lengths):  # and its keys and values stand behind those of the tokens before
        whole = model.new_cache()
        model.hidden_states(ids[i : i + 1, : n + 1], whole)
        torch.testing.assert_close(
            cache.keys_values[:, i, ..., : n + 1, :],
            whole.keys_values[:, 0, ..., : n + 1, :],
            atol=tolerance,
            rtol=tolerance,
        )


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0},
        {"temperature": 1.0, "seed": 7},
        {"temperature": 0.8, "top_k": 20, "top_p": 0.9, "repetition_penalty": 1.2, "seed": 3},
        {"temperature": 1.5, "seed": 5, "stop": ["e", "A"]},
    ],
)
def test_texts_written_together_are_those_written_alone(
    model: GPTModel, monkeypatch: pytest.MonkeyPatch, batch_size: int, settings: dict
) -> None:
    generator, made = TextGenerator(model, ByteEncoding()), model.new_cache

    def without_a_number(*arguments, **named):
        cache = made(*arguments, **named)
        cache.keys_values.fill_(torch.nan)  # what memory holds before it is written may be anything
        return cache

    monkeypatch.setattr(model, "new_cache", without_a_number)
    prompts = ["", "a", "some words", list(b"ids"), "a prompt that is longer than all of the model's context is: " * 2]
    alone = [
        generator.generate(prompt, 20, **{**settings, **({"seed": settings["seed"] + i} if "seed" in settings else {})})
        for i, prompt in enumerate(prompts)
    ]
    assert generator.generate_batch(prompts, 20, batch_size=batch_size, **settings) == alone
    assert len(set(alone)) > 3


def test_a_place_that_a_finished_text_leaves_is_taken_by_the_next(model: GPTModel) -> None:
    generator, steps = TextGenerator(model, ByteEncoding()), []
    together = SingleTokenStep.states
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            SingleTokenStep, "states", lambda self, ids, *rest: steps.append(len(ids)) or together(self, ids, *rest)
        )
        generator.generate_batch(["one", "two", "three", "four", "five"], 6, batch_size=2, temperature=0)
    assert steps == [2] * 12 + [1] * 6
    assert generator.generate_batch([], 6) == []


@pytest.mark.parametrize("settings", [{"temperature": 0}, {"temperature": 0.7, "seed": 4}, {"seed": 1, "top_p": 0.9}])
@pytest.mark.parametrize("prompt", ["abcdefghijklmnopqrstuvwxyzabcd", "qrst" * 15, "no word twice", ""])
def test_guesses_change_no_text(speller: TextGenerator, prompt: str, settings: dict) -> None:
    plain = speller.stream(prompt, 40, draft_tokens=0, **settings)
    text = "".join(plain)
    for lookup in (1, 2, 5, 100, None):
        guessed = speller.stream(prompt, 40, draft_tokens=lookup, **settings)
        assert "".join(guessed) == text
        assert (guessed.ids, guessed.finish_reason) == (plain.ids, plain.finish_reason)


def test_right_guesses_save_steps_and_leave_a_cache_that_is_gone_on_from(
    speller: TextGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, kept, prompt = [], PrefixCache(), "abcdefghijklmnopqrstuvwxyzabcd"
    hidden_states = speller.model.hidden_states
    monkeypatch.setattr(speller.model, "hidden_states", lambda *ids: reads.append(1) or hidden_states(*ids))
    stream = speller.stream(prompt, 16, temperature=0, draft_tokens=3, prefix_cache=kept)
    assert "".join(stream) == "efghijklmnopqrst"
    assert len(reads) == 4  # the prompt with three guesses, and three times a token with three
    talk = [*prompt.encode(), *stream.ids]
    assert kept.ids == talk[: kept.cache.length]
    assert kept.cache.length >= len(talk) - 1
    assert (
        speller.generate(talk, 2, temperature=0, prefix_cache=kept) == speller.generate(talk, 2, temperature=0) == "uv"
    )


def test_an_answer_that_is_left_between_two_guessed_tokens_can_be_gone_on_from(speller: TextGenerator) -> None:
    kept, prompt = PrefixCache(), "abcdefghijklmnopqrstuvwxyzabcd"
    stream = speller.stream(prompt, 16, temperature=0, draft_tokens=3, prefix_cache=kept)
    said = [next(stream), next(stream)]
    del stream
    assert said == ["e", "f"]
    assert speller.generate(prompt + "ef", 2, temperature=0, prefix_cache=kept) == "gh"


@pytest.mark.parametrize("lookup", [-1, True, 1.0, "2"])
def test_a_bad_number_of_guesses_is_refused(model: GPTModel, lookup: object) -> None:
    with pytest.raises(ValueError, match="draft_tokens must be a whole number of at least 0"):
        TextGenerator(model, ByteEncoding()).stream("a", draft_tokens=lookup)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"batch_size": 0}, "batch_size"), ({"max_new_tokens": 0}, "max_new_tokens"), ({"top_p": 2}, "top_p")],
)
def test_a_bad_setting_of_a_batch_is_refused(model: GPTModel, settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"{message} must be"):
        TextGenerator(model, ByteEncoding()).generate_batch(["a"], **settings)


def test_a_batch_under_autocast_is_written(model: GPTModel) -> None:
    generator = TextGenerator(model, ByteEncoding())
    with torch.autocast("cpu", torch.bfloat16):
        texts = generator.generate_batch(["abc", "a"], 5, temperature=0)
    assert len(texts) == 2


def test_an_interrupt_while_a_token_is_chosen_leaves_a_cache_that_is_right(
    speller: TextGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupting(set):
        def add(self, token: int) -> None:
            raise KeyboardInterrupt

    prompt, cache = list(b"abcdefghijklmnopqrstuvwxyzabcd"), speller.model.new_cache()
    sampling = SamplingSettings(temperature=0)
    writer = Writer(prompt, 9, context=48, end=256, sampling=sampling, generator=torch.Generator(), lookup=3)
    assert writer.unread(cache) == [*prompt, *b"efg"]
    speller.model(torch.tensor([[*prompt, *b"efg"]]), cache)  # with gradients, as in a program without no_grad
    monkeypatch.setattr(writer, "_seen", Interrupting())
    with pytest.raises(KeyboardInterrupt):
        writer.write(torch.zeros(4, 257), cache)  # another token than was guessed
    assert cache.length == len(prompt)


def test_half_precision_makes_no_guesses_unless_asked() -> None:
    model = GPTModel(BYTE_MODEL)
    assert default_draft_tokens(model) == 2
    assert default_draft_tokens(model.bfloat16()) == 0
    assert default_draft_tokens(quantize_int8(GPTModel(BYTE_MODEL))) == 0


def test_one_text_in_place_of_several_prompts_is_refused(model: GPTModel) -> None:
    with pytest.raises(ValueError, match="prompts must be several prompts in a list"):
        TextGenerator(model, ByteEncoding()).generate_batch("abc")
