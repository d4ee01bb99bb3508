"""Worked answers to exercises 27 to 30, explained in byte_pairs.md."""

from collections import Counter

Pair = tuple[bytes, bytes]


def count_pairs(words: list[list[bytes]]) -> dict[Pair, int]:
    """How often each pair of neighbouring tokens occurs in the words. No pair crosses from one word to the next."""
    counts: Counter[Pair] = Counter()
    for word in words:
        counts.update(zip(word, word[1:], strict=False))
    return counts


def merge_pair(word: list[bytes], pair: Pair) -> list[bytes]:
    """The word with each occurrence of the pair joined into one token, from left to right."""
    merged: list[bytes] = []
    i = 0
    while i < len(word):
        if tuple(word[i : i + 2]) == pair:
            merged.append(word[i] + word[i + 1])
            i += 2
        else:
            merged.append(word[i])
            i += 1
    return merged


def learn_merges(words: list[list[bytes]], ids: dict[bytes, int], n_merges: int) -> list[Pair]:
    """Up to `n_merges` pairs, in the order in which they are merged. ids: the 256 single bytes and their ids."""
    ids, merges = dict(ids), list[Pair]()
    while len(merges) < n_merges:
        counts = count_pairs(words)
        best = min(counts, key=lambda pair: (-counts[pair], ids[pair[0]], ids[pair[1]]), default=None)
        if best is None or counts[best] < 2:
            break
        merges.append(best)
        ids[best[0] + best[1]] = len(ids)
        words = [merge_pair(word, best) for word in words]
    return merges


def apply_merges(word: bytes, merges: list[Pair]) -> list[bytes]:
    """The tokens of a word: its bytes after all merges, in their order."""
    tokens = [bytes([byte]) for byte in word]
    for pair in merges:
        tokens = merge_pair(tokens, pair)
    return tokens
