"""Memorisation: the passages of a model's samples that are word for word in its training text."""

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from src.data.text import TokenArray
from src.model.generate import TextGenerator

GRAM = 8  # words in a sequence; shorter ones are often the same by chance
SAMPLES, PROMPT_TOKENS, SAMPLE_TOKENS = 32, 12, 128
MAX_TOKENS = 50_000_000  # of a training text, which is in memory as words
_SHOWN = 5


@dataclass(frozen=True)
class Passage:
    """A passage of a sample that is in the training text, and the line of that text where it begins, from 1."""

    text: str
    words: int
    line: int


@dataclass(frozen=True)
class Copies:
    """What texts share with the training text.

    grams: how many sequences of GRAM words the texts have; copied: how many of these are in the training text.
    longest: the longest shared passages, longest first.
    """

    words: int
    grams: int
    copied: int
    longest: list[Passage]


def measure_copies(
    generator: TextGenerator, train_ids: TokenArray, val_ids: TokenArray, seed: int
) -> tuple[Copies, Copies]:
    """(copies in samples of the model, copies in the validation text). train_ids and val_ids: shape (tokens,).

    A sample continues a few tokens of the validation text, and is compared with what really follows them there. The
    model has not seen that text, so its copies show how much is the same by chance.
    Raises ValueError if the training text is too long.
    """
    if len(train_ids) > MAX_TOKENS:
        raise ValueError(f"--memorised reads up to {MAX_TOKENS:,} tokens of training text, got {len(train_ids):,}")
    decode = generator.encoding.decode
    length = max(1, min(SAMPLE_TOKENS, generator.model.config.context_length // 2))
    starts = sorted({len(val_ids) * i // SAMPLES for i in range(SAMPLES)})
    real = [np.asarray(val_ids[start : start + PROMPT_TOKENS + length]).tolist() for start in starts]
    prompts, continuations = [ids[:PROMPT_TOKENS] for ids in real], [decode(ids[PROMPT_TOKENS:]) for ids in real]
    samples = generator.generate_batch(prompts, length, temperature=0.8, top_k=40, seed=seed)
    index = WordIndex(decode(np.asarray(train_ids).tolist()), longest=length)
    return find_copies(index, samples), find_copies(index, continuations)


def print_copies(samples: Copies, real: Copies) -> None:
    """Print a row for the samples and one for the real text, and the longest copies in the samples."""
    print(f"{'':16}{'words':>8} {f'{GRAM}-word sequences':>18} {'in training text':>17} {'longest copy':>13}")
    for name, each in (("samples", samples), ("validation text", real)):
        longest = f"{each.longest[0].words} words" if each.longest else "none"
        share = f"{100 * each.copied / max(1, each.grams):.2f} %"
        print(f"{name:16}{each.words:>8,} {each.grams:>18,} {share:>17} {longest:>13}")
    print("The model has not seen the validation text. So whatever the samples copy beyond its share is memorised.")
    for passage in samples.longest:
        print(f'  line {passage.line:,} of the training text, {passage.words} words: "{passage.text}"')


def find_copies(index: "WordIndex", texts: Sequence[str]) -> Copies:
    """What the texts share with the training text, which is indexed."""
    grams = copied = 0
    passages: list[tuple[int, int, str]] = []  # (number of words, position in the training text, text)
    for words in map(str.split, texts):
        matches = [index.longest_match(words[i:]) for i in range(len(words))]
        grams += max(0, len(words) - GRAM + 1)
        copied += sum(length >= GRAM for length, _ in matches)
        previous = 0
        for i, (length, position) in enumerate(matches):
            if length and length >= previous:  # a shorter match is the end of the previous one
                passages.append((length, position, " ".join(words[i : i + length])))
            previous = length
    longest = sorted(passages, key=lambda each: -each[0])[:_SHOWN]
    shown = [Passage(text, length, index.line(position)) for length, position, text in longest]
    return Copies(sum(len(text.split()) for text in texts), grams, copied, shown)


class WordIndex:
    """Finds passages in a text with a suffix array: the positions of its words, sorted by what follows each."""

    def __init__(self, text: str, longest: int) -> None:
        """longest: the number of words of the longest passage that will be searched for."""
        self._text = text
        vocabulary, ids = np.unique(np.asarray(text.split(), dtype=object), return_inverse=True)
        self._ids = dict(zip(vocabulary.tolist(), range(len(vocabulary)), strict=True))
        self._words: list[int] = ids.tolist()
        self._order = suffix_array(ids, longest).tolist()

    def longest_match(self, words: Sequence[str]) -> tuple[int, int]:
        """(length, position) of the longest beginning of these words that is in the text. Both are in words."""
        query = [self._ids.get(word, -1) for word in words]
        near = bisect_left(self._order, query, key=lambda start: self._words[start : start + len(query)])
        candidates = self._order[max(0, near - 1) : near + 1]  # the longest match is next to where the query would be
        return max(((self._common(query, start), start) for start in candidates), default=(0, 0))

    def _common(self, query: Sequence[int], start: int) -> int:
        """How many words at the start of a query are also in the text from the word `start` on."""
        pairs = zip(query, self._words[start : start + len(query)], strict=False)
        return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(query), len(self._words) - start))

    def line(self, position: int) -> int:
        """The line, counted from 1, of a word."""
        word = next(islice(re.finditer(r"\S+", self._text), position, None))
        return 1 + self._text.count("\n", 0, word.start())


def suffix_array(ids: NDArray[np.int64], longest: int) -> NDArray[np.int64]:
    """All positions of `ids` (N,), sorted by the ids that begin there. Compares `longest` of them, or a few more.

    Prefix doubling (Manber and Myers 1990): once the positions are sorted by their first n ids, pairs of ranks sort
    them by 2n. The naive equivalent: sorted(range(len(ids)), key=lambda i: ids[i : i + longest].tolist())
    """
    rank, width = ids, 1
    while True:
        following = np.append(rank[width:], np.full(min(width, len(rank)), -1))  # -1: the end comes first
        order = np.lexsort((following, rank))
        width *= 2
        if width >= longest:
            return order
        pairs = np.stack([rank, following])[:, order]
        rank = np.empty_like(order)
        rank[order] = np.append(0, (pairs[:, 1:] != pairs[:, :-1]).any(axis=0).cumsum())
