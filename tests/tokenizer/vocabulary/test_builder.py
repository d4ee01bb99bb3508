"""Building: which tokens are included, and in which order."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.tokenizer.core.exceptions import EmptyTextError, SettingError
from src.tokenizer.core.models import Vocabulary
from src.tokenizer.processing.cleaner import TextCleaner
from src.tokenizer.vocabulary.builder import VocabularyBuilder
from tests.fakes import TRICKY_TEXTS

TEXT = "b a b c b\na c d <UNK>"  # b three times, a and c twice


def words(text: str = TEXT, **settings: Any) -> list[str]:
    builder = VocabularyBuilder(**settings)
    builder.add(text)
    tokens = builder.build().tokens
    assert tokens[:2] == ("<UNK>", "<ENDOFTEXT>")
    return [*tokens[2:]]


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, ["b", "a", "c", "\n", "d"]),
        ({"order": "alphabet"}, ["\n", "a", "b", "c", "d"]),
        ({"min_count": 2}, ["b", "a", "c"]),
        ({"max_size": 4}, ["b", "a"]),
        ({"max_size": 4, "order": "alphabet"}, ["a", "b"]),
        ({"min_count": 3, "always": ["d e", "<UNK> c"]}, ["b", "c", "d", "e"]),
        ({"max_size": 5, "always": ["e\u2019e d"]}, ["b", "d", "e'e"]),
    ],
)
def test_tokens_are_chosen_and_ordered_by_the_settings(chosen: dict[str, Any], expected: list[str]) -> None:
    assert words(**chosen) == expected


@given(
    texts=st.lists(TRICKY_TEXTS, max_size=4).filter(lambda texts: any("a" in text for text in texts)), data=st.data()
)
@settings(max_examples=60, deadline=None)
def test_the_order_of_the_texts_does_not_matter(texts: list[str], data: st.DataObject) -> None:
    def built(ordered: list[str]) -> Vocabulary:
        builder = VocabularyBuilder(max_size=8)
        for text in ordered:
            builder.add(text)
        return builder.build()

    assert built(texts) == built(data.draw(st.permutations(texts)))


def test_the_vocabulary_keeps_the_cleaning_rules() -> None:
    builder = VocabularyBuilder(cleaner=TextCleaner(["spaces"]))
    builder.add("a\xa0b\u2026")
    assert builder.build().cleaning == ("spaces",)
    assert builder.build().tokens[2:] == ("a", "b", "\u2026")


def test_overlong_tokens_are_left_out_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "src.tokenizer"):
        assert words("a " + "x" * 1001 + " " + "y" * 1000) == ["a", "y" * 1000]
    assert caplog.messages == ["1 tokens of more than 1000 characters are left out: they are not words"]


def refused(kind: type[Exception], call: Callable[[], object]) -> str:
    with pytest.raises(kind) as caught:
        call()
    return str(caught.value)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"order": "size"}, "order is 'size'; choose 'frequency' or 'alphabet'"),
        ({"min_count": 0}, "min_count is 0; it must be a whole number of at least 1"),
        ({"min_count": True}, "min_count is True; it must be a whole number of at least 1"),
        ({"max_size": 2.5}, "max_size is 2.5; it must be a whole number of at least 1, or None"),
        ({"always": "a b"}, "always is the str 'a b'; pass a list of texts"),
        (
            {"max_size": 4, "always": ["a b c"]},
            "max_size 4 is too small: the 2 reserved tokens and the 3 tokens of `always` must fit; pass at least 5",
        ),
        (
            {"max_size": 2},
            "max_size 2 is too small: the 2 reserved tokens and one token of the text must fit; pass at least 3",
        ),
    ],
)
def test_invalid_settings_are_refused(chosen: dict[str, Any], message: str) -> None:
    assert refused(SettingError, lambda: VocabularyBuilder(**chosen)) == message


def test_an_empty_vocabulary_is_refused() -> None:
    message = refused(EmptyTextError, lambda: words(min_count=9))
    assert message == "none of the 6 distinct tokens occurs at least 9 times; add more text, or lower min_count"
