"""The commands that every chat has. Each is declared once, in `common_commands`: name, argument, help and function."""

import os
import sys
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from src.chat.command_table import Command, LabelledAnswers, Reply, UnknownCommandError, find_command, help_text
from src.chat.flags import ChatFlags, ChatSettings
from src.chat.lines import QUOTES
from src.chat.screen import ASSISTANT, Screen, Styled
from src.chat.setting_commands import OFF, current_value, setting_commands, shown_name
from src.chat.start import LoadedChatModel, announce_loading, load_chat_model, short_path
from src.chat.terminal import YOU
from src.common.messages import count
from src.common.terminal import is_terminal
from src.stages import existing_models

if TYPE_CHECKING:  # they import tokenizers and prompt_toolkit, and --help needs neither
    from src.chat.messages import Exchange, Usage
    from src.memory.typed_history import TypedHistory

LAST_TURNS = 2  # shown when a conversation is resumed or loaded


class ChatBackend(Protocol):
    """The conversation behind a chat: a ChatSession, or the Assistant with memory."""

    settings: ChatSettings

    @property
    def usage(self) -> "Usage": ...

    @property
    def turns(self) -> Sequence[tuple[str, str]]: ...  # (message, answer), also those that left the context

    @property
    def dropped_messages(self) -> int: ...  # how many messages left the context, oldest first

    @property
    def last_exchange(self) -> "Exchange": ...

    @property
    def system(self) -> str: ...

    def set_system(self, text: str) -> None: ...

    def use_model(self, model: LoadedChatModel) -> None: ...

    def reply(self, text: str) -> Generator[str, None, None]: ...

    def retry(self) -> Generator[str, None, None]: ...

    # These return what to tell the user.
    def undo(self) -> str: ...

    def redo(self) -> str: ...

    def reset(self) -> str: ...


@dataclass
class Chat:
    """What the commands work on. `commands` are all commands of this chat, for /help.

    typed_lines: the file of the lines typed in chats. history: that file, open, if a person types in this chat.
    """

    backend: ChatBackend
    model: LoadedChatModel
    flags: ChatFlags
    screen: Screen
    typed_lines: Path
    history: "TypedHistory | None" = None
    commands: list[Command] = field(default_factory=list)


def common_commands(chat: Chat) -> list[Command]:
    """The commands of every chat, in the order of /help."""

    def command(name: str, argument: str, help: str, run: Callable[..., Reply], **options: Any) -> Command:
        return Command(name, help, partial(run, chat), argument, **options)

    return [
        command("/help", "[COMMAND]", "show this list, or what one command does", show_help, aliases=("/?",)),
        command("/quit", "", "leave the chat, as Ctrl-D does", lambda *_: None, aliases=("/exit", "/bye")),
        command("/retry", "", "answer the last message again", retry),
        command("/undo", "", "take back the last turn, /retry or /reset", lambda chat, _: chat.backend.undo()),
        command("/redo", "", "bring back what /undo took back", lambda chat, _: chat.backend.redo()),
        command("/why", "", "show the chance of each token of the last answer", why),
        command("/history", "[N]", "show the conversation, or its last N turns", history),
        command("/memory", "", "show how much of the context is used", memory),
        command("/new", "", "start another conversation", reset, aliases=("/clear",)),
        command("/reset", "", "clear the conversation", reset, deletes=True),
        command("/forget", "typed", "delete your typed lines (the arrow-key history)", forget, deletes=True),
        command("/system", "[TEXT]", "show or set the system message; off removes it", system),
        command("/model", "[NAME]", "show the models, or switch to another one", model),
        command("/info", "", "show which model this is", lambda chat, _: chat.model.describe()),
        command("/questions", "", "list the questions that the model was trained to answer", questions),
        command("/settings", "[NAME VALUE]", "show the settings, or change one", settings),
        *setting_commands(chat),
        command("/verbose", "[on|off]", "show the speed of answers", verbose, current=partial(_verbosity, chat)),
    ]


def show_help(chat: Chat, name: str) -> str:
    """The list of commands, and how to type here; or the line of one command."""
    if name:
        command = find_command("/" + name.removeprefix("/"), chat.commands)
        return help_text([command], [], chat.screen.columns)
    notes = [
        "A setting's command without a value shows the current value. Commands can be shortened while they stay "
        "unambiguous, except for those that delete something."
    ]
    if chat.model.template is None:
        notes.append("This is a raw model: it continues your text instead of answering it.")
    if chat.screen.has_person:
        notes.append("Ctrl-C stops an answer.")
    if chat.screen.interactive or (chat.screen.has_person and is_terminal(sys.stderr)):
        notes.append(f"Alt-Enter starts a new line. The lines between {QUOTES} and {QUOTES} are one message.")
        notes.append("Ctrl-X Ctrl-E opens an editor. The up arrow brings back what you typed.")
    else:
        notes.append(f"The lines between {QUOTES} and {QUOTES} are one message.")
    notes.append("To send a message that begins with a slash, type two of them: //")
    return help_text(chat.commands, notes, chat.screen.columns)


def retry(chat: Chat, _: str) -> LabelledAnswers:
    """Answer again, with a note if the settings make the answer the same as before."""
    answer, now = chat.backend.retry(), chat.backend.settings
    is_unchanged = now == chat.backend.last_exchange.settings
    if is_unchanged and now.temperature == 0:
        chat.screen.notify("temperature 0 and the same settings: expect the same answer. /temperature 0.7 varies it")
    elif is_unchanged and now.seed is not None:
        chat.screen.notify("same seed and settings: expect the same answer. /seed off varies it")
    return [(ASSISTANT, answer)]


def why(chat: Chat, _: str) -> Styled:
    """The chance of each token of the last answer, and where the answer comes from.

    Raises ValueError if there is none, if /undo or /new took it away, or if another model gave it.
    """
    from src.chat.why import explain, origin, token_choices

    last = chat.backend.last_exchange
    if not last.answer and chat.backend.turns:
        raise ValueError(
            "/why explains only the newest answer of this model; /redo brings back what /undo took back, and /retry "
            "answers again"
        )
    if not last.answer:
        raise ValueError("there is no answer to explain yet; ask something first")
    generator, examples = chat.model.generator, chat.model.examples
    choices = token_choices(generator, last.prompt, last.answer)
    answer = generator.encoding.decode(last.answer)
    origin_line = origin(answer, examples) if examples.pairs else chat.model.why_no_examples
    return explain(choices, len(last.answer), origin_line, chat.screen.columns)


def history(chat: Chat, argument: str) -> str:
    """All turns, or the last N. Raises ValueError for another argument."""
    turns = chat.backend.turns
    if argument and not (argument.isdecimal() and int(argument)):
        raise ValueError(f"/history takes a number of turns, at least 1, got {argument[:40]!r}")
    return shown_turns(turns[-int(argument) :] if argument else turns) or "The conversation is empty."


def shown_turns(turns: Sequence[tuple[str, str]]) -> str:
    return "\n\n".join(f"{YOU}{message}\n{ASSISTANT}{answer.lstrip(' ') or '(no answer)'}" for message, answer in turns)


def memory(chat: Chat, _: str) -> str:
    """The length of the conversation and its token budget."""
    n = len(chat.backend.turns)
    turns = f"The conversation has {count(n, 'turn')}." if n else "The conversation is empty."
    return "\n".join([turns, *context_lines(chat)])


def context_lines(chat: Chat) -> list[str]:
    """How much of the context is used, what is reserved for the answer, and how many turns are forgotten."""
    usage, context = chat.backend.usage, chat.model.checkpoint.model.config.context_length
    if usage.left:
        used = f"{usage.used} of {usage.budget} prompt tokens used; {usage.left} left for your next message."
    elif chat.model.template is None:
        used = f"full. The text takes {usage.used} tokens; the model sees only the last {usage.budget}."
    else:
        used = f"full. The latest turns take {usage.used} tokens; a prompt can hold {usage.budget}. "
        used += "Your next message drops the oldest turns."
    reserved = context - usage.budget
    reason = f"max-tokens {chat.backend.settings.max_tokens}"
    if chat.backend.settings.max_tokens > reserved:
        reason += ", but at most half of the context"
    lines = [
        f"Context: {used}",
        f"The context has {context} tokens; {reserved} of them are reserved for the answer ({reason}).",
    ]
    if dropped := chat.backend.dropped_messages // 2:
        lines.append(f"The model has forgotten the oldest {'turn' if dropped == 1 else f'{dropped} turns'}.")
    return lines


def reset(chat: Chat, _: str) -> str:
    """Clear the conversation. Names what stays, and how to delete it."""
    system = ["The system message stays; /system off removes it."] if chat.backend.system else []
    return "\n".join([chat.backend.reset(), *system, *typed_lines_left(chat, "What you typed is")])


def forget(chat: Chat, argument: str) -> str:
    """Delete the lines typed in this and earlier chats."""
    if argument.lower() != "typed":
        raise ValueError("/forget typed deletes your typed lines (the arrow-key history)")
    return forget_typed(chat, lambda _: True) or "There are no typed lines."


def forget_typed(chat: Chat, is_deleted: Callable[[str], bool]) -> str:
    """Delete the typed lines for which `is_deleted` is true. Returns what to tell the user; "" if there are none."""
    from src.memory.typed_history import TypedHistory

    if not chat.history and not chat.typed_lines.is_file():
        return ""
    history = chat.history or TypedHistory(chat.typed_lines, chat.screen.notify)
    deleted = history.delete(is_deleted)
    return f"Deleted {count(deleted, 'typed line')} from the arrow-key history." if deleted else ""


def typed_lines_left(chat: Chat, subject: str) -> list[str]:
    """Where the typed lines are, and how to delete them, if there are any. subject: begins the sentence."""
    if not chat.typed_lines.is_file() or not chat.typed_lines.stat().st_size:
        return []
    return [f"{subject} still in the arrow-key history; /forget typed empties it."]


def system(chat: Chat, text: str) -> str:
    """Show, set or remove the system message."""
    if text:
        had_system = bool(chat.backend.system)
        chat.backend.set_system("" if text.lower() in OFF else text)
        if had_system and not chat.backend.system:
            return "The system message is removed."
    return f"System message: {chat.backend.system}" if chat.backend.system else "There is no system message."


def model(chat: Chat, name: str) -> str:
    """List the models, or load one and continue the conversation with it."""
    if not name:
        listed = [f"  {known:<12}{short_path(path)}" for known, path in existing_models().items()]
        others = "NAME switches to one of these, or to a path:" if listed else "PATH switches to another model"
        return "\n".join([chat.model.introduction()[0], f"/model {others}", *listed])
    flags = replace(chat.flags, model=os.path.expanduser(name))
    announce_loading(flags, interactive=chat.screen.interactive)
    loaded = load_chat_model(flags, interactive=chat.screen.interactive)
    chat.backend.use_model(loaded)
    chat.model = loaded
    return "\n".join(loaded.introduction())


def questions(chat: Chat, _: str) -> str:
    """The questions of the training examples."""
    return "\n".join(chat.model.examples.questions) or chat.model.why_no_examples


def settings(chat: Chat, argument: str) -> Reply:
    """Show the settings, or change one as its own command does: /settings temperature 0.5."""
    rows = {shown_name(setting.name): current_value(chat.backend, setting.name) for setting in fields(ChatSettings)}
    rows |= {"verbose": _verbosity(chat), "system": chat.backend.system or "off"}
    if not argument:
        return "\n".join(f"{name:<20}{value}" for name, value in rows.items())
    name, _, value = argument.partition(" ")
    commands = [command for command in chat.commands if command.name.removeprefix("/") in rows]
    try:
        command = find_command(f"/{name}", commands)
    except UnknownCommandError:
        raise ValueError(f"there is no setting {name[:40]!r} to change in the chat; /help lists them") from None
    return command.run(value.strip())


def verbose(chat: Chat, argument: str) -> str:
    """Show or switch whether the speed of answers is shown."""
    if argument.lower() not in ("", "on", "off"):
        raise ValueError(f"/verbose takes on or off, got {argument[:40]!r}")
    if argument:
        chat.screen.verbose = argument.lower() == "on"
    return f"verbose is {_verbosity(chat)}."


def _verbosity(chat: Chat) -> str:
    return "on" if chat.screen.verbose else "off"
