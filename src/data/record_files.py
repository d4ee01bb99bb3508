"""Read the records of a JSON or JSONL file, each with its location for error messages.

A JSON file contains a list of objects, or one object with a single list in it, such as {"data": [...]}. A JSONL file
contains one object per line.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.data.records import BadRecord, Located, Record, RecordFile, key_names, kind

TOO_DEEP = "nested too deeply for a record of texts and lists of messages"


@dataclass(frozen=True)
class _Flaw:
    """Replaces a value that Python's JSON parser accepts and we do not. It is reported once its record is known."""

    problem: str


def read_records(path: str | Path) -> RecordFile:
    """Return the records of a file. Their places are "Data/x.json record 3" or "x.jsonl line 7", counted from 1.

    A record is bad if it is not an object, or if a repeated key, NaN, Infinity, or a text with a lone surrogate is in
    it. A malformed line of a JSONL file is one bad record.

    Raises:
        FileNotFoundError: there is no such file.
        IsADirectoryError: the path is a folder.
        ValueError: the file is not UTF-8, not JSON, or has no records; one line with the location.
    """
    path = Path(path)
    text = _read_text(path)
    file = RecordFile(str(path), [], [])
    for item in _read_lines(path, text) if _is_json_lines(path, text) else _read_list(path, text):
        if isinstance(item, BadRecord):
            file.bad.append(item)
        else:
            file.records.append(item)
    return file


def _read_text(path: Path) -> str:
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; pass a JSON or JSONL file in it with --data")
    if not path.exists():
        raise FileNotFoundError(
            f"{path} not found; pass a JSON or JSONL file with --data, such as "
            "Data/instruction_data.json (instruction tuning) or Data/preference_data.json (preferences)"
        )
    content = path.read_bytes()
    try:
        text = content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line, byte = content.count(b"\n", 0, error.start) + 1, content[error.start]
        raise ValueError(
            f"{path} line {line}: byte 0x{byte:02x} at offset {error.start} is not UTF-8; save the file as UTF-8"
        ) from error
    if not text.strip():
        raise ValueError(f"{path} is empty; expected a JSON list of records or one JSON object per line")
    return text


def _is_json_lines(path: Path, text: str) -> bool:
    """Whether a file is JSONL: by its name, or because its first line is a complete object and more lines follow."""
    first_line, _, rest = text.strip().partition("\n")
    if first_line.startswith("["):
        return False
    if path.suffix.lower() == ".jsonl":
        return True
    try:
        return bool(rest) and isinstance(json.loads(first_line), dict)
    except (ValueError, RecursionError):
        return False


def _read_lines(path: Path, text: str) -> Iterator[Located | BadRecord]:
    # Not str.splitlines(): it also splits at U+2028 and others, which JSON allows inside a string.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield _checked(f"{path} line {number}", _parse(path, line, number))
            except BadRecord as error:
                yield error


def _read_list(path: Path, text: str) -> Iterator[Located | BadRecord]:
    value, name = _parse(path, text), "record"
    if isinstance(value, dict):
        value, name = _only_list(path, value)
    if not isinstance(value, list):
        raise ValueError(f"{path}: found {kind(value)}, expected a list of records, or one JSON object per line")
    if not value:
        raise ValueError(f"{path}: the list is empty; expected at least one record")
    for number, item in enumerate(value, start=1):
        try:
            yield _checked(f"{path} {name} {number}", item)
        except BadRecord as error:
            yield error


def _only_list(path: Path, value: Record) -> tuple[list[Any], str]:
    """Return the one list in an object, and the name of its records: {"data": [...]} gives "'data' record"."""
    lists = {key: inner for key, inner in value.items() if isinstance(inner, list)}
    # The records in the list are checked one by one later; a flaw outside the list concerns the whole file.
    _checked(str(path), {key: inner for key, inner in value.items() if key not in lists})
    if len(lists) != 1:
        raise ValueError(
            f"{path}: found one object with {len(lists) or 'no'} lists in it ({key_names(value)}), "
            "expected a list of records; keep one list, or put a single record in [ ]"
        )
    [(key, inner)] = lists.items()
    return inner, f"{key[:30]!r} record"


def _parse(path: Path, text: str, line: int | None = None) -> Any:
    """Parse a whole file, or one of its lines when `line` is given. Raises BadRecord with the place."""
    where = f"{path} line {line}" if line else str(path)
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_constant)
    except json.JSONDecodeError as error:
        place = f"{path} line {(line or 1) + error.lineno - 1} column {error.colno}"
        found = repr(text[error.pos : error.pos + 20]) if text[error.pos :].strip() else "the end"
        raise BadRecord(place, f"malformed JSON ({error.msg}), found {found}; correct it") from error
    except RecursionError as error:
        raise BadRecord(where, TOO_DEEP) from error
    except ValueError as error:  # Python does not parse an integer of thousands of digits
        raise BadRecord(where, "a number is too long to read; shorten it or remove it") from error


def _object(pairs: list[tuple[str, Any]]) -> Record:
    record = dict(pairs)
    for key, count in Counter(key for key, _ in pairs).items() if len(record) < len(pairs) else ():
        if count > 1:
            record[key] = _Flaw(f"the key {key[:30]!r} appears {count} times in one object; keep one")
    return record


def _constant(name: str) -> _Flaw:
    return _Flaw(f"{name} is not JSON; write a number or null, or remove it")


def _checked(where: str, value: Any) -> Located:
    """Return `(where, value)`. Raises BadRecord if the value is not an object or has a flaw in it."""
    try:
        problem = _first_problem(value)
    except RecursionError:
        problem = TOO_DEEP
    if problem:
        raise BadRecord(where, problem)
    if not isinstance(value, dict):
        raise BadRecord(where, f"found {kind(value)}, expected an object with texts, {{'key': 'text', ...}}")
    return where, value


def _first_problem(value: Any) -> str | None:
    if isinstance(value, _Flaw):
        return value.problem
    if isinstance(value, str):
        return _broken_character(value)
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((problem for child in inner if (problem := _first_problem(child))), None)


def _broken_character(text: str) -> str | None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return f"the character {text[error.start]!r} is a lone surrogate; remove it or write the complete pair"
    return None
