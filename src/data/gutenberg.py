"""Remove what Project Gutenberg adds to its texts: header, licence, footer and credits."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

# Headers and footers of the 1990s are searched for only this close to either end: the same words occur in between.
_EDGE_CHARS = 40_000
_MARKER = r"^\*{3} ?%s OF TH(?:E|IS) PROJECT GUTENBERG E(?:BOOK|TEXT)\b"
_START = re.compile(_MARKER % "START" + r"(?:[^*]{0,300}\*{3})?.*\n", re.M | re.I)  # a long title takes two lines
_END = re.compile(_MARKER % "END", re.M | re.I)
_SMALL_PRINT_END = re.compile(r"^(?:\*?END ?\*? ?THE SMALL PRINT!.*|\[\"Small Print\" V\.[\d.]+\][ \t]*)$", re.M | re.I)
# Case-sensitive: in capitals these words are the end marker above.
_OLD_FOOTER = re.compile(r"^[^\w\n]*End of (?:[Tt]he |this )?(?:Project Gutenberg|E(?:text|Book|book)\b)", re.M)
_LICENCE_INSIDE = re.compile(r"(?<!\n)\n*<<\s*THIS ELECTRONIC VERSION OF[^<>]*>>[ \t]*\n*")
_CREDITS = re.compile(
    r"(?:(?:produced|prepared|transcribed) by|this e-?(?:text|book) was|.*project gutenberg)\b", re.S | re.I
)
_CREDITS_MAX_CHARS = 1000
_HINTS = ("Gutenberg", "GUTENBERG", "gutenberg", "Etext", "<<")  # one of them is in every addition

# Gutenberg adds up to 35,000 characters around a text, and in the worst edition two percent inside it.
_MAX_ADDED_CHARS, _MAX_ADDED_SHARE = 40_000, 0.05
_LICENCE_MENTIONS = 10  # a licence names Project Gutenberg about 60 times
SECTION_CHARS = 1 << 23  # more than most books
_PARAGRAPH_LINE = re.compile(r"\S\n(?=\S)")


@dataclass(frozen=True)
class CleanText:
    """A text without Project Gutenberg's additions."""

    text: str
    kept_fraction: float  # of the characters, 0 to 1
    n_books: int = 0  # of Project Gutenberg in the file


def has_end_marker(text: str) -> bool:
    """Whether the text contains Project Gutenberg's end marker. A truncated download does not."""
    return _END.search(text) is not None


def sections(blocks: Iterable[str]) -> Iterator[str]:
    """Join the blocks of a text of any length into sections that `strip_boilerplate` can take one by one.

    Up to 8 million characters are one section. A longer text is cut between two lines, if possible inside a paragraph.
    No header, licence or footer is cut: next to one of their markers, the cut is before the marker.
    """
    rest = ""
    for block in blocks:
        rest += block
        if len(rest) > SECTION_CHARS:
            cut = _section_end(rest)
            yield rest[:cut]
            rest = rest[cut:]
    if rest:
        yield rest


def _section_end(text: str) -> int:
    """Where to cut a text that is longer than a section."""
    nearest = len(text) - 3 * _EDGE_CHARS
    line = _PARAGRAPH_LINE.search(text, nearest, nearest + _EDGE_CHARS)
    end = line.end() if line else text.find("\n", nearest) + 1 or len(text) - 1  # \r\n may be at the very end
    around = max(0, end - _EDGE_CHARS)
    mark = next(iter(_marks(text[around : end + _EDGE_CHARS])), None)
    return around + mark[0] if mark else end


def strip_boilerplate(text: str) -> CleanText:
    r"""Remove Project Gutenberg's header, licence, footer and credits, in today's form and that of the 1990s.

    Each book of a file is stripped on its own. The licence notice that one edition repeats between scenes is removed
    too. Line endings become "\n". Otherwise, a text without such additions is unchanged.
    Raises ValueError if more than header and licence would be removed, for example because a marker is in the middle.
    """
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not any(hint in text for hint in _HINTS):
        return CleanText(text, 1.0)
    marks = _marks(text)
    if not marks and "<<" not in text:
        return CleanText(text, 1.0)
    books = _split_books(text, marks)
    bodies = [_strip_book(book) for book in books]
    if bodies == books:
        return CleanText(text, 1.0)
    body = "\n\n\n\n".join(filter(None, (body.strip("\n") for body in bodies))) + "\n"
    kept = len(body) / len(text)
    allowed = len(books) * _MAX_ADDED_CHARS + _MAX_ADDED_SHARE * len(text)
    if not body.strip() or len(text) - len(body) > allowed:
        raise ValueError(
            f"removing Project Gutenberg's header and licence would keep only {kept:.1%} of {len(text)} characters; "
            "remove them by hand, with their marker lines"
        )
    return CleanText(body, kept, len(books))


def _marks(text: str) -> list[tuple[int, bool]]:
    """(position, whether a book starts there) of all start and end markers, in order."""
    stars, small_print = "***" in text, "small print" in text.lower()  # without them, the patterns need not be tried
    starts = [*([_START] if stars else []), *([_SMALL_PRINT_END] if small_print else [])]
    ends = [*([_END] if stars else []), *([_OLD_FOOTER] if "End of " in text else [])]
    marks = [(mark.start(), True) for pattern in starts for mark in pattern.finditer(text)]
    marks += [(mark.start(), False) for pattern in ends for mark in pattern.finditer(text)]
    return sorted(marks)


def _split_books(text: str, marks: list[tuple[int, bool]]) -> list[str]:
    """Cut a text before every start marker that follows the end marker of another book."""
    cuts, ended = [0], False
    for position, is_start in marks:
        if is_start and ended:
            cuts.append(position)
        ended = not is_start
    return [text[start:end] for start, end in zip(cuts, [*cuts[1:], len(text)], strict=True)]


def _strip_book(text: str) -> str:
    body = _strip_footer(_strip_header(text))
    if "<<" in body:
        body = _LICENCE_INSIDE.sub("\n\n\n", body)
    return text if body == text else _strip_credits(body)


def _strip_header(text: str) -> str:
    """Drop everything up to the first start marker, and an old header that may follow it."""
    if start := _START.search(text):
        text = text[start.end() :]
    old = _SMALL_PRINT_END.search(text, 0, _EDGE_CHARS)
    return text[old.end() :] if old else text


def _strip_footer(text: str) -> str:
    """Drop everything from the last end marker on, and an old footer that may precede it."""
    ends = list(_END.finditer(text))
    if ends:
        text = text[: ends[-1].start()]
    old = _OLD_FOOTER.search(text, max(0, len(text) - _EDGE_CHARS))
    return text[: old.start()] if old else text


def _strip_credits(body: str) -> str:
    """Drop leading paragraphs that only say who produced the file."""
    while True:
        first, _, rest = body.lstrip("\n").partition("\n\n")
        if not rest or len(first) > _CREDITS_MAX_CHARS or not _CREDITS.match(first):
            return body
        body = rest


def licence_note(cleaned: str) -> list[str]:
    """A note if a licence of Project Gutenberg is left in a text that was cleaned."""
    n = cleaned.count("Project Gutenberg")
    if n < _LICENCE_MENTIONS:
        return []
    return [f"Project Gutenberg is still named {n:,} times, so a licence or header is left inside; remove it by hand"]
