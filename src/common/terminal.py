"""Whether a stream is a terminal, and what that terminal can do."""

import os
import stat
import sys
from contextlib import suppress
from typing import TextIO


def is_terminal(stream: TextIO | None) -> bool:
    """Whether the stream is a terminal that can move its cursor."""
    return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"


def is_pipe(stream: TextIO) -> bool:
    """Whether the stream is a pipe from or to another program."""
    with suppress(OSError, ValueError):  # it has no descriptor
        return stat.S_ISFIFO(os.fstat(stream.fileno()).st_mode)
    return False


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
