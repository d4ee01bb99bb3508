"""Read the rows of a CSV, TSV or Parquet table as records. The names of its columns are their keys."""

import csv
import math
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from src.common.messages import one_line
from src.data.records import BadRecord, Located, broken_character

_DELIMITERS = ",;\t|"
_QUOTES = 'a quoted cell does not end, or text follows its end; write a quote inside a text twice ("")'
_LONGEST_CELL = 2**31 - 1


def read_csv(name: str, file: TextIO, *, tabs: bool = False) -> Iterator[Located | BadRecord]:
    """Yield the rows below the header, as texts. Their places are the lines on which they start.

    file: opened with newline="". tabs: the delimiter is a tab; otherwise it is the one of , ; tab | that is most
    frequent in the header. Raises ValueError if the header is missing or malformed, if a name is in it twice, or if a
    quote is never closed.
    """
    csv.field_size_limit(_LONGEST_CELL)
    first = next((line for line in file if line.strip()), "")
    if first.lstrip().startswith("|"):
        raise ValueError(f"{name} is a table of Markdown; write it as CSV, with commas and without a line of dashes")
    delimiter = "\t" if tabs else max(_DELIMITERS, key=first.count)
    rows = csv.reader(chain([first], file), delimiter=delimiter, strict=True)
    try:
        columns = _column_names(name, next(rows, []))
    except csv.Error as error:
        raise ValueError(f"{name}: malformed header ({error}); correct it") from None
    while True:
        line = rows.line_num + 1
        where = f"{name} line {line}"
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            if "end of data" in str(error) and rows.line_num == line:
                yield BadRecord(where, "cut off in a quoted cell; complete it or remove the row")
                return
            raise ValueError(f"{where}: {_QUOTES}") from None  # where the next row starts is unknown
        if any(row):
            yield _record(where, columns, row, delimiter)


def _column_names(name: str, cells: list[str]) -> list[str]:
    """The names in a header. A column without a name gets pandas' "Unnamed: 0"."""
    columns = [cell.strip() or f"Unnamed: {index}" for index, cell in enumerate(cells)]
    repeated = next((column for column in columns if columns.count(column) > 1), None)
    if not columns:
        raise ValueError(f"{name} is empty; expected a header with the names of the columns")
    if repeated:
        raise ValueError(f"{name}: the header has the column {repeated[:30]!r} twice; rename one")
    return columns


def _record(where: str, columns: list[str], row: list[str], delimiter: str) -> Located | BadRecord:
    if len(row) != len(columns):
        problem = f"found {len(row)} cells, expected {len(columns)} as in the header"
        return BadRecord(where, f"{problem}; put a text with a {delimiter!r} or a line break in it in double quotes")
    problems = filter(None, map(broken_character, row))
    problem = next(problems, "")
    return BadRecord(where, problem) if problem else (where, dict(zip(columns, row, strict=True)))


@contextmanager
def open_parquet(name: str, file: Path | BinaryIO, **options: Any) -> Generator[Any, None, None]:
    """Open a Parquet file as pyarrow's ParquetFile, with its options.

    Raises ImportError if pyarrow is missing, ValueError if the file is damaged, also while it is read.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ImportError(f"{name} is a Parquet file, which needs pyarrow; run: pip install pyarrow") from None
    try:
        with pyarrow.parquet.ParquetFile(file, **options) as table:
            yield table
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{name} is a damaged or incomplete Parquet file ({one_line(error)[:100]})") from None


def read_parquet(name: str, file: Path | BinaryIO) -> Iterator[Located | BadRecord]:
    """Yield the rows of a Parquet file. Raises the errors of `open_parquet`."""
    with open_parquet(name, file) as table:
        rows = (row for batch in table.iter_batches() for row in batch.to_pylist())
        for number, row in enumerate(rows, start=1):
            yield f"{name} row {number}", {key: _as_json(value) for key, value in row.items()}


def _as_json(value: Any) -> Any:
    """A table value converted to JSON: a date becomes text, and NaN, pandas' missing value, becomes null."""
    if isinstance(value, dict):
        return {str(key): _as_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(inner) for inner in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, float) and math.isnan(value):
        return None
    return value if value is None or isinstance(value, str | bool | int | float) else str(value)
