"""python chat.py: chat with a model in the terminal; /help lists the commands.

With --prompt it answers once and prints only the answer on stdout; a text piped to it is the input of the prompt.
Without --prompt, piped lines are answered one after another.
"""

if __name__ == "__main__":  # before the slow imports: Ctrl-C during them is one line
    from src.entry import run_module

    run_module("chat")

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from src.chat.commands import Chat, common_commands
from src.chat.flags import ChatFlags, parse_chat_flags
from src.chat.piped_input import prompt_and_input
from src.chat.screen import Screen
from src.chat.start import LoadedChatModel, announce_loading, load_chat_model, sessions_folder
from src.chat.terminal import chat_loop, read_lines, show_result
from src.common.messages import naming_file
from src.common.terminal import has_person, is_interactive
from src.program import DONE, INTERRUPTED, exits_at_once

if TYPE_CHECKING:  # they import PyTorch, and --help needs none
    from src.chat.session import ChatSession


@dataclass(frozen=True, kw_only=True)
class Flags(ChatFlags):
    """The defaults are in src/chat/flags.py."""


def main(argv: Sequence[str] | None = None) -> int:
    """Answer the prompt of the command line, or chat. Returns the exit code."""
    flags, given = parse_chat_flags(Flags, argv, __doc__)
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
                model = load_chat_model(flags, interactive=screen.interactive)
                session = open_session(model, flags, screen)
            if not answer_once:
                return chat(session, model, flags, screen)
            screen.introduce(*model.introduction()[:1])
            prompt, input = prompt_and_input(flags.prompt, screen.notify)
            answer = session.reply(session.with_input(prompt, input) if input else prompt)
            show_result([("", answer)], session, screen)
    except KeyboardInterrupt:
        return INTERRUPTED
    return DONE


def open_session(model: LoadedChatModel, flags: Flags, screen: Screen) -> "ChatSession":
    """Start a conversation. Raises ValueError if the model cannot chat."""
    from src.chat.session import ChatSession

    with naming_file(model.checkpoint.path):
        return ChatSession(model.generator, template=model.template, settings=flags.settings(), notify=screen.notify)


def chat(session: "ChatSession", model: LoadedChatModel, flags: Flags, screen: Screen) -> int:
    """Answer lines until they end or a command leaves the chat. Returns the exit code."""
    typed_lines = sessions_folder() / "typed_lines"  # for the arrow keys; sk_chat.py's, too
    chat = Chat(session, model, flags, screen, typed_lines)
    chat.commands += common_commands(chat)
    screen.introduce(*model.introduction())
    if screen.has_person:
        from src.memory.typed_history import TypedHistory

        chat.history = TypedHistory(typed_lines, screen.notify)
    return chat_loop(session, screen, chat.commands, read_lines(screen, chat.commands, chat.history))
