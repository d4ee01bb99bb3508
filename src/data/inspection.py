"""Inspect a text before training: likely mistakes are noted or refused. The text is not changed.

A note is one line, such as "</s> 2 times: a special token of other models, read as ordinary characters".
"""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from src.data.text_format import notes_on_format
from src.data.token_shards import TokenArray
from src.tokenizer.gpt2 import END_OF_TEXT
from src.tokenizer.protocols.interfaces import WordEncoding


def notes_on(text: str, path: Path, *, documents: bool) -> list[str]:
    """Notes on likely mistakes in the text of a file: one line each, without the path.

    documents: whether `<|endoftext|>` separates documents.
    Raises ValueError if the file holds records for another script.
    """
    return [
        *_damaged_characters(text),
        *_special_tokens(text, documents),
        *notes_on_format(text, path),
        *_long_runs(text),
    ]


def notes_on_record(text: str) -> Iterator[str]:
    """Notes on likely mistakes in the texts of a record for SFT or DPO: one line each, without counts."""
    if "\ufffd" in text:
        yield "U+FFFD, the replacement character, is in a text: letters were lost in a conversion"
    if _mojibake(text):
        yield "a text is UTF-8 that was read as Windows-1252 or 1251; convert the original again"
    for token in _written_out(text):
        yield f"{token!r} is written out in a text, and read as ordinary characters"


def _place(text: str, found: str) -> str:
    return f"first in line {_line_number(text, text.index(found))}"


def _line_number(text: str, position: int) -> str:
    return f"{text.count(chr(10), 0, position) + 1:,}"


def _times(n: int) -> str:
    return "once" if n == 1 else f"{n:,} times"


# --- damaged characters

# Control characters but tab, the line breaks \n \v \f \r \x85, and the escape of terminals.
_CONTROL = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f-\x84\x86-\x9f]")
# Mojibake: UTF-8 that was read as Windows-1252, where the two bytes of "é" are "Ã©". The alternatives are an accented,
# Greek or Cyrillic letter, a quotation mark, an emoji, a byte order mark, a replacement character, and Cyrillic letters
# that were read as Windows-1251. Letters before a quotation mark are left out: they occur in words.
# All alternatives begin with one of a few letters, which most texts do not have.
_MOJIBAKE_LETTERS = "ÂÃÎÏÐÑâðïР"
_MOJIBAKE = re.compile(f"[{_MOJIBAKE_LETTERS}](?:(?<=[ÂÃÎÏÐÑ])[\xa1-\xaa\xac-\xba\xbc-\xbf]|€|Ÿ|»¿|¿½|(?<=Р)[°±µ])")


def _damaged_characters(text: str) -> Iterator[str]:
    if n := text.count("\ufffd"):
        yield (
            f"U+FFFD, the replacement character, {_times(n)} ({n / len(text):.2%} of the text), "
            f"{_place(text, chr(0xFFFD))}: letters were lost in a conversion; convert the original again"
        )
    if found := _mojibake(text):
        yield (
            f"{found[0]!r} and the like {_times(len(found))}, {_place(text, found[0])}: UTF-8 that was read as Windows-"
            f"{1251 if found[0].startswith('Р') else 1252}; convert the original again, or repair it with "
            "the package ftfy"
        )
    if n := text.count("\x1b"):
        yield f"escape sequences of a terminal {_times(n)}, {_place(text, chr(27))}: colours, or a recorded screen"
    if controls := _CONTROL.findall(text):
        code = f"U+{ord(controls[0]):04X}"
        yield f"control characters such as {code} {_times(len(controls))}, {_place(text, controls[0])}"
    if n := text.count("\ufeff"):
        yield f"a byte order mark inside the text {_times(n)}, {_place(text, chr(0xFEFF))}: files were joined"


def _mojibake(text: str) -> list[str]:
    """Sequences that occur in no language, but come from reading UTF-8 as Windows-1252."""
    if text.isascii() or not any(letter in text for letter in _MOJIBAKE_LETTERS):
        return []
    return _MOJIBAKE.findall(text)


# --- special tokens

_SPECIAL_TOKENS = re.compile(
    r"<\|(?!endoftext\|)\w{1,30}\|>|</?s>|<(?:pad|unk|eos|bos|mask|start_of_turn|end_of_turn)>"
    r"|\[/?INST\]|\[(?:CLS|SEP|MASK|PAD|UNK)\]"
)
_HEADINGS = ("### Instruction:", "### Input:", "### Response:", "### Human:", "### Assistant:")  # of prompt templates


def _special_tokens(text: str, documents: bool) -> Iterator[str]:
    n = text.count(END_OF_TEXT)
    if n and not documents:
        yield (
            f"{END_OF_TEXT} {_times(n)}, read as ordinary characters; --documents endoftext makes it the "
            "end-of-text token"
        )
    if counts := Counter(_SPECIAL_TOKENS.findall(text)):
        found = ", ".join(f"{token} {_times(n)}" for token, n in counts.most_common(5))
        yield f"{found}: a special token of other models, read as ordinary characters"


def _written_out(text: str) -> Iterator[str]:
    """The special tokens and the headings of prompt templates in a text. Few texts have their first characters."""
    if "<" in text and END_OF_TEXT in text:
        yield END_OF_TEXT
    if "#" in text:
        yield from (heading for heading in _HEADINGS if heading in text)
    if "<" in text or "[" in text:
        yield from dict.fromkeys(_SPECIAL_TOKENS.findall(text))


# --- long lines and gaps

_LONG_LINE_CHARS = 100_000
_LONG_RUN_CHARS = 5_000


def _long_runs(text: str) -> Iterator[str]:
    """A note on the first overlong line, and one on the first overlong run of blanks or empty lines."""
    if (start := _long_line(text)) is not None:
        end = text.find("\n", start)
        length = (end if end >= 0 else len(text)) - start
        yield f"line {_line_number(text, start)} has {length:,} characters"
    for start in range(0, len(text), _LONG_RUN_CHARS):
        run = text[start : start + _LONG_RUN_CHARS]
        if len(run) == _LONG_RUN_CHARS and run[0].isspace() and run.isspace():
            yield f"over {_LONG_RUN_CHARS:,} blanks or empty lines in a row, near line {_line_number(text, start)}"
            return


def _long_line(text: str) -> int | None:
    """Where the first overlong line starts, found in steps of about the length of an overlong line."""
    start = 0
    while len(text) - start > _LONG_LINE_CHARS:
        end = text.rfind("\n", start, start + _LONG_LINE_CHARS)
        if end < 0:
            return start
        start = end + 1
    return None


# --- words

_LONG_WORD_CHARS = 10  # of an average word
_UNSEEN_SHARE, _MIN_WORDS = 0.25, 50  # of the validation words
_COUNTED_TOKENS = 1 << 22  # in memory together


def notes_on_words(encoding: WordEncoding, train: TokenArray, val: TokenArray) -> list[str]:
    """A note if the tokens of a word tokenizer are hardly words, as in a language without spaces between words."""
    spellings = [encoding.decode_single_token_bytes(id_).decode("utf-8", "replace") for id_ in range(encoding.n_vocab)]
    length = np.array([len(spelling) if any(map(str.isalnum, spelling)) else 0 for spelling in spellings])
    length[encoding.eot_token] = 0
    counts, val_counts = (_counts(ids, encoding.n_vocab) * (length > 0) for ids in (train, val))
    n_words, n_val_words = counts.sum(), val_counts.sum()
    mean = float((length * counts).sum() / max(1, n_words))
    unseen = float(val_counts[counts == 0].sum() / n_val_words) if n_val_words >= _MIN_WORDS else 0.0
    if mean <= _LONG_WORD_CHARS and unseen <= _UNSEEN_SHARE:
        return []
    return [
        f"words are {mean:.1f} letters long on average, and {unseen:.0%} of the validation words are not in the "
        "training text; if the language has no spaces between words, use --tokenizer gpt2"
    ]


def _counts(ids: TokenArray, n_vocab: int) -> NDArray[np.int64]:
    """How often each id occurs."""
    counts = np.zeros(n_vocab, np.int64)
    for start in range(0, len(ids), _COUNTED_TOKENS):
        counts += np.bincount(np.asarray(ids[start : start + _COUNTED_TOKENS]), minlength=n_vocab)
    return counts
