"""What a chat command is, how a typed line finds its command, and the list that /help shows."""

import textwrap
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from src.chat.screen import Styled
from src.common.messages import one_line

# What users of other programs type to leave or to get help, without a slash: never a message to the model.
LONE_WORDS = {
    **dict.fromkeys(("exit", "quit", "bye", ":q", ":q!", ":wq", "exit()", "quit()"), "/quit"),
    **dict.fromkeys(("help", "?"), "/help"),
}
_SIMILAR = 0.7  # the least similarity, from 0 to 1, of a mistyped name and the command that is suggested
_MIN_HELP_COLUMNS = 30  # of a description; below, it goes to the next line


class Question(str):
    """A reply that asks before something is deleted. command: confirms it, and so does "yes" as the next line."""

    command: str

    def __new__(cls, consequence: str, command: str) -> "Question":
        question = super().__new__(cls, f"{consequence} To confirm, type yes.")
        question.command = command
        return question


LabelledAnswers = Iterable[tuple[str, Generator[str, None, None]]]  # (label, streamed answer) pairs
Reply = str | Styled | LabelledAnswers | None


@dataclass(frozen=True)
class Command:
    """A command of the chat.

    name: as it is typed, with the slash. run: takes the text after the name. It returns the reply, answers to show, or
    None to leave the chat, and raises ValueError or OSError if it fails.
    help: what it does, for /help. argument: what comes after the name, for /help; a command without it refuses a text.
    aliases: other names. current: the current value of a setting, for /help.
    deletes: whether it deletes something. Then it has to be typed in full, and no typing error suggests it.
    """

    name: str
    help: str
    run: Callable[[str], Reply]
    argument: str = ""
    aliases: tuple[str, ...] = ()
    current: Callable[[], str] = lambda: ""
    deletes: bool = False

    @property
    def usage(self) -> str:
        return f"{self.name} {self.argument}".rstrip()


class CommandFailed(ValueError):
    """The message is one line for the user."""


class UnknownCommandError(ValueError):
    """No command has a name that is or begins like what was typed."""


def run_command(line: str, commands: Sequence[Command]) -> Reply:
    """Run the command of a line and return its result. Raises CommandFailed if it is unknown, or if it fails."""
    name, *rest = line.split(maxsplit=1)
    argument = rest[0].strip() if rest else ""
    try:
        command = find_command(name, commands)
        if argument and not command.argument:
            raise ValueError(f"{name} takes no argument, got {argument[:40]!r}")
        return command.run(argument)
    except (ValueError, OSError) as error:
        raise CommandFailed(one_line(error)) from error


def find_command(typed: str, commands: Sequence[Command]) -> Command:
    """The command of this name or alias, or the only one whose name begins like it. Raises ValueError.

    Capitals, - and _ make no difference. An alias such as /penalty cannot be shortened: /p would be a surprise. A
    command that deletes something is never guessed, and a hint has the first letter of what was typed: other names that
    look similar, such as /model for /del, are no typing errors.
    """
    plain = _plain(typed)
    names = {_plain(name): command for command in commands for name in (command.name, *command.aliases)}
    if exact := names.get(plain):
        return exact
    longer = [command for command in commands if len(plain) > 1 and _plain(command.name).startswith(plain)]
    guessable = [command for command in longer if not command.deletes]
    if len(guessable) == 1:
        return guessable[0]
    if guessable:
        raise ValueError(f"{typed} could be {_either(guessable)}")
    if longer:
        raise ValueError(f"{typed} is too short for a command that deletes; type {_either(longer)} in full")
    similar = [name for name, command in names.items() if not command.deletes and name[:2] == plain[:2]]
    near = get_close_matches(plain, similar, 1, _SIMILAR)
    hint = f"Did you mean {names[near[0]].name}? To" if near else "/help lists commands; to"
    raise UnknownCommandError(f"Unknown command {typed[:40]}. {hint} send the line as a message, begin it with //")


def help_text(commands: Sequence[Command], notes: Sequence[str], columns: int) -> str:
    """The list of commands and then the notes, wrapped to `columns`."""
    width = max(len(command.usage) for command in commands) + 2
    lines = []
    for command in commands:
        current = command.current()
        text = command.help + (f" (now {current})" if current else "")
        if columns - width < _MIN_HELP_COLUMNS:
            lines += [command.usage, *textwrap.wrap(text, columns, initial_indent="    ", subsequent_indent="    ")]
        else:
            start = f"{command.usage:<{width}}"
            lines += textwrap.wrap(text, columns, initial_indent=start, subsequent_indent=" " * width)
    for note in ["", *notes] if notes else []:
        lines += textwrap.wrap(note, columns) or [""]
    return "\n".join(lines)


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def _either(commands: Sequence[Command]) -> str:
    names = [command.name for command in commands]
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
