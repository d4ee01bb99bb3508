"""Recognise a text that is not prose: JSON, a table, HTML, or encoded data."""

import csv
import json
import re
import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

_SAMPLE_CHARS = 1 << 16  # of the start, the middle and the end
_SAMPLE_LINES = 200
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


def notes_on_format(text: str, path: Path) -> list[str]:
    """A note on each format that the text of a file seems to have; none for prose.

    Raises ValueError if the file holds records for another script.
    """
    sample = _sample(text)
    return [*(_json(text, path) or _html(text, sample) or _table(sample)), *_encoded(sample)]


def _sample(text: str) -> str:
    middle = len(text) // 2
    if len(text) <= 3 * _SAMPLE_CHARS:
        return text
    return "\n".join((text[:_SAMPLE_CHARS], text[middle : middle + _SAMPLE_CHARS], text[-_SAMPLE_CHARS:]))


def _json(text: str, path: Path) -> list[str]:
    """Raises ValueError if the keys of the JSON or JSONL are those of records."""
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


def _html(text: str, sample: str) -> list[str]:
    n = len(_HTML.findall(sample))
    if (n >= 10 and n > len(sample) / 2000) or re.match(r"\s*<(?:!doctype html|html)\b", text, re.I):
        return ["it looks like HTML, which is learned with its tags; save the page as plain text"]
    return []


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


def _encoded(sample: str) -> Iterator[str]:
    """Notes on characters that are escaped with a backslash, and on encoded data."""
    if sample.count("\\n") > max(10, sample.count("\n")):
        yield r"line breaks are written as \n, with a backslash, and are learned so"
    if len(escapes := re.findall(r"\\u[\da-fA-F]{4}", sample)) > 10:
        yield f"letters are written as {escapes[0]}, with a backslash, and are learned so"
    lines = [line for line in sample.splitlines() if line]
    if lines and sum(len(line) > 59 and " " not in line and line.isascii() for line in lines) > len(lines) / 5:
        yield "many lines are long and have no space: encoded data, such as base64, rather than words"
