"""Bad records are named, counted, and left out on request."""

import pytest

from src.data.records import BadRecord, Record, RecordFile, parse_records, type_name


def file_of(*values: object, bad: tuple[BadRecord, ...] = ()) -> RecordFile:
    """A file with {"output": value} for each value."""
    return RecordFile(
        "x.json", [(f"x.json record {n}", {"output": v}) for n, v in enumerate(values, start=1)], list(bad)
    )


def output(where: str, record: Record) -> str:
    value = record["output"]
    if not isinstance(value, str):
        raise BadRecord(where, f"'output' is {type_name(value)}, expected text in quotes")
    if not value.strip():
        raise BadRecord(where, "'output' is empty; fill it in or remove the record")
    return value.strip()


def refusal(file: RecordFile, *, skip_bad: bool = False) -> str:
    with pytest.raises(ValueError) as caught:
        parse_records(output, file, skip_bad=skip_bad)
    return str(caught.value)


def test_good_records_are_parsed_without_a_note() -> None:
    notes: list[str] = []
    assert parse_records(output, file_of("a", " b "), skip_bad=True, notify=notes.append) == ["a", "b"]
    assert notes == []


def test_bad_records_are_named_and_counted_by_reason() -> None:
    cut_off = BadRecord("x.json line 60 column 8", "malformed JSON (Unterminated string), found 'ab'; correct it")
    assert refusal(file_of(*["a"] * 50, "", "a", 8, " ", 9, "", "", "", "", "", *["a"] * 50, bad=(cut_off,))) == (
        "x.json line 60 column 8: malformed JSON (Unterminated string), found 'ab'; correct it. "
        "Also record 51: 'output' is empty, record 53: 'output' is a number. 10 of 111 records are bad: "
        "'output' is empty (7), 'output' is a number (2), malformed JSON (Unterminated string) (1). "
        "Correct them, or pass --skip-bad to leave them out"
    )


def test_one_bad_record_is_refused_with_the_flag_that_helps() -> None:
    assert refusal(file_of(*["a"] * 9, "")) == (
        "x.json record 10: 'output' is empty; fill it in or remove the record. 1 of 10 records is bad. "
        "Correct it, or pass --skip-bad to leave it out"
    )


def test_the_only_record_of_a_file_is_refused_without_counts() -> None:
    assert refusal(file_of("")) == "x.json record 1: 'output' is empty; fill it in or remove the record"


def test_bad_records_are_left_out_on_request_and_counted() -> None:
    notes: list[str] = []
    kept = parse_records(output, file_of(*["a"] * 28, "", 8), skip_bad=True, notify=notes.append)
    assert kept == ["a"] * 28
    assert notes == [
        "note: x.json: left out 2 of 30 records: 'output' is empty (1), 'output' is a number (1); "
        "the first is record 29"
    ]


@pytest.mark.parametrize("skip_bad", [False, True])
def test_a_file_with_more_than_a_tenth_bad_is_refused(skip_bad: bool) -> None:
    message = refusal(file_of(*["a"] * 8, "", 3), skip_bad=skip_bad)
    assert message.startswith("x.json record 9: 'output' is empty; fill it in")
    assert message.endswith(
        "More than a tenth is bad, which --skip-bad does not allow: correct them, or check the format"
    )


def test_rare_reasons_are_counted_together() -> None:
    bad = tuple(BadRecord("x.json line 1", reason) for reason in ("a", "a", "b", "b", "c", "c", "d", "e"))
    assert "a (2), b (2), c (2), other reasons (2)." in refusal(file_of(bad=bad))
