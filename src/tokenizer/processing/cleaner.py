"""Cleaning: normalise the different ways to write the same text, so that a word is not counted as several.

"don't" with a straight apostrophe and "don't" with a curly one look the same to a reader. To a tokenizer they are two
words, unless one is replaced by the other.
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


# Every rule by name, in the order of application. No rule produces what an earlier one would change, so cleaning twice
# is the same as cleaning once, whichever rules are active.
RULES: dict[str, Rule] = {
    # One character for a line break, whatever system or program wrote the text. The pair \r\n is one line break.
    "line_ends": _with_line_breaks,
    # Non-breaking spaces and spaces of special widths.
    "spaces": partial(re.sub, "[\xa0\u1680\u2000-\u200a\u202f\u205f\u3000]", " "),
    # Invisible characters: soft hyphen, zero-width space, word joiner, byte order mark. The zero-width joiners stay:
    # they change how a Persian or Hindi word is displayed.
    "invisible": partial(re.sub, "[\xad\u200b\u2060\ufeff]", ""),
    # Lone surrogates, which UTF-8 cannot encode, become Unicode's replacement character.
    "half_characters": partial(re.sub, "[\ud800-\udfff]", "\ufffd"),
    "single_quotes": partial(re.sub, "[\u2018\u2019\u201a\u201b]", "'"),
    "double_quotes": partial(re.sub, "[\u201c\u201d\u201e\u201f]", '"'),
    # A long dash separates parts of a sentence, a hyphen joins parts of a word. Minus signs become hyphens.
    "long_dashes": partial(re.sub, "[\u2014\u2015]", "--"),
    "hyphens": partial(re.sub, "[\u2010-\u2013\u2212]", "-"),
    "ellipsis": partial(re.sub, "\u2026", "..."),
    # Underscores for italics in plain text (_Exit._). An underscore inside a name (snake_case) stays.
    "emphasis": partial(regex.sub, rf"(?<!_)_++(?![{LETTER}])|(?<!_|[{LETTER}][{MARK}]*)_++", ""),
    # One code point for a letter with its accent. NFC, not NFKC, which would change the meaning: "x\xb2" to "x2" and
    # "\xbd" to "1/2". Last, because removing a character can bring a letter and an accent together.
    "unicode": partial(unicodedata.normalize, "NFC"),
}

# All other rules only change characters beyond ASCII.
_CHANGE_ASCII = {"line_ends", "emphasis"}


class TextCleaner:
    """Applies all of the rules above, or only the named ones.

    Raises SettingError for an unknown name.
    """

    def __init__(self, rules: Iterable[str] = RULES) -> None:
        wanted = set(rules)
        if unknown := wanted - RULES.keys():
            name = min(unknown, key=str)
            raise SettingError(f"there is no cleaning rule {name!r:.60}; choose from {', '.join(RULES)}")
        self.rules = tuple(name for name in RULES if name in wanted)

    def clean(self, text: str) -> str:
        """Apply the rules to a text; clean(clean(text)) == clean(text)."""
        for name in self.rules:
            if name in _CHANGE_ASCII or not text.isascii():
                text = RULES[name](text)
        return text
