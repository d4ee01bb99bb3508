"""Read the records of a JSON or JSONL text."""

import io
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Any, TextIO

from src.common.messages import Notify
from src.data.json_containers import records_in
from src.data.records import BadRecord, Located, Record, broken_character, type_name

_TOO_DEEP = "nested too deeply for a record of texts and lists of messages"
_NOT_JSON = "expected JSON objects {...}, or a table with the names of its columns; plain text is for python main.py"
_PROSE = re.compile(r"(?!null|true|false|NaN|None|Infinity)[^\W\d]|-[^\dI]")  # a letter, or a dash of YAML
_BLANK = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True)
class _Flaw:
    """Replaces a value that Python's JSON parser accepts and we do not. It is reported once its record is known."""

    problem: str


class _CutOff(BadRecord):
    """A record that the end of the file cuts off."""


def read_json(name: str, file: TextIO, *, one_per_line: bool, notify: Notify) -> Iterator[Located | BadRecord]:
    """Yield the records of a text: one object per line, objects that span lines, a list, or an object around a list.

    one_per_line: the file's name promises one object per line. Otherwise its first line decides.
    Raises ValueError if the text as a whole is not JSON, with the place.
    """
    start = _first_lines(file, 2)
    first, *second = [line for line in start if line.strip()] or [""]
    if not first:
        raise ValueError(f"{name} is empty; expected a JSON list of records or one JSON object per line")
    if _starts_with_object(first, whole=True) and (second or one_per_line):
        yield from _read_lines(name, chain(start, file))
        return
    text = "".join(start) + file.read()
    if one_per_line and not text.lstrip().startswith("[") and not _starts_with_object(text):
        yield from _read_lines(name, io.StringIO(text, newline="\n"))
    else:
        yield from _read_values(name, text, notify)


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
    at = _skip_blank(text, 0)
    try:
        value, end = json.JSONDecoder().raw_decode(text, at)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and (not whole or _skip_blank(text, end) == len(text))


def _read_lines(name: str, lines: Iterable[str]) -> Iterator[Located | BadRecord]:
    for number, line in enumerate(map(str.rstrip, lines), start=1):
        if line:
            yield read_json_line(name, line, number)


def read_json_line(name: str, line: str, number: int) -> Located | BadRecord:
    """The record in a line of JSONL, which is not blank and has no line break at its end."""
    try:
        value, end = _value_at(name, line, _skip_blank(line, 0), line=number)
        _expect_end(name, line, end, line=number)
        return _checked(f"{name} line {number}", value)
    except BadRecord as error:
        return error


def _read_values(name: str, text: str, notify: Notify) -> Iterator[Located | BadRecord]:
    """Yield the records of a text of one list, of one object, or of several objects, which may span lines."""
    at = _skip_blank(text, 0)
    if text.startswith("[", at):
        yield from _read_list(name, text, at + 1)
        return
    if _PROSE.match(text, at):
        raise ValueError(f"{name} holds no records: found {text[at : at + 20].partition(chr(10))[0]!r}, {_NOT_JSON}")
    value, end = _value_at(name, text, at)
    if end < len(text) and isinstance(value, dict):
        yield from _read_objects(name, text, at)
        return
    _expect_end(name, text, end)
    for inner in value.values() if isinstance(value, dict) else ():
        if isinstance(inner, _Flaw):
            raise ValueError(f"{name}: {inner.problem}")
    for where, record in records_in(name, value, notify):
        yield _checked(where, record)


def _read_objects(name: str, text: str, at: int) -> Iterator[Located | BadRecord]:
    line, counted = 1, 0
    while at < len(text):
        line, counted = line + text.count("\n", counted, at), at
        try:
            value, at = _value_at(name, text, at)
        except _CutOff as error:
            yield error
            return
        yield _checked(f"{name} line {line}", value)


def _read_list(name: str, text: str, at: int) -> Iterator[Located | BadRecord]:
    """Yield the items of the list whose items start at this position."""
    at, number, closing = _skip_blank(text, at), 0, ","
    if text.startswith("]", at):
        raise ValueError(f"{name}: the list is empty; expected at least one record")
    while closing == ",":
        number += 1
        try:
            value, at = _value_at(name, text, at)
            yield _checked(f"{name} record {number}", value)
            closing = text[at : at + 1]
            if closing not in (",", "]"):
                raise _malformed(name, text, at, "Expecting ',' delimiter")
        except _CutOff as error:
            yield error
            return
        at = _skip_blank(text, at + 1)
    _expect_end(name, text, at)


def _value_at(name: str, text: str, at: int, *, line: int = 1) -> tuple[Any, int]:
    """Return the JSON value at a position, and the position of what follows. `line` is the number of the first line.

    Raises BadRecord with the place if there is no value; its subclass _CutOff if the text ends too early.
    """
    try:
        value, end = _decoder().raw_decode(text, at)
    except json.JSONDecodeError as error:
        raise _malformed(name, text, error.pos, error.msg, line=line) from None
    except RecursionError:
        raise BadRecord(_place(name, text, at, line), _TOO_DEEP) from None
    except ValueError:  # Python does not parse an integer of thousands of digits
        raise BadRecord(_place(name, text, at, line), "a number is too long to read; shorten it or remove it") from None
    return value, _skip_blank(text, end)


def _expect_end(name: str, text: str, at: int, *, line: int = 1) -> None:
    if at < len(text):
        raise _malformed(name, text, at, "Extra data", line=line)


def _malformed(name: str, text: str, at: int, problem: str, *, line: int = 1) -> BadRecord:
    left = text[at : at + 20].strip()
    if broken := broken_character(text[at : at + 1]):
        return BadRecord(_place(name, text, at, line), broken)
    is_open = problem.startswith("Unterminated string")
    found = repr(left.partition("\n")[0]) if left else "the end"
    mistake = "a text without its closing quote" if is_open else _mistake(text, at, problem) or problem
    reason = f"malformed JSON ({mistake}), found {found}; correct it"
    return (_CutOff if is_open or not left else BadRecord)(_place(name, text, at, line), reason)


def _place(name: str, text: str, at: int, line: int) -> str:
    column = at - text.rfind("\n", 0, at)
    return f"{name} line {line + text.count(chr(10), 0, at)} column {column}"


def _mistake(text: str, at: int, problem: str) -> str | None:
    """A frequent mistake that JSON does not allow, in words, if it is at this position."""
    rest = text[at : at + 10]
    if rest.startswith(("]", "}")) and text[:at].rstrip().endswith(","):
        return "a comma too many"
    if rest.startswith(",") and text[:at].rstrip().endswith("}"):
        return "a comma too many: only a list in [ ] has commas between its records"
    if text[:at].rstrip().endswith("]") and problem == "Extra data":
        return "the list ends before this"
    if rest.startswith(("//", "/*", "#")):
        return "JSON has no comments"
    if rest.startswith(("'", "\u2018", "\u2019", "\u201c", "\u201d")):
        return 'texts need straight double quotes, "..."'
    if rest.startswith(("None", "True", "False")):
        return "Python's None, True and False are null, true and false in JSON"
    return None


@cache
def _decoder() -> json.JSONDecoder:
    return json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)


def _object(pairs: list[tuple[str, Any]]) -> Record:
    record = {sys.intern(key): value for key, value in pairs}  # the keys of all records share their memory
    if len(record) < len(pairs):
        for key, count in Counter(key for key, _ in pairs).items():
            if count > 1:
                record[key] = _Flaw(f"the key {key[:30]!r} appears {count} times in one object; keep one")
    return record


def _constant(name: str) -> _Flaw | None:
    """The value of NaN, Infinity or -Infinity. Python and pandas write NaN for a missing value."""
    return None if name == "NaN" else _Flaw(f"{name} is not JSON; write a number or null, or remove it")


def _skip_blank(text: str, at: int) -> int:
    found = _BLANK.match(text, at)
    return found.end() if found else at


def _checked(where: str, value: Any) -> Located | BadRecord:
    """Return `(where, value)`, or a BadRecord if the value is not an object or contains a flaw."""
    try:
        problem = _first_problem(value)
    except RecursionError:
        problem = _TOO_DEEP
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
    if isinstance(value, _Flaw):
        return value.problem
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((problem for child in inner if (problem := _first_problem(child))), None)
