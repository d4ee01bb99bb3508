"""Read the records of a JSON or JSONL file, each with its location for error messages.

A JSON file contains a list of objects, or one object with a single list in it, such as {"data": [...]}. A JSONL file
contains one object per line.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

Record = dict[str, Any]
Located = tuple[str, Record]
Item = TypeVar("Item")
Result = TypeVar("Result")

TOO_DEEP = "nested too deeply for a record of texts and lists of messages"


@dataclass(frozen=True)
class _Flaw:
    """Replaces a value that Python's JSON parser accepts and we do not. It is reported once its record is known."""

    problem: str


def read_records(path: str | Path) -> list[Located]:
    """Return every record as `(where, record)`. `where` is "Data/x.json record 3" or "x.jsonl line 7", counted from 1.

    Repeated keys, NaN, Infinity, and texts with lone surrogates are refused anywhere in a record.

    Raises:
        FileNotFoundError: there is no such file.
        IsADirectoryError: the path is a folder.
        ValueError: the file is not UTF-8, not JSON, or has no records; one line with the location.
    """
    path = Path(path)
    text = _read_text(path)
    return _read_lines(path, text) if _is_json_lines(path, text) else _read_list(path, text)


def parse_all(parse: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Return the parsed items.

    Raises:
        ValueError: `parse` refused an item; the message is the first reason and the number of other refused items.
    """
    results: list[Result] = []
    problems: list[str] = []
    for item in items:
        try:
            results.append(parse(item))
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError(problems[0] + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""))
    return results


def text_of(where: str, record: Record, key: str, *, may_be_empty: bool = False) -> str:
    """Return the stripped text under `key`; raises ValueError if it is missing, not text, or empty."""
    if key not in record:
        raise ValueError(
            f"{where}: {key!r} is missing, {key_names(record)}; add it, or correct the spelling of the key"
        )
    value = record[key]
    if not isinstance(value, str):
        raise ValueError(f"{where}: {key!r} is {kind(value)}, expected text in quotes")
    text = value.strip()
    if not text and not may_be_empty:
        raise ValueError(f"{where}: {key!r} is empty; fill it in or remove the record")
    return text


def only_key(where: str, record: Record, keys: tuple[str, ...], formats: str) -> str:
    """Return the one of `keys` that the record has.

    Raises ValueError if it has several, or none; the message for none quotes `formats`.
    """
    present = [key for key in keys if key in record]
    if not present:
        names = " or ".join(repr(key) for key in keys)
        raise ValueError(f"{where}: {names} is missing, {key_names(record)}; {formats}")
    if len(present) > 1:
        raise ValueError(f"{where}: has both {present[0]!r} and {present[1]!r}; keep one of them")
    return present[0]


def kind(value: object) -> str:
    """The type of a parsed JSON value in words: "a list", "null", "a number"."""
    names = {str: "text", list: "a list", dict: "an object", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def key_names(record: Record) -> str:
    """The first keys of a record, shortened so that a message stays readable on one line."""
    names = ", ".join(repr(key[:30]) for key in list(record)[:6])
    return f"found {names}{', ...' if len(record) > 6 else ''}" if record else "found no keys"


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


def _read_lines(path: Path, text: str) -> list[Located]:
    def parse_line(numbered: tuple[int, str]) -> Located:
        number, line = numbered
        return _checked(f"{path} line {number}", _parse(path, line, number))

    # Not str.splitlines(): it also splits at U+2028 and others, which JSON allows inside a string.
    return parse_all(parse_line, ((n, line) for n, line in enumerate(text.split("\n"), start=1) if line.strip()))


def _read_list(path: Path, text: str) -> list[Located]:
    value, name = _parse(path, text), "record"
    if isinstance(value, dict):
        value, name = _only_list(path, value)
    if not isinstance(value, list):
        raise ValueError(f"{path}: found {kind(value)}, expected a list of records, or one JSON object per line")
    if not value:
        raise ValueError(f"{path}: the list is empty; expected at least one record")
    return parse_all(lambda numbered: _checked(f"{path} {name} {numbered[0]}", numbered[1]), enumerate(value, start=1))


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
    """Parse a whole file, or one of its lines when `line` is given."""
    where = f"{path} line {line}" if line else str(path)
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_constant)
    except json.JSONDecodeError as error:
        place = f"{path} line {(line or 1) + error.lineno - 1} column {error.colno}"
        found = repr(text[error.pos : error.pos + 20]) if text[error.pos :].strip() else "the end"
        raise ValueError(f"{place}: malformed JSON ({error.msg}) at {found}; correct it") from error
    except RecursionError as error:
        raise ValueError(f"{where}: {TOO_DEEP}") from error
    except ValueError as error:  # Python does not parse an integer of thousands of digits
        raise ValueError(f"{where}: a number is too long to read; shorten it or remove it") from error


def _object(pairs: list[tuple[str, Any]]) -> Record:
    record = dict(pairs)
    for key, count in Counter(key for key, _ in pairs).items() if len(record) < len(pairs) else ():
        if count > 1:
            record[key] = _Flaw(f"the key {key[:30]!r} appears {count} times in one object; keep one")
    return record


def _constant(name: str) -> _Flaw:
    return _Flaw(f"{name} is not JSON; write a number or null, or remove it")


def _checked(where: str, value: Any) -> Located:
    """Return `(where, value)`. Raises ValueError if the value is not an object or has a flaw in it."""
    try:
        problem = _first_problem(value)
    except RecursionError:
        problem = TOO_DEEP
    if problem:
        raise ValueError(f"{where}: {problem}")
    if not isinstance(value, dict):
        raise ValueError(f"{where}: found {kind(value)}, expected an object with texts, {{'key': 'text', ...}}")
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
