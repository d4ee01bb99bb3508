"""The validation part of a text is the same for every tokenizer, and starts with a document if one is near."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.data import split
from src.data.split import split_tokens, token_bytes, training_part
from src.tokenizer import load_gpt2_encoding


class ByteEncoding:
    """One token per byte; 0 is end-of-text."""

    n_vocab, eot_token = 256, 0

    def decode_single_token_bytes(self, token: int) -> bytes:
        return bytes([token])


def hostile_text(seed: int) -> str:
    pieces = ["\n", "\n\n", " ", "  ", "\t", "\xa0", *"a1Ä中٣½_'!😀", "word", "'s"]
    return "".join(random.Random(seed).choices(pieces, k=400))


def test_validation_tokens_are_the_end_of_the_text() -> None:
    train, val = split_tokens(np.arange(1000) % 256, ByteEncoding(), 0.1)
    assert train.tolist() == [i % 256 for i in range(900)]
    assert val.tolist() == [i % 256 for i in range(900, 1000)]


@pytest.mark.parametrize(
    ("tokens", "fraction"), [(1000, 0.0), (1000, 1.0), (1000, -0.1), (1000, 1.5), (3, 0.1), (3, 0.9), (0, 0.5)]
)
def test_a_split_with_an_empty_part_is_refused(tokens: int, fraction: float) -> None:
    with pytest.raises(ValueError, match="--val-fraction"):
        split_tokens(np.zeros(tokens, dtype=np.uint16), ByteEncoding(), fraction)


@pytest.mark.parametrize("block", [1, 7, 1 << 20])
def test_every_tokenizer_has_the_same_validation_text(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(split, "_BLOCK", block)
    encoding = load_gpt2_encoding()
    for seed in range(20):
        text, fraction = hostile_text(seed), (seed + 1) / 22
        ids = np.array(encoding.encode_ordinary(text))
        train, val = split_tokens(ids, encoding, fraction)
        assert [*train, *val] == ids.tolist()
        start, border = len(encoding.decode_bytes(train)), len(next(training_part([text], fraction)).encode())
        crossing = len(encoding.decode_single_token_bytes(train[-1]))  # the token that the border may be inside
        assert start - crossing <= border <= start
        assert text.startswith(next(training_part([text], fraction)))


@settings(deadline=None)
@given(documents=st.lists(st.text("ab \n猫", max_size=30), min_size=1, max_size=12), fraction=st.floats(0.01, 0.6))
def test_only_the_training_part_of_the_documents_is_learned(documents: list[str], fraction: float) -> None:
    encoding = load_gpt2_encoding()
    ids = [id_ for text in documents for id_ in (*encoding.encode_ordinary(text), encoding.eot_token)][:-1]
    try:
        train, _ = split_tokens(np.array(ids, dtype=np.uint16), encoding, fraction)
    except ValueError:
        return
    expected = b"".join(encoding.decode_single_token_bytes(id_) for id_ in train if id_ != encoding.eot_token)
    learned = "".join(training_part(documents, fraction)).encode()
    crossing = token_bytes(encoding)[train].max(initial=1) + 3  # bytes: a token and a character can cross the border
    assert expected.startswith(learned) and len(expected) - len(learned) < crossing


@pytest.mark.parametrize(
    ("starts", "expected"),
    [
        ([], 900),
        ([850], 850),
        ([870, 880, 901], 880),
        ([910, 930], 910),
        ([500, 960], 899),
        ([800, 950], 800),
        ([798, 950], 950),
        ([1000], 899),
    ],
    ids=["one document", "before", "its own", "the next", "too far", "twice", "half", "an empty last document"],
)
def test_validation_begins_with_a_document_if_one_begins_near(starts: list[int], expected: int) -> None:
    ids = np.arange(1000) % 255 + 1
    ids[[start - 1 for start in starts]] = 0
    train, val = split_tokens(ids, ByteEncoding(), 0.1)
    assert np.concatenate([train, val]).tolist() == ids.tolist()
    assert len(train) == expected
