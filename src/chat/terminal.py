"""A chat in the terminal: the screen, the commands, and the loop from one line to the next.

On a terminal lines are edited with prompt_toolkit, which is loaded only then; piped, every line of stdin is a message.
"""

import logging
import shutil
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from itertools import chain
from typing import TYPE_CHECKING, Any, Protocol, TextIO, get_type_hints

from src.chat.session import ChatSettings
from src.common.messages import one_line

if TYPE_CHECKING:
    from prompt_toolkit.history import History

YOU, ASSISTANT = "You: ", "Assistant: "
Answers = Iterable[tuple[str, Generator[str, None, None]]]  # each below its heading, or behind it

# A terminal obeys control characters, and direction marks make a text look like another: neither may come from a model.
_REPLACED = [*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A), *range(0xD800, 0xE000)]
_SAFE = {**dict.fromkeys(_REPLACED, "\N{REPLACEMENT CHARACTER}"), ord("\n"): "\n", ord("\t"): "    ", ord("\r"): None}


def printable(text: str) -> str:
    """The text with everything replaced that a terminal would obey instead of showing it."""
    return text.translate(_SAFE)


class Screen:
    """Where a chat is shown: answers and replies to commands on stdout, notes on stderr or, on a terminal, in between.

    Notes that come while an answer is being written wait for its end.
    """

    def __init__(self, *, interactive: bool) -> None:
        self.interactive = interactive
        self._waiting: list[str] | None = None

    def say(self, text: str) -> None:
        """Print the reply to a command."""
        self._styled(f"{text}\n\n" if self.interactive else f"{text}\n", "", sys.stdout)

    def note(self, text: str) -> None:
        """Tell the person something that is neither an answer nor the reply to a command."""
        if self._waiting is None:
            self._styled(f"({text})\n" if self.interactive else f"note: {text}\n", "ansibrightblack", sys.stderr)
        elif text not in self._waiting:  # a long answer moves the context window many times
            self._waiting.append(text)

    def answer(self, pieces: Generator[str, None, None], label: str = ASSISTANT) -> None:
        """Write an answer as it comes. Whatever ends it, its line is ended and `pieces` is closed."""
        self._styled(label, "bold", sys.stdout)
        text = _without_indent(map(printable, pieces)) if label else map(printable, pieces)
        if self.interactive:
            text = wrapped(text, _columns(), len(label.rpartition("\n")[2]))
        self._waiting = []
        try:
            with closing(pieces):
                for piece in text:
                    print(piece, end="", flush=True)
        finally:
            print(flush=True)
            waiting, self._waiting = self._waiting, None
            for note in waiting:
                self.note(note)
            if self.interactive:
                print(flush=True)

    @contextmanager
    def warnings_as_notes(self) -> Iterator[None]:
        """Inside, what our modules log as a warning is a note."""
        handler = logging.Handler(logging.WARNING)
        handler.emit = lambda record: self.note(record.getMessage())  # type: ignore[method-assign]
        logger = logging.getLogger("src")
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)

    def _styled(self, text: str, style: str, file: TextIO) -> None:
        if not self.interactive:
            print(printable(text), end="", file=file, flush=True)
            return
        from prompt_toolkit import print_formatted_text
        from prompt_toolkit.formatted_text import FormattedText

        lines = "".join(wrapped([printable(text)], _columns(), 0))
        print_formatted_text(FormattedText([(style, lines)]), end="", flush=True)


def _columns() -> int:
    return shutil.get_terminal_size().columns


def wrapped(pieces: Iterable[str], width: int, column: int) -> Iterator[str]:
    """The text of the pieces with a line break before each word that would cross the right edge of the terminal.

    width: columns of the terminal. column: where the text begins. A word is held back until its end has come; each
    wide character, as in Chinese, counts as a word.
    """
    from prompt_toolkit.utils import get_cwidth

    word = ""
    for character in chain(chain.from_iterable(pieces), [""]):
        if character and not character.isspace() and get_cwidth(character) < 2 and len(word) < width:
            word += character
            continue
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


def _without_indent(pieces: Iterable[str]) -> Iterator[str]:
    """The text of the pieces without the spaces that it begins with."""
    begun = False
    for piece in pieces:
        text = piece if begun else piece.lstrip(" ")
        begun = begun or bool(text)
        yield text


@dataclass(frozen=True)
class Command:
    """`run` takes what was typed after the name and returns what to show, or None to leave; ValueError: not done.

    now: the current value, for the list that /help prints.
    """

    what: str
    run: Callable[[str], str | Answers | None]
    now: Callable[[], str] = str


class ChatBackend(Protocol):
    """What the commands of every chat need of it."""

    settings: ChatSettings

    def reset(self) -> None: ...


def session_commands(session: ChatBackend) -> dict[str, Command]:
    """The commands of every chat, by name; a front end adds its own, and /help lists those too."""

    def reset(_: str) -> str:
        session.reset()
        return "the conversation is forgotten"

    commands = {
        "/help": Command("this list", lambda _: _help(commands)),
        "/quit": Command("leave the chat, as Ctrl-D does", lambda _: None),
        "/exit": Command("the same", lambda _: None),
        "/reset": Command("forget the conversation, keep the settings", reset),
    }
    hints = get_type_hints(ChatSettings)
    for setting in fields(ChatSettings):
        kind = int if hints[setting.name] in (int, int | None) else float
        help = f"{setting.name}: {setting.metadata['help']}"
        commands[setting.metadata["command"]] = _setting(session, setting.name, kind, help)
    return commands


def _setting(session: ChatBackend, field: str, kind: Callable[[str], float], what: str) -> Command:
    def now() -> str:
        value = getattr(session.settings, field)
        return "off" if value is None else f"{value:g}" if isinstance(value, float) else str(value)

    def show_or_change(argument: str) -> str:
        if argument:
            session.settings = replace(session.settings, **{field: _value(field, kind, argument)})
        return f"{field} is {now()}"

    return Command(what, show_or_change, now)


def _value(field: str, kind: Callable[[str], float], text: str) -> Any:
    if text.lower() in ("off", "none"):
        return None
    try:
        return kind(text)
    except ValueError:
        expected = "whole number" if kind is int else "number"
        raise ValueError(f"{field} must be a {expected}, got {text[:40]!r}") from None


def _help(commands: Mapping[str, Command]) -> str:
    lines = []
    for name, command in commands.items():
        now = command.now()
        lines.append(f"{name:<9} {command.what}" + (f" (now {now})" if now else ""))
    lines.append("A setting without a value is shown; off switches a filter or the seed off. Ctrl-C stops an answer.")
    lines.append("Alt-Enter breaks a line. To send a message that begins with a slash, begin it with two.")
    return "\n".join(lines)


def run_command(line: str, commands: Mapping[str, Command]) -> str | Answers | None:
    """What a command has to say, also where it was not understood or not done; None leaves the chat."""
    name, argument = [*line.split(maxsplit=1), ""][:2]
    command = commands.get(name.lower())
    if command is None:
        near = get_close_matches(name.lower(), commands, 1)
        hint = f"did you mean {near[0]}?" if near else "/help lists the commands"
        return f"{name[:40]}: no such command; {hint} (a message that begins with a slash: begin it with two)"
    try:
        return command.run(argument.strip())
    except (ValueError, OSError) as error:
        return one_line(error)


def typed_lines(screen: Screen, commands: Mapping[str, Command], history: "History | None" = None) -> Iterator[str]:
    """Messages edited on the terminal: history with the arrow keys, Tab completes commands, Ctrl-D ends.

    Alt-Enter breaks a line; several lines pasted at once are one message.
    """
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import WordCompleter
    from prompt_toolkit.key_binding import KeyBindings

    keys = KeyBindings()
    keys.add("escape", "enter")(lambda event: event.current_buffer.insert_text("\n"))
    meanings = {name: command.what for name, command in commands.items()}
    prompt: PromptSession[str] = PromptSession(
        [("bold", YOU)],
        completer=WordCompleter(list(commands), sentence=True, meta_dict=meanings),
        complete_while_typing=False,
        key_bindings=keys,
        prompt_continuation=" " * len(YOU),
        history=history,
        enable_suspend=True,
    )
    while True:
        try:
            line = prompt.prompt()
        except KeyboardInterrupt:
            if not prompt.default_buffer.text:
                screen.note("Ctrl-D or /quit leaves the chat")
            continue
        except EOFError:
            return
        yield line


def piped_lines() -> Iterator[str]:
    """Lines of stdin in UTF-8; bytes that are not text become replacement characters."""
    if sys.stdin is None:  # closed by whoever started the program
        return
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(encoding="utf-8-sig", errors="replace")
    yield from sys.stdin


def talk(
    reply: Callable[[str], Generator[str, None, None]],
    screen: Screen,
    commands: Mapping[str, Command],
    lines: Iterable[str],
) -> None:
    """Answer line after line until they end or a command leaves. Ctrl-C stops an answer, on a terminal not the chat."""
    for line in lines:
        text = line.strip()
        if not text:
            continue
        try:
            if text.startswith("/") and not text.startswith("//"):
                said = run_command(text, commands)
                if said is None:
                    return
                if isinstance(said, str):
                    screen.say(said)
                else:
                    for heading, pieces in said:
                        screen.answer(pieces, heading)
            else:
                screen.answer(reply(text[1:] if text.startswith("//") else text))
        except KeyboardInterrupt:
            if not screen.interactive:
                raise
            screen.note("stopped")
        except (ValueError, RuntimeError, MemoryError) as error:
            screen.note(f"no answer: {one_line(error)}")
