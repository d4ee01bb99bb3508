"""Reading: text files in pieces, so that a file may be larger than the memory."""

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
# Text without any white space has to be held until some comes.
_LONGEST_PIECE_CHARS = 1 << 22

# How a file begins that says what it is written in. UTF-32 comes first: its mark begins with that of UTF-16.
_OTHER_ENCODINGS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def read_pieces(path: Path) -> Iterator[str]:
    """The text of a UTF-8 file, a byte order mark left out, in pieces that together are all of it.

    A piece ends behind a line break or, where a line is long, behind a space. Cleaning and splitting look no further
    than that: piece by piece they give the same tokens as for the whole text.
    Raises MissingFileError, FileAccessError, TextEncodingError with the place in the file, or
    EmptyTextError for a file of white space only.
    """
    rest, blank = "", True
    for text in _decoded_blocks(path):
        rest += text
        blank = blank and not rest.strip()
        cut = 1 + (rest.rfind(LINE_BREAK) if LINE_BREAK in rest else rest.rfind(" "))
        if cut:
            yield rest[:cut]
            rest = rest[cut:]
        elif len(rest) > _LONGEST_PIECE_CHARS:
            raise TextEncodingError(
                f"{path} has neither a space nor a line break in {len(rest)} characters; "
                "put line breaks into it, or choose a text that has words"
            )
    if blank:
        raise EmptyTextError(f"{path} is empty; put text into it, or choose another file")
    if rest:
        yield rest


def _decoded_blocks(path: Path) -> Iterator[str]:
    """The file's text block by block; a character that lies across two blocks comes with the second."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with _opened(path) as file:
        read_bytes, read_lines = _skip_mark(file, path), 0
        while True:
            block = _reading(path, lambda: file.read(_BLOCK_BYTES))
            read_bytes += len(block)
            try:
                text = _decoded(decoder, block)
            except UnicodeDecodeError as error:
                # What failed is the block and, before it, the bytes of an unfinished character.
                offset = read_bytes - len(error.object) + error.start
                line = read_lines + error.object.count(b"\n", 0, error.start) + 1
                raise TextEncodingError(
                    f"{path} is not a text in UTF-8: {error.reason}, byte 0x{error.object[error.start]:02x} at offset "
                    f"{offset}, line {line}; save it again as UTF-8"
                ) from None
            if not block:
                return
            read_lines += block.count(b"\n")
            yield text


def _decoded(decoder: codecs.IncrementalDecoder, block: bytes) -> str:
    """Raises UnicodeDecodeError, also for a NUL: valid in UTF-8, but in files a sign of UTF-16, or of no text."""
    text = decoder.decode(block, final=not block)
    if "\0" in text:
        at = block.index(b"\0")
        raise UnicodeDecodeError("utf-8", block, at, at + 1, "a NUL, as in UTF-16 or in files that are no text")
    return text


def _skip_mark(file: BufferedReader, path: Path) -> int:
    """The number of bytes of a byte order mark of UTF-8, which is read over. Raises for one of another encoding."""
    start = _reading(path, lambda: file.peek(4))
    for mark, name in _OTHER_ENCODINGS.items():
        if start.startswith(mark):
            raise TextEncodingError(f"{path} is a text in {name}, not in UTF-8; save it again as UTF-8")
    return len(file.read(len(codecs.BOM_UTF8))) if start.startswith(codecs.BOM_UTF8) else 0


def _opened(path: Path) -> BufferedReader:
    if os.path.isdir(path):
        raise FileAccessError(
            f"{path} is a folder; name a text file in it, or load all of them with load_vocabulary_from_folder"
        )
    return _reading(path, lambda: open(path, "rb"))


def _reading(path: Path, step: Callable[[], _T]) -> _T:
    """What a step of reading gives, its errors said in our words."""
    try:
        return step()
    except FileNotFoundError:
        raise MissingFileError(f"{path} not found; check the path") from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise FileAccessError(
            f"{path} can't be read ({reason}); check its permissions, or choose another file"
        ) from None
