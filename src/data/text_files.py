"""Read the text to train on: a file, a gzip file, a pipe, or the files of a folder."""

import gzip
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from src.common.disk import format_bytes
from src.tokenizer.processing.file_reader import decoded_blocks

# A pipe may have no end, and a gzip file may unpack to any size.
_MAX_STREAM_CHARS = 2_000_000_000

_GZIP = b"\x1f\x8b"
# By their first bytes: files that are not plain text, and how to get the text out of them.
_OTHER_FORMATS = {
    b"%PDF": "a PDF; convert it to plain text, for example with pdftotext",
    b"PK\x03\x04": "a zip archive (.docx, .odt and .epub are some too); unpack it, or save the document as plain text",
    b"{\\rtf": "RTF; save the document as plain text",
    b"\xd0\xcf\x11\xe0": "an Office document; save it as plain text",
    b"PAR1": "a Parquet table; write its text column to a text file",
    b"BZh": "compressed with bzip2; unpack it with bunzip2",
    b"\xfd7zXZ": "compressed with xz; unpack it with unxz",
    b"\x28\xb5\x2f\xfd": "compressed with zstd; unpack it with unzstd",
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself; run: git lfs pull",
}
_SIGNATURE_BYTES = 32


def read_texts(path: Path) -> dict[Path, str]:
    """The text of a file, or of each .txt and .txt.gz file directly in a folder, in the order of their names.

    Raises FileNotFoundError for a folder without such files, and the errors of `read_text`.
    """
    path = Path(path)
    if not path.is_dir():
        return {path: read_text(path)}
    files = sorted(file for file in path.iterdir() if file.name.endswith((".txt", ".txt.gz")) and file.is_file())
    if not files:
        raise FileNotFoundError(f"{path} is a folder without .txt files; pass a text file, or a folder of .txt files")
    return {file: read_text(file) for file in files}


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file, gzip file or pipe, without a byte order mark.

    Raises FileNotFoundError, or a ValueError if it is empty, has no end or is not UTF-8 (with the byte's offset).
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} not found; check the path, or pass a text file with --data PATH")
    with open(path, "rb") as raw:
        file = gzip.GzipFile(fileobj=raw) if raw.peek(len(_GZIP)).startswith(_GZIP) else raw
        try:
            start = file.peek(_SIGNATURE_BYTES)
            for signature, description in _OTHER_FORMATS.items():
                if start.startswith(signature):
                    raise ValueError(f"{path} is {description}")
            blocks = decoded_blocks(file, path)
            text = "".join(blocks if file is raw and path.is_file() else _limited(blocks, path))
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{path} is a damaged gzip file ({error}); compress or download it again") from None
    if not text.strip():
        raise ValueError(f"{path} is empty; put text in it, or delete it")
    return text


def is_stored(path: Path) -> bool:
    """Whether the path is a file or folder on a disk, which can be read twice and have a cache next to it."""
    return (path.is_file() or path.is_dir()) and path.absolute().parts[1:2] not in (("dev",), ("proc",))


def _limited(blocks: Iterable[str], path: Path) -> Iterator[str]:
    n_chars = 0
    for block in blocks:
        n_chars += len(block)
        if n_chars > _MAX_STREAM_CHARS:
            size = format_bytes(_MAX_STREAM_CHARS)
            raise ValueError(f"{path} gave over {size}, the most that is read from a pipe or gzip; save it as a file")
        yield block
