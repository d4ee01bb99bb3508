"""Byte-pair merges match the `tokenizers` library, both when learned and when applied."""

import json
import random
import re

import pytest
from tokenizers import Regex, Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import Split
from tokenizers.trainers import BpeTrainer

from src.intuition.custom_tokenizers import (
    NEW_TEXT,
    TEXT,
    apply_merges,
    build_vocabulary,
    learn_merges,
    merge,
    split_words,
)

DRAW = random.Random(1)
TEXTS = [
    TEXT,
    "aaaaaaa aaa aa",
    "the cat sat on the mat, the rat sat on the cat",
    "abc",
    *("".join(DRAW.choices("abcd  ", k=80)) for _ in range(40)),
]


def reference(text: str, most: int, split_words_first: bool) -> Tokenizer:
    tokenizer = Tokenizer(BPE())
    if split_words_first:
        tokenizer.pre_tokenizer = Split(Regex(r" ?\S+|\s+"), "isolated")
    trainer = BpeTrainer(vocab_size=len(set(text)) + most, min_frequency=2, show_progress=False)
    tokenizer.train_from_iterator([text], trainer)
    return tokenizer


@pytest.mark.parametrize("split_words_first", [False, True])
@pytest.mark.parametrize("most", [1, 5, 30])
def test_merges_and_tokens_match_the_tokenizers_library(most: int, split_words_first: bool) -> None:
    for text in TEXTS:
        theirs = reference(text, most, split_words_first)
        pieces = re.findall(r" ?\S+|\s+", text) if split_words_first else [text]
        merges = learn_merges(pieces, most)
        assert merges == [tuple(pair) for pair in json.loads(theirs.to_str())["model"]["merges"]]
        assert [token for piece in pieces for token in apply_merges(piece, merges)] == theirs.encode(text).tokens


def test_learned_merges_encode_new_text() -> None:
    assert apply_merges(NEW_TEXT, learn_merges([TEXT], 12)) == reference(TEXT, 12, False).encode(NEW_TEXT).tokens
    assert apply_merges("", []) == [] == learn_merges([""], 3)


def test_pairs_are_merged_from_left_to_right() -> None:
    assert merge(["a", "a", "a", "b"], ("a", "a")) == ["aa", "a", "b"]


def test_ids_follow_sorted_order() -> None:
    assert build_vocabulary("cabbage") == {"a": 0, "b": 1, "c": 2, "e": 3, "g": 4}


def test_punctuation_marks_are_separate_words() -> None:
    assert split_words("Don't stop, now!") == ["Don", "'", "t", "stop", ",", "now", "!"]
