"""What is typed or pasted while no prompt is open: it waits for the next prompts, unsent."""

import os
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any

from src.chat.lines import is_open
from src.common.terminal import is_terminal

_NEWLINES = {"c-m", "c-j"}
_MARK_PASTES, _NO_MARKS = b"\x1b[?2004h", b"\x1b[?2004l"  # bracketed paste: a paste of several lines stays one text


class TypeAhead:
    """Inside `with`, the terminal shows no typed keys, and `read` collects them. A prompt runs in `paused`.

    active: whether a person types. Ctrl-C still interrupts.
    """

    def __init__(self, *, active: bool) -> None:
        self._active = active and sys.stdin is not None and sys.stdin.isatty()
        self._lines: deque[str] = deque()
        self._line = ""  # not ended by Enter yet
        self._input: Any = None
        self._mode: list[Any] | None = None

    def __enter__(self) -> "TypeAhead":
        if self._active:
            self._mode = _hide_keys()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.restore()

    def restore(self) -> None:
        """Let the terminal show typed keys again."""
        if self._mode is not None:
            _restore(self._mode)
        self._mode = None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Inside, a prompt reads the keys. Before, what was typed is collected, so that `take` has it."""
        self.read()
        if self._input:
            self._collect(self._input.flush_keys())
        self.restore()
        try:
            yield
        finally:
            self.__enter__()

    def read(self) -> None:
        """Collect what has been typed. Call this often: a terminal holds only 4,095 bytes."""
        if not self._active:
            return
        if self._mode is not None:
            _hide_keys()  # again: after Ctrl-Z and fg, the terminal is as the shell had it
        if self._input is None:
            from prompt_toolkit.input import create_input

            self._input = create_input(sys.stdin)
        self._collect(self._input.read_keys())

    def take(self) -> str:
        """The first line that waits, for the next prompt. Enter has not sent it, because no prompt showed it."""
        if self._lines:
            return self._lines.popleft()
        line, self._line = self._line, ""
        return line

    def _collect(self, presses: list[Any]) -> None:
        for press in presses:
            key = getattr(press.key, "value", press.key)
            if key in _NEWLINES:
                self._end_line()
            elif key == "c-i":
                self._line += "\t"
            elif key in ("c-h", "backspace"):
                self._line = self._line[:-1]
            elif key == "<bracketed-paste>":
                self._line += press.data.replace("\r\n", "\n").replace("\r", "\n")
            elif len(key) == 1:
                self._line += press.data

    def _end_line(self) -> None:
        if is_open(self._line):
            self._line += "\n"
            return
        if self._line.strip():
            self._lines.append(self._line)
        self._line = ""


def _hide_keys() -> list[Any] | None:
    """Neither show typed keys nor wait for Enter. Returns the mode to restore; None on Windows, where it is so."""
    try:
        import termios
    except ImportError:
        return None
    with suppress(termios.error):
        mode = termios.tcgetattr(sys.stdin)
        quiet = [*mode]
        quiet[0] &= ~termios.ICRNL  # or the end of a pasted line, CR and LF, would be two
        quiet[3] &= ~(termios.ECHO | termios.ICANON)
        if quiet != mode:
            termios.tcsetattr(sys.stdin, termios.TCSANOW, quiet)
            _write(_MARK_PASTES)
        return mode
    return None


def _restore(mode: list[Any]) -> None:
    import termios

    with suppress(termios.error):
        termios.tcsetattr(sys.stdin, termios.TCSANOW, mode)
    _write(_NO_MARKS)


def _write(code: bytes) -> None:
    """Send a code to the terminal of stdin, because stdout may be a pipe."""
    if is_terminal(sys.stdin):
        with suppress(OSError):
            os.write(sys.stdin.fileno(), code)
