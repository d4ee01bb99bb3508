"""The commands that every chat has."""

from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from typing import Any, Protocol, get_type_hints

from src.chat.flags import ChatSettings
from src.chat.screen import ASSISTANT
from src.common.messages import one_line

# What users of other programs type to leave or to get help, without a slash: never a message to the model.
LONE_WORDS = {
    **dict.fromkeys(("exit", "quit", "bye", ":q", ":q!", ":wq", "exit()", "quit()"), "/quit"),
    **dict.fromkeys(("help", "?"), "/help"),
}
# The commands of other programs, and what to use here.
_ELSEWHERE = {
    "/bye": "/quit leaves the chat",
    "/?": "/help lists the commands",
    "/clear": "/new starts another conversation",
}

LabelledAnswers = Iterable[tuple[str, Generator[str, None, None]]]  # (label, streamed answer) pairs


@dataclass(frozen=True)
class Command:
    """A command of the chat.

    help: what it does, for /help. current: the current value of a setting, for /help.
    run: takes the text after the command's name. It returns the reply, answers to show, or None to leave the chat, and
    raises ValueError or OSError if it fails. deletes: whether it deletes something; then no typing error suggests it.
    """

    help: str
    run: Callable[[str], str | LabelledAnswers | None]
    current: Callable[[], str] = lambda: ""
    deletes: bool = False


class ChatBackend(Protocol):
    """The conversation behind a chat: a ChatSession, or the Assistant with memory."""

    settings: ChatSettings

    def reply(self, text: str) -> Generator[str, None, None]: ...

    def retry(self) -> Generator[str, None, None]: ...

    # Each returns what to tell the user.
    def undo(self) -> str: ...

    def redo(self) -> str: ...

    def start_new(self, name: str) -> str: ...

    def reset(self) -> str: ...


def common_commands(backend: ChatBackend) -> dict[str, Command]:
    """The commands by name. /help also lists those that are added to the returned dict."""

    commands = {
        "/help": Command("show this list", lambda _: _help(commands)),
        "/quit": Command("leave the chat, like Ctrl-D", lambda _: None),
        "/exit": Command("same as /quit", lambda _: None),
        "/retry": Command("answer the last message again", lambda _: [(ASSISTANT, backend.retry())]),
        "/undo": Command("take back the last turn, or the last /retry or /reset", lambda _: backend.undo()),
        "/redo": Command("bring back what /undo took back", lambda _: backend.redo()),
        "/new": Command("start another conversation", backend.start_new),
        "/reset": Command("clear the conversation, keep the settings", lambda _: backend.reset(), deletes=True),
    }
    hints = get_type_hints(ChatSettings)
    for setting in fields(ChatSettings):
        number_type = int if hints[setting.name] in (int, int | None) else float
        help = f"{setting.name}: {setting.metadata['help']}"
        name = "/" + (setting.metadata["aliases"] or (setting.name,))[0]
        commands[name] = _setting_command(backend, setting.name, number_type, help)
    return commands


def run_command(line: str, commands: Mapping[str, Command]) -> str | LabelledAnswers | None:
    """Run a command and return its result; for an unknown or failed command, a reply that says what is wrong."""
    name, *argument = line.split(maxsplit=1)
    command = commands.get(name.lower())
    if command is None:
        return (
            f"{name[:40]}: unknown command; {_hint(name.lower(), commands)} (type // to start a message with a slash)"
        )
    try:
        return command.run(argument[0].strip() if argument else "")
    except (ValueError, OSError) as error:
        return one_line(error)


def _hint(name: str, commands: Mapping[str, Command]) -> str:
    """What to type instead of an unknown command."""
    if name in _ELSEWHERE:
        return _ELSEWHERE[name]
    harmless = [known for known, command in commands.items() if not command.deletes]
    longer = [known for known in harmless if known.startswith(name) or name.startswith(known)]
    near = longer if len(longer) == 1 else get_close_matches(name, harmless, 1)
    return f"did you mean {near[0]}?" if near else "/help lists the commands"


def _setting_command(backend: ChatBackend, name: str, number_type: type[int | float], help: str) -> Command:
    """The command that shows or changes a setting."""

    def current() -> str:
        value = getattr(backend.settings, name)
        return "off" if value is None else f"{value:g}" if isinstance(value, float) else str(value)

    def show_or_change(argument: str) -> str:
        if argument:
            backend.settings = replace(backend.settings, **{name: _parse_value(name, number_type, argument)})
        return f"{name} is {current()}"

    return Command(help, show_or_change, current)


def _parse_value(name: str, number_type: type[int | float], text: str) -> Any:
    if text.lower() in ("off", "none"):
        return None
    try:
        return number_type(text)
    except ValueError:
        expected = "whole number" if number_type is int else "number"
        raise ValueError(f"{name} must be a {expected}, got {text[:40]!r}") from None


def _help(commands: Mapping[str, Command]) -> str:
    lines = []
    for name, command in commands.items():
        current = command.current()
        lines.append(f"{name:<9} {command.help}" + (f" (now {current})" if current else ""))
    lines.append("A setting without a value shows the current one; off (or none) disables a filter or the seed.")
    lines.append("Ctrl-C stops an answer. Alt-Enter starts a new line. Type // to start a message with a slash.")
    return "\n".join(lines)
