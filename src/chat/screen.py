"""What a chat shows: streamed answers, replies to commands, and notes.

prompt_toolkit is imported only on a terminal.
"""

import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from typing import TextIO

from src.chat.type_ahead import TypeAhead
from src.common.messages import OnceNote, capitalised
from src.common.terminal import has_colours, is_pipe

ASSISTANT = "Assistant: "
_PIPE_DELAY_S = 0.1  # for `tee` to print what it has read

# Control characters can drive the terminal, and bidi marks can disguise text: replace both.
_REPLACED = [*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A), *range(0xD800, 0xE000)]
_SAFE = {**dict.fromkeys(_REPLACED, "\N{REPLACEMENT CHARACTER}"), ord("\n"): "\n", ord("\t"): "    ", ord("\r"): None}


def printable(text: str) -> str:
    """The text with U+FFFD for each character that could control the terminal or disguise text; tabs become spaces."""
    return text.translate(_SAFE)


@dataclass(frozen=True)
class Styled:
    """A text in parts, each with a style of prompt_toolkit such as "bold"."""

    parts: tuple[tuple[str, str], ...]  # (style, text)


class Screen:
    """Shows answers and replies on stdout. Notes and errors go to stderr; on a terminal, they go to stdout instead.

    A note that arrives during an answer is shown after it. interactive: stdin and stdout are a terminal that can move
    its cursor. has_person: a person types the lines, at any terminal. verbose: show the speed of answers. `failed` is
    whether an error was shown. `type_ahead` has what a person typed while no prompt was open.
    """

    def __init__(self, *, interactive: bool, has_person: bool = False, verbose: bool = False) -> None:
        self.interactive, self.has_person = interactive, has_person or interactive
        self.verbose, self.failed = verbose, False
        self.type_ahead = TypeAhead(active=self.has_person)
        self._held_notes: list[str] | None = None
        self._seen_once: set[str] = set()

    @property
    def columns(self) -> int:
        """The width of the window, also if stdout is a pipe, as in `python chat.py | tee log`."""
        size = os.terminal_size((0, 0))
        for stream in filter(None, (sys.stdin, sys.stderr)):
            with suppress(OSError):  # it is no terminal
                size = os.get_terminal_size(stream.fileno())
        return shutil.get_terminal_size(size).columns or 80

    def notify(self, note: str) -> None:
        """Show a note: a message that is neither an answer nor the reply to a command."""
        if self._held_notes is not None:
            if note not in self._held_notes:  # a long answer warns each time the context window shifts
                self._held_notes.append(note)
        elif note not in self._seen_once:
            self.wait_for_pipe()
            shown = capitalised(note)
            self._print(f"({shown})\n" if self.interactive else f"note: {shown}\n", "ansibrightblack", sys.stderr)
            if isinstance(note, OnceNote):
                self._seen_once.add(note)

    def introduce(self, *lines: str) -> None:
        """Show lines of the first screen."""
        for line in lines:
            self._print(f"{line}\n" if self.interactive else f"note: {line}\n", "", sys.stderr)

    def show_reply(self, reply: str | Styled) -> None:
        """Show the reply to a command."""
        parts = reply.parts if isinstance(reply, Styled) else (("", reply),)
        for style, text in parts:
            self._print(text, style, sys.stdout)
        self._print("\n\n" if self.has_person else "\n", "", sys.stdout)

    def show_error(self, message: str) -> None:
        """Show why a command or an answer failed."""
        self.failed, message = True, capitalised(message)
        if self.interactive:
            self.show_reply(message)
        else:
            self._print(f"error: {message}\n", "", sys.stderr)
            self.end_turn()

    def show_answer(self, pieces: Generator[str, None, None], label: str = ASSISTANT) -> None:
        """Show an answer while it is generated, then the notes about it; `end_turn` comes after them.

        Always ends the line and closes `pieces`, even on error.
        """
        self._print(label, "bold", sys.stdout)
        text: Iterator[str] = map(printable, pieces)
        if label:  # the label already ends in white space
            text = _lstrip(text)
        if self._is_read_here(sys.stdout):
            text = wrapped(text, lambda: self.columns, start_column=len(label.rpartition("\n")[2]))
        self._held_notes = []
        try:
            with closing(pieces):
                for piece in text:
                    print(piece, end="", flush=True)
                    self.type_ahead.read()
        finally:
            print(flush=True)
            notes, self._held_notes = self._held_notes, None
            for note in notes:
                self.notify(note)

    def wait_for_pipe(self) -> None:
        """Let `python chat.py | tee log` print the end of an answer before a note or a prompt follows on stderr."""
        if self.has_person and is_pipe(sys.stdout):
            time.sleep(_PIPE_DELAY_S)

    def end_turn(self) -> None:
        """An empty line before the next prompt."""
        if self.has_person:
            print(flush=True)

    @contextmanager
    def warnings_as_notes(self) -> Iterator[None]:
        """While active, warnings that our modules log are shown as notes."""
        handler = logging.Handler(logging.WARNING)
        handler.emit = lambda record: self.notify(OnceNote(record.getMessage()))  # type: ignore[method-assign]
        logger = logging.getLogger("src")
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)

    def _is_read_here(self, file: TextIO) -> bool:
        """Whether a person reads the text in the window: on a terminal, or through `python chat.py | tee log`."""
        return file.isatty() or (self.has_person and is_pipe(file))

    def _print(self, text: str, style: str, file: TextIO) -> None:
        lines = printable(text)
        if self._is_read_here(sys.stdout if self.interactive else file):
            lines = "".join(wrapped([lines], lambda: self.columns))
        if not self.interactive:
            print(lines, end="", file=file, flush=True)
            return
        from prompt_toolkit import print_formatted_text
        from prompt_toolkit.formatted_text import FormattedText

        print_formatted_text(FormattedText([(style if has_colours() else "", lines)]), end="", flush=True)


def wrapped(pieces: Iterable[str], columns: Callable[[], int], start_column: int = 0) -> Iterator[str]:
    """The text of the pieces, with a line break before each word that would cross the terminal's right edge.

    columns: returns the width of the window, which can change. start_column: where the text starts. A word is held
    back until it is complete; every wide character, such as a Chinese one, counts as a word.
    """
    from prompt_toolkit.utils import get_cwidth

    word, column, width = "", start_column, columns()
    for character in chain(chain.from_iterable(pieces), [""]):  # "" ends the last word
        if character and not character.isspace() and get_cwidth(character) < 2 and len(word) < width:
            word += character
            continue
        width = columns()
        if column and column + get_cwidth(word) > width:
            yield "\n"
            column = 0
        yield word
        column += get_cwidth(word)
        word = "" if character.isspace() else character
        if character == "\n":
            column = 0
        if character.isspace() and column < width:
            yield character
            column += character != "\n"


def _lstrip(pieces: Iterable[str]) -> Iterator[str]:
    """Removes the spaces at the start of a streamed text."""
    started = False
    for piece in pieces:
        text = piece if started else piece.lstrip(" ")
        started = started or bool(text)
        yield text
