"""Find the files that --data names, and read text from a file, a gzip file or a pipe."""

import codecs
import glob
import io
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

from src.data.input_file import PARQUET, START_BYTES, open_data, refuse_other_formats, text_encoding
from src.tokenizer.processing.file_reader import decoded_blocks

# What --data names: a file, a folder or a glob pattern, or several of them.
TextPaths: TypeAlias = str | Path | Sequence[str | Path]

_SUFFIXES = (".txt", ".jsonl", ".ndjson")  # of the files that are read from a folder; also before .gz
PARQUET_SUFFIX = ".parquet"
_TOKENS = re.compile(r".+\.[0-9a-f]{16}\.tokens")  # a folder of cached tokens, which `*` matches too
_BLOCK_BYTES = 1 << 18


def as_paths(paths: TextPaths) -> list[Path]:
    """What --data names, as a list."""
    return [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]


def find_files(paths: TextPaths) -> list[Path]:
    """The files that --data names, each once: files and pipes, the files in a folder, the matches of a glob pattern.

    Of a folder, these are the .txt, .jsonl and .parquet files directly in it (also .txt.gz and .jsonl.gz), in the order
    of their names. A pattern also matches files with other names.
    Raises FileNotFoundError for a path, folder or pattern without files.
    """
    given = as_paths(paths)
    named = [path for path in given if not _TOKENS.fullmatch(path.name)] or given
    return list(dict.fromkeys(file for path in named for file in _files_of(path)))


def _files_of(path: Path) -> list[Path]:
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file() and _is_text_name(file.name))
        if not files:
            raise FileNotFoundError(
                f"{path} is a folder without .txt, .jsonl or .parquet files; pass a text file, a folder of them, or a "
                f"pattern such as '{path}/**/*.md'"
            )
        return files
    if path.exists() or not glob.has_magic(str(path)):
        return [path]
    matches = (Path(match) for match in sorted(glob.glob(str(path), recursive=True)))
    found = [file for file in matches if file.is_file() and not any(map(_TOKENS.fullmatch, file.parts))]
    if not found:
        raise FileNotFoundError(f"{path}: no file matches this pattern; check it, or pass a file or a folder")
    return found


def unread_in(path: Path) -> list[Path]:
    """The files and folders in a folder that `find_files` does not read, in the order of their names.

    Hidden ones and cached tokens are not among them. [] if the path is no folder.
    """
    others = path.iterdir() if path.is_dir() else ()
    return sorted(
        other
        for other in others
        if not (other.is_file() and _is_text_name(other.name))
        and not other.name.startswith(".")
        and not _TOKENS.fullmatch(other.name)
    )


def _is_text_name(name: str) -> bool:
    name = name.lower()
    return name.removesuffix(".gz").endswith(_SUFFIXES) or name.endswith(PARQUET_SUFFIX)


def read_text(path: Path) -> str:
    """The whole text of a file, gzip file or pipe. Raises the errors of `text_blocks`."""
    return "".join(text_blocks(path))


def text_blocks(path: Path, on_read: Callable[[int], object] | None = None) -> Iterator[str]:
    """Yield the text of a file, gzip file or pipe in blocks, without a byte order mark. on_read: see `open_data`.

    It must be UTF-8, or begin with the byte order mark of UTF-16 or UTF-32. Raises FileNotFoundError, or ValueError if
    it is empty, has no end or is not text (with the byte's offset).
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} not found; check the path, or pass a text file with --data PATH")
    blank = True
    with open_data(path, on_read) as file:
        start = file.peek(START_BYTES)
        refuse_other_formats(path, start)
        if start.startswith(PARQUET):
            raise ValueError(f"{path} is a Parquet table; rename it to {path.stem}{PARQUET_SUFFIX}")
        encoding = text_encoding(start)
        for block in decoded_blocks(file, path) if encoding.startswith("utf-8") else _decode(file, encoding, path):
            blank = blank and not block.strip()
            yield block
    if blank:
        raise ValueError(f"{path} is empty; put text in it, or delete it")


def is_stored(path: Path) -> bool:
    """Whether the path is a stored file or folder, which can be read twice and have a cache next to it.

    /dev and /proc hold pipes that look like files; /dev/shm holds files in memory.
    """
    parts = path.absolute().parts
    return (path.is_file() or path.is_dir()) and (parts[1:2] not in (("dev",), ("proc",)) or parts[2:3] == ("shm",))


def _decode(file: io.BufferedReader, encoding: str, path: Path) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        while block := file.read(_BLOCK_BYTES):
            yield decoder.decode(block)
        yield decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not {encoding.upper()}: {error.reason}; save it again as UTF-8") from None
