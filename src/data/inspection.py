"""Inspect a text before training: likely mistakes are noted or refused. The text is not changed."""

import csv
import json
import re
import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from src.data.token_shards import TokenArray
from src.tokenizer.gpt2 import END_OF_TEXT
from src.tokenizer.protocols.interfaces import WordEncoding

_SAMPLE_CHARS = 1 << 16  # of the start, the middle and the end, to recognise formats
_SAMPLE_LINES = 200
_LONG_LINE_CHARS = 100_000
_LONG_RUN_CHARS = 5_000
_LONG_WORD_CHARS = 10  # of an average word
_UNSEEN_SHARE, _MIN_WORDS = 0.25, 50  # of the validation words
_COUNTED_TOKENS = 1 << 22  # in memory together
_LICENCE_MENTIONS = 10  # a licence of Project Gutenberg names it about 60 times

_SPECIAL_TOKENS = re.compile(
    r"<\|(?!endoftext\|)\w{1,30}\|>|</?s>|<(?:pad|unk|eos|bos|mask|start_of_turn|end_of_turn)>"
    r"|\[/?INST\]|\[(?:CLS|SEP|MASK|PAD|UNK)\]"
)
_HEADINGS = ("### Instruction:", "### Input:", "### Response:", "### Human:", "### Assistant:")  # of prompt templates
# Control characters but tab, the line breaks \n \v \f \r \x85, and the escape of terminals.
_CONTROL = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f-\x84\x86-\x9f]")
# UTF-8 that was read as Windows-1252: two bytes of an accented, Greek or Cyrillic letter, a quotation mark, an emoji,
# a byte order mark, or a replacement character. Letters before a quotation mark are left out: they occur in words.
# The last alternative is Cyrillic letters that were read as Windows-1251.
# All alternatives begin with one of a few letters, which most texts do not have.
_MOJIBAKE_LETTERS = "ÂÃÎÏÐÑâðïР"
_MOJIBAKE = re.compile(f"[{_MOJIBAKE_LETTERS}](?:(?<=[ÂÃÎÏÐÑ])[\xa1-\xaa\xac-\xba\xbc-\xbf]|€|Ÿ|»¿|¿½|(?<=Р)[°±µ])")
_HTML = re.compile(
    r"</?(?:p|div|span|a|td|tr|li|ul|br|h[1-6]|body|head|script|table)\b[^<>]{0,300}>|&(?:amp|quot|nbsp|lt|gt|[mn]dash|"
    r"[lr][sd]quo|hellip|copy|szlig|[aeioucnyz](?:acute|grave|circ|uml|tilde|cedil)|#x?[\da-f]+);",
    re.I,
)
_JSON_START = re.compile(r'\s*(?:(?:\[\s*)?\{\s*"(?:[^"\\\n]|\\.){1,100}"\s*:|\[\s*"(?:[^"\\\n]|\\.)*"\s*,)')
# The keys of records, and the script that trains on them.
RECORD_SCRIPTS = {
    "chosen": "dpo_train.py",
    **dict.fromkeys(
        ("instruction", "messages", "conversations", "prompt", "completion", "question"), "instruction_tune.py"
    ),
}


def notes_on(text: str, path: Path, *, documents: bool) -> list[str]:
    """Notes on likely mistakes in the text of a file: one line each, without the path.

    documents: whether `<|endoftext|>` separates documents.
    Raises ValueError if the file holds records for another script.
    """
    sample = _sample(text)
    return [
        *_damaged_characters(text),
        *_special_tokens(text, documents),
        *(_records(text, path) or _html(text, sample) or _table(sample)),
        *_encoded(sample),
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


def _written_out(text: str) -> Iterator[str]:
    """The special tokens and the headings of prompt templates in a text. Few texts have their first characters."""
    if "<" in text and END_OF_TEXT in text:
        yield END_OF_TEXT
    if "#" in text:
        yield from (heading for heading in _HEADINGS if heading in text)
    if "<" in text or "[" in text:
        yield from dict.fromkeys(_SPECIAL_TOKENS.findall(text))


def _sample(text: str) -> str:
    middle = len(text) // 2
    if len(text) <= 3 * _SAMPLE_CHARS:
        return text
    return "\n".join((text[:_SAMPLE_CHARS], text[middle : middle + _SAMPLE_CHARS], text[-_SAMPLE_CHARS:]))


def _place(text: str, found: str) -> str:
    return f"first in line {_line_number(text, text.index(found))}"


def _line_number(text: str, position: int) -> str:
    return f"{text.count(chr(10), 0, position) + 1:,}"


# --- characters


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


def _times(n: int) -> str:
    return "once" if n == 1 else f"{n:,} times"


def _mojibake(text: str) -> list[str]:
    """Sequences that occur in no language, but come from reading UTF-8 as Windows-1252."""
    if text.isascii() or not any(letter in text for letter in _MOJIBAKE_LETTERS):
        return []
    return _MOJIBAKE.findall(text)


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


# --- formats


def _records(text: str, path: Path) -> list[str]:
    """A note if the text is JSON or JSONL. Raises ValueError if its keys are those of records."""
    whole = _JSON_START.match(text) is not None and text.rstrip()[-1] in "]}"
    if not whole and not _is_json_lines(text):
        return []
    file = shlex.quote(str(path))
    keys = _first_keys(text)
    for key, script in RECORD_SCRIPTS.items():
        if key in keys:
            raise ValueError(f"{path} holds JSON records with {key!r}, not prose; run: python {script} --data {file}")
    if "text" in keys:
        raise ValueError(
            f"{path} holds JSON records, not prose; write one object a line to a file that ends in .jsonl: "
            f"jq -c '..|objects|select(.text)' {file} > {shlex.quote(path.stem + '.jsonl')}"
        )
    return ["it looks like JSON, which is learned with its brackets and keys"]


def _is_json_lines(text: str) -> bool:
    lines = [line for line in text[:_SAMPLE_CHARS].splitlines() if line.strip()][:_SAMPLE_LINES]
    lines = lines[:-1] if len(lines) > 2 else lines  # the last one may be cut off
    return len(lines) > 1 and sum(map(_is_json_object, lines)) >= 0.9 * len(lines)


def _is_json_object(line: str) -> bool:
    try:
        return line.lstrip().startswith("{") and isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _first_keys(text: str) -> set[str]:
    """The keys of the first JSON object, and of the first object in a list in it."""
    try:
        first, _ = json.JSONDecoder().raw_decode(text[:1_000_000], text.index("{"))
    except (ValueError, RecursionError):
        return set(re.findall(r'"(\w+)"\s*:', text[:_SAMPLE_CHARS]))
    inner = [value[0] for value in first.values() if isinstance(value, list) and value and isinstance(value[0], dict)]
    return {*first, *(inner[0] if inner else ())}


def _table(sample: str) -> list[str]:
    """A note if nearly all lines have the same number of fields. Unlike commas in a sentence, none precedes a space."""
    lines = dict.fromkeys(sample[:_SAMPLE_CHARS].splitlines()[:_SAMPLE_LINES])
    for delimiter, name in ((",", "commas"), ("\t", "tabs"), (";", "semicolons"), ("|", "vertical bars")):
        try:
            rows = [row for row in csv.reader(lines, delimiter=delimiter) if row]
        except csv.Error:
            continue
        widths = Counter(len(row) for row in rows if row[0].strip() and not any(field[:1] == " " for field in row))
        width, n = widths.most_common(1)[0] if widths else (0, 0)
        if width > 1 and n >= max(5, 0.95 * len(rows)):
            return [f"it looks like a table of {width} columns separated by {name}, which is learned as it is"]
    return []


def _html(text: str, sample: str) -> list[str]:
    n = len(_HTML.findall(sample))
    if (n >= 10 and n > len(sample) / 2000) or re.match(r"\s*<(?:!doctype html|html)\b", text, re.I):
        return ["it looks like HTML, which is learned with its tags; save the page as plain text"]
    return []


def _encoded(sample: str) -> Iterator[str]:
    if sample.count("\\n") > max(10, sample.count("\n")):
        yield r"line breaks are written as \n, with a backslash, and are learned so"
    if len(escapes := re.findall(r"\\u[\da-fA-F]{4}", sample)) > 10:
        yield f"letters are written as {escapes[0]}, with a backslash, and are learned so"
    lines = [line for line in sample.splitlines() if line]
    if lines and sum(len(line) > 59 and " " not in line and line.isascii() for line in lines) > len(lines) / 5:
        yield "many lines are long and have no space: encoded data, such as base64, rather than words"


# --- shapes


def _long_runs(text: str) -> Iterator[str]:
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


def licence_note(cleaned: str) -> list[str]:
    """A note if a licence of Project Gutenberg is left in a text that was cleaned."""
    n = cleaned.count("Project Gutenberg")
    if n < _LICENCE_MENTIONS:
        return []
    return [f"Project Gutenberg is still named {n:,} times, so a licence or header is left inside; remove it by hand"]


# --- words


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
