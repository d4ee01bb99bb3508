"""Generation equals transformers, and streaming, stopping, caching and long contexts work."""

import logging

import pytest
import torch
from transformers import GenerationConfig

from src.model.decoding.sampling import SamplingSettings, sample
from src.model.generate import PrefixCache, TextGenerator
from src.model.gpt import GPTModel
from src.tokenizer import load_gpt2_encoding
from tests.fakes import ByteEncoding, model_and_reference

CONFIG = {"vocab_size": 50257, "context_length": 64, "d_model": 32, "n_heads": 2, "n_layers": 2, "dropout": 0.1}
EOT = 50256


@pytest.fixture(scope="module")
def models():
    return model_and_reference(CONFIG)


@pytest.fixture(scope="module")
def generator(models):
    return TextGenerator(models[0], load_gpt2_encoding(), "cpu")


class ScriptedModel(GPTModel):
    """Predicts the given ids in order, whatever its input; records the number of tokens of each longer forward pass."""

    def __init__(self, ids: list[int], context_length: int = 64) -> None:
        super().__init__(
            {"vocab_size": 300, "context_length": context_length, "d_model": 8, "n_heads": 1, "n_layers": 1}
        )
        self.ids, self.n_predicted, self.pass_lengths = ids, 0, []

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(len(hidden), 300)
        logits[:, self.ids[self.n_predicted]] = 20.0
        logits[:, 299] = 50.0  # an id that the tokenizer does not have
        self.n_predicted += 1
        return logits

    def hidden_states(self, ids, cache=None, **options):
        self.pass_lengths.append(ids.shape[1])
        return super().hidden_states(ids, cache, **options)


def generate_scripted(text: str, **settings) -> tuple[list[str], str]:
    """The pieces and the finish reason of a model that generates `text` and an end-of-text."""
    ids = [*text.encode(), 256]
    stream = TextGenerator(ScriptedModel(ids, 4096), ByteEncoding()).stream(
        "x", temperature=0, draft_tokens=0, **settings
    )
    return list(stream), stream.finish_reason


def test_a_prefix_cache_computes_new_tokens_only() -> None:
    model = ScriptedModel([65] * 100, 200)
    generator, prefix_cache, ids = TextGenerator(model, ByteEncoding()), PrefixCache(), list(b"a first message")
    for new in (b"", b" and a second one", b", a third"):
        ids += new
        model.pass_lengths.clear()
        stream = generator.stream(ids, 5, temperature=0, draft_tokens=0, prefix_cache=prefix_cache)
        assert "".join(stream) == "AAAAA"
        assert model.pass_lengths == [len(new) + 1 if new else len(ids)]  # the last generated token is not cached yet
        ids += stream.ids
        assert prefix_cache.ids == ids[:-1]


@pytest.mark.parametrize("prompt", [b"a chat that was for", b"another one", b"a chat that was forgotten: hi", b"a"])
def test_a_prefix_cache_changes_no_text(generator, prompt: bytes) -> None:
    prefix_cache = PrefixCache()
    generator.generate(list(b"a chat that was forgotten"), 12, temperature=0, prefix_cache=prefix_cache)
    text = generator.generate(list(prompt), 20, temperature=0, prefix_cache=prefix_cache)
    assert text == generator.generate(list(prompt), 20, temperature=0)
    again = generator.generate(list(prompt), 12, seed=3, prefix_cache=prefix_cache)
    assert again == generator.generate(list(prompt), 12, seed=3)


def test_a_prefix_cache_works_beyond_the_context(generator) -> None:
    prefix_cache, context = PrefixCache(), generator.model.config.context_length
    for length in (context - 5, context + 9, 3):
        prompt = [i % 50 for i in range(length)]
        text = generator.generate(prompt, 30, temperature=0, prefix_cache=prefix_cache)
        assert text == generator.generate(prompt, 30, temperature=0)


def test_concurrent_streams_do_not_share_a_cache(generator) -> None:
    prefix_cache, prompt = PrefixCache(), list(b"one prompt")
    expected = generator.generate(prompt, 15, temperature=0)
    streams = [generator.stream(prompt, 15, temperature=0, prefix_cache=prefix_cache) for _ in range(2)]
    texts = ["", ""]
    for _ in range(15):
        for i, stream in enumerate(streams):
            texts[i] += next(stream, "")
    assert [text + "".join(stream) for text, stream in zip(texts, streams, strict=True)] == [expected] * 2


@pytest.mark.parametrize("penalty", [1.0, 1.3, 0.8])
def test_greedy_generation_equals_transformers(models, generator, penalty: float) -> None:
    _, theirs = models
    for seed in range(6):
        prompt = torch.randint(EOT, (1, 1 + 3 * seed), generator=torch.Generator().manual_seed(seed))
        config = GenerationConfig(
            max_new_tokens=40, do_sample=False, repetition_penalty=penalty, eos_token_id=EOT, pad_token_id=EOT
        )
        expected = theirs.generate(prompt, attention_mask=torch.ones_like(prompt), generation_config=config)[0]
        stream = generator.stream(prompt[0].tolist(), 40, temperature=0, repetition_penalty=penalty)
        text = "".join(stream)
        expected_ids = [i for i in expected[prompt.shape[1] :].tolist() if i != EOT]
        assert stream.ids == expected_ids
        assert text == generator.encoding.decode(expected_ids)


def test_sampling_follows_the_distribution(generator) -> None:
    predicted = dict(generator.predict_next_token("Once upon", top_k=3))
    samples = [generator.generate("Once upon", 1, top_k=3, seed=seed) for seed in range(400)]
    total = sum(predicted.values())
    for text, probability in predicted.items():
        assert samples.count(text) / 400 == pytest.approx(probability / total, abs=0.08)


def test_a_seed_determines_the_text(generator) -> None:
    first = generator.generate("Hello", 20, seed=5)
    assert generator.generate("Hello", 20, seed=5) == first
    assert generator.generate("Hello", 20, seed=6) != first
    assert len({generator.generate("Hello", 20) for _ in range(3)}) > 1  # without a seed: a new one each time


@pytest.mark.parametrize("settings", [{"temperature": 0}, {"temperature": 0.8, "top_k": 9, "repetition_penalty": 1.2}])
@pytest.mark.parametrize("length", [1, 2, 23, 24])
def test_generation_equals_its_naive_form(generator, length: int, settings: dict) -> None:
    """The naive form is in the docstring of generate.py."""
    prompt = list(range(1000, 1000 + length))
    stream = generator.stream(prompt, 40, seed=7, **settings)
    list(stream)
    ids, random_numbers = list(prompt), torch.Generator().manual_seed(7)
    with generator.model.evaluating():
        for _ in range(40):
            logits = generator.model(torch.tensor([ids]))[0, -1]
            next_id = sample(logits, ids, SamplingSettings(**settings), random_numbers)
            if next_id == EOT:
                break
            ids.append(next_id)
    assert stream.ids == ids[length:]


def test_generate_equals_the_joined_stream(generator) -> None:
    settings = {"temperature": 0.9, "top_k": 50, "top_p": 0.9, "repetition_penalty": 1.1, "seed": 3, "stop": [" the"]}
    assert generator.generate("A b", 60, **settings) == "".join(generator.stream("A b", 60, **settings))


def test_dropout_is_off_while_generating(generator) -> None:
    generator.model.train()
    try:
        assert generator.generate("Hi", 10, temperature=0) == generator.generate("Hi", 10, temperature=0)
        assert generator.model.training
    finally:
        generator.model.eval()


def test_characters_are_streamed_whole() -> None:
    text = "naïve → 日本語 👩‍🚀!"
    pieces, reason = generate_scripted(text)
    assert "".join(pieces) == text
    assert reason == "stop"
    assert all("\ufffd" not in piece for piece in pieces)


def test_an_incomplete_last_character_is_replaced() -> None:
    pieces, reason = generate_scripted("a→b", max_new_tokens=3)
    assert "".join(pieces) == "a\ufffd"
    assert reason == "length"


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        ("END", "one EN"),
        (["two", "END"], "one EN"),
        (["nowhere"], "one ENEND two"),
        ("NE", "one E"),
        ("ENEND", "one "),
        (["o"], ""),
        ("two!", "one ENEND two"),
    ],
)
def test_text_ends_before_the_first_stop_string(stop, expected: str) -> None:
    pieces, reason = generate_scripted("one ENEND two", stop=stop)
    assert "".join(pieces) == expected
    assert reason == "stop"


def test_a_possible_start_of_a_stop_string_is_held_back() -> None:
    stream = TextGenerator(ScriptedModel([*b"abSTO-", 256]), ByteEncoding()).stream(
        "x", stop="STOP", temperature=0, draft_tokens=0
    )
    assert [next(stream) for _ in range(2)] == ["a", "b"]
    assert next(stream) == "STO-"


def test_ids_beyond_the_tokenizer_are_never_sampled() -> None:
    pieces, _ = generate_scripted("fine", max_new_tokens=4)
    assert "".join(pieces) == "fine"


def test_an_empty_prompt_becomes_an_end_of_text(generator) -> None:
    assert generator.prompt_ids("") == [EOT]
    assert generator.generate("", 5, temperature=0) == generator.generate([EOT], 5, temperature=0)


def test_a_special_token_in_the_prompt_is_ordinary_text(generator) -> None:
    assert EOT not in generator.prompt_ids("<|endoftext|>")


@pytest.mark.parametrize(("prompt_length", "limit"), [(3, 100), (64, 5), (100, 10), (200, 200), (60, 4), (1, 63)])
def test_a_full_context_continues_from_its_end_with_a_warning(
    caplog: pytest.LogCaptureFixture, prompt_length: int, limit: int
) -> None:
    text = "".join(chr(97 + i % 26) for i in range(limit))
    model = ScriptedModel([*text.encode(), 256])
    with caplog.at_level(logging.WARNING, logger="src.model.decoding.sequence"):
        assert (
            TextGenerator(model, ByteEncoding()).generate([65] * prompt_length, limit, temperature=0, draft_tokens=0)
            == text
        )
    overflows = prompt_length + limit > 64
    assert bool(caplog.records) == overflows
    assert sum(model.pass_lengths) < 4 * (prompt_length + limit)  # windows overlap by half, so the cost stays linear
    if overflows:
        assert "the text outgrew the context of" in caplog.text


def test_a_truncated_prompt_predicts_the_same_as_its_end_alone(models) -> None:
    model = models[0]
    generator = TextGenerator(model, load_gpt2_encoding())
    prompt = list(range(500, 600))
    stream = generator.stream(prompt, 8, temperature=0)
    list(stream)
    window = prompt[-(64 - 8) :]
    with model.evaluating():
        assert stream.ids[0] == int(model(torch.tensor([window]))[0, -1].argmax())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -0.1}, "temperature must be a finite number, 0 or higher, got -0.1"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_k": 0}, "top_k must be a whole number of at least 1, or None to disable it, got 0"),
        ({"top_k": 2.5}, "top_k"),
        ({"top_k": True}, "top_k"),
        ({"top_p": 0}, "top_p must be above 0 and at most 1"),
        ({"top_p": 1.01}, "top_p"),
        ({"repetition_penalty": 0}, "repetition_penalty must be a number above 0"),
        ({"max_new_tokens": 0}, "max_new_tokens must be a whole number of at least 1, got 0"),
        ({"max_new_tokens": 1.0}, "max_new_tokens"),
        ({"stop": ""}, "stop must be a non-empty string"),
        ({"stop": ["a", 3]}, "stop"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"seed": 1.5}, "seed"),
    ],
)
def test_a_bad_setting_is_refused_before_generation(generator, settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generator.generate("Hello", **settings)


def test_every_bad_setting_is_named_at_once(generator) -> None:
    with pytest.raises(ValueError, match="temperature.*top_k.*top_p.*repetition_penalty"):
        generator.stream("Hello", temperature=-1, top_k=-1, top_p=2, repetition_penalty=-1)


def test_prompt_ids_outside_the_vocabulary_are_refused(generator) -> None:
    with pytest.raises(ValueError, match="prompt id 50257 is outside the vocabulary of 50257"):
        generator.generate([1, 50257])


def test_a_tokenizer_larger_than_the_model_is_refused() -> None:
    with pytest.raises(ValueError, match="the tokenizer has 50257 ids, the model has 300"):
        TextGenerator(ScriptedModel([]), load_gpt2_encoding())


def test_predictions_are_probabilities_highest_first(generator) -> None:
    predictions = generator.predict_next_token("Once", top_k=5)
    probabilities = [probability for _, probability in predictions]
    assert len(predictions) == 5
    assert probabilities == sorted(probabilities, reverse=True)
    with generator.model.evaluating():
        expected = generator.model(torch.tensor([generator.prompt_ids("Once")]))[0, -1].softmax(dim=0)
    assert probabilities == pytest.approx(expected.topk(5).values.tolist())
    assert predictions[0][0] == generator.encoding.decode([int(expected.argmax())])
