"""Your answers to exercises 27 to 30: replace each `raise`. The tasks are in byte_pairs_exercises.md.

Write in exercises/answers/byte_pairs.py, a copy of this file: `python -m exercises.start` creates it.

Later answers may call earlier ones. Check an answer with `python -m exercises.check 27`.
"""

from collections import Counter  # noqa: F401

Pair = tuple[bytes, bytes]


def count_pairs(words: list[list[bytes]]) -> dict[Pair, int]:
    """How often each pair of neighbouring tokens occurs in the words. No pair crosses from one word to the next."""
    raise NotImplementedError("exercise 27")


def merge_pair(word: list[bytes], pair: Pair) -> list[bytes]:
    """The word with each occurrence of the pair joined into one token, from left to right."""
    raise NotImplementedError("exercise 28")


def learn_merges(words: list[list[bytes]], ids: dict[bytes, int], n_merges: int) -> list[Pair]:
    """Up to `n_merges` pairs, in the order in which they are merged. ids: the 256 single bytes and their ids."""
    raise NotImplementedError("exercise 29")


def apply_merges(word: bytes, merges: list[Pair]) -> list[bytes]:
    """The tokens of a word: its bytes after all merges, in their order."""
    raise NotImplementedError("exercise 30")
