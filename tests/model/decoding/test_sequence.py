"""A sequence and its draft tokens, without any model."""

import logging

import pytest
import torch

from src.model.decoding.sampling import SamplingSettings
from src.model.decoding.sequence import Sequence

END = 256


def new_sequence(prompt: bytes, limit: int = 9, *, context_length: int = 48, draft_tokens: int = 3) -> Sequence:
    return Sequence(
        list(prompt),
        limit,
        context_length=context_length,
        end_token=END,
        sampling=SamplingSettings(temperature=0),
        generator=torch.Generator(),
        draft_tokens=draft_tokens,
    )


def logits_for(*tokens: int) -> torch.Tensor:
    """Logits whose most likely tokens are these."""
    return torch.nn.functional.one_hot(torch.tensor(tokens), END + 1).float()


def test_the_draft_follows_the_last_occurrence_of_the_ngram() -> None:
    sequence = new_sequence(b"abcdefabcxyzabc")
    assert sequence.propose_draft() == list(b"xyz")
    sequence.accept(list(b"x"))
    assert sequence.propose_draft() == list(b"yza")
    assert sequence.ids == list(b"abcdefabcxyzabcx")  # proposing alone changes nothing


def test_pending_tokens_are_the_prompt_and_then_the_last_token() -> None:
    sequence = new_sequence(b"abc")
    assert sequence.pending(0) == list(b"abc")
    sequence.accept(list(b"d"))
    assert sequence.pending(3) == list(b"d")
    assert sequence.pending(1) == list(b"bcd")  # a prefix cache held only the first token


def test_a_new_ngram_has_no_draft() -> None:
    assert new_sequence(b"abcdefabd").propose_draft() == []
    assert new_sequence(b"ab").propose_draft() == []


def test_a_periodic_match_is_repeated_cyclically() -> None:
    assert new_sequence(b"ababab", draft_tokens=5).propose_draft() == list(b"ababa")


@pytest.mark.parametrize(
    ("prompt", "context_length", "limit", "expected"),
    [
        (b"abcdefabc", 48, 3, b"de"),
        (b"abcdefabc", 48, 1, b""),
        (b"abcdefabc", 11, 9, b""),  # the prompt is truncated to defabc
        (b"abcabc", 12, 20, b"abcabc"),
    ],
)
def test_a_draft_exceeds_neither_the_limit_nor_the_context(
    prompt: bytes, context_length: int, limit: int, expected: bytes
) -> None:
    sequence = new_sequence(prompt, limit, context_length=context_length, draft_tokens=8)
    draft = sequence.propose_draft()
    assert draft == list(expected)
    assert len(sequence.ids) + len(draft) <= context_length


@pytest.mark.parametrize(
    ("most_likely", "new", "finished"),
    [
        (b"defg", b"defg", False),  # the whole draft is accepted
        (b"dxfg", b"dx", False),
        (b"xefg", b"x", False),
        ([*b"d", END, *b"fg"], b"d", True),
        ([END, *b"efg"], b"", True),
    ],
)
def test_draft_tokens_are_accepted_up_to_the_first_mismatch(most_likely, new: bytes, finished: bool) -> None:
    sequence = new_sequence(b"abcdefabc")
    sampled = sequence.sample(logits_for(*most_likely), sequence.propose_draft())
    assert sequence.ids == list(b"abcdefabc")  # sampling alone changes nothing
    assert sequence.accept(sampled) == list(new)
    assert sequence.ids == list(b"abcdefabc" + new)
    assert (sequence.finished, sequence.remaining) == (finished, 0 if finished else 9 - len(new))


def test_a_full_context_slides_and_warns_once(caplog: pytest.LogCaptureFixture) -> None:
    sequence = new_sequence(b"0123456789", 100, context_length=12, draft_tokens=0)
    with caplog.at_level(logging.WARNING, logger="src.model.decoding.sequence"):
        slides = []
        for _ in range(20):
            slides.append(sequence.slide_if_full())
            assert sequence.propose_draft() == []
            sequence.accept(sequence.sample(logits_for(65), draft=[]))
    assert [i for i, slid in enumerate(slides) if slid] == [7, 14]  # 6 tokens stay, the 13th makes them slide
    assert len(sequence.ids) <= 13
    assert [record.getMessage() for record in caplog.records] == [
        "the text outgrew the context of 12 tokens: the model no longer sees its beginning"
    ]


def test_a_repetition_penalty_applies_within_a_draft() -> None:
    sequence = new_sequence(b"abcdefabc")
    sequence.sampling = SamplingSettings(temperature=0, repetition_penalty=100.0)
    draft = sequence.propose_draft()
    assert draft == list(b"def")
    logits = torch.zeros(4, END + 1)
    logits[:, ord("d")], logits[:, ord("z")] = 2.0, 1.0
    assert sequence.sample(logits, draft) == list(b"z")
