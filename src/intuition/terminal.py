"""Print paragraphs, tables, bars and heat maps in 80 columns, with colours on terminals only."""

from collections.abc import Iterable, Mapping, Sequence
from textwrap import fill

from src.common.terminal import has_colours

WIDTH = 78
_BOLD, _GREY, _GREEN, _PLAIN = "\033[1m", "\033[2m", "\033[1;32m", "\033[0m"
_SHADES = " \u2591\u2592\u2593\u2588"  # from empty to full block
_CELL = 12  # width of a heat map cell


def heading(name: str, title: str) -> None:
    """Print the title of a demonstration, underlined."""
    line = f"{name}: {title}"
    print(f"{bold(line)}\n{'-' * len(line)}\n")


def say(text: str) -> None:
    """Print paragraphs, re-wrapped, with an empty line after each."""
    for paragraph in text.strip().split("\n\n"):
        print(fill(" ".join(paragraph.split()), WIDTH, break_on_hyphens=False) + "\n")


def lines(texts: Iterable[str]) -> None:
    """Print indented lines, with an empty line after the last."""
    print("\n".join(f"  {text}".rstrip() for text in texts) + "\n")


def labelled(texts: Mapping[str, str]) -> None:
    """Print wrapped texts with their labels on the left, with an empty line after the last."""
    for label, text in texts.items():
        start = f"  {label:<12}"
        print(fill(text, WIDTH, initial_indent=start, subsequent_indent=" " * len(start), break_on_hyphens=False))
    print()


def suggest(text: str) -> None:
    """Print the last lines of a demonstration: what to change in its code, and what to watch for."""
    print(fill(" ".join(f"Try: {text}".split()), WIDTH, subsequent_indent=" " * 5, break_on_hyphens=False) + "\n")


def pieces(tokens: Iterable[str]) -> str:
    """Tokens with a bar at each border, which makes their spaces visible: |The| dog|."""
    return f"|{'|'.join(tokens)}|"


def filled(tokens: Iterable[str]) -> list[str]:
    """The tokens with a bar at each border, in lines of up to 76 characters."""
    rows: list[list[str]] = [[]]
    for token in tokens:
        if rows[-1] and len(pieces([*rows[-1], token])) > WIDTH - 2:
            rows.append([])
        rows[-1].append(token)
    return [pieces(row) for row in rows]


def bars(shares: Mapping[str, float]) -> None:
    """Print a bar for each share, from 0 to 1; a share of exactly 0 is a dash."""
    left = max(map(len, shares))
    full = WIDTH - left - 12
    lines(
        f"{name:<{left}}  {f'{share:.1%}' if share else '-':>6}  {_SHADES[-1] * round(share * full)}"
        for name, share in shares.items()
    )


def heat_map(weights: Sequence[Sequence[float]], rows: Sequence[str], columns: Sequence[str]) -> None:
    """Print weights from 0 to 1 as a table with darker blocks for larger weights."""
    left = max(map(len, rows))
    table = [" " * left + "".join(f"{text:>{_CELL}}" for text in columns)]
    for name, row in zip(rows, weights, strict=True):
        cells = (f"{_SHADES[min(4, int(weight * 5))] * 4} {weight:.2f}" for weight in row)
        table.append(f"{name:<{left}}" + "".join(f"{cell:>{_CELL}}" for cell in cells))
    lines(table)


def bold(text: str) -> str:
    """The text in bold, if colours are on."""
    return f"{_BOLD}{text}{_PLAIN}" if has_colours() else text


def grey(text: str) -> str:
    """The text in grey, if colours are on."""
    return f"{_GREY}{text}{_PLAIN}" if has_colours() else text


def green(text: str) -> str:
    """The text in green, if colours are on."""
    return f"{_GREEN}{text}{_PLAIN}" if has_colours() else text
