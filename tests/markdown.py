"""The commands and code snippets in a Markdown file."""

import itertools
import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.repository import ROOT

SHELLS = {"bash", "sh", "shell", "console"}
OPERATORS = {";", "|", "||", "&", "&&"}
REDIRECTIONS = {"<", ">", ">>"}
FENCED = re.compile(r"^([ \t]*)(```+)[ \t]*([^`\n]*)\n(.*?)^[ \t]*\2[ \t]*$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block or a part of it: its first line in the file, the words after the opening fence, and its text."""

    file: Path
    line: int
    info: tuple[str, ...]
    text: str

    @property
    def place(self) -> str:
        return f"{self.file.relative_to(ROOT).as_posix()}:{self.line}"


@dataclass(frozen=True)
class Command:
    words: list[str]
    stdin: str = ""


def blocks(file: Path) -> list[Block]:
    text = file.read_text(encoding="utf-8")
    return [
        Block(file, text[: m.start(4)].count("\n") + 1, tuple(m[3].split()), textwrap.dedent(m[4]))
        for m in FENCED.finditer(text)
    ]


def shell_lines(block: Block) -> Iterator[Block]:
    """The lines of a block that are shell commands, with continued lines joined.

    These are all lines of a shell block, and in other blocks those that start with "$ ", "python " or "pip ".
    """
    in_shell_block = bool(SHELLS.intersection(block.info[:1]))
    number = block.line
    for line in block.text.replace("\\\n", "\0").splitlines():  # \0 marks a joined line, to count lines
        is_command = in_shell_block and line.strip() and not line.startswith("#")
        if is_command or line.startswith(("$ ", "python ", "pip ")):
            yield Block(block.file, number, block.info, line.removeprefix("$ ").replace("\0", " ").strip())
        number += 1 + line.count("\0")


def commands(line: str) -> list[Command]:
    """The commands of a shell line, without redirections. A command's stdin is what printf or echo pipes into it."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";|&<>")
    lexer.whitespace_split = True
    found: list[Command] = []
    words: list[str] = []
    stdin = ""
    for token in [*lexer, ";"]:
        if token not in OPERATORS:
            words.append(token)
        elif words:
            found.append(Command(list(itertools.takewhile(lambda word: word not in REDIRECTIONS, words)), stdin))
            prints = token == "|" and words[0] in ("printf", "echo")
            stdin = words[-1].encode().decode("unicode_escape") if prints else ""
            words = []
    return found


def inline_commands(file: Path) -> Iterator[tuple[int, str]]:
    """Line and text of each `python ...` outside the fenced blocks."""
    prose = FENCED.sub(lambda block: "\n" * block[0].count("\n"), file.read_text(encoding="utf-8"))
    for found in re.finditer(r"`(python\s[^`]+)`", prose):
        yield prose[: found.start()].count("\n") + 1, " ".join(found[1].split())
