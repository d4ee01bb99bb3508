"""The records of a data file, each with its place in the file, and the report on those that cannot be used."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from src.common.messages import Notify

Record = dict[str, Any]
Located = tuple[str, Record]
T = TypeVar("T")

BAD_SHOWN = 3


class BadRecord(ValueError):
    """A record that cannot be used. `where` is its place, "x.json record 3"; `reason` names the fault and the fix.

    Bad records are counted by the first part of their reason: the part before the first ", " or "; ".
    """

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where}: {reason}")
        self.where, self.reason = where, reason


@dataclass(frozen=True)
class RecordFile:
    """The records of a file as `(where, record)`, and what could not be read as one, such as a cut-off line."""

    name: str
    records: list[Located]
    bad: list[BadRecord]


def parse_records(
    parse: Callable[[str, Record], T],
    file: RecordFile,
    *,
    skip_bad: bool = False,
    notify: Notify = print,
) -> list[T]:
    """Return `parse(where, record)` of every record. `parse` raises BadRecord for a record that it cannot use.

    skip_bad: leave bad records out and report their number in one line to `notify`, unless more than a tenth are bad.

    Raises:
        ValueError: there are bad records; one line with the first places and reasons, and a count for each reason.
    """
    results: list[T] = []
    bad = list(file.bad)
    for where, record in file.records:
        try:
            results.append(parse(where, record))
        except BadRecord as error:
            bad.append(error)
    report_bad(file.name, bad, len(file.records) + len(file.bad), skip_bad=skip_bad, notify=notify)
    return results


def report_bad(name: str, bad: Sequence[BadRecord], total: int, *, skip_bad: bool, notify: Notify) -> None:
    """Report the bad records of a file in one line, if there are any. total: the number of all its records.

    Raises ValueError unless `skip_bad`, and if more than a tenth are bad.
    """
    if not bad:
        return
    if not skip_bad or _too_many(bad, total):
        raise ValueError(_refusal(name, bad, total))
    notify(
        f"note: {name}: left out {len(bad):,} of {total:,} records: {_counts(bad)}; the first is {_place(name, bad[0])}"
    )


def type_name(value: object) -> str:
    """The type of a value of JSON or Parquet in words: "a list", "null", "a number"."""
    names = {str: "text", list: "a list", dict: "an object", bool: "true or false", type(None): "null"}
    names |= {bytes: "binary data"}
    return names.get(type(value), "a number")


def key_names(record: Record) -> str:
    """The first keys of a record, shortened so that a message stays readable on one line."""
    names = ", ".join(repr(key[:30]) for key in list(record)[:6])
    return f"found {names}{', ...' if len(record) > 6 else ''}" if record else "found no keys"


def broken_character(text: str) -> str | None:
    """What is wrong with a text that UTF-8 cannot encode, or None. A byte that was not UTF-8 is a surrogate in it."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        character = text[error.start]
        if "\udc80" <= character <= "\udcff":
            return f"byte 0x{ord(character) - 0xDC00:02x} is not UTF-8; save the file as UTF-8"
        return f"the character {character!r} is a lone surrogate; remove it or write the complete pair"
    return None


def _refusal(name: str, bad: Sequence[BadRecord], total: int) -> str:
    """One line: the first bad record in full, the next ones, the counts, and the advice."""
    if total == 1:
        return str(bad[0])
    more = ", ".join(f"{_place(name, error)}: {_summary(error)}" for error in bad[1:BAD_SHOWN])
    one = len(bad) == 1
    counts = f"1 of {total:,} records is bad" if one else f"{len(bad):,} of {total:,} records are bad: {_counts(bad)}"
    if _too_many(bad, total):
        advice = "More than a tenth is bad, which --skip-bad does not allow: correct them, or check the format"
    elif one:
        advice = "Correct it, or pass --skip-bad to leave it out"
    else:
        advice = "Correct them, or pass --skip-bad to leave them out"
    return f"{bad[0]}. {f'Also {more}. ' if more else ''}{counts}. {advice}"


def _place(name: str, error: BadRecord) -> str:
    return error.where.removeprefix(name).strip()


def _too_many(bad: Sequence[BadRecord], total: int) -> bool:
    return len(bad) * 10 > total


def _counts(bad: Sequence[BadRecord]) -> str:
    """The number of bad records by reason: "'output' is empty (28), 'input' is a number (2)"."""
    counts = Counter(map(_summary, bad)).most_common()
    others = sum(count for _, count in counts[BAD_SHOWN:])
    shown = [f"{summary} ({count:,})" for summary, count in counts[:BAD_SHOWN]]
    return ", ".join(shown + ([f"other reasons ({others:,})"] if others else []))


def _summary(error: BadRecord) -> str:
    return error.reason.partition("; ")[0].partition(", ")[0]
