"""Splitting: a text becomes a list of words, numbers, punctuation marks and line breaks. Joining is the reverse.

Spaces are not tokens: a model would learn little from a space after nearly every word. Joining inserts them by rule, so
the result is the normal form of the text: one space between words, none at the ends of a line, and the usual spaces
around punctuation. The normal form splits into the same tokens as the original text.

A straight quotation mark does not show whether it opens or closes, but the spaces depend on it. So the tokens of quotes
have a direction (U+2018 and U+2019, U+201C and U+201D) that the text lacks:

    "Go, 'tis late"   is split into   \u201c  Go  ,  \u2018  tis  late  \u201d   and joined into the same text
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
    """Splits texts and joins tokens. `token_pattern` defines what a token is."""

    def split(self, text: str) -> list[str]:
        """The tokens of a text, in order. Only white space other than line breaks is left out."""
        tokens: list[str] = token_pattern(ascii_only=text.isascii()).findall(with_directions(text))
        return tokens

    def join(self, tokens: Iterable[str]) -> str:
        """The text of tokens. Tokens from `split` give the normal form of their text, which splits into them again."""
        parts, previous = [], LINE_BREAK
        for token in tokens:
            if _space_between(previous, token):
                parts.append(" ")
            parts.append(token)
            previous = token
        return "".join(parts).translate(_STRAIGHT)


@cache
def token_pattern(*, ascii_only: bool = False) -> re.Pattern[str] | regex.Pattern[str]:
    """The regular expression of a token. Every character except white space is part of one token.

    ascii_only: use the standard library's engine, which finds the same tokens of an ASCII text in half the time. It
    does not know the letters and marks of other scripts.
    """
    letter, mark, digit = ("A-Za-z0-9", "", "0-9") if ascii_only else (LETTER, MARK, r"\p{N}")
    word = f"[{letter}][{letter}{mark}]*"
    alone = re.escape(_OPENERS + _CLOSERS + _OPENING_QUOTES + _CLOSING_QUOTES)
    pattern = rf"""
        {word} (?:                              # a word or a number (cat, 1st, 42), continued after
            (?: ['-] | _+                       # an apostrophe, a hyphen: don't, mother-in-law, snake_case,
              | (?<=[{digit}])[.,:](?=[{digit}])  # or, between digits, a separator: 1,000.50, 3:30
            ) {word}
        )*
        | [\n{alone}]                           # a line break; one punctuation mark, so "..." is three tokens
        | -+ | /+                               # a hyphen or a dash; slashes
        | {UNKNOWN}                             # the spelling of an unknown word in decoded text
        | (?: (?!{UNKNOWN}) [^\s{letter}{alone}/-] )+  # a run of other signs: ### => &
        """
    return re.compile(pattern, re.VERBOSE | re.ASCII) if ascii_only else regex.compile(pattern, regex.VERBOSE)


def with_directions(text: str) -> str:
    """The text with directed quotation marks and straight apostrophes."""
    return _quote_pattern().sub(_direct, text)


@cache
def _quote_pattern() -> regex.Pattern[str]:
    """Runs of quotation marks, grouped by direction. An apostrophe inside a word is not a quotation mark."""
    quotes, word_ended = f"[{_QUOTES}]+", f"[{LETTER}][{MARK}]*"
    return regex.compile(
        rf"""
        (?P<apostrophe> (?<={word_ended}) ['\u2018\u2019] (?=[{LETTER}]) )
        | (?P<opening> (?<![^\s{re.escape(_OPENERS)}]) {quotes}    # at the start, after a space or a bracket,
                     | (?<!{word_ended}) {quotes} (?=[{LETTER}]) )  # or before a word and not directly after one
        | (?P<closing> {quotes} )
        """,
        regex.VERBOSE,
    )


def _direct(found: regex.Match[str]) -> str:
    straight = found[0].translate(_STRAIGHT)
    return straight.translate(_DIRECTED[found.lastgroup or "apostrophe"])


def _space_between(previous: str, token: str) -> bool:
    """Whether there is a space between two tokens.

    It depends on these two only, so streamed text never changes what was printed before.
    """
    if previous in _NO_SPACE_AFTER or token in _NO_SPACE_BEFORE:
        return False
    if token in _OPENING_QUOTES:
        return True  # also after a dash, where it would otherwise look like a closing one
    if _is_tight(previous) or _is_tight(token):
        return previous[0] == token[0]  # two dashes must not become one
    return True


def _is_tight(token: str) -> bool:
    """Whether a token is a dash or slash, which have no spaces around them: and/or, wait--what?"""
    return token[0] == "/" or token.startswith("--")
