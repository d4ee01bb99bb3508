"""Read the records of a JSON or JSONL text. Its form may be:

    {"text": "a"}                     one object per line (JSONL)
    [{"text": "a"}, {"text": "b"}]    a list
    {"data": [{"text": "a"}, ...]}    one object, with the records inside
or several objects that span lines.
"""

import io
import json
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, TextIO

from src.common.messages import Notify
from src.data.json_containers import records_in
from src.data.json_text import BLANKS, TOO_DEEP, CutOff, Flaw, JsonText
from src.data.records import BadRecord, Located, broken_character, type_name

_NOT_JSON = "expected JSON objects {...}, or a table with the names of its columns; plain text is for python main.py"
_PROSE = re.compile(r"(?!null|true|false|NaN|None|Infinity)[^\W\d]|-[^\dI]")  # a letter, or a dash of YAML


def read_json(name: str, file: TextIO, *, one_per_line: bool, notify: Notify) -> Iterator[Located | BadRecord]:
    """Yield the records of a text in any of the forms.

    one_per_line: the file's name promises one object per line. Otherwise its first line decides.
    Raises ValueError if the text as a whole is not JSON, with the place.
    """
    start = _first_lines(file, 2)
    first, *second = [line for line in start if line.strip()] or [""]
    if not first:
        raise ValueError(f"{name} is empty; expected a JSON list of records or one JSON object per line")
    if _starts_with_object(first, whole=True) and (second or one_per_line):
        yield from _read_lines(name, chain(start, file))  # not read at once: the file may be large
        return
    text = "".join(start) + file.read()
    if one_per_line and not text.lstrip().startswith("[") and not _starts_with_object(text):
        yield from _read_lines(name, io.StringIO(text, newline="\n"))  # its first line is bad
    else:
        yield from _read_values(JsonText(name, text), notify)


def _first_lines(file: TextIO, count: int) -> list[str]:
    """The lines up to and including the `count`-th one that is not blank."""
    lines: list[str] = []
    for line in file:
        lines.append(line)
        count -= bool(line.strip())
        if not count:
            break
    return lines


def _starts_with_object(text: str, *, whole: bool = False) -> bool:
    """Whether a text starts with a complete object; `whole`: whether it is nothing else."""
    text = text.lstrip(BLANKS)
    try:
        value, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and (not whole or not text[end:].strip(BLANKS))


def _read_lines(name: str, lines: Iterable[str]) -> Iterator[Located | BadRecord]:
    for number, line in enumerate(map(str.rstrip, lines), start=1):
        if line:
            yield read_json_line(name, line, number)


def read_json_line(name: str, line: str, number: int) -> Located | BadRecord:
    """The record in a line of JSONL, which is not blank and has no line break at its end."""
    json_text = JsonText(name, line, first_line=number)
    try:
        value, end = json_text.value_at(json_text.skip_blank(0))
        json_text.expect_end(end)
        return _checked(f"{name} line {number}", value)
    except BadRecord as error:
        return error


def _read_values(json_text: JsonText, notify: Notify) -> Iterator[Located | BadRecord]:
    """Yield the records of a text of one list, of one object, or of several objects, which may span lines."""
    name, text, start = json_text.name, json_text.text, json_text.skip_blank(0)
    if text.startswith("[", start):
        yield from _read_list(json_text, start + 1)
        return
    if _PROSE.match(text, start):
        found = text[start : start + 20].partition("\n")[0]
        raise ValueError(f"{name} holds no records: found {found!r}, {_NOT_JSON}")
    value, end = json_text.value_at(start)
    if end < len(text) and isinstance(value, dict):
        yield from _read_objects(json_text, start)
        return
    json_text.expect_end(end)
    for inner in value.values() if isinstance(value, dict) else ():
        if isinstance(inner, Flaw):
            raise ValueError(f"{name}: {inner.problem}")
    for where, record in records_in(name, value, notify):
        yield _checked(where, record)


def _read_objects(json_text: JsonText, at: int) -> Iterator[Located | BadRecord]:
    """Yield the objects from a position on."""
    line, counted = 1, 0  # the line of the position `counted`
    while at < len(json_text.text):
        line, counted = line + json_text.text.count("\n", counted, at), at
        try:
            value, at = json_text.value_at(at)
        except CutOff as error:
            yield error
            return
        yield _checked(f"{json_text.name} line {line}", value)


def _read_list(json_text: JsonText, at: int) -> Iterator[Located | BadRecord]:
    """Yield the items of the list whose items start at this position."""
    name, text = json_text.name, json_text.text
    at, number, separator = json_text.skip_blank(at), 0, ","
    if text.startswith("]", at):
        raise ValueError(f"{name}: the list is empty; expected at least one record")
    while separator == ",":
        number += 1
        try:
            value, at = json_text.value_at(at)
            yield _checked(f"{name} record {number}", value)
            separator = text[at : at + 1]
            if separator not in (",", "]"):
                raise json_text.malformed(at, "Expecting ',' delimiter")
        except CutOff as error:
            yield error
            return
        at = json_text.skip_blank(at + 1)
    json_text.expect_end(at)


def _checked(where: str, value: Any) -> Located | BadRecord:
    """Return `(where, value)`, or a BadRecord if the value is not an object or contains a flaw."""
    try:
        problem = _first_problem(value)
    except RecursionError:
        problem = TOO_DEEP
    if problem:
        return BadRecord(where, problem)
    if not isinstance(value, dict):
        chat = "; write a chat as {'messages': [...]}" if isinstance(value, list) else ""
        return BadRecord(
            where, f"found {type_name(value)}, expected an object with texts, {{'key': 'text', ...}}{chat}"
        )
    return where, value


def _first_problem(value: Any) -> str | None:
    if isinstance(value, str):
        return None if value.isascii() else broken_character(value)
    if isinstance(value, Flaw):
        return value.problem
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((problem for child in inner if (problem := _first_problem(child))), None)
