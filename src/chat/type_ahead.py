"""What is typed or pasted while an answer appears: it waits for the next prompt, unsent."""

import sys
from contextlib import suppress
from types import TracebackType
from typing import Any

_NEWLINES = {"c-m", "c-j"}


class TypeAhead:
    """While active, the terminal shows no typed keys, and `read` collects them. Does nothing if stdin is no terminal.

    Ctrl-C still interrupts.
    """

    def __init__(self, *, active: bool) -> None:
        self.text = ""
        self._input: Any = None
        self._mode: list[Any] | None = None
        self._active = active and sys.stdin is not None and sys.stdin.isatty()

    def __enter__(self) -> "TypeAhead":
        if self._active:
            from prompt_toolkit.input import create_input

            self._input = create_input(sys.stdin)
            self._mode = _hide_keys()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.read()
        if self._input:
            self._collect(self._input.flush_keys())
        _restore(self._mode)
        self._input = self._mode = None

    def read(self) -> None:
        """Collect what has been typed. Call this often: a terminal holds only 4,095 bytes."""
        if self._input:
            self._collect(self._input.read_keys())

    def take(self) -> str:
        """The text for the next prompt. The keys before the last Enter were no message yet, so it keeps them."""
        text, self.text = self.text.strip("\n"), ""
        return text

    def _collect(self, presses: list[Any]) -> None:
        for press in presses:
            key = getattr(press.key, "value", press.key)
            if key in _NEWLINES:
                self.text += "\n"
            elif key == "c-i":
                self.text += "\t"
            elif key in ("c-h", "backspace"):
                self.text = self.text[:-1]
            elif key == "<bracketed-paste>":
                self.text += press.data.replace("\r\n", "\n").replace("\r", "\n")
            elif len(key) == 1:
                self.text += press.data


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
        termios.tcsetattr(sys.stdin, termios.TCSANOW, quiet)
        return mode
    return None


def _restore(mode: list[Any] | None) -> None:
    if mode is not None:
        import termios

        with suppress(termios.error):
            termios.tcsetattr(sys.stdin, termios.TCSANOW, mode)
