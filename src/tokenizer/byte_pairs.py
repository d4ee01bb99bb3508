"""Byte-pair encodings other than GPT-2's own: built from a vocabulary and its merges, and stored in a checkpoint."""

import re
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

import tiktoken

from src.common.checks import is_whole_number
from src.tokenizer.core.exceptions import VocabularyError
from src.tokenizer.gpt2 import END_OF_TEXT, SPLIT, printable_bytes
from src.tokenizer.protocols.interfaces import Encoding

Merge = tuple[bytes, bytes]


class BytePairEncoding(tiktoken.Encoding):
    """A `tiktoken.Encoding` that splits text into words as GPT-2 does, with any vocabulary.

    ranks: the tokens that text is merged into, and their ids; merges happen in the order of the ids.
    special: tokens that no text encodes to. added: tokens that are found in a text before anything is merged.
    learned_from: a hash of the text that `learn_byte_pairs` learned it from.
    Raises VocabularyError if a byte is missing, an id is used twice, or `end_of_text` is not the id of a special token.
    """

    def __init__(
        self,
        ranks: Mapping[bytes, int],
        special: Mapping[str, int],
        added: Mapping[str, int],
        end_of_text: int,
        *,
        learned_from: str | None = None,
    ) -> None:
        if missing := 256 - sum(len(token) == 1 for token in ranks):
            raise VocabularyError(f"its vocabulary lacks {missing} of the 256 single bytes")
        ids = [*ranks.values(), *special.values(), *added.values()]
        if len({*ids}) < len(ids) or not all(0 <= id_ < 2**31 for id_ in ids):
            raise VocabularyError("its vocabulary has an id twice, or one that is negative")
        if end_of_text not in special.values():
            raise VocabularyError("its vocabulary has no end-of-text token")
        super().__init__("byte_pairs", pat_str=SPLIT, mergeable_ranks=dict(ranks), special_tokens={**special, **added})
        self.ranks, self.special, self.added, self._end_of_text = dict(ranks), dict(special), dict(added), end_of_text
        self.learned_from = learned_from
        longest_first = sorted(filter(None, added), key=len, reverse=True)
        self._added_pattern = re.compile(f"({'|'.join(map(re.escape, longest_first))})") if longest_first else None

    @property
    def eot_token(self) -> int:
        """Id of the end-of-text token."""
        return self._end_of_text

    def encode_ordinary(self, text: str) -> list[int]:
        """Ids of a text. A special token spelled in it is encoded as ordinary text, an added one as itself."""
        if self._added_pattern is None:
            return super().encode_ordinary(text)
        ids: list[int] = []
        for i, part in enumerate(self._added_pattern.split(text)):  # every second part is an added token
            ids += [self.added[part]] if i % 2 else super().encode_ordinary(part)
        return ids

    def merges(self) -> list[Merge]:
        """The pairs that are merged, in order: each token's two parts after all merges before its own."""
        by_id = sorted(self.ranks.items(), key=itemgetter(1))
        pairs = (_merged(token, self.ranks, id_) for token, id_ in by_id if len(token) > 1)
        return [(left, right) for left, right in pairs]

    def state(self) -> dict[str, Any]:
        """Everything that determines the ids of a text, and what it was learned from.

        Tokens are spelled as in GPT-2's vocabulary file.
        """
        spellings = [""] * (max(self.ranks.values()) + 1)
        for token, id_ in self.ranks.items():
            spellings[id_] = spelling_of(token)
        state = {
            "tokens": "\n".join(spellings),
            "special": self.special,
            "added": self.added,
            "end_of_text": self._end_of_text,
        }
        return state | ({"learned_from": self.learned_from} if self.learned_from else {})


def byte_pairs_from_state(state: Mapping[str, Any]) -> BytePairEncoding:
    """The encoding that `BytePairEncoding.state` described. Raises VocabularyError if the state is damaged."""
    tokens, end, source = state.get("tokens"), state.get("end_of_text"), state.get("learned_from")
    special, added = state.get("special"), state.get("added")
    if not (isinstance(tokens, str) and is_whole_number(end) and isinstance(special, dict) and isinstance(added, dict)):
        raise VocabularyError("its byte-pair vocabulary is incomplete")
    if any(not isinstance(text, str) or type(id_) is not int for text, id_ in (*special.items(), *added.items())):
        raise VocabularyError("its special tokens are not texts with ids")
    if source is not None and not isinstance(source, str):
        raise VocabularyError("its source is not a hash")
    spellings = {spelling: id_ for id_, spelling in enumerate(tokens.split("\n")) if spelling}
    ranks = {bytes_of(text): id_ for text, id_ in spellings.items()}
    return BytePairEncoding(ranks, special, added, end, learned_from=source)


def special_texts(encoding: Encoding) -> list[str]:
    """The spellings of an encoding's special tokens. Other libraries take these for the tokens wherever they occur."""
    return list(encoding.special) if isinstance(encoding, BytePairEncoding) else [END_OF_TEXT]


def bytes_of(spelling: str) -> bytes:
    """The bytes of a token that is spelled as in GPT-2's vocabulary file."""
    byte_of = printable_bytes()
    try:
        return bytes([byte_of[character] for character in spelling])
    except KeyError as error:
        raise VocabularyError(f"its token {spelling!r:.60} is not spelled in GPT-2's printable bytes") from error


def spelling_of(token: bytes) -> str:
    """The token, spelled as in GPT-2's vocabulary file."""
    character_of = {byte: character for character, byte in printable_bytes().items()}
    return "".join(character_of[byte] for byte in token)


def require_exact_merges(ranks: Mapping[bytes, int], merges: Sequence[Merge]) -> None:
    """Raise VocabularyError unless merging by ids gives the same tokens as merging by the list of merges.

    tiktoken joins any two neighbours whose bytes are a token, the lowest id first. A list of merges joins only the
    listed pairs, in its order. Both agree if ids follow the list, and if each token, merged by the ids before its own,
    ends as its listed pair: then no other pair can ever meet.
    """
    last = -1
    for left, right in merges:
        id_ = ranks.get(left + right, -1)
        if id_ <= last or (len(left) > 1 and ranks[left] > id_) or (len(right) > 1 and ranks[right] > id_):
            raise VocabularyError("its ids are not in the order of its merges")
        if _merged(left + right, ranks, id_) != [left, right]:
            raise VocabularyError(f"its merges are ambiguous at {left + right!r:.40}")
        last = id_


def _merged(token: bytes, ranks: Mapping[bytes, int], limit: int) -> list[bytes]:
    """The token's bytes after all merges whose id is below `limit`."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        pairs = [left + right for left, right in zip(parts[:-1], parts[1:], strict=True)]
        found = [ranks.get(pair, limit) for pair in pairs]
        lowest = min(found)
        if lowest >= limit:
            break
        i = found.index(lowest)
        parts[i : i + 2] = [pairs[i]]
    return parts
