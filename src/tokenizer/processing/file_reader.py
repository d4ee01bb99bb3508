"""Reading: text files in chunks, so that a file can be larger than memory."""

import codecs
import os
from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import TypeVar

from src.tokenizer.core.constants import LINE_BREAK
from src.tokenizer.core.exceptions import (
    EmptyTextError,
    FileAccessError,
    MissingFileError,
    TextEncodingError,
)

_T = TypeVar("_T")

_BLOCK_BYTES = 1 << 18
# A chunk ends at white space, so text without any accumulates up to this length.
_LONGEST_CHUNK_CHARS = 1 << 22

# Byte order marks of other encodings. UTF-32 comes first, because its mark starts with that of UTF-16.
_OTHER_ENCODINGS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def read_chunks(path: Path) -> Iterator[str]:
    """Yield the text of a UTF-8 file in chunks, without a byte order mark.

    A chunk ends after a line break or, in a long line, after a space. Neither cleaning nor splitting looks across
    such a boundary, so the chunks have the same tokens as the whole text.
    Raises MissingFileError, FileAccessError, TextEncodingError with the location in the file, or EmptyTextError if the
    file contains only white space.
    """
    rest, blank = "", True
    for text in _file_blocks(path):
        rest += text
        blank = blank and not rest.strip()
        cut = 1 + (rest.rfind(LINE_BREAK) if LINE_BREAK in rest else rest.rfind(" "))
        if cut:
            yield rest[:cut]
            rest = rest[cut:]
        elif len(rest) > _LONGEST_CHUNK_CHARS:
            raise TextEncodingError(
                f"{path} has neither a space nor a line break in {len(rest)} characters; "
                "add line breaks, or choose a text that has words"
            )
    if blank:
        raise EmptyTextError(f"{path} is empty; put text in it, or choose another file")
    if rest:
        yield rest


def _file_blocks(path: Path) -> Iterator[str]:
    with _open(path) as file:
        yield from decoded_blocks(file, path)


def decoded_blocks(file: BufferedReader, path: Path) -> Iterator[str]:
    """Yield the text of an open UTF-8 file block by block. A character that spans two blocks is in the second.

    Raises FileAccessError or TextEncodingError, which name `path`.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    n_bytes, n_lines = _skip_mark(file, path), 0
    while True:
        block = _wrap_errors(path, lambda: file.read(_BLOCK_BYTES))
        n_bytes += len(block)
        try:
            text = _decode(decoder, block)
        except UnicodeDecodeError as error:
            # error.object is the block, preceded by the bytes of an unfinished character.
            offset = n_bytes - len(error.object) + error.start
            line = n_lines + error.object.count(b"\n", 0, error.start) + 1
            raise TextEncodingError(
                f"{path} is not UTF-8: {error.reason}, byte 0x{error.object[error.start]:02x} at offset "
                f"{offset}, line {line}; save it again as UTF-8"
            ) from None
        if not block:
            return
        n_lines += block.count(b"\n")
        yield text


def _decode(decoder: codecs.IncrementalDecoder, block: bytes) -> str:
    """Decode a block. Raises UnicodeDecodeError, also for a NUL: valid UTF-8, but a sign of UTF-16 or binary data."""
    text = decoder.decode(block, final=not block)
    if "\0" in text:
        at = block.index(b"\0")
        raise UnicodeDecodeError("utf-8", block, at, at + 1, "a NUL, as in UTF-16 or in binary files")
    return text


def _skip_mark(file: BufferedReader, path: Path) -> int:
    """Skip a UTF-8 byte order mark and return its length. Raises TextEncodingError for one of another encoding."""
    start = _wrap_errors(path, lambda: file.peek(4))
    for mark, name in _OTHER_ENCODINGS.items():
        if start.startswith(mark):
            raise TextEncodingError(f"{path} is {name}, not UTF-8; save it again as UTF-8")
    return len(file.read(len(codecs.BOM_UTF8))) if start.startswith(codecs.BOM_UTF8) else 0


def _open(path: Path) -> BufferedReader:
    if os.path.isdir(path):
        raise FileAccessError(
            f"{path} is a folder; pass a text file in it, or load all of them with load_vocabulary_from_folder"
        )
    return _wrap_errors(path, lambda: open(path, "rb"))


def _wrap_errors(path: Path, read: Callable[[], _T]) -> _T:
    """Return `read()`, with its errors converted to those of this package."""
    try:
        return read()
    except FileNotFoundError:
        raise MissingFileError(f"{path} not found; check the path") from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise FileAccessError(
            f"{path} cannot be read ({reason}); check its permissions, or choose another file"
        ) from None
