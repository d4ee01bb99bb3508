"""Whether a stream is a terminal, and what that terminal can do."""

import os
import shutil
import stat
import sys
from contextlib import suppress
from textwrap import fill
from typing import TextIO


def is_terminal(stream: TextIO | None) -> bool:
    """Whether the stream is a terminal that can move its cursor."""
    return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"


def is_pipe(stream: TextIO) -> bool:
    """Whether the stream is a pipe from or to another program."""
    with suppress(OSError, ValueError):  # it has no descriptor
        return stat.S_ISFIFO(os.fstat(stream.fileno()).st_mode)
    return False


def in_terminal_width(text: str, stream: TextIO | None, indent: str = "") -> str:
    """The text with long lines broken between words, if the stream is a terminal. indent: starts each further line."""
    if stream is None or not stream.isatty():
        return text
    columns = shutil.get_terminal_size().columns
    return "\n".join(
        fill(line, columns, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
        for line in text.splitlines()
    )


def has_colours(stream: TextIO | None = None) -> bool:
    """Whether to use colours and bold on the stream (default: stdout): https://no-color.org."""
    environ = os.environ
    old_console = os.name == "nt" and not {"WT_SESSION", "TERM_PROGRAM", "TERM"} & environ.keys()
    return is_terminal(stream or sys.stdout) and not environ.get("NO_COLOR") and not old_console


def has_person() -> bool:
    """Whether stdin is a terminal, so that a person types its lines."""
    return sys.stdin is not None and sys.stdin.isatty()


def is_interactive() -> bool:
    """Whether stdin and stdout are an interactive terminal."""
    return is_terminal(sys.stdin) and is_terminal(sys.stdout)
