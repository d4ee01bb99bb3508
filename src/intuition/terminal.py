"""What the demonstrations print with: paragraphs, tables, bars and shades, in 80 columns.

Colours are for terminals only. Where stdout can't encode block characters, plain ASCII stands in for them.
"""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from textwrap import fill

WIDTH = 78
_BOLD, _GREY, _GREEN, _PLAIN = "\033[1m", "\033[2m", "\033[1;32m", "\033[0m"
_SHADES = (" \u2591\u2592\u2593\u2588", " .+x#")  # from nothing to all: blocks, and what stands in for them
_CELL = 12  # columns of a cell in the heat map


def heading(name: str, title: str) -> None:
    """The first lines of a demonstration."""
    line = f"{name}: {title}"
    print(f"{bold(line)}\n{'-' * len(line)}\n")


def say(text: str) -> None:
    """Print paragraphs, wrapped, and an empty line after each. White space and line breaks in the text don't count."""
    for paragraph in text.strip().split("\n\n"):
        print(fill(" ".join(paragraph.split()), WIDTH, break_on_hyphens=False) + "\n")


def lines(texts: Iterable[str]) -> None:
    """Print lines as they are, indented, and an empty line after the last."""
    print("\n".join(f"  {text}".rstrip() for text in texts) + "\n")


def labelled(texts: Mapping[str, str]) -> None:
    """Print texts with their labels on the left, each in as many lines as it takes, and an empty line after them."""
    for label, text in texts.items():
        start = f"  {label:<12}"
        print(fill(text, WIDTH, initial_indent=start, subsequent_indent=" " * len(start), break_on_hyphens=False))
    print()


def suggest(text: str) -> None:
    """The last line of a demonstration: what to change in its code, and what to watch for."""
    print(fill(" ".join(f"Try: {text}".split()), WIDTH, subsequent_indent=" " * 5, break_on_hyphens=False) + "\n")


def pieces(tokens: Iterable[str]) -> str:
    """Tokens with a bar at each border, so that the spaces in them can be seen: |The| dog|."""
    return f"|{'|'.join(tokens)}|"


def bars(shares: Mapping[str, float]) -> None:
    """Print a bar for each share, from 0 to 1; a share of exactly 0 is a dash."""
    left = max(map(len, shares))
    full = WIDTH - left - 12
    block = _shades()[-1]
    lines(
        f"{name:<{left}}  {f'{share:.1%}' if share else '-':>6}  {block * round(share * full)}"
        for name, share in shares.items()
    )


def heat_map(weights: Sequence[Sequence[float]], rows: Sequence[str], columns: Sequence[str]) -> None:
    """Print weights from 0 to 1 as a table in which a larger one is darker."""
    shades = _shades()
    left = max(map(len, rows))
    table = [" " * left + "".join(f"{text:>{_CELL}}" for text in columns)]
    for name, row in zip(rows, weights, strict=True):
        cells = (f"{shades[min(4, int(weight * 5))] * 4} {weight:.2f}" for weight in row)
        table.append(f"{name:<{left}}" + "".join(f"{cell:>{_CELL}}" for cell in cells))
    lines(table)


def bold(text: str) -> str:
    return f"{_BOLD}{text}{_PLAIN}" if has_colours() else text


def grey(text: str) -> str:
    return f"{_GREY}{text}{_PLAIN}" if has_colours() else text


def green(text: str) -> str:
    return f"{_GREEN}{text}{_PLAIN}" if has_colours() else text


def has_colours() -> bool:
    """Whether stdout is a terminal that shows colours, and its person has not set NO_COLOR."""
    environ = os.environ
    old_console = os.name == "nt" and not {"WT_SESSION", "TERM_PROGRAM", "TERM"} & environ.keys()
    return sys.stdout.isatty() and not (environ.get("NO_COLOR") or environ.get("TERM") == "dumb" or old_console)


def _shades() -> str:
    """Five characters from light to dark that stdout can encode."""
    blocks, ascii_only = _SHADES
    try:
        blocks.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return ascii_only
    return blocks
