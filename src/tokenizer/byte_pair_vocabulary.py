"""A byte-pair vocabulary as the files of other libraries hold it, and the encoding with exactly its ids."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from src.tokenizer.byte_pairs import BytePairEncoding, Merge, bytes_of, require_exact_merges, spelling_of
from src.tokenizer.core.exceptions import VocabularyError
from src.tokenizer.gpt2 import END_OF_TEXT, load_gpt2_encoding, vocabulary_file
from src.tokenizer.protocols.interfaces import Encoding


@dataclass
class BytePairVocabulary:
    """A vocabulary as files hold it: the ids of spelled tokens, and the merges in order.

    special: tokens that no text encodes to. added: tokens that are found in a text before anything is merged.
    """

    ids: dict[str, int]
    merges: list[Merge]
    special: dict[str, int] = field(default_factory=dict)
    added: dict[str, int] = field(default_factory=dict)

    def add(self, id_: Any, token: Any) -> None:
        """Add one of `added_tokens`: its text, or a mapping with its text and how it is matched."""
        token = token if isinstance(token, Mapping) else {"content": token, "special": True}
        text = str(token["content"])
        if token.get("special"):
            self.special[text] = int(id_)
        elif any(token.get(option) for option in ("lstrip", "rstrip", "single_word")):
            raise VocabularyError(f"its added token {text!r:.40} takes in the white space around it")
        else:
            self.added[text] = int(id_)

    def spelled_merges(self) -> list[str]:
        """The merges as merges.txt has them: two spelled tokens, with a space between them."""
        return [f"{spelling_of(left)} {spelling_of(right)}" for left, right in self.merges]


def vocabulary_of(encoding: Encoding) -> BytePairVocabulary | None:
    """The vocabulary of a byte-pair encoding. None for a word tokenizer."""
    if encoding is load_gpt2_encoding():
        ids = json.loads(vocabulary_file("encoder.json"))
        return BytePairVocabulary(ids, parse_merges(vocabulary_file("vocab.bpe")), {END_OF_TEXT: encoding.eot_token})
    if not isinstance(encoding, BytePairEncoding):
        return None
    ids = {**{spelling_of(token): id_ for token, id_ in encoding.ranks.items()}, **encoding.special}
    return BytePairVocabulary(ids, encoding.merges(), encoding.special, encoding.added)


def encoding_of(vocabulary: BytePairVocabulary, end_of_text: Iterable[str | int | None]) -> Encoding:
    """The encoding with exactly this vocabulary's ids: GPT-2's own if only special tokens differ.

    end_of_text: spellings and ids; the first one that is a special token is the end-of-text token.
    Raises VocabularyError if there is none, or if this project cannot reproduce the ids.
    """
    if any(type(id_) is not int for id_ in vocabulary.ids.values()):
        raise VocabularyError("its ids are not whole numbers")
    ranks, special = _ranks_and_special_tokens(vocabulary)
    added = {text: id_ for text, id_ in vocabulary.added.items() if text not in special}
    candidates = (special.get(each) if isinstance(each, str) else each for each in end_of_text)
    end = next((id_ for id_ in candidates if id_ in special.values()), None)
    if end is None:
        raise VocabularyError("it has no end-of-text token")
    gpt2 = load_gpt2_encoding()
    same = ranks == gpt2._mergeable_ranks and vocabulary.merges == parse_merges(vocabulary_file("vocab.bpe"))
    if same and not added and end == gpt2.eot_token:
        return gpt2
    if not same:
        require_exact_merges(ranks, vocabulary.merges)
    return BytePairEncoding(ranks, special, added, end)


def _ranks_and_special_tokens(vocabulary: BytePairVocabulary) -> tuple[dict[bytes, int], dict[str, int]]:
    """(the ids of the tokens that text is merged into, the ids of the tokens that no text encodes to).

    Raises VocabularyError if merges are missing.
    """
    results = {left + right for left, right in vocabulary.merges}
    ranks, special = {}, dict(vocabulary.special)
    for text, id_ in vocabulary.ids.items():
        if text in special or text in vocabulary.added:
            continue
        token = bytes_of(text)
        if len(token) == 1 or token in results:
            ranks[token] = id_
        else:  # nothing merges to it
            special[text] = id_
    unreachable = len(special) - len(vocabulary.special)
    if unreachable > 16 + len(vocabulary.ids) // 100:  # more than a vocabulary has of special tokens
        raise VocabularyError(f"no merge makes {unreachable} of its tokens, so merges are missing")
    return ranks, special


def parse_merges(content: bytes) -> list[Merge]:
    """The pairs in a merges.txt, one per line. Raises VocabularyError for any other line."""
    lines = content.decode("utf-8-sig", "replace").split("\n")
    pairs = [line.rstrip("\r").split(" ") for line in lines if line.strip() and not line.startswith("#version")]
    if any(len(pair) != 2 for pair in pairs):
        raise VocabularyError("merges.txt has a line that is not a pair")
    return [(bytes_of(left), bytes_of(right)) for left, right in pairs]


def end_of_text_name(encoding: Encoding) -> str:
    """The spelling of a byte-pair encoding's end-of-text token."""
    return encoding.decode([encoding.eot_token])
