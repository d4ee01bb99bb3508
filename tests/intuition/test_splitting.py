"""The pieces match those of GPT-2's own pre-tokenizer."""

import pytest
from tokenizers.pre_tokenizers import ByteLevel

from src.intuition.custom_tokenizers import learn_merges
from src.intuition.splitting import DOGS, EXAMPLES, split

TRICKY = (*EXAMPLES, DOGS, "a   b\n\n c ", "caf\u00e9 \u4f60\u597d 5\u00bd_x", "it's 'tis 'S  \t\u00a0x", "")


@pytest.mark.parametrize("text", TRICKY)
def test_pieces_match_the_tokenizers_library(text: str) -> None:
    reference = ByteLevel(add_prefix_space=False).pre_tokenize_str(text)
    assert split(text) == [text[start:end] for _, (start, end) in reference]


def test_unsplit_merges_cross_words_and_punctuation() -> None:
    assert any(". A dog" in "".join(pair) for pair in learn_merges([DOGS], 20))
    assert (" d", "og") in (cut := learn_merges(split(DOGS), 20))
    assert not any("g" in first or " " in second for first, second in cut)
