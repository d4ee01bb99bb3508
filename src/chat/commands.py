"""The commands that every chat has."""

from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from typing import Any, Protocol, get_type_hints

from src.chat.session import ChatSettings
from src.common.messages import one_line

LabelledAnswers = Iterable[tuple[str, Generator[str, None, None]]]  # each answer as a stream, after its label


@dataclass(frozen=True)
class Command:
    """A command of the chat.

    help: what it does, for /help. run: takes the text after the command's name. It returns the reply, answers to show,
    or None to leave the chat, and raises ValueError or OSError if it fails. current: the current value, for /help.
    """

    help: str
    run: Callable[[str], str | LabelledAnswers | None]
    current: Callable[[], str] = str


class ChatBackend(Protocol):
    """A conversation that a chat can run on: a ChatSession, or the assistant with memory."""

    settings: ChatSettings

    def reply(self, text: str) -> Generator[str, None, None]: ...

    def reset(self) -> None: ...


def session_commands(session: ChatBackend) -> dict[str, Command]:
    """The commands by name. /help also lists those that are added to the returned dict."""

    def reset(_: str) -> str:
        session.reset()
        return "conversation cleared"

    commands = {
        "/help": Command("show this list", lambda _: _help(commands)),
        "/quit": Command("leave the chat, like Ctrl-D", lambda _: None),
        "/exit": Command("same as /quit", lambda _: None),
        "/reset": Command("clear the conversation, keep the settings", reset),
    }
    hints = get_type_hints(ChatSettings)
    for setting in fields(ChatSettings):
        kind = int if hints[setting.name] in (int, int | None) else float
        help = f"{setting.name}: {setting.metadata['help']}"
        commands[setting.metadata["command"]] = _setting_command(session, setting.name, kind, help)
    return commands


def run_command(line: str, commands: Mapping[str, Command]) -> str | LabelledAnswers | None:
    """What the command returns. For an unknown or failed command, a reply that says what is wrong."""
    name, argument = [*line.split(maxsplit=1), ""][:2]
    command = commands.get(name.lower())
    if command is None:
        near = get_close_matches(name.lower(), commands, 1)
        hint = f"did you mean {near[0]}?" if near else "/help lists the commands"
        return f"{name[:40]}: unknown command; {hint} (to send a message that begins with a slash, type two slashes)"
    try:
        return command.run(argument.strip())
    except (ValueError, OSError) as error:
        return one_line(error)


def _setting_command(session: ChatBackend, name: str, kind: Callable[[str], float], help: str) -> Command:
    """The command that shows a setting or changes it."""

    def current() -> str:
        value = getattr(session.settings, name)
        return "off" if value is None else f"{value:g}" if isinstance(value, float) else str(value)

    def show_or_change(argument: str) -> str:
        if argument:
            session.settings = replace(session.settings, **{name: _parse_value(name, kind, argument)})
        return f"{name} is {current()}"

    return Command(help, show_or_change, current)


def _parse_value(name: str, kind: Callable[[str], float], text: str) -> Any:
    if text.lower() in ("off", "none"):
        return None
    try:
        return kind(text)
    except ValueError:
        expected = "whole number" if kind is int else "number"
        raise ValueError(f"{name} must be a {expected}, got {text[:40]!r}") from None


def _help(commands: Mapping[str, Command]) -> str:
    lines = []
    for name, command in commands.items():
        current = command.current()
        lines.append(f"{name:<9} {command.help}" + (f" (now {current})" if current else ""))
    lines.append("A setting without a value shows the current one; off (or none) disables a filter or the seed.")
    lines.append("Ctrl-C stops an answer. Alt-Enter starts a new line. To send a message that begins with a slash,")
    lines.append("type two slashes.")
    return "\n".join(lines)
