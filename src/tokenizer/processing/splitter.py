"""Splitting: a text as a list of words, numbers, punctuation marks and line breaks; and back into a text.

Spaces are not tokens: a model would learn little from one that follows nearly every word. Joining puts them in again by
rule, so what comes back is not the text but its normal form: one space between words, none at the ends of a line, and
around punctuation those that print would have. The normal form splits into the same tokens as the text did.

A straight quotation mark does not say whether it opens or closes, but the space depends on it. So tokens have a
direction (U+2018 and U+2019, U+201C and U+201D) which the text has not:

    "Go, 'tis late"   is split into   \u201c  Go  ,  \u2018  tis  late  \u201d   and joined again as it was
"""

import re
from collections.abc import Iterable
from functools import cache

import regex

from src.tokenizer.core.constants import LETTER, LINE_BREAK, MARK, UNKNOWN

_OPENERS, _CLOSERS = "([{$\xa3", ".,;:!?%)]}"
_OPENING_QUOTES, _CLOSING_QUOTES = "\u2018\u201c", "\u2019\u201d"
_QUOTES = "'\"" + _OPENING_QUOTES + _CLOSING_QUOTES
_STRAIGHT = {0x2018: "'", 0x2019: "'", 0x201C: '"', 0x201D: '"'}
_DIRECTED: dict[str, dict[int, str]] = {
    "apostrophe": {},
    "opening": {0x27: "\u2018", 0x22: "\u201c"},
    "closing": {0x27: "\u2019", 0x22: "\u201d"},
}

_NO_SPACE_AFTER = {LINE_BREAK, *_OPENERS, *_OPENING_QUOTES}
_NO_SPACE_BEFORE = {LINE_BREAK, *_CLOSERS, *_CLOSING_QUOTES}


class TextSplitter:
    """Splits texts and joins tokens. What a token is, says the regular expression of `token_pattern`."""

    def split(self, text: str) -> list[str]:
        """The tokens of a text, in order. Any text has them; what is left out is white space."""
        tokens: list[str] = token_pattern(ascii_only=text.isascii()).findall(with_directions(text))
        return tokens

    def join(self, tokens: Iterable[str]) -> str:
        """The text of tokens. For tokens that come from `split` it is the normal form, and splits into them again."""
        parts, before = [], LINE_BREAK
        for token in tokens:
            if _space_between(before, token):
                parts.append(" ")
            parts.append(token)
            before = token
        return "".join(parts).translate(_STRAIGHT)


@cache
def token_pattern(*, ascii_only: bool = False) -> re.Pattern[str] | regex.Pattern[str]:
    """What a token is. Every character but white space belongs to one; the first alternative that fits is taken.

    Of a text in ASCII, the standard library's engine finds the same tokens in half the time; of the letters and marks
    of other scripts it knows too little.
    """
    letter, mark, digit = ("A-Za-z0-9", "", "0-9") if ascii_only else (LETTER, MARK, r"\p{N}")
    word = f"[{letter}][{letter}{mark}]*"
    alone = re.escape(_OPENERS + _CLOSERS + _OPENING_QUOTES + _CLOSING_QUOTES)
    pattern = rf"""
        {word} (?:                              # a word or a number (cat, 1st, 42), and it goes on after
            (?: ['-] | _+                       # an apostrophe, a hyphen: don't, mother-in-law, snake_case,
              | (?<=[{digit}])[.,:](?=[{digit}])  # or, between digits, a separator: 1,000.50, 3:30
            ) {word}
        )*
        | [\n{alone}]                           # a line break; a punctuation mark by itself, so that ... is three
        | -+ | /+                               # a hyphen or a dash; slashes
        | {UNKNOWN}                             # what decoding writes for an unknown word
        | (?: (?!{UNKNOWN}) [^\s{letter}{alone}/-] )+  # other signs, as many as follow each other: ### => &
        """
    return re.compile(pattern, re.VERBOSE | re.ASCII) if ascii_only else regex.compile(pattern, regex.VERBOSE)


def with_directions(text: str) -> str:
    """The text with a direction in every quotation mark, and straight apostrophes."""
    return _quote_pattern().sub(_direct, text)


@cache
def _quote_pattern() -> regex.Pattern[str]:
    """Quotation marks, as many as follow each other, by direction; an apostrophe within a word is none."""
    quotes, word_ended = f"[{_QUOTES}]+", f"[{LETTER}][{MARK}]*"
    return regex.compile(
        rf"""
        (?P<apostrophe> (?<={word_ended}) ['\u2018\u2019] (?=[{LETTER}]) )
        | (?P<opening> (?<![^\s{re.escape(_OPENERS)}]) {quotes}    # at the start, after a space or a bracket,
                     | (?<!{word_ended}) {quotes} (?=[{LETTER}]) )  # or right before a word and not right behind one
        | (?P<closing> {quotes} )
        """,
        regex.VERBOSE,
    )


def _direct(found: regex.Match[str]) -> str:
    straight = found[0].translate(_STRAIGHT)
    return straight.translate(_DIRECTED[found.lastgroup or "apostrophe"])


def _space_between(before: str, token: str) -> bool:
    """Whether a space stands between two tokens.

    It depends on nothing else, so a text that is being written grows at its end only.
    """
    if before in _NO_SPACE_AFTER or token in _NO_SPACE_BEFORE:
        return False
    if token in _OPENING_QUOTES:
        return True  # also behind a dash, where it would otherwise be read as a closing one
    if _is_tight(before) or _is_tight(token):
        return before[0] == token[0]  # two dashes must not become one
    return True


def _is_tight(token: str) -> bool:
    """Dashes and slashes, which print sets without spaces: and/or, wait--what?"""
    return token[0] == "/" or token.startswith("--")
