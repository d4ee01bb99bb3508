"""Find the records in one JSON object: a record alone, a list among other keys, or the columns of a table."""

from collections.abc import Iterator
from typing import Any

from src.common.messages import Notify
from src.data.records import Record, key_names, type_name

# An object with one of these keys is a record. An object without them may have its records inside.
_RECORD_KEYS = {
    "answer", "chat", "chosen", "completion", "contents", "conversation", "conversations", "dialog", "dialogue",
    "instances", "instruction", "message_id", "messages", "output", "prompt", "query", "question", "rejected",
    "response", "target", "targets", "text", "turns",
}  # fmt: skip
_MESSAGE_KEYS = {"content", "from", "role", "value"}
_TRAIN_SPLITS = ("train", "training")
_SPLITS = {*_TRAIN_SPLITS, "dev", "eval", "test", "val", "valid", "validation"}


def records_in(name: str, value: Any, notify: Notify) -> Iterator[tuple[str, Any]]:
    """Yield the records in the one value of a JSON file, each with its place. Of several splits, train is read.

    Raises ValueError if the value is not an object, or has several lists of records.
    """
    if not isinstance(value, dict):
        raise ValueError(f"{name}: found {type_name(value)}, expected a list of records, or one JSON object per line")
    if split := _train_split(value):
        others = ", ".join(repr(key) for key in value if key != split and key.casefold() in _SPLITS)
        notify(f"note: {name}: reading {split!r}; not reading {others}")
        value = {split: value[split]} if isinstance(value[split], list) else value[split]
    table = _table_rows(value)
    if table is not None:
        yield from _numbered(f"{name} row", table)
    elif _is_record(value):
        yield f"{name} record 1", value
    else:
        key, records = _only_list(name, value)
        yield from _numbered(f"{name} {key[:30]!r} record", records)


def _train_split(value: Record) -> str | None:
    """The key of the training split, if there are others."""
    splits = {key for key, inner in value.items() if key.casefold() in _SPLITS and isinstance(inner, list | dict)}
    others = {key for key, inner in value.items() if key not in splits and isinstance(inner, list | dict)}
    return next((key for key in splits if key.casefold() in _TRAIN_SPLITS and len(splits) > 1 and not others), None)


def _numbered(label: str, records: list[Any]) -> Iterator[tuple[str, Any]]:
    return ((f"{label} {number}", record) for number, record in enumerate(records, start=1))


def _is_record(value: Record) -> bool:
    return any(key.casefold() in _RECORD_KEYS for key in value)


def _table_rows(value: Record) -> list[Any] | None:
    """The rows of a table that pandas wrote, in any orientation but "values"; None for anything else."""
    readers = (_rows_of_split_table, _rows_of_columns_table, _rows_of_index_table, _rows_of_list_table)
    return next((rows for read in readers if (rows := read(value)) is not None), None)


def _rows_of_split_table(value: Record) -> list[Any] | None:
    """Orientation "split": {"columns": [...], "data": [[...], ...]}."""
    columns, data = value.get("columns"), value.get("data")
    if not isinstance(columns, list) or not isinstance(data, list):
        return None
    return [dict(zip(map(str, columns), row, strict=False)) for row in data if isinstance(row, list)]


def _rows_of_columns_table(value: Record) -> list[Any] | None:
    """Orientation "columns": {COLUMN: {ROW: value, ...}, ...}. All columns have the same rows."""
    columns = list(value.values())
    if not columns or not all(isinstance(column, dict) and not _is_record(column) for column in columns):
        return None
    rows = list(columns[0])
    are_rows = all(row.isdigit() for row in rows) or (len(columns) > 1 and _MESSAGE_KEYS.isdisjoint(rows))
    if not are_rows or any(list(column) != rows for column in columns):
        return None
    return [{name: column[row] for name, column in value.items()} for row in rows]


def _rows_of_index_table(value: Record) -> list[Any] | None:
    """Orientation "index": {ROW: record, ...}."""
    rows = list(value.values())
    if not rows or _is_record(value) or not all(isinstance(row, dict) and _is_record(row) for row in rows):
        return None
    return rows


def _rows_of_list_table(value: Record) -> list[Any] | None:
    """Orientation "list": {COLUMN: [value, ...], ...}."""
    columns = list(value.values())
    if len(columns) < 2 or not all(_is_column(column) and len(column) == len(columns[0]) for column in columns):
        return None
    return [dict(zip(value, row, strict=True)) for row in zip(*columns, strict=True)]


def _is_column(value: Any) -> bool:
    """Whether a list has one value per row. A list of objects is a chat, or a list of records."""
    return isinstance(value, list) and not any(isinstance(item, dict) for item in value)


def _only_list(name: str, value: Record) -> tuple[str, list[Any]]:
    """The key and the items of the one list of records in an object."""
    lists = {key: inner for key, inner in value.items() if isinstance(inner, list)}
    found = {key: inner for key, inner in lists.items() if any(isinstance(item, dict) for item in inner)} or lists
    if len(found) != 1:
        lists_found = f"found {len(found) or 'no'} lists of records in one object"
        raise ValueError(f"{name}: {lists_found} ({key_names(value)}), expected one; write it to a file of its own")
    [(key, records)] = found.items()
    if not records:
        raise ValueError(f"{name}: the list is empty; expected at least one record")
    return key, records
