"""Texts are read from files, gzip files, folders and pipes; what is no text is refused with the way to get it."""

import gzip
import os
import threading
from pathlib import Path

import pytest

from src.data import input_file
from src.data.text_files import find_files, is_stored, read_text, unread_in


def test_text_is_utf8_without_its_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(b"\xef\xbb\xbfThe r\xc3\xb4le\r\n")
    assert read_text(path) == "The rôle\r\n"


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_byte_that_is_not_utf8_is_named_with_its_offset(tmp_path: Path, mark: bytes) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes(mark + b"The r\xf4le")
    with pytest.raises(ValueError) as caught:
        read_text(path)
    place = f"byte 0xf4 at offset {len(mark) + 5}, line 1; save it again as UTF-8"
    assert str(caught.value) == f"{path} is not UTF-8: invalid continuation byte, {place}"


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf", b" \r\n\t", gzip.compress(b"\n", mtime=0)])
def test_an_empty_text_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "empty.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"empty\.txt is empty"):
        read_text(path)


def test_a_missing_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.txt not found; .*--data PATH"):
        read_text(tmp_path / "absent.txt")


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (b"%PDF-1.7\n%\xe2\xe3", "is a PDF document; convert it to text"),
        (b"PK\x03\x04\x14", "is a zip archive; unpack it"),
        (b"{\\rtf1\\ansi", "is an RTF document; save it as plain text"),
        (b"\xd0\xcf\x11\xe0\xa1", "is an old Office document"),
        (b"PAR1\x15", "is a Parquet table"),
        (b"BZh91AY", "unpack it with bunzip2"),
        (b"\xfd7zXZ\x00", "unpack it with unxz"),
        (b"\x28\xb5\x2f\xfd", "unpack it with unzstd"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"text\0text", "has bytes of zero in it"),
        (b"text" * 100_000 + b"\0", "a NUL, as in UTF-16 or in binary files"),
        (b"\xff\xfet", "is not UTF-16: truncated data; save it again as UTF-8"),
    ],
)
def test_a_file_that_is_not_plain_text_is_named_with_advice(tmp_path: Path, start: bytes, message: str) -> None:
    path = tmp_path / "document"
    path.write_bytes(start)
    with pytest.raises(ValueError, match=f"{path} .*{message}"):
        read_text(path)


def test_a_gzip_file_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "text.gz"
    path.write_bytes(gzip.compress("\ufeffZwölf\n".encode() * 1000))
    assert read_text(path) == "Zwölf\n" + "\ufeffZwölf\n" * 999


def test_a_damaged_gzip_file_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "text.gz"
    path.write_bytes(gzip.compress(os.urandom(1000).hex().encode())[:-20])
    with pytest.raises(ValueError, match="is a damaged or incomplete gzip file"):
        read_text(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_pipe_is_read_to_its_end_and_not_stored(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=("word " * 20_000,), kwargs={"encoding": "utf-8"})
    writer.start()
    assert read_text(pipe) == "word " * 20_000
    writer.join()
    assert not is_stored(pipe)
    assert is_stored(tmp_path) and not is_stored(Path("/dev/stdin")) and not is_stored(Path("/proc/self/fd/0"))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_a_byte_order_mark_names_the_encoding(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes("Zwölf\n".encode(encoding))
    assert read_text(path) == "Zwölf\n"


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no endless file")
def test_an_endless_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="/dev/zero is a device or socket, expected a file or a pipe"):
        read_text(Path("/dev/zero"))
    bomb = tmp_path / "bomb.gz"
    bomb.write_bytes(gzip.compress(b"word " * 1000))
    monkeypatch.setattr(input_file, "ALWAYS_ALLOWED_BYTES", 4_999)
    monkeypatch.setattr(input_file, "_MAX_EXPANSION", 1)
    with pytest.raises(ValueError, match=r"bomb\.gz expands to over 5\.0 kB, more than a data file does"):
        read_text(bomb)


def names(files: list[Path]) -> list[str]:
    return [file.name for file in files]


def test_files_of_a_folder_are_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "c.md", "d.jsonl", "e.JSONL.gz", "f.parquet", "aa.txt.gz"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "g.txt").mkdir()
    assert names(find_files(tmp_path)) == ["a.txt", "aa.txt.gz", "b.txt", "d.jsonl", "e.JSONL.gz", "f.parquet"]
    with pytest.raises(FileNotFoundError, match=r"g\.txt is a folder without \.txt, \.jsonl or \.parquet files; pass"):
        find_files(tmp_path / "g.txt")


def test_what_is_not_read_of_a_folder_is_known(tmp_path: Path) -> None:
    for name in ("b.txt", "c.md", ".hidden"):
        (tmp_path / name).write_bytes(b"x")
    for name in ("a", "b.txt.0123456789abcdef.tokens"):
        (tmp_path / name).mkdir()
    assert names(unread_in(tmp_path)) == ["a", "c.md"]
    assert unread_in(tmp_path / "b.txt") == []


def test_files_of_a_glob_pattern_leave_out_cached_tokens(tmp_path: Path) -> None:
    cache = tmp_path / "a.txt.0123456789abcdef.tokens"
    for file in ("b.md", "a.md", "more/c.md", f"{cache.name}/index.json"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes(b"x")
    assert names(find_files(tmp_path / "*.md")) == ["a.md", "b.md"]
    assert names(find_files(str(tmp_path / "**/*"))) == ["a.md", "b.md", "c.md"]
    assert names(find_files(tmp_path / "[a]*")) == ["a.md"]
    assert names(find_files([tmp_path / "b.md", cache, tmp_path / "*.md"])) == ["b.md", "a.md"]
    with pytest.raises(FileNotFoundError, match=r"\*\.rst: no file matches this pattern"):
        find_files(tmp_path / "*.rst")


def test_a_file_whose_name_looks_like_a_pattern_is_itself(tmp_path: Path) -> None:
    file = tmp_path / "a[1].txt"
    file.write_bytes(b"x")
    assert find_files(file) == [file]
