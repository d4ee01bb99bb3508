"""The data models: equality and immutability."""

import numpy as np
import pytest
import torch

from src.tokenizer.core.exceptions import VocabularyError
from src.tokenizer.core.models import EncodedText, EncodedTextWithTokens, Vocabulary, VocabularyInfo

TOKENS = ("<UNK>", "<ENDOFTEXT>", "a", "b")


def test_an_encoded_text_is_a_sequence_of_its_ids() -> None:
    encoded = EncodedText([5, 6, 7])
    assert encoded == [5, 6, 7] == encoded and (5, 6, 7) == encoded == EncodedText([5, 6, 7])
    assert encoded != [5, 6] and encoded != "567" and encoded != EncodedText([])
    assert (encoded[0], encoded[-1], len(encoded), 6 in encoded, [*encoded]) == (5, 7, 3, True, [5, 6, 7])
    assert encoded[1:] == [6, 7] and isinstance(encoded[1:], EncodedText)
    assert encoded.token_ids == [5, 6, 7] and hash(encoded) == hash((5, 6, 7))
    assert repr(encoded) == "EncodedText([5, 6, 7])"


def test_numpy_and_torch_accept_an_encoded_text() -> None:
    assert np.array(EncodedText([5, 6])).tolist() == torch.tensor(EncodedText([5, 6])).tolist() == [5, 6]


def test_an_encoded_text_returns_copies() -> None:
    encoded = EncodedTextWithTokens([5], ["a"])
    encoded.token_ids.append(6)
    encoded.tokens.append("b")
    assert (encoded.token_ids, encoded.tokens) == ([5], ["a"]) and encoded == [5]
    for name in ("token_ids", "tokens", "other"):
        with pytest.raises(AttributeError):
            setattr(encoded, name, [])
    with pytest.raises(TypeError):
        encoded[0] = 1  # type: ignore[index]


def test_a_vocabulary_is_immutable_with_ids_by_position() -> None:
    vocabulary = Vocabulary(TOKENS, ["spaces"])
    assert dict(vocabulary.ids) == {token: id_ for id_, token in enumerate(TOKENS)}
    assert (len(vocabulary), "a" in vocabulary, "c" in vocabulary, vocabulary.cleaning) == (4, True, False, ("spaces",))
    assert vocabulary == Vocabulary([*TOKENS], ("spaces",)) != Vocabulary(TOKENS, [])
    with pytest.raises(TypeError):
        vocabulary.ids["c"] = 4  # type: ignore[index]
    with pytest.raises(AttributeError):
        vocabulary.tokens = ()  # type: ignore[misc]


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([*TOKENS, "a"], "the vocabulary has 'a' twice, as id 2 and 4; "),
        (["a", *TOKENS], "the vocabulary starts with ['a', '<UNK>'], not with ['<UNK>', '<ENDOFTEXT>']; "),
        (["<UNK>"], "the vocabulary starts with ['<UNK>'], not with "),
        ([*TOKENS, ""], "the vocabulary's token 4 has 0 characters; 1 to 1000 are allowed"),
        ([*TOKENS, "a" * 1001], "the vocabulary's token 4 has 1001 characters; "),
        ([*TOKENS, 3], "the vocabulary's token 4 is of type int; every token must be a string"),
    ],
)
def test_an_invalid_vocabulary_is_refused(tokens: list[str], message: str) -> None:
    with pytest.raises(VocabularyError) as caught:
        Vocabulary(tokens, [])
    assert str(caught.value).startswith(message)


def test_vocabulary_info_is_immutable() -> None:
    with pytest.raises(AttributeError):
        VocabularyInfo(3, ()).size = 4  # type: ignore[misc]
