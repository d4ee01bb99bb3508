"""Load a data file: read its records, turn each into examples, and report once what was not used."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from src.data.fields import Fields, LeftOut
from src.data.record_files import read_records
from src.data.records import Located, parse_records

Result = TypeVar("Result")


def load_records(
    path: Path,
    read: Callable[[Fields], Result],
    join: Callable[[Sequence[Located]], tuple[list[Located], Counter[str]]],
    *,
    skip_bad: bool,
    notify: Callable[[str], None],
) -> list[tuple[str, Result]]:
    """Return `(where, read(fields))` of every record that can be used.

    join: joins records that belong together, and counts those without a counterpart by reason.
    `notify` gets one line for each thing that was not read or changed, and one for the records that were left out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file has bad records, unless `skip_bad`; or no record is left.
    """
    file = read_records(path, notify=notify)
    records, left_out = join(file.records)
    notes: Counter[str] = Counter()

    def parse(where: str, record: dict) -> tuple[str, Result] | None:
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
