"""Read the text to train on: a file, a gzip file, a pipe, or the files of a folder."""

import io
from pathlib import Path

from src.data.input_file import PARQUET, START_BYTES, open_data, refuse_other_formats, text_encoding
from src.tokenizer.processing.file_reader import decoded_blocks


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
    """Return the text of a file, gzip file or pipe, without a byte order mark.

    It must be UTF-8, or begin with the byte order mark of UTF-16 or UTF-32. Raises FileNotFoundError, or ValueError if
    it is empty, has no end or is not text (with the byte's offset).
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} not found; check the path, or pass a text file with --data PATH")
    with open_data(path) as file:
        start = file.peek(START_BYTES)
        refuse_other_formats(path, start)
        if start.startswith(PARQUET):
            raise ValueError(f"{path} is a Parquet table; write its texts to a text file")
        encoding = text_encoding(start)
        utf8 = encoding.startswith("utf-8")
        text = "".join(decoded_blocks(file, path)) if utf8 else _decode(file, encoding, path)
    if not text.strip():
        raise ValueError(f"{path} is empty; put text in it, or delete it")
    return text


def is_stored(path: Path) -> bool:
    """Whether the path is a stored file or folder, which can be read twice and have a cache next to it.

    /dev and /proc hold pipes that look like files; /dev/shm holds files in memory.
    """
    parts = path.absolute().parts
    return (path.is_file() or path.is_dir()) and (parts[1:2] not in (("dev",), ("proc",)) or parts[2:3] == ("shm",))


def _decode(file: io.BufferedReader, encoding: str, path: Path) -> str:
    try:
        return file.read().decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not {encoding.upper()}: {error.reason}; save it again as UTF-8") from None
