"""Record files: every kind is read with the places of its records, and every other file is named for what it is."""

import gzip
import json
import os
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest

from src.data import input_file
from src.data.record_files import read_records
from src.data.records import Record, RecordFile

ONE, TWO = {"instruction": "Say hello.", "response": "Hello there."}, {"instruction": "Add, 2 and 3.", "response": "5"}
LINES = f"{json.dumps(ONE)}\n{json.dumps(TWO)}\n"


def save(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return path


def read(path: Path) -> list[tuple[str, Record]]:
    """The records of a file without bad ones, with their places behind the file's name."""
    file = read_records(path, notify=fail)
    assert not file.bad
    return [(where.removeprefix(f"{path} "), record) for where, record in file.records]


def fail(line: str) -> None:
    raise AssertionError(f"unexpected note: {line}")


def bad_ones(file: RecordFile) -> list[str]:
    """The messages of the bad records, without the folder."""
    return [str(error).removeprefix(str(Path(file.name).parent)).lstrip("\\/") for error in file.bad]


def refusal(path: Path) -> str:
    """The one-line error of a refused file, without its folder."""
    with pytest.raises(ValueError) as caught:
        read_records(path)
    message = str(caught.value)
    assert "\n" not in message and message.startswith(str(path))
    return message.removeprefix(str(path.parent)).lstrip("\\/")


# --- JSON and JSONL


@pytest.mark.parametrize(
    ("name", "text", "places"),
    [
        ("x.json", json.dumps([ONE, TWO]), ["record 1", "record 2"]),
        ("x.json", b"\xef\xbb\xbf" + json.dumps([ONE, TWO], indent=1).encode(), ["record 1", "record 2"]),
        ("x.json", json.dumps({"v": 1, "data": [ONE, TWO], "tags": ["a"]}), ["'data' record 1", "'data' record 2"]),
        ("x.jsonl", LINES, ["line 1", "line 2"]),
        ("x.NDJSON", LINES, ["line 1", "line 2"]),
        ("x.jsonl", b"\xef\xbb\xbf" + LINES.replace("\n", "\r\n\r\n  \r\n").encode(), ["line 1", "line 4"]),
        ("x.json", f"\n{LINES}", ["line 2", "line 3"]),
        ("x.txt", LINES, ["line 1", "line 2"]),
        ("x", LINES, ["line 1", "line 2"]),
        ("x.jsonl", json.dumps([ONE, TWO], indent=2), ["record 1", "record 2"]),
        ("x.jsonl", f"{json.dumps(ONE, indent=2)}\n{json.dumps(TWO, indent=2)}", ["line 1", "line 5"]),
        ("x.json", f"{json.dumps(ONE, indent=2)}\n{json.dumps(TWO)}", ["line 1", "line 5"]),
        ("x.json", json.dumps([ONE, TWO], indent=2).encode("utf-16"), ["record 1", "record 2"]),
        ("x.jsonl", LINES.encode("utf-16"), ["line 1", "line 2"]),
        ("x.json", LINES.encode("utf-32"), ["line 1", "line 2"]),
        ("x.jsonl.gz", gzip.compress(LINES.encode(), mtime=0), ["line 1", "line 2"]),
        ("x.json", gzip.compress(json.dumps([ONE, TWO]).encode(), mtime=0), ["record 1", "record 2"]),
    ],
    ids=[
        "list", "list with BOM", "list in an object", "jsonl", "ndjson in capitals", "jsonl with BOM, CRLF and blanks",
        "jsonl named json", "jsonl named txt", "jsonl without a suffix", "list named jsonl", "objects over lines",
        "objects over lines named json", "UTF-16", "UTF-16 lines", "UTF-32", "gzip", "gzip by its content",
    ],
)  # fmt: skip
def test_json_is_read_with_the_places(tmp_path: Path, name: str, text: str | bytes, places: list[str]) -> None:
    assert read(save(tmp_path / name, text)) == list(zip(places, (ONE, TWO), strict=True))


CHAT = {"messages": [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]}


@pytest.mark.parametrize(
    "record",
    [ONE, CHAT, {"chosen": CHAT["messages"], "rejected": CHAT["messages"]}, {"prompt": {"role": "user", "text": "a"}}],
    ids=["pair", "chat", "two chats", "tree"],
)
def test_an_object_alone_in_a_file_is_one_record(tmp_path: Path, record: Record) -> None:
    assert read(save(tmp_path / "x.json", json.dumps(record, indent=1))) == [("record 1", record)]


COLUMNS = {key: [ONE[key], TWO[key]] for key in ONE}


@pytest.mark.parametrize(
    "table",
    [
        {key: dict(zip("01", column, strict=True)) for key, column in COLUMNS.items()},
        {"columns": list(ONE), "index": [0, 1], "data": [list(ONE.values()), list(TWO.values())]},
        {"0": ONE, "1": TWO},
        {key: dict(zip(("a1", "b2"), column, strict=True)) for key, column in COLUMNS.items()},
        {"id7": ONE, "id8": TWO},
        COLUMNS,
    ],
    ids=["columns", "split", "index", "columns with an index", "index of names", "list"],
)
def test_every_orientation_of_pandas_is_read(tmp_path: Path, table: object) -> None:
    assert read(save(tmp_path / "x.json", json.dumps(table))) == [("row 1", ONE), ("row 2", TWO)]


@pytest.mark.parametrize(("train", "test"), [([ONE, TWO], [TWO]), (COLUMNS, COLUMNS)], ids=["lists", "columns"])
def test_the_train_split_is_read_with_a_note(tmp_path: Path, train: object, test: object) -> None:
    path = save(tmp_path / "x.json", json.dumps({"test": test, "train": train, "note": "a"}))
    notes: list[str] = []
    assert [record for _, record in read_records(path, notify=notes.append).records] == [ONE, TWO]
    assert notes == [f"note: {path}: reading 'train'; not reading 'test'"]


def test_unicode_line_separators_do_not_split_lines(tmp_path: Path) -> None:
    record = {"a": "na\u00efve\u2028\u4f60\u597d\x85\x0c\x1c\U0001f600!"}
    line = json.dumps(record, ensure_ascii=False)
    assert read(save(tmp_path / "x.jsonl", f"{line}\n{line}")) == [("line 1", record), ("line 2", record)]


def test_every_key_and_value_is_returned(tmp_path: Path) -> None:
    record = {"a": 1, "b": [1.5, None, True], "c": {"d": "\u00e9"}}
    assert read(save(tmp_path / "x.json", json.dumps([record]))) == [("record 1", record)]


def test_nan_is_a_missing_value(tmp_path: Path) -> None:
    assert read(save(tmp_path / "x.jsonl", '{"a": "b", "c": NaN}')) == [("line 1", {"a": "b", "c": None})]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ('{"a": "b", "a": "c"}', "the key 'a' appears 2 times in one object; keep one"),
        ('{"a": [{"b": "c", "b": "c"}]}', "the key 'b' appears 2 times in one object; keep one"),
        ('{"a": Infinity}', "Infinity is not JSON; write a number or null, or remove it"),
        ('{"a": -Infinity}', "-Infinity is not JSON; write a number or null, or remove it"),
        (r'{"a": "\ud83d"}', r"the character '\ud83d' is a lone surrogate; remove it or write the complete pair"),
        (b'{"a": "caf\xe9"}', "byte 0xe9 is not UTF-8; save the file as UTF-8"),
        ('{"a": ' + "[" * 600 + "]" * 600 + "}", "nested too deeply for a record of texts and lists of messages"),
        ("7", "found a number, expected an object with texts, {'key': 'text', ...}"),
    ],
    ids=[
        "repeated key",
        "repeated key inside",
        "Infinity",
        "-Infinity",
        "lone surrogate",
        "Latin-1",
        "deep",
        "number",
    ],
)
def test_a_bad_value_makes_one_bad_record(tmp_path: Path, record: str | bytes, reason: str) -> None:
    line, text = json.dumps(ONE).encode(), record if isinstance(record, bytes) else record.encode()
    for name, content, place in (
        ("x.json", b"[%b, %b, %b]" % (line, text, line), "record 2"),
        ("x.jsonl", b"%b\n%b\n%b" % (line, text, line), "line 2"),
        ("x.json", b'{"data": [%b, %b, %b]}' % (line, text, line), "'data' record 2"),
    ):
        file = read_records(save(tmp_path / name, content))
        assert [record for _, record in file.records] == [ONE, ONE]
        assert bad_ones(file) == [f"{name} {place}: {reason}"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.jsonl", LINES + '{"instruction": "Cu', "x.jsonl line 3 column 17: malformed JSON (a text without its clo"),
        ("x.jsonl", '{"a": \n' + LINES, "x.jsonl line 1 column 6: malformed JSON (Expecting value), found the end; "),
        ("x.jsonl", "Rows, of May\n" + LINES, "x.jsonl line 1 column 1: malformed JSON (Expecting value), found 'Rows"),
        ("x.jsonl", LINES + "{'a': 1}", "x.jsonl line 3 column 2: malformed JSON (texts need straight double quotes, "),
        ("x.jsonl", LINES + '{"a": None}', "x.jsonl line 3 column 7: malformed JSON (Python's None, True and False ar"),
        ("x.jsonl", LINES + '{"a": "b\tc"}', "x.jsonl line 3 column 9: malformed JSON (a control character inside a "),
        ("x.jsonl", LINES + "\ufeff{}", "x.jsonl line 3 column 1: malformed JSON (a byte order mark inside the file: "),
        ("x.jsonl", LINES + '{"a": 1}{"b": 2}', "x.jsonl line 3 column 9: malformed JSON (Extra data), found '{\"b\":"),
        ("x.jsonl", LINES + '{"a":' * 100_000, "x.jsonl line 3 column 1: nested too deeply for a record"),
        ("x.jsonl", LINES + f'{{"a": {"9" * 5000}}}', "x.jsonl line 3 column 1: a number is too long to read; short"),
        ("x.json", json.dumps([ONE, TWO])[:-1] + ', {"a": "b', "x.json line 1 column 118: malformed JSON (a text w"),
        ("x.json", json.dumps([ONE, TWO])[:-1], "x.json line 1 column 110: malformed JSON (Expecting ',' delimiter), "),
        ("x.json", f'{json.dumps(ONE, indent=1)}\n{json.dumps(TWO)}\n{{"a":', "x.json line 6 column 6: malformed JSON"),
    ],
    ids=[
        "cut off", "cut off at the start", "text before", "single quotes", "None", "tab in a text", "byte order mark",
        "two on a line", "deep", "long number", "list cut off", "list without its end", "objects cut off",
    ],
)  # fmt: skip
def test_a_malformed_record_is_one_bad_record(tmp_path: Path, name: str, text: str, message: str) -> None:
    file = read_records(save(tmp_path / name, text))
    assert [record for _, record in file.records] == [ONE, TWO]
    assert len(file.bad) == 1 and bad_ones(file)[0].startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "x.json is empty; expected a JSON list of records or one JSON object per line"),
        (b"\xef\xbb\xbf \n", "x.json is empty; expected a JSON list"),
        (
            "Once upon",
            "x.json holds no records: found 'Once upon', expected JSON objects {...}, or a table with the na",
        ),
        ("Once, upon a time,\na king, a queen\n", "x.json holds no records: found 'Once, upon a time,', expected JSON"),
        ("| a | b |\n|---|---|\n", "x.json is a table of Markdown; write it as CSV, with commas and"),
        (
            '{"a": 1},\n{"b": 2}',
            "x.json line 1 column 9: malformed JSON (a comma too many: only a list in [ ] has commas",
        ),
        ("[]", "x.json: the list is empty; expected at least one record"),
        ('{"data": []}', "x.json: the list is empty; expected at least one record"),
        ('"Say hello."', "x.json: found text, expected a list of records, or one JSON object per line"),
        ("7", "x.json: found a number, expected a list of records"),
        ('{"a": 1}', "x.json: found no lists of records in one object (found 'a'), expected one"),
        ('{"a": [{}], "b": [{}]}', "x.json: found 2 lists of records in one object (found 'a', 'b'), expected one"),
        ('{"data": [1], "data": [2]}', "x.json: the key 'data' appears 2 times in one object; keep one"),
        ('[\n{"a": "b"\n"c": "d"}\n]', "x.json line 3 column 1: malformed JSON (Expecting ',' delimiter), found '\"c"),
        ('[{"a": "b"},\n]', "x.json line 2 column 1: malformed JSON (a comma too many), found ']'; correct it"),
        ('[{"a": "b",}]', "x.json line 1 column 12: malformed JSON (a comma too many), found '}]'; correct it"),
        ("// mine\n[{}]", "x.json line 1 column 1: malformed JSON (JSON has no comments), found '// mine'; correct it"),
        ("[{}] []", "x.json line 1 column 6: malformed JSON (the list ends before this), found '[]'; correct it"),
        ("[" * 100_000, "x.json line 1 column 2: nested too deeply for a record of texts and lists of messages"),
        ("[" + "9" * 5000 + "]", "x.json line 1 column 2: a number is too long to read; shorten it or remove it"),
        (b"\xff[]", "x.json line 1 column 1: byte 0xff is not UTF-8; save the file as UTF-8"),
        (b"\xff\xfe[", "x.json is not valid UTF-16-LE; save the file as UTF-8"),
    ],
    ids=lambda value: None if isinstance(value, bytes) or len(value) > 40 else value[:30],
)
def test_a_file_without_records_is_refused_with_the_place(tmp_path: Path, text: str | bytes, message: str) -> None:
    assert refusal(save(tmp_path / "x.json", text)).startswith(message)


# --- tables


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.csv", 'instruction,response\n"Say hello.","Hello there."\n"Add, 2 and 3.",5\n'),
        ("x.CSV", b"\xef\xbb\xbf" + b'instruction,response\r\nSay hello.,Hello there.\r\n"Add, 2 and 3.",5\r\n'),
        ("x.csv", 'instruction;response\nSay hello.;Hello there.\n"Add, 2 and 3.";5\n\n;\n'),
        ("x.tsv", "instruction\tresponse\nSay hello.\tHello there.\nAdd, 2 and 3.\t5"),
        ("x.csv", ' instruction , response \nSay hello.,Hello there.\n"Add, 2 and 3.",5\n'),
        ("x.csv", "instruction,response\rSay hello.,Hello there.\r\"Add, 2 and 3.\",5\r"),
        ("x.json", 'instruction,response\nSay hello.,Hello there.\n"Add, 2 and 3.",5\n'),
        ("x.txt", 'instruction, response\nSay hello.,Hello there.\n"Add, 2 and 3.",5\n'),
        ("x.csv", 'instruction\tresponse\nSay hello.\tHello there.\nAdd, 2 and 3.\t5\n'.encode("utf-16")),
        ("x.csv.gz", gzip.compress(b'instruction,response\nSay hello.,Hello there.\n"Add, 2 and 3.",5\n')),
    ],
    ids=[
        "quoted", "BOM and CRLF", "semicolons", "tabs", "blanks in header", "CR", "by its header",
        "by its header with blanks", "UTF-16", "gzip",
    ],
)  # fmt: skip
def test_tables_with_named_columns_are_read(tmp_path: Path, name: str, text: str | bytes) -> None:
    assert read(save(tmp_path / name, text)) == [("line 2", ONE), ("line 3", TWO)]


def test_a_cell_may_hold_line_breaks_and_quotes(tmp_path: Path) -> None:
    path = save(tmp_path / "x.csv", 'a,,b\n"1\r\n2","x ""y""",3\n4,,5\n')
    assert read(path) == [
        ("line 2", {"a": "1\r\n2", "Unnamed: 1": 'x "y"', "b": "3"}),
        ("line 4", {"a": "4", "Unnamed: 1": "", "b": "5"}),
    ]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (
            "1,2,3",
            "found 3 cells, expected 2 as in the header; put a text with a ',' or a line break in it in double q",
        ),
        ("1", "found 1 cells, expected 2 as in the header; put"),
        ('1,"2', "cut off in a quoted cell; complete it or remove the row"),
        (b"1,caf\xe9", "byte 0xe9 is not UTF-8; save the file as UTF-8"),
    ],
    ids=["too many cells", "cut off", "cut off in quotes", "Latin-1"],
)
def test_a_bad_row_is_one_bad_record(tmp_path: Path, row: str | bytes, reason: str) -> None:
    row = row if isinstance(row, bytes) else row.encode()
    file = read_records(save(tmp_path / "x.csv", b"a,b\n1,2\n" + row))
    assert [record for _, record in file.records] == [{"a": "1", "b": "2"}]
    assert len(file.bad) == 1 and bad_ones(file)[0].startswith(f"x.csv line 3: {reason}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b,a\n1,2,3\n", "x.csv: the header has the column 'a' twice; rename one"),
        ('a,"b"c\n1,2\n', "x.csv: malformed header (',' expected after '\"'); correct it"),
        ("a,b\n", "x.csv has no records; expected at least one"),
        ("\n", "x.csv is empty; expected a header with the names of the columns"),
        ('a,b\n"1,2\n3,4\n', "x.csv line 2: a quoted cell does not end, or text follows its end; write a quote"),
        ('a,b\n"1"2,3\n', "x.csv line 2: a quoted cell does not end, or text follows its end; write a quote"),
        ('a,b\n"1 \\"2\\"",3\n', "x.csv line 2: a quoted cell does not end, or text follows its end; write a quo"),
    ],
    ids=["column twice", "malformed header", "no rows", "empty", "open quote", "text after a quote", "backslash"],
)
def test_a_table_that_cannot_be_read_is_refused(tmp_path: Path, text: str, message: str) -> None:
    assert refusal(save(tmp_path / "x.csv", text)).startswith(message)


def test_parquet_is_read(tmp_path: Path) -> None:
    table, parquet = pytest.importorskip("pyarrow").Table, pytest.importorskip("pyarrow.parquet")
    rows: list[Record] = [{**ONE, "turns": [{"role": "user"}], "n": 1.0}, {**TWO, "turns": [], "n": float("nan")}]
    path = tmp_path / "x.parquet"
    parquet.write_table(table.from_pylist(rows), path)
    expected = [("row 1", rows[0]), ("row 2", {**rows[1], "n": None})]
    assert read(path) == expected
    compressed = save(tmp_path / "x.parquet.gz", gzip.compress(path.read_bytes()))
    assert read(compressed) == expected
    damaged = save(tmp_path / "y.parquet", path.read_bytes()[:-20])
    assert refusal(damaged).startswith("y.parquet is a damaged or incomplete Parquet file (")


def test_parquet_without_pyarrow_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    path = save(tmp_path / "x.parquet", b"PAR1")
    with pytest.raises(ImportError, match="x.parquet is a Parquet file, which needs pyarrow; run: pip install pyarrow"):
        read_records(path)


# --- other files, and pipes


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid",
            "is a pointer of Git LFS, not the data; run: git lfs pull",
        ),
        (b"\n<!DOCTYPE html><html>", "is a web page or XML, not the data; download the file itself (its raw version)"),
        (b"PK\x03\x04\x14\0x.csv", "is a zip archive; unpack it and pass a file in it"),
        (
            b"PK\x03\x04\x14\0[Content_Types].xml",
            "is an Excel workbook or another Office document; save a table as CSV",
        ),
        (b"%PDF-1.7", "is a PDF document"),
        (b"\x89PNG\r\n", "is a PNG image"),
        (gzip.compress(gzip.compress(b"{}")), "is compressed by gzip twice; unpack it once with gunzip"),
        (b"\x80\x04\x95", "is a Python pickle; write it as JSON"),
        (b"x" * 257 + b"ustar", "is a tar archive; unpack it and pass a file in it"),
        (json.dumps([ONE]).encode("utf-16-le"), "has bytes of zero in it, so it is not UTF-8 text; save it as UTF-8"),
    ],
    ids=["lfs", "web page", "zip", "xlsx", "pdf", "png", "gzip twice", "pickle", "tar", "UTF-16 without mark"],
)
def test_other_formats_are_named(tmp_path: Path, start: bytes, message: str) -> None:
    path = save(tmp_path / "x.json", start)
    assert refusal(path).removeprefix("x.json ").startswith(message)


def test_damaged_gzip_and_one_that_expands_too_far_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut_off = save(tmp_path / "x.json.gz", gzip.compress(LINES.encode())[:-9])
    assert refusal(cut_off).startswith("x.json.gz is a damaged or incomplete gzip file (")
    monkeypatch.setattr(input_file, "ALWAYS_ALLOWED_BYTES", 1_000_000)
    bomb = save(tmp_path / "y.json.gz", gzip.compress(b" " * 3_000_000))
    assert refusal(bomb) == "y.json.gz expands to over 1.0 MB, more than a data file does"


def test_a_device_is_refused() -> None:
    with pytest.raises(ValueError, match="is a device or socket, expected a file or a pipe"):
        read_records("/dev/zero")


def test_a_folder_is_refused_with_a_file_in_it(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match="is a folder; pass a file"):
        read_records(tmp_path)
    path = save(tmp_path / "x.json", LINES)
    with pytest.raises(IsADirectoryError) as caught:
        read_records(tmp_path)
    assert str(caught.value) == f"{tmp_path} is a folder; pass one of its files, such as {path}"


def test_a_missing_file_is_refused_with_what_to_pass(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        read_records(tmp_path / "none.json")
    assert str(caught.value).startswith(f"{tmp_path / 'none.json'} not found; pass a file with --data, such as ")
    assert "Data/instruction_data.json" in str(caught.value) and "\n" not in str(caught.value)


needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes")


def pipe_with(path: Path, chunks: Iterable[bytes]) -> Path:
    """A pipe that another thread writes to."""
    os.mkfifo(path)

    def write() -> None:
        with open(path, "wb", buffering=0) as pipe:
            for chunk in chunks:
                pipe.write(chunk)

    threading.Thread(target=write, daemon=True).start()
    return path


@needs_pipes
@pytest.mark.parametrize(
    "content",
    [LINES.encode(), gzip.compress(LINES.encode(), mtime=0), json.dumps([ONE, TWO]).encode()],
    ids=["lines", "gzip", "list"],
)
def test_a_pipe_is_read(tmp_path: Path, content: bytes) -> None:
    path = pipe_with(tmp_path / "pipe", [content[:3], content[3:]])
    assert [record for _, record in read(path)] == [ONE, TWO]


@needs_pipes
def test_a_pipe_without_writer_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_file, "PIPE_TIMEOUT_S", 0.01)
    os.mkfifo(tmp_path / "pipe")
    assert refusal(tmp_path / "pipe") == "pipe: nothing came through the pipe for 0.01 s"


@needs_pipes
def test_a_pipe_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_file, "MAX_PIPE_BYTES", 200_000)
    path = pipe_with(tmp_path / "pipe", [LINES.encode() * 10_000])
    assert refusal(path) == "pipe gave over 0.2 MB; save the data to a file"
