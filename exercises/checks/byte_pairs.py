"""The checks of exercises 27 to 30.

The expected merges and tokens are those of the libraries behind `python main.py --tokenizer bpe`.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from itertools import pairwise, zip_longest
from typing import Any

import regex

from exercises.checks.judging import call, given, kind_of, require, shown
from src.tokenizer import learn_byte_pairs
from src.tokenizer.gpt2 import SPLIT
from src.tokenizer.learning import SMALLEST_VOCAB

Pair = tuple[bytes, bytes]
Words = list[list[bytes]]

TEXT = (
    "So shaken as we are, so wan with care,\nFind we a time for frighted peace to pant,\nAnd breathe short-winded "
    "accents of new broils\nTo be commenced in strands afar remote: naïve Zoë, aaaa aaaaa.\n"
)
N_MERGES = 60


def check_count_pairs(function: Callable[..., Any]) -> None:
    """Exercise 27: compare with counts written out by hand."""
    cases: list[tuple[str, dict[str, int]]] = [
        ("abab ab", {"ab": 3, "ba": 1}),
        ("aaaa a", {"aa": 3}),
        ("x y", {}),
        ("low slow", {"lo": 2, "ow": 2, "sl": 1}),
        ("ab ab", {"ab": 2}),
    ]
    for text, spelled in cases:
        words = [single_bytes(word) for word in text.split()]
        joined = [token for word in words for token in word]
        mistakes = {
            "a pair crosses from one word to the next": Counter(pairwise(joined)),
            "a pair is counted once in each word, however often it occurs there": Counter(
                pair for word in words for pair in set(pairwise(word))
            ),
            "a word that occurs twice counts twice": Counter(
                pair for word in {*map(tuple, words)} for pair in pairwise(word)
            ),
            "a key is a tuple of two tokens, not the joined token": Counter(
                left + right for word in words for left, right in pairwise(word)
            ),
            "(a, b) and (b, a) are different pairs": Counter(
                tuple(sorted(pair)) for word in words for pair in pairwise(word)
            ),
            "these are counts of single tokens": Counter(joined),
            "pairs that overlap, as in aaa, count as well": Counter(
                pair for word in words for pair in _apart(word)
            ),
        }  # fmt: skip
        expected = {(pair[:1].encode(), pair[1:].encode()): count for pair, count in spelled.items()}
        _expect(function, {"words": words}, expected, mistakes)


def check_merge_pair(function: Callable[..., Any]) -> None:
    """Exercise 28: compare with words written out by hand."""
    cases = [
        ("banana", "an", "b an an a"),
        ("aaaaa", "aa", "aa aa a"),
        ("aba", "ba", "a ba"),
        ("xyz", "zx", "x y z"),
        ("", "ab", ""),
    ]
    for text, joined, result in cases:
        word, pair = single_bytes(text), (joined[:1].encode(), joined[1:].encode())
        backwards = [token[::-1] for token in _merge([token[::-1] for token in word[::-1]], pair[::-1])][::-1]
        first = _merge(word, pair, most=1)
        mistakes = {
            "only the first occurrence is joined": first,
            "the occurrences are joined from right to left": backwards,
            "the pair's second token is used again: go on after it": _without_skipping(word, pair),
        }
        _expect(function, {"word": word, "pair": pair}, [token.encode() for token in result.split()], mistakes)
    _expect(function, {"word": [b"th", b"e", b"th", b"e"], "pair": (b"th", b"e")}, [b"the", b"the"], {})
    _expect(function, {"word": [b" ", b"a", b" ", b"b"], "pair": (b" ", b"a")}, [b" a", b" ", b"b"], {})


def check_learn_merges(function: Callable[..., Any]) -> None:
    """Exercise 29: compare with what the library `tokenizers` learns from the same text."""
    ids = learn_byte_pairs([], SMALLEST_VOCAB).ranks
    for text in ("low lower lowest slow slower slowest", "ab cd ab cd", TEXT, "once"):
        words = [single_bytes(word) for word in regex.findall(SPLIT, text)]
        expected = learn_byte_pairs([text], SMALLEST_VOCAB + N_MERGES).merges()
        counts = Counter(pair for word in words for pair in pairwise(word))
        mistakes = {
            "these are the new tokens: return the pairs": [left + right for left, right in expected],
            "join the pair in all words, and count again before the next one": sorted(
                (pair for pair in counts if counts[pair] > 1),
                key=lambda pair, counts=counts: (-counts[pair], *_by_ids(pair, ids)),
            )[:N_MERGES],
            "a pair that occurs only once is no pattern: stop before it": _learn(words, ids, fewest=1),
            "of equally frequent pairs, take the one with the lower ids, not the one that comes first": _learn(
                words, ids, ties=lambda pair, ids: ()
            ),
            "of equally frequent pairs, take the one with the lower ids, not the higher ones": _learn(
                words, ids, ties=lambda pair, ids: (-ids[pair[0]], -ids[pair[1]])
            ),
            "compare ids, not bytes: a merged token comes after all single bytes": _learn(
                words, ids, ties=lambda pair, ids: pair
            ),
        }
        _expect(function, {"words": words, "ids": ids, "n_merges": N_MERGES}, expected, mistakes)
    words = [single_bytes("low"), single_bytes("low")]
    for n_merges, merges in ((1, [(b"l", b"o")]), (0, [])):
        one_more = _learn(words, ids)[: n_merges + 1]
        mistakes = {"this is one pair too many: stop after n_merges": one_more}
        _expect(function, {"words": words, "ids": ids, "n_merges": n_merges}, merges, mistakes)


def check_apply_merges(function: Callable[..., Any]) -> None:
    """Exercise 30: compare with tiktoken, which encodes with the same merges."""
    encoding = learn_byte_pairs([TEXT], SMALLEST_VOCAB + N_MERGES)
    merges = encoding.merges()
    tokens = sorted(encoding.ranks, key=len, reverse=True)
    for word in (" shaken", "aaaaaaa", " commencement", "Zoë", "x", " frightened", " shore", "strand", " so"):
        utf8 = word.encode("utf-8")
        mistakes = {
            "this takes the longest token at each place; apply the merges in their order": _longest_first(utf8, tokens),
            "these are the single bytes: no merge was applied": single_bytes(word),
            "each merge joins all of its occurrences": _apply(utf8, merges, most=1),
            "the merges are applied from the last one": _apply(utf8, merges[::-1]),
        }
        expected = [encoding.decode_single_token_bytes(id_) for id_ in encoding.encode_ordinary(word)]
        _expect(function, {"word": utf8, "merges": merges}, expected, mistakes)


CHECKS: dict[int, tuple[str, Callable[[Callable[..., Any]], None]]] = {
    27: ("count_pairs", check_count_pairs),
    28: ("merge_pair", check_merge_pair),
    29: ("learn_merges", check_learn_merges),
    30: ("apply_merges", check_apply_merges),
}


def single_bytes(text: str) -> list[bytes]:
    """The bytes of a text in UTF-8, each as a token."""
    return [bytes([byte]) for byte in text.encode("utf-8")]


def _expect(
    function: Callable[..., Any], arguments: Mapping[str, Any], expected: Any, mistakes: Mapping[str, Any]
) -> None:
    """Raise AssertionError unless the answer is the expected one; the message names a known mistake."""
    answer, where = call(function, arguments), given(arguments)
    require(answer is not None, f"{where}, got None: the function needs a return")
    kind = dict if isinstance(expected, dict) else list
    require(isinstance(answer, kind), f"{where}, got {kind_of(answer)}, expected a {kind.__name__}")
    if answer == expected:
        return
    hint = next((mistake for mistake, wrong in mistakes.items() if answer == wrong), None) or _first_difference(
        answer, expected
    )
    raise AssertionError(f"{where}, got {shown(answer)}, expected {shown(expected)}{hint and f': {hint}'}")


def _first_difference(answer: Any, expected: Any) -> str:
    """Where two lists differ first; empty for dicts."""
    if isinstance(answer, dict):
        return ""
    pairs = enumerate(zip_longest(answer, expected, fillvalue="the end"))
    i, (got, wanted) = next((i, pair) for i, pair in pairs if pair[0] != pair[1])
    return f"the first difference is at index {i}, {got} instead of {wanted}"


def _apart(word: list[bytes]) -> list[Pair]:
    """The pairs of a word without those that share a token with the same pair before."""
    found: list[Pair] = []
    i = 0
    while i < len(word) - 1:
        found.append((word[i], word[i + 1]))
        i += 2 if tuple(word[i + 1 : i + 3]) == found[-1] else 1
    return found


def _merge(word: list[bytes], pair: Pair, most: int = 1_000) -> list[bytes]:
    result: list[bytes] = []
    for token in word:
        if most and result and (result[-1], token) == pair:
            result[-1:], most = [b"".join(pair), b""], most - 1  # the empty token keeps the new one apart
        else:
            result.append(token)
    return list(filter(None, result))


def _without_skipping(word: list[bytes], pair: Pair) -> list[bytes]:
    """The word with each occurrence joined, and its second token still there."""
    return [b"".join(pair) if tuple(word[i : i + 2]) == pair else token for i, token in enumerate(word)]


def _by_ids(pair: Pair, ids: dict[bytes, int]) -> tuple:
    return ids[pair[0]], ids[pair[1]]


def _learn(words: Words, ids: dict[bytes, int], ties: Callable[..., tuple] = _by_ids, fewest: int = 2) -> list[Pair]:
    """Merges learned with another rule for ties, or from rarer pairs."""
    ids, merges = dict(ids), list[Pair]()
    while len(merges) < N_MERGES:
        counts = Counter(pair for word in words for pair in pairwise(word))
        best = min(counts, key=lambda pair: (-counts[pair], ties(pair, ids)), default=None)
        if best is None or counts[best] < fewest:
            break
        merges.append(best)
        ids.setdefault(b"".join(best), len(ids))
        words = [_merge(word, best) for word in words]
    return merges


def _apply(word: bytes, merges: list[Pair], most: int = 1_000) -> list[bytes]:
    tokens = [bytes([byte]) for byte in word]
    for pair in merges:
        tokens = _merge(tokens, pair, most)
    return tokens


def _longest_first(word: bytes, tokens: list[bytes]) -> list[bytes]:
    result = []
    while word:
        result.append(next(token for token in tokens if word.startswith(token)))
        word = word[len(result[-1]) :]
    return result
