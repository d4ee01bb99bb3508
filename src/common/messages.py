"""Messages for the user: errors on one line, commands to paste, and text that cannot control the terminal."""

import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

Notify: TypeAlias = Callable[[str], None]  # takes one line for the user, such as `print`

# Control characters can drive the terminal, bidi controls can disguise text, and UTF-8 cannot encode surrogates.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_ERROR_NUMBER = re.compile(r"\[(?:Errno|WinError) -?\d+\] ")
_FIRST_WORD = re.compile(r"[a-z]+(?=[ ;,.]|$)")  # a path, a flag or a setting such as top-k is no word


class OnceNote(str):
    """A note for the user that is shown only the first time."""


def count(number: int, noun: str) -> str:
    """The number with the noun, such as "1 turn" or "2 turns"."""
    return f"{number} {noun}{'s' * (number != 1)}"


def visible(text: str) -> str:
    """The text with an escape, such as \\x1b, for each unprintable character except newlines and tabs."""
    return _UNPRINTABLE.sub(lambda match: ascii(match[0])[1:-1], text)


def spelling(token: bytes) -> str:
    """A token as printable text. Parts of a character, and characters that do not print, become escapes: \\xc3, \\n."""
    text = token.decode("utf-8", "backslashreplace")
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def one_line(error: BaseException) -> str:
    """The error's message on one line, or its type if it has no message. PyTorch's C++ stack traces are dropped.

    So are the numbers of the system's errors. Unprintable characters are escaped: a message may quote a file.
    """
    message = _ERROR_NUMBER.sub("", str(error).partition("\nException raised from")[0])
    return visible(" ".join(message.split())) or type(error).__name__


def capitalised(text: str) -> str:
    """The text with a capital at its start, unless it starts with a name, such as a file's or a flag."""
    if not _FIRST_WORD.match(text) or os.path.exists(text.partition(":")[0]):  # a file's name may have spaces
        return text
    return text[:1].upper() + text[1:]


def shown_command(words: Sequence[str]) -> str:
    """A command that the user can paste into a shell: words with blanks or special characters are quoted."""
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


@contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """Put the file's path in front of the message of every ValueError raised inside."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def without_surrogates(text: str) -> str:
    """The text with lone surrogates replaced by U+FFFD. UTF-8 cannot encode them."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
