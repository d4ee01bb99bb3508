"""Load records from JSON, JSONL, CSV, TSV or Parquet: a file, compressed or not, a pipe, or a data set on the hub.

`read_records` finds the records. `load_records` turns each into an example, and reports once what was not used.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from io import BytesIO, FileIO
from pathlib import Path
from typing import TypeVar

from src.common.messages import Notify
from src.data.fields import Fields, LeftOut
from src.data.hub_dataset import download_dataset, parse_dataset_id
from src.data.input_file import PARQUET, START_BYTES, open_data, record_text
from src.data.json_records import read_json
from src.data.records import BadRecord, Located, RecordFile, parse_records
from src.data.tables import read_csv, read_parquet

T = TypeVar("T")

_JSON_LINES, _CSV, _TABS = {".jsonl", ".ndjson"}, {".csv"}, {".tsv", ".tab"}
# Names separated by one delimiter each. After a comma with a space, as in a sentence, each must be a single word.
_HEADER = re.compile(
    r'\W{0,3}"?[A-Za-z_]'
    r'(?:[\w .-]{0,40}"?(?:(?:,(?! )|[;\t|])"?[\w .-]{0,40}"?)+|[\w.-]{0,40}"?(?:, ?"?[\w.-]{1,40}"?)+)\s*'
)


def read_records(source: str | Path, *, notify: Notify = print) -> RecordFile:
    """Return the records of a file, or of a data set on the Hugging Face hub, such as tatsu-lab/alpaca@main:train.

    Their places are "Data/x.json record 3", "x.jsonl line 7" or "x.parquet row 2". A record is bad if it is not an
    object, or if a repeated key, Infinity, or a text with a lone surrogate is in it. A malformed line of a JSONL file
    is one bad record. NaN, with which pandas writes a missing value, is read as null.
    `notify` gets a line about a data set, and one if only a part of a file is read.

    Raises:
        FileNotFoundError: there is no such file.
        IsADirectoryError: the path is a folder.
        OSError: a data set cannot be downloaded.
        ImportError: it is in Parquet, and pyarrow is not installed.
        ValueError: the file has another format or no records; one line with the location.
    """
    dataset = parse_dataset_id(source)
    if dataset is None:
        paths = {str(source): Path(source)}
    else:
        paths = {f"{dataset.name} {name}": path for name, path in download_dataset(dataset, notify).items()}
    records = RecordFile(dataset.name if dataset else str(source), [], [])
    for name, path in paths.items():
        for item in _read_file(name, path, notify):
            if isinstance(item, BadRecord):
                records.bad.append(item.with_traceback(None))  # its frames would keep the line in memory
            else:
                records.records.append(item)
    if not records.records and not records.bad:
        raise ValueError(f"{source} has no records; expected at least one")
    return records


def load_records(
    path: Path,
    read: Callable[[Fields], T],
    join: Callable[[Sequence[Located]], tuple[list[Located], Counter[str]]],
    *,
    skip_bad: bool,
    notify: Notify,
) -> list[tuple[str, T]]:
    """Return `(where, read(fields))` of every record that can be used.

    join: joins records that belong together, and counts those without a counterpart by reason.
    `notify` gets one line for each thing that was not read or changed, and one for the records that were left out.

    Raises FileNotFoundError; ValueError if the file has bad records, unless `skip_bad`, or if no record is left.
    """
    file = read_records(path, notify=notify)
    records, left_out = join(file.records)
    notes: Counter[str] = Counter()

    def parse(where: str, record: dict) -> tuple[str, T] | None:
        fields = Fields(where, record)
        try:
            result = read(fields)
        except LeftOut as reason:
            left_out[str(reason)] += 1
            return None
        notes.update(list(fields.found.notes))
        return where, result

    parsed = parse_records(parse, replace(file, records=records), skip_bad=skip_bad, notify=notify)
    loaded = [result for result in parsed if result is not None]
    reasons = ", ".join(f"{reason} ({count:,})" for reason, count in left_out.most_common())
    if not loaded:
        raise ValueError(f"{path}: none of its {len(file.records):,} records can be learned: {reasons}")
    if left_out:
        notify(f"note: {path}: left out {left_out.total():,} of {len(file.records):,} records: {reasons}")
    for text, count in notes.items():
        notify(f"note: {path}: {text}, in {count:,} of {len(records):,} records")
    return loaded


def _read_file(name: str, path: Path, notify: Notify) -> Iterator[Located | BadRecord]:
    with open_data(path) as stream:
        start = stream.peek(START_BYTES)[:START_BYTES]
        if start.startswith(PARQUET):
            is_plain_file = isinstance(stream.raw, FileIO)
            yield from read_parquet(name, path if is_plain_file else BytesIO(stream.read()))
            return
        suffix = _suffix(path)
        is_table = suffix in _CSV | _TABS or _is_header(start)
        # JSON allows all line breaks but \n inside a line; csv wants to see them as they are.
        with record_text(stream, path, name, newline="" if is_table else "\n") as text:
            if is_table:
                yield from read_csv(name, text, tabs=suffix in _TABS)
            else:
                yield from read_json(name, text, one_per_line=suffix in _JSON_LINES, notify=notify)


def _suffix(path: Path) -> str:
    """The ending of a file's name in lower case, without that of gzip."""
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


def _is_header(start: bytes) -> bool:
    """Whether the first line of a file looks like the names of a table's columns, and the next one not like JSON."""
    first, _, rest = start.decode("utf-8-sig", errors="replace").lstrip().partition("\n")
    return _HEADER.fullmatch(first) is not None and not rest.lstrip().startswith(("{", "["))
