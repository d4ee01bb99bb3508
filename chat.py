"""python chat.py: talk to a model in the terminal; /help lists the commands.

With --prompt it answers once, and only the answer goes to stdout. Lines piped in are answered one after the other.
"""

import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from src.chat.session import ChatSession
from src.chat.start import ChatFlags, is_interactive, load_chat_model
from src.chat.terminal import Screen, piped_lines, session_commands, talk, typed_lines
from src.cli import parse
from src.common.messages import naming_file
from src.program import BAD_USAGE, DONE, INTERRUPTED, run_script


@dataclass(frozen=True, kw_only=True)
class Config(ChatFlags):
    """The defaults are in src/chat/session.py and src/chat/start.py."""


def main(argv: Sequence[str] | None = None) -> int:
    config, given = parse(Config, argv, __doc__)
    once = "prompt" in given
    if once and not config.prompt.strip():
        print("chat.py: --prompt is empty; see python chat.py --help", file=sys.stderr)
        return BAD_USAGE
    screen = Screen(interactive=not once and is_interactive())
    try:
        with screen.warnings_as_notes():
            session = open_session(config, screen)
            if once:
                screen.answer(session.reply(config.prompt), label="")
            else:
                chat(session, screen)
    except KeyboardInterrupt:
        return INTERRUPTED
    return DONE


def open_session(config: Config, screen: Screen) -> ChatSession:
    """A conversation with the model that the config names. Raises what loading raises."""
    model = load_chat_model(config, screen.note, interactive=screen.interactive)
    with naming_file(model.base.path):
        return ChatSession(model.generator, template=model.template, settings=config.settings(), notify=screen.note)


def chat(session: ChatSession, screen: Screen) -> None:
    commands = session_commands(session)
    if not screen.interactive:
        talk(session.reply, screen, commands, piped_lines())
        return
    # The program's own SIGTERM handler acts as Ctrl-C, which here would stop an answer and not the chat.
    signal.signal(signal.SIGTERM, _leave)
    screen.note("/help lists the commands, Ctrl-D leaves")
    talk(session.reply, screen, commands, typed_lines(screen, commands))


def _leave(*_: object) -> None:
    sys.exit(INTERRUPTED)


if __name__ == "__main__":
    run_script(main, out_of_memory="use a smaller model, or --quantize int8")
