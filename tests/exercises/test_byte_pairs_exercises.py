"""Exercises 27 to 30: solutions pass, stubs fail, common mistakes are named, and examples hold."""

import inspect
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from exercises import byte_pairs as stubs
from exercises.checks.byte_pairs import CHECKS
from exercises.checks.judging import CallFailedError
from exercises.solutions import byte_pairs as solutions
from tests.exercises.proof import ROOT, example_problems, layout_problems, number_problems, sections

TASKS = ROOT / "exercises" / "byte_pairs_exercises.md"
ANSWERS = ROOT / "exercises" / "solutions" / "byte_pairs.md"
NAMES = {name: getattr(solutions, name) for name, _ in CHECKS.values()}


@pytest.mark.parametrize("number", CHECKS)
def test_solution_passes_and_stub_fails(number: int) -> None:
    name, check = CHECKS[number]
    check(getattr(solutions, name))
    with pytest.raises(CallFailedError) as raised:
        check(getattr(stubs, name))
    assert isinstance(raised.value.__cause__, NotImplementedError)
    assert str(raised.value.__cause__) == f"exercise {number}"
    assert inspect.signature(getattr(stubs, name)) == inspect.signature(NAMES[name])


def test_tasks_and_answers_are_complete_and_right() -> None:
    tasks, answers = TASKS.read_text(encoding="utf-8"), ANSWERS.read_text(encoding="utf-8")
    assert layout_problems(tasks, {number: getattr(stubs, name) for number, (name, _) in CHECKS.items()}) == []
    for text in (tasks, answers):
        assert example_problems(text, NAMES) == []
        assert number_problems(text, NAMES) == []
    titles = [{number: part.split("\n")[0] for number, part in sections(text).items()} for text in (tasks, answers)]
    assert titles[0] == titles[1]


def first_only(word: list[bytes], pair: tuple[bytes, bytes]) -> list[bytes]:
    for i in range(len(word) - 1):
        if (word[i], word[i + 1]) == pair:
            return [*word[:i], word[i] + word[i + 1], *word[i + 2 :]]
    return list(word)


def from_the_right(word: list[bytes], pair: tuple[bytes, bytes]) -> list[bytes]:
    turned = solutions.merge_pair([token[::-1] for token in word[::-1]], (pair[1], pair[0]))
    return [token[::-1] for token in turned[::-1]]


def learned(words: Any, ids: Any, n_merges: int, order: Callable[..., Any], fewest: int = 2) -> list[Any]:
    ids, merges = dict(ids), []
    while len(merges) < n_merges and (counts := solutions.count_pairs(words)):
        best = min(counts, key=lambda pair: (-counts[pair], order(pair, ids)))
        if counts[best] < fewest:
            break
        merges.append(best)
        ids.setdefault(best[0] + best[1], len(ids))
        words = [solutions.merge_pair(word, best) for word in words]
    return merges


def changing(words: list[list[bytes]], ids: dict[bytes, int], n_merges: int) -> list[Any]:
    merges = solutions.learn_merges(words, ids, n_merges)
    ids[b"new"] = 256
    return merges


def by_ids(pair: Any, ids: Any) -> Any:
    return ids[pair[0]], ids[pair[1]]


def longest(word: bytes, merges: list[Any]) -> list[bytes]:
    known, tokens = {left + right for left, right in merges}, []
    while word:
        size = next(size for size in range(len(word), 0, -1) if size == 1 or word[:size] in known)
        tokens.append(word[:size])
        word = word[size:]
    return tokens


MISTAKES: list[tuple[int, Callable[..., Any], str]] = [
    (27, lambda words: Counter(pairwise([token for word in words for token in word])), "crosses from one word"),
    (27, lambda words: Counter(pair for word in words for pair in set(pairwise(word))), "counted once in each word"),
    (27, lambda words: [*solutions.count_pairs(words)], "got a list, expected a dict"),
    (27, lambda words: None, "needs a return"),
    (27, lambda words: solutions.count_pairs({*map(tuple, words)}), "occurs twice counts twice"),
    (27, lambda words: Counter(a + b for word in words for a, b in pairwise(word)), "not the joined token"),
    (28, lambda word, pair: [b"".join(pair) if tuple(word[i : i + 2]) == pair else word[i] for i in range(len(word))],
     "second token is used again"),
    (28, lambda word, pair: solutions.merge_pair(word, pair)[:-1], "index 3, the end instead of b'a'"),
    (28, first_only, "only the first occurrence"),
    (28, from_the_right, "from right to left"),
    (28, lambda word, pair: word.clear() or [], "changed its argument word"),
    (28, lambda word, pair: tuple(solutions.merge_pair(word, pair)), "got a tuple, expected a list"),
    (29, lambda w, ids, n: learned(w, ids, n, by_ids, fewest=1), "occurs only once is no pattern"),
    (29, lambda w, ids, n: learned(w, ids, n, lambda pair, ids: ()), "not the one that comes first"),
    (29, lambda w, ids, n: learned(w, ids, n, lambda pair, ids: (-ids[pair[0]], -ids[pair[1]])), "not the higher"),
    (29, lambda w, ids, n: learned(w, ids, n, lambda pair, ids: pair), "compare ids, not bytes"),
    (29, lambda w, ids, n: [*map(b"".join, solutions.learn_merges(w, ids, n))], "return the pairs"),
    (29, lambda w, ids, n: solutions.learn_merges(w, ids, n + 1), "stop after n_merges"),
    (29, lambda w, ids, n: [p for p, count in solutions.count_pairs(w).items() if count > 1][:n], "first difference"),
    (29, changing, "changed its argument ids"),
    (30, longest, "the longest token at each place"),
    (30, lambda word, merges: [bytes([byte]) for byte in word], "no merge was applied"),
    (30, lambda word, merges: solutions.apply_merges(word, merges[::-1]), "from the last one"),
    (30, lambda word, merges: [*word], "index 0, 32 instead of b' sh'"),
]  # fmt: skip


@pytest.mark.parametrize(("number", "answer", "named"), MISTAKES)
def test_common_mistakes_are_named(number: int, answer: Callable[..., Any], named: str) -> None:
    with pytest.raises(AssertionError) as raised:
        CHECKS[number][1](answer)
    sentence = str(raised.value)
    assert named in sentence and "\n" not in sentence and len(sentence) < 700


def test_the_arguments_of_a_failing_call_are_shown() -> None:
    with pytest.raises(CallFailedError, match=r"for word \[b'b', b'a', .*\] and pair \(b'a', b'n'\)"):
        CHECKS[28][1](lambda word, pair: word[99])
