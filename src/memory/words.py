"""Splits texts into words, and compares them."""

import re
from collections.abc import Iterable

from src.memory.spelling import american_word

# A vowel sign of Hindi and others is a "mark", which \w leaves out. Chinese and others have no spaces between words.
_MARKS = "\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0900-\u0963\u0980-\u109f\u1780-\u17d3"
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
)
_WORD = re.compile(rf"[^\W_](?:[^\W_]|[{_MARKS}])*")
_SAME_SCRIPT = re.compile(rf"[{_UNSPACED}]+|[^{_UNSPACED}]+")


def words_of(text: str) -> list[str]:
    """The distinct words of a text in lower case, in order of first appearance; digits count as letters."""
    return list(dict.fromkeys(_WORD.findall(text.lower())))


def american(text: str) -> str:
    """The words of a text in lower case and in American spelling."""
    return " ".join(map(american_word, _WORD.findall(text.lower())))


def normalised(text: str) -> str:
    """The text by which two statements are the same: up to case, spacing and the full stop."""
    return " ".join(text.casefold().split()).rstrip(".!")


def as_sentence(text: str) -> str:
    """The text with a full stop, unless it ends with punctuation: so several facts in a row stay apart."""
    text = text.rstrip()
    return text if text.endswith((".", "!", "?", "\u2026", "\u3002")) else f"{text}."


def contains_any(text: str, parts: Iterable[str]) -> bool:
    """Whether a text contains one of the parts, up to case, spacing and the full stop."""
    plain = normalised(text)
    return any(normalised(part) in plain for part in parts)


def search_terms(text: str) -> str:
    """The text as the index holds it: American words, or pairs of characters in a script without spaces."""
    runs = [run for word in american(text).split() for run in _SAME_SCRIPT.findall(word)]
    return " ".join(term for run in runs for term in _terms(run))


def _terms(run: str) -> list[str]:
    if len(run) < 3 or not re.match(f"[{_UNSPACED}]", run):
        return [run]
    return [run[place : place + 2] for place in range(len(run) - 1)]


# Words too common to search by. Includes the pieces of contractions such as "don't" and "we've".
STOP_WORDS = {
    "a", "about", "after", "again", "all", "also", "am", "an", "and", "any", "are", "aren", "as", "ask", "at", "be",
    "been", "before", "being", "between", "but", "by", "can", "could", "d", "did", "didn", "do", "does", "doesn",
    "doing", "don", "done", "down", "each", "every", "for", "from", "get", "give", "go", "going", "got", "had", "has",
    "have", "having", "he", "her", "here", "hers", "him", "his", "how", "i", "if", "in", "into", "is", "isn", "it",
    "its", "just", "kind", "know", "last", "ll", "long", "m", "made", "make", "many", "may", "me", "might", "mine",
    "much", "must", "my", "myself", "no", "nor", "not", "now", "next", "of", "off", "on", "or", "our", "ours",
    "ourselves", "out", "over", "please", "re", "s", "said", "say", "shall", "she", "should", "so", "some", "such",
    "t", "tell", "than", "that", "the", "their", "theirs", "them", "then", "there", "these", "they", "this", "those",
    "to", "too", "under", "up", "us", "ve", "very", "was", "wasn", "we", "were", "what", "whats", "when", "where",
    "wheres", "which", "who", "whom", "whos", "whose", "why", "will", "with", "would", "you", "your", "yours",
}  # fmt: skip
