"""python chat.py: chat with a model in the terminal; /help lists the commands.

With --prompt it answers once and prints only the answer on stdout; a text piped to it is the input of the prompt.
Without --prompt, piped lines are answered one after another.
"""

if __name__ == "__main__":  # at the top: see run_module
    from src.entry import run_module

    run_module("chat")

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from src.chat.commands import common_commands
from src.chat.flags import ChatFlags, parse_chat_flags
from src.chat.piped_input import prompt_and_input
from src.chat.screen import Screen
from src.chat.start import announce_loading, load_chat_model
from src.chat.terminal import chat_loop, read_lines
from src.common.messages import naming_file
from src.common.terminal import is_interactive
from src.program import DONE, INTERRUPTED, exits_at_once

if TYPE_CHECKING:  # they import PyTorch, and --help needs none
    from src.chat.session import ChatSession


@dataclass(frozen=True, kw_only=True)
class Flags(ChatFlags):
    """The defaults are in src/chat/flags.py."""


def main(argv: Sequence[str] | None = None) -> int:
    flags, given = parse_chat_flags(Flags, argv, __doc__)
    answer_once = "prompt" in given
    screen = Screen(interactive=not answer_once and is_interactive())
    try:
        with screen.warnings_as_notes():
            with exits_at_once():
                announce_loading(flags)
                session = open_session(flags, screen)
            return answer(session, flags, screen) if answer_once else chat(session, flags, screen)
    except KeyboardInterrupt:
        return INTERRUPTED


def open_session(flags: Flags, screen: Screen) -> "ChatSession":
    """Load the model that the flags select and start a conversation. Raises as load_chat_model and ChatSession do."""
    from src.chat.session import ChatSession

    model = load_chat_model(flags, screen.notify, interactive=screen.interactive)
    with naming_file(model.checkpoint.path):
        return ChatSession(model.generator, template=model.template, settings=flags.settings(), notify=screen.notify)


def answer(session: "ChatSession", flags: Flags, screen: Screen) -> int:
    """Answer the prompt once."""
    prompt, input = prompt_and_input(flags.prompt, screen.notify)
    screen.show_answer(session.reply(session.with_input(prompt, input) if input else prompt), label="")
    return DONE


def chat(session: "ChatSession", flags: Flags, screen: Screen) -> int:
    commands = common_commands(session)
    chat_loop(session, screen, commands, read_lines(screen, commands))
    return DONE
