"""Read a text from records: the `text` of each line of a JSONL file, or of each row of a Parquet file."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from src.common.messages import Notify
from src.data.input_file import PARQUET, START_BYTES, open_data, record_text
from src.data.json_records import read_json_line
from src.data.records import BadRecord, Record, broken_character, key_names, report_bad, type_name
from src.data.tables import open_parquet
from src.data.text_files import PARQUET_SUFFIX
from src.data.text_format import RECORD_SCRIPTS

_LINES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
_KEY = "text"
_MOST_BAD = 1_000  # that are collected before a file is refused
_ROWS = 256  # of a table, in memory together

LocatedText = tuple[str, str]  # where it is, "x.jsonl line 7", and the text


def is_record_file(path: Path) -> bool:
    """Whether the name of a file promises records."""
    return path.name.lower().endswith((*_LINES, PARQUET_SUFFIX))


def record_texts(
    path: Path, *, skip_bad: bool, notify: Notify, on_read: Callable[[int], object]
) -> Iterator[LocatedText]:
    """Yield the place and the text of each record. Records with an empty text are left out and counted.

    skip_bad, notify: see `parse_records`. on_read: see `open_data`.
    Raises FileNotFoundError; ImportError for a Parquet file without pyarrow; ValueError if the file has another format,
    no records, or bad ones, which are named once the whole file is read.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} not found; check the path, or pass a text file with --data PATH")
    read = _read_table if path.name.lower().endswith(PARQUET_SUFFIX) else _read_lines
    bad: list[BadRecord] = []
    total = empty = 0
    for item in read(path, on_read):
        total += 1
        if isinstance(item, BadRecord):
            bad.append(item.with_traceback(None))  # its frames would keep the line in memory
            if len(bad) >= _MOST_BAD and not (skip_bad and len(bad) * 10 <= total):
                break
        elif not item[1].strip():
            empty += 1
        elif skip_bad or not bad:
            yield item
    report_bad(str(path), bad, total, skip_bad=skip_bad, notify=notify)
    if total == empty:
        raise ValueError(f"{path} has no texts; expected records with the key {_KEY!r}")
    if empty:
        notify(f"note: {path}: left out {empty:,} of {total:,} records: {_KEY!r} is empty")


def _read_lines(path: Path, on_read: Callable[[int], object]) -> Iterator[LocatedText | BadRecord]:
    with open_data(path, on_read) as stream:
        if stream.peek(START_BYTES).startswith(PARQUET):
            raise ValueError(f"{path} is a Parquet table; rename it to {path.stem}{PARQUET_SUFFIX}")
        with record_text(stream, path, str(path), newline="\n") as lines:
            for number, line in enumerate(lines, start=1):
                if stripped := line.strip():
                    yield _text_of_line(path, stripped, number)


def _text_of_line(path: Path, line: str, number: int) -> LocatedText | BadRecord:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    if isinstance(record, dict) and isinstance(record.get(_KEY), str) and not _repeats_key(line):
        return _text_of(f"{path} line {number}", record)
    if isinstance(record, list):
        return BadRecord(f"{path} line {number}", f"found a list; write one object with the key {_KEY!r} per line")
    located = read_json_line(str(path), line, number)  # slower, and knows what is wrong
    return located if isinstance(located, BadRecord) else _text_of(*located)


def _repeats_key(line: str) -> bool:
    """Whether the object in a line has the key twice. Python's parser would keep the last value."""
    if line.count(f'"{_KEY}"') < 2:  # almost always, and fast
        return False
    pairs = json.loads(line, object_pairs_hook=list)
    return [key for key, _ in pairs].count(_KEY) > 1


def _read_table(path: Path, on_read: Callable[[int], object]) -> Iterator[LocatedText | BadRecord]:
    # Buffered, so that a group of a million rows is not read at once.
    with open_parquet(str(path), path, buffer_size=1 << 20, pre_buffer=False) as table:
        columns = table.schema_arrow.names
        if _KEY not in columns:
            raise ValueError(f"{path}: {_without_text(dict.fromkeys(columns))}")
        number, size, n_rows = 0, path.stat().st_size, max(1, table.metadata.num_rows)
        for batch in table.iter_batches(_ROWS, columns=[_KEY]):
            on_read(size * len(batch) // n_rows)
            for text in batch.column(0).to_pylist():
                number += 1
                yield _text_of(f"{path} row {number}", {_KEY: text})


def _text_of(where: str, record: Record) -> LocatedText | BadRecord:
    text = record.get(_KEY)
    if not isinstance(text, str):
        return BadRecord(where, _without_text(record))
    problem = None if text.isascii() else broken_character(text)
    return BadRecord(where, problem) if problem else (where, text)


def _without_text(record: Record) -> str:
    """What is wrong with a record that has no usable text."""
    if _KEY in record:
        return f"{_KEY!r} is {type_name(record[_KEY])}; it must be the text of a document"
    scripts = [script for key, script in RECORD_SCRIPTS.items() if key in record]
    advice = f"run: python {scripts[0]}" if scripts else "it must be the text of a document"
    return f"{_KEY!r} is missing, {key_names(record)}; {advice}"
