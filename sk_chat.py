"""python sk_chat.py: chat with a model that remembers, through Semantic Kernel; /help lists the commands.

The conversation is saved after every answer and resumes at the next start. Facts that you mention about yourself are
saved for all conversations. With --prompt it answers once and prints only the answer on stdout; a text piped to it is
the input of the prompt. Without --prompt, piped lines are answered one after another.
"""

if __name__ == "__main__":  # before the slow imports: Ctrl-C during them is one line
    from src.entry import run_module

    run_module("sk_chat")

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from src.chat.commands import Chat
from src.chat.flags import ChatFlags, parse_chat_flags
from src.chat.piped_input import prompt_and_input
from src.chat.screen import Screen
from src.chat.start import SESSIONS, LoadedChatModel, announce_loading, load_chat_model, sessions_folder
from src.chat.terminal import chat_loop, read_lines, show_result
from src.cli import flag
from src.common.messages import naming_file
from src.common.terminal import has_person, is_interactive
from src.memory.keeping import RememberMode
from src.memory.sessions import check_name
from src.program import DONE, INTERRUPTED, exits_at_once
from src.sk_integration.sk_import import import_semantic_kernel

if TYPE_CHECKING:
    from src.sk_integration.orchestrator import Assistant

# The defaults of this script's own flags. Those shared with chat.py are in src/chat/flags.py.
SESSION = "default"
REMEMBER: RememberMode = "auto"


@dataclass(frozen=True, kw_only=True)
class Flags(ChatFlags):
    prompt: str = flag(
        "",
        "print the answer to this prompt (- reads it from stdin) and exit; saved only with --session "
        "(default: start a chat)",
        positional=True,
    )
    session: str = flag("", "the conversation to resume or start (default: the last one)")
    memory_dir: Path = flag(
        SESSIONS, "folder of the sessions and of the long-term memory; if it is not here, the one next to the script"
    )
    remember: RememberMode = flag(
        REMEMBER, "facts that you state about yourself: auto keeps them, ask suggests keeping them, off keeps nothing"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.session:
            check_name(self.session)


def main(argv: Sequence[str] | None = None) -> int:
    """Answer the prompt of the command line, or chat. Returns the exit code."""
    flags, given = parse_chat_flags(Flags, argv, __doc__)
    if "memory_dir" not in given:
        flags = replace(flags, memory_dir=sessions_folder())
    answer_once = "prompt" in given
    screen = Screen(
        interactive=not answer_once and is_interactive(),
        has_person=not answer_once and has_person(),
        verbose=flags.verbose,
    )
    try:
        with screen.warnings_as_notes(), screen.type_ahead:
            with exits_at_once(screen.type_ahead.restore):
                announce_loading(flags, interactive=screen.interactive)
                import_semantic_kernel()
                model = load_chat_model(flags, interactive=screen.interactive)
                assistant = open_assistant(flags, model, screen, save=not answer_once or "session" in given)
            with closing(assistant):
                if not answer_once:
                    return chat(assistant, model, flags, screen)
                screen.introduce(*model.introduction()[:1])
                answer = assistant.reply(*prompt_and_input(flags.prompt, screen.notify))
                show_result([("", answer)], assistant, screen)
    except KeyboardInterrupt:
        return INTERRUPTED
    return DONE


def open_assistant(flags: Flags, model: LoadedChatModel, screen: Screen, *, save: bool) -> "Assistant":
    """Start the assistant in the session that the flags select. save: see Assistant. Raises ValueError or OSError."""
    from src.sk_integration.memory_manager import (
        FactKeeper,
        LongTermMemory,
        OpenSession,
        SessionStore,
        why_not_writable,
    )
    from src.sk_integration.orchestrator import Assistant
    from src.sk_integration.service import GPT2ChatCompletion

    problem = why_not_writable(flags.memory_dir)
    if problem and save:
        screen.notify(f"Nothing will be saved in {flags.memory_dir}: {problem}")
    with naming_file(model.checkpoint.path):
        service = GPT2ChatCompletion(model.generator, template=model.template, notify=screen.notify)
    store, can_write = SessionStore(flags.memory_dir, screen.notify), not problem
    session = flags.session or (store.last() if save else None) or SESSION
    memory = LongTermMemory(flags.memory_dir / "memory.sqlite3", screen.notify, can_write=can_write)
    return Assistant(
        service,
        session=OpenSession(store, session, save=save, can_write=can_write, notify=screen.notify),
        facts=FactKeeper(memory, flags.remember, screen.notify, can_keep=save and can_write),
        settings=flags.settings(),
        notify=screen.notify,
        facts_in_prompt=model.checkpoint.trained_with("facts"),
    )


def chat(assistant: "Assistant", model: LoadedChatModel, flags: Flags, screen: Screen) -> int:
    """Answer lines until they end or a command leaves the chat. Returns the exit code."""
    from src.sk_integration.commands import assistant_commands, first_lines, last_turns

    chat = Chat(assistant, model, flags, screen, assistant.store.folder / "typed_lines")
    if assistant.session.is_saved and screen.has_person:
        from src.memory.typed_history import TypedHistory

        chat.history = TypedHistory(chat.typed_lines, screen.notify)
    chat.commands += assistant_commands(chat, assistant)
    screen.introduce(*model.introduction(), *first_lines(assistant.session))
    lines = read_lines(screen, chat.commands, chat.history)
    if screen.interactive and assistant.turns:
        screen.show_reply("\n" + last_turns(assistant))
    return chat_loop(assistant, screen, chat.commands, lines)
