"""Text to ids and back with both tokenizers, and errors for invalid texts and ids."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as ReferenceTokenizer
from tokenizers import models, pre_tokenizers

from src.tokenizer import Encoding
from src.tokenizer.core.exceptions import SettingError, TokenIdError, UnknownTokensError
from src.tokenizer.core.models import EncodedText, Vocabulary
from src.tokenizer.processing.cleaner import RULES
from src.tokenizer.tokenizers.base import Tokenizer
from src.tokenizer.tokenizers.factory import create_tokenizer
from src.tokenizer.tokenizers.simple import SimpleTokenizer
from src.tokenizer.tokenizers.with_unknown import TokenizerWithUnknown
from src.tokenizer.vocabulary.builder import VocabularyBuilder
from tests.fakes import TRICKY_PIECES, TRICKY_TEXTS

WORDS = [*"\n,.\u2018\u2019\u201c\u201d()", "--", "to", "be", "or", "not", "don't", "\ud83d"]
VOCABULARY = Vocabulary(["<UNK>", "<ENDOFTEXT>", *WORDS], RULES)
SIMPLE, WITH_UNKNOWN = SimpleTokenizer(VOCABULARY), TokenizerWithUnknown(VOCABULARY)
BOTH = pytest.mark.parametrize("tokenizer", [SIMPLE, WITH_UNKNOWN], ids=["simple", "with_unknown"])
KNOWN_TEXTS = st.lists(st.sampled_from([*WORDS[:-1], " ", "'", '"', "\u2014", "\u200b"])).map(" ".join)
IDS = st.lists(st.integers(0, len(VOCABULARY) - 1), max_size=12)


@BOTH
def test_known_words_are_encoded_and_decoded(tokenizer: Tokenizer) -> None:
    text = "to be, or\n(not)--'to be.'"
    encoded = tokenizer.encode(text)
    assert [VOCABULARY.tokens[id_] for id_ in encoded] == [
        "to", "be", ",", "or", "\n", "(", "not", ")", "--", "\u2018", "to", "be", ".", "\u2019",
    ]  # fmt: skip
    assert encoded.token_ids == encoded == tokenizer.encode_ordinary(text) == tokenizer.encode_with_tokens(text)
    assert type(encoded) is EncodedText and type(tokenizer.encode_ordinary(text)) is list
    assert tokenizer.decode(encoded) == tokenizer.decode(iter(encoded)) == "to be, or\n(not)-- 'to be.'"


def test_tokens_keep_the_spelling_of_unknown_words() -> None:
    result = WITH_UNKNOWN.encode_with_tokens("to xyzzy\u2026")
    assert (result.token_ids, result.tokens) == ([12, 0, 4, 4, 4], ["to", "xyzzy", ".", ".", "."])


def test_unknown_words_are_refused_or_get_the_unknown_id() -> None:
    assert WITH_UNKNOWN.decode(WITH_UNKNOWN.encode("to dream, perchance")) == "to <UNK>, <UNK>"
    with pytest.raises(UnknownTokensError) as caught:
        SIMPLE.encode("to a a b \U0001f600 c\U0001f600 d \x1b " + "x" * 99)
    assert str(caught.value) == (
        "the vocabulary of 18 tokens lacks 'a', 'b', '\U0001f600', 'c', 'd' and 2 more; "
        'use the tokenizer "with_unknown", or build the vocabulary from a text that contains them'
    )


def test_unknown_words_are_named_in_printable_characters() -> None:
    with pytest.raises(UnknownTokensError, match=r"lacks '\\x1b', 'x{59}; use"):
        SIMPLE.encode("\x1b " + "x" * 99)


def test_no_text_encodes_to_a_reserved_id() -> None:
    assert WITH_UNKNOWN.encode("<UNK> <ENDOFTEXT>") == [0, 0, 0, 0]
    with pytest.raises(UnknownTokensError, match="lacks '<UNK>'; "):
        SIMPLE.encode("<UNK>")


@BOTH
def test_documents_are_joined_with_the_end_of_text_id(tokenizer: Tokenizer) -> None:
    joined = tokenizer.encode_documents(text for text in ["to be,", "", "or\nnot"])
    assert joined == [1, *tokenizer.encode("to be,"), 1, 1, *tokenizer.encode("or\nnot")]
    assert tokenizer.decode(joined) == "<ENDOFTEXT> to be, <ENDOFTEXT> <ENDOFTEXT> or\nnot"
    with pytest.raises(SettingError, match="pass a list of texts"):
        tokenizer.encode_documents("to be")


@given(text=TRICKY_TEXTS)
@settings(max_examples=120, deadline=None)
def test_a_text_and_its_normal_form_have_the_same_ids(text: str) -> None:
    ids = WITH_UNKNOWN.encode_ordinary(text)
    assert all(0 <= id_ < WITH_UNKNOWN.n_vocab and id_ != WITH_UNKNOWN.eot_token for id_ in ids)
    assert WITH_UNKNOWN.encode(WITH_UNKNOWN.decode(ids)) == ids


@given(text=KNOWN_TEXTS)
@settings(max_examples=80, deadline=None)
def test_without_unknown_words_both_tokenizers_agree(text: str) -> None:
    assert SIMPLE.encode(text) == WITH_UNKNOWN.encode(text)
    assert SIMPLE.encode(SIMPLE.decode(SIMPLE.encode(text))) == SIMPLE.encode(text)


@given(ids=IDS)
@settings(max_examples=80, deadline=None)
def test_streamed_bytes_add_up_for_any_ids(ids: list[int]) -> None:
    whole = WITH_UNKNOWN.decode(ids)
    assert all(whole.startswith(WITH_UNKNOWN.decode(ids[:n])) for n in range(len(ids)))
    # As `src.model.decoding.text_stream` does it: decode each id after the previous one, and take the new bytes.
    prefixes = [[], *([id_] for id_ in ids)]
    decode = WITH_UNKNOWN.decode_bytes
    pieces = [decode([*prefix, id_])[len(decode(prefix)) :] for prefix, id_ in zip(prefixes, ids, strict=False)]
    assert b"".join(pieces) == decode(ids)


@given(texts=st.lists(TRICKY_TEXTS, min_size=1, max_size=4), unseen=st.lists(TRICKY_PIECES, max_size=8).map("".join))
@settings(max_examples=60, deadline=None)
def test_ids_equal_those_of_the_tokenizers_library(texts: list[str], unseen: str) -> None:
    builder = VocabularyBuilder(always=["a"])
    for text in texts:
        builder.add(text)
    ours = TokenizerWithUnknown(builder.build())
    reference = ReferenceTokenizer(models.WordLevel(dict(ours.vocabulary.ids), unk_token="<UNK>"))
    reference.pre_tokenizer = pre_tokenizers.Split("\t", "removed")  # no token has a tab in it
    for text in [*texts, unseen]:
        encoded = ours.encode_with_tokens(text)
        expected = reference.encode("\t".join(encoded.tokens))
        assert encoded == expected.ids
        assert [t if t in ours.vocabulary else "<UNK>" for t in encoded.tokens] == expected.tokens


@BOTH
def test_a_word_tokenizer_is_an_encoding(tokenizer: Tokenizer) -> None:
    assert isinstance(tokenizer, Encoding)
    assert (tokenizer.name, tokenizer.n_vocab, tokenizer.eot_token) == ("word", 18, 1)
    assert tokenizer.decode_single_token_bytes(5) == "\u2018".encode()
    assert tokenizer.decode_single_token_bytes(17) == b"\xed\xa0\xbd"  # half a character
    assert len({tokenizer.decode_single_token_bytes(id_) for id_ in range(18)}) == 18
    assert tokenizer.decode_bytes([5, 12, 6]) == b"'to'"


def test_decode_accepts_ids_of_numpy_and_torch() -> None:
    assert SIMPLE.decode(np.array([12, 13], dtype=np.uint16)) == SIMPLE.decode(torch.tensor([12, 13])) == "to be"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (
            [18],
            "18 is not a token id of this vocabulary, whose ids are 0 to 17; decode with the tokenizer that made",
        ),
        (
            [2, -1],
            "-1 is not a token id of this vocabulary, whose ids are 0 to 17; decode with the tokenizer that made the",
        ),
        ([10**30], f"{10**30} is not a token id"),
        ([True], "True of type bool is not a token id; ids are whole numbers"),
        ([2.0], "2.0 of type float is not a token id; "),
        (["2"], "'2' of type str is not a token id; "),
        ("2", "'2' of type str is not a token id; "),
        ([[2]], "[2] of type list is not a token id; "),
        ([None], "None of type NoneType is not a token id; "),
        (2, "cannot decode int; pass a list of ids"),
        (None, "cannot decode NoneType; "),
    ],
)
def test_an_invalid_id_is_named(ids: Any, message: str) -> None:
    with pytest.raises(TokenIdError) as caught:
        WITH_UNKNOWN.decode(ids)
    assert str(caught.value).startswith(message)


@BOTH
@pytest.mark.parametrize("text", [None, b"to", ["to"], 3])
def test_only_a_str_can_be_encoded(tokenizer: Tokenizer, text: Any) -> None:
    with pytest.raises(SettingError, match=f"^cannot encode {type(text).__name__}; pass a str$"):
        tokenizer.encode(text)


def test_the_factory_knows_both_kinds() -> None:
    assert type(create_tokenizer("simple", VOCABULARY)) is SimpleTokenizer
    assert type(create_tokenizer("with_unknown", VOCABULARY)) is TokenizerWithUnknown


@pytest.mark.parametrize(
    ("kind", "end"), [("with_unkown", "; did you mean 'with_unknown'?"), ("gpt2", ""), (None, ""), (["simple"], "")]
)
def test_an_unknown_kind_is_refused_with_a_suggestion(kind: Any, end: str) -> None:
    with pytest.raises(SettingError) as caught:
        create_tokenizer(kind, VOCABULARY)
    assert str(caught.value) == f"there is no tokenizer {kind!r}, only 'simple' and 'with_unknown'{end}"
