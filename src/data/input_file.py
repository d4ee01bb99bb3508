"""Open a data file: a regular file or a pipe, decompressed, and recognised by its first bytes."""

import codecs
import gzip
import io
import os
import select
import stat
import zlib
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from src.common.disk import format_bytes

START_BYTES = 4096  # enough to recognise a file's format
_BUFFER_BYTES = 1 << 18
MAX_PIPE_BYTES = 200_000_000
PIPE_TIMEOUT_S = 60.0
_MAX_EXPANSION, ALWAYS_ALLOWED_BYTES = 200, 100_000_000  # text is compressed to between a third and a fiftieth

GZIP = b"\x1f\x8b"
PARQUET = b"PAR1"
# The first bytes of files that we cannot read, after gzip is unpacked: what they are, and what to do.
_OTHER_FORMATS = {
    b"version https://git-lfs": "is a pointer of Git LFS, not the data; run: git lfs pull",
    b"{\\rtf": "is an RTF document; save it as plain text",
    b"%PDF": "is a PDF document; convert it to text",
    b"ARROW1": "is an Arrow file; convert it to Parquet or JSONL",
    b"\xff\xff\xff\xff": "is an Arrow file; convert it with datasets.load_from_disk(FOLDER).to_json('data.jsonl')",
    b"SQLite format 3": "is an SQLite database; export the table as CSV",
    b"\xd0\xcf\x11\xe0": "is an old Office document; save a table as CSV, a text as plain text (UTF-8)",
    GZIP: "is compressed by gzip twice; unpack it once with gunzip",
    b"BZh": "is compressed by bzip2; unpack it with bunzip2",
    b"\xfd7zXZ": "is compressed by xz; unpack it with unxz",
    b"\x28\xb5\x2f\xfd": "is compressed by zstd; unpack it with unzstd",
    b"7z\xbc\xaf": "is a 7-Zip archive; unpack it",
    b"Rar!": "is a RAR archive; unpack it",
    b"\x89PNG": "is a PNG image",
    b"\xff\xd8\xff": "is a JPEG image",
    b"GIF8": "is a GIF image",
    b"RIFF": "is a sound or image file",
    b"\x7fELF": "is a program",
    b"\x80": "is a Python pickle; write it as JSON",
}
_WEB_PAGE = (b"<!doctype html", b"<html", b"<head", b"<?xml")


@contextmanager
def open_data(path: Path, on_read: Callable[[int], object] | None = None) -> Generator[io.BufferedReader, None, None]:
    """Open a file or a pipe for reading bytes, which are decompressed if they are gzip. The stream cannot seek.

    on_read: called with the number of bytes of each read of a file, before they are decompressed.

    Raises:
        FileNotFoundError: there is no such file.
        IsADirectoryError: the path is a folder.
        ValueError: it is a device, or a pipe without a writer or without an end. Reading raises ValueError for damaged
            gzip, and for data that expands to many times its size.
    """
    with _open_raw(path, on_read) as raw:
        stream: io.BufferedReader = io.BufferedReader(raw, _BUFFER_BYTES)
        if not stream.peek(len(GZIP)).startswith(GZIP):
            yield stream
            return
        size = os.stat(path).st_size
        limit = max(_MAX_EXPANSION * size, ALWAYS_ALLOWED_BYTES) if size else MAX_PIPE_BYTES
        problem = f"{path} expands to over {format_bytes(limit)}, more than a data file does"
        yield io.BufferedReader(_Limited(gzip.GzipFile(fileobj=stream), limit, problem, path), _BUFFER_BYTES)


def find_shipped(path: Path) -> Path:
    """Return the path of a file that comes with this project, also if the script was started from another folder."""
    shipped = Path(__file__).resolve().parents[2] / path
    return shipped if shipped.exists() and not path.exists() else path


def refuse_other_formats(path: Path, start: bytes) -> None:
    """Raise ValueError if the first bytes of a file are those of an image, archive or other known format."""
    for signature, description in _OTHER_FORMATS.items():
        if start.startswith(signature):
            raise ValueError(f"{path} {description}")
    if start.startswith(b"PK\x03\x04"):
        raise ValueError(f"{path} {_zip_kind(start)}")
    if start[257:262] == b"ustar":
        raise ValueError(f"{path} is a tar archive; unpack it and pass a file in it")
    if b"\0" in start and text_encoding(start) == "utf-8-sig":
        raise ValueError(f"{path} has bytes of zero in it, so it is not UTF-8 text; save it as UTF-8")


@contextmanager
def record_text(
    stream: io.BufferedReader, path: Path, name: str, newline: str
) -> Generator[io.TextIOWrapper, None, None]:
    """The text of an opened file of records. newline: see `open`.

    Bytes that are not UTF-8 become lone surrogates, so only the record that has them is bad.
    Raises ValueError if the file has another format, or if a text in UTF-16 or UTF-32 is damaged.
    """
    start = stream.peek(START_BYTES)[:START_BYTES]
    refuse_other_formats(path, start)
    _refuse_web_page(path, start)
    encoding = text_encoding(start)
    errors = "surrogateescape" if encoding == "utf-8-sig" else "strict"
    try:
        yield io.TextIOWrapper(stream, encoding, errors, newline=newline)
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not valid {error.encoding.upper()}; save the file as UTF-8") from None


def _refuse_web_page(path: Path, start: bytes) -> None:
    """Raise ValueError if a file begins as a web page does."""
    if start.removeprefix(codecs.BOM_UTF8).lstrip()[:20].lower().startswith(_WEB_PAGE):
        raise ValueError(f"{path} is a web page or XML, not the data; download the file itself (its raw version)")


def text_encoding(start: bytes) -> str:
    """The codec of a text that begins with these bytes: UTF-8, or UTF-16 or UTF-32 if it has their byte order mark."""
    if start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    return "utf-16" if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"


def _zip_kind(start: bytes) -> str:
    if b"xl/" in start or b"[Content_Types].xml" in start:
        return "is an Excel workbook or another Office document; save a table as CSV, a text as plain text (UTF-8)"
    return "is a zip archive; unpack it and pass a file in it"


def _open_raw(path: Path, on_read: Callable[[int], object] | None) -> io.RawIOBase:
    if not path.exists():
        raise FileNotFoundError(
            f"{path} not found; pass a file with --data, such as Data/instruction_data.json (instruction tuning) or "
            "Data/preference_data.json (preferences), or a data set on the hub, such as tatsu-lab/alpaca"
        )
    mode = path.stat().st_mode
    if stat.S_ISREG(mode):
        return _CountedFile(path, on_read) if on_read else io.FileIO(path)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(f"{path} is a folder; {_advice_for(path)}")
    if stat.S_ISFIFO(mode):
        size = format_bytes(MAX_PIPE_BYTES)
        return _Limited(_Pipe(path), MAX_PIPE_BYTES, f"{path} gave over {size}; save the data to a file", path)
    raise ValueError(f"{path} is a device or socket, expected a file or a pipe")


def _advice_for(folder: Path) -> str:
    if any((folder / name).exists() for name in ("dataset_info.json", "dataset_dict.json")):
        return "write its data to a file with datasets.load_from_disk(FOLDER).to_json('data.jsonl'), of one split"
    suffixes = (".json", ".jsonl", ".csv", ".tsv", ".parquet", ".gz")
    files = sorted(file.name for file in folder.iterdir() if file.suffix.lower() in suffixes)
    return f"pass one of its files, such as {folder / files[0]}" if files else "pass a file"


class _CountedFile(io.FileIO):
    """A file that reports how much is read from it."""

    def __init__(self, path: Path, on_read: Callable[[int], object]) -> None:
        super().__init__(path)
        self._on_read = on_read

    def readinto(self, buffer: "bytearray | memoryview") -> int | None:  # type: ignore[override]
        n_bytes = super().readinto(buffer)
        self._on_read(n_bytes or 0)
        return n_bytes


class _Pipe(io.RawIOBase):
    """A pipe, read without waiting forever for a writer that never comes or never writes."""

    def __init__(self, path: Path) -> None:
        self._path, self._descriptor = path, os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        if not select.select([self._descriptor], [], [], PIPE_TIMEOUT_S)[0]:
            raise ValueError(f"{self._path}: nothing came through the pipe for {PIPE_TIMEOUT_S:g} s")
        data = os.read(self._descriptor, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()


class _Limited(io.RawIOBase):
    """Reads another stream, and raises ValueError with `problem` after `limit` bytes."""

    def __init__(self, stream: io.RawIOBase | gzip.GzipFile, limit: int, problem: str, path: Path) -> None:
        self._stream, self._left, self._problem, self._path = stream, limit, problem, path

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        try:
            data = self._stream.read(len(buffer)) or b""
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(
                f"{self._path} is a damaged or incomplete gzip file ({error}); download it again"
            ) from None
        self._left -= len(data)
        if self._left < 0:
            raise ValueError(self._problem)
        buffer[: len(data)] = data
        return len(data)
