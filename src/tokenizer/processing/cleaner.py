"""Cleaning: the many ways to write the same text become one, so that a word is not counted as several.

"don't" with a typewriter's apostrophe and "don't" with a printer's look the same to a reader. To a tokenizer they are
two words until one is replaced by the other.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeAlias

import regex

from src.tokenizer.core.constants import LETTER, MARK
from src.tokenizer.core.exceptions import SettingError

Rule: TypeAlias = Callable[[str], str]


def _with_line_breaks(text: str) -> str:
    return re.sub("[\r\v\f\x85\u2028\u2029]", "\n", text.replace("\r\n", "\n"))


# Every rule, by name, in the order in which they are applied. None makes what an earlier one would change, so cleaning
# a clean text changes nothing, whichever rules are on.
RULES: dict[str, Rule] = {
    # One sign for a new line, whatever the system or the program writes; the pair \r\n is one.
    "line_ends": _with_line_breaks,
    # Spaces that forbid a line break or have a width of their own.
    "spaces": partial(re.sub, "[\xa0\u1680\u2000-\u200a\u202f\u205f\u3000]", " "),
    # What can't be seen: soft hyphen, zero-width space, word joiner, byte order mark. The zero-width joiners stay: they
    # change how a Persian or Hindi word reads.
    "invisible": partial(re.sub, "[\xad\u200b\u2060\ufeff]", ""),
    # Halves of characters, which no file can hold; U+FFFD is Unicode's sign for "there was something here".
    "half_characters": partial(re.sub, "[\ud800-\udfff]", "\ufffd"),
    "single_quotes": partial(re.sub, "[\u2018\u2019\u201a\u201b]", "'"),
    "double_quotes": partial(re.sub, "[\u201c\u201d\u201e\u201f]", '"'),
    # A long dash separates parts of a sentence, a hyphen joins parts of a word; minus signs are written as hyphens.
    "long_dashes": partial(re.sub, "[\u2014\u2015]", "--"),
    "hyphens": partial(re.sub, "[\u2010-\u2013\u2212]", "-"),
    "ellipsis": partial(re.sub, "\u2026", "..."),
    # Italics in plain texts (_Exit._); an underscore within a name (snake_case) stays.
    "emphasis": partial(regex.sub, rf"(?<!_)_++(?![{LETTER}])|(?<!_|[{LETTER}][{MARK}]*)_++", ""),
    # One code for a letter with its accent. NFC, not NFKC: that would also write "x\xb2" as "x2" and "\xbd" as "1/2",
    # and so change what a text says. Last, because taking away a sign may bring a letter and an accent together.
    "unicode": partial(unicodedata.normalize, "NFC"),
}

# All others look for characters beyond ASCII.
_CHANGE_ASCII = {"line_ends", "emphasis"}


class TextCleaner:
    """Applies rules of the table above: all of them, or those named.

    Raises SettingError for a name that the table lacks.
    """

    def __init__(self, rules: Iterable[str] = RULES) -> None:
        wanted = set(rules)
        for name in sorted(wanted - RULES.keys(), key=str):
            raise SettingError(f"there is no cleaning rule {name!r:.60}; choose from {', '.join(RULES)}")
        self.rules = tuple(name for name in RULES if name in wanted)

    def clean(self, text: str) -> str:
        """The text as the rules want it; clean(clean(text)) is clean(text)."""
        for name in self.rules:
            if name in _CHANGE_ASCII or not text.isascii():
                text = RULES[name](text)
        return text
