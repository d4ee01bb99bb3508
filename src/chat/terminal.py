"""Where a chat's lines come from, typed or piped, and the loop that answers them."""

import signal
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NoReturn

from src.chat.commands import LONE_WORDS, ChatBackend, Command, run_command
from src.chat.screen import Screen
from src.common.messages import one_line
from src.common.terminal import has_colours, is_terminal
from src.program import INTERRUPTED, termination_signals

if TYPE_CHECKING:
    from prompt_toolkit.history import History

YOU = "You: "
_PIPE_DELAY_S = 0.1  # until `tee` has printed the end of an answer


def read_lines(screen: Screen, commands: Mapping[str, Command], history: "History | None" = None) -> Iterator[str]:
    """The user's lines: typed at a terminal, or piped to stdin."""
    if not screen.interactive and (sys.stdin is None or not sys.stdin.isatty()):
        return piped_lines()
    for number in termination_signals():  # the scripts' handler acts like Ctrl-C, which here would only stop an answer
        signal.signal(number, _exit)
    screen.notify("/help lists the commands, Ctrl-D leaves")
    if screen.interactive or (is_terminal(sys.stdin) and is_terminal(sys.stderr)):
        return typed_lines(screen, commands, history)
    return prompted_lines()


def prompted_lines() -> Iterator[str]:
    """Lines typed at a terminal that can only print, or if none of the outputs is a terminal."""
    while True:
        print(YOU, end="", file=sys.stderr, flush=True)
        if not (line := sys.stdin.readline()):
            print(file=sys.stderr)
            return
        yield line


def typed_lines(screen: Screen, commands: Mapping[str, Command], history: "History | None" = None) -> Iterator[str]:
    """Lines edited with prompt_toolkit: arrow keys go through the history, Tab completes commands, Ctrl-D ends.

    Alt-Enter starts a new line. A paste of several lines is one message. If stdout is no terminal, as in
    `python chat.py | tee log`, the lines are edited on stderr.
    """
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import WordCompleter
    from prompt_toolkit.key_binding import KeyBindings
    from prompt_toolkit.output import create_output

    keys = KeyBindings()
    keys.add("escape", "enter")(lambda event: event.current_buffer.insert_text("\n"))
    helps = {name: command.help for name, command in commands.items()}
    prompt: PromptSession[str] = PromptSession(
        [("bold" if has_colours(sys.stdout if screen.interactive else sys.stderr) else "", YOU)],
        completer=WordCompleter(list(commands), sentence=True, meta_dict=helps),
        complete_while_typing=False,
        key_bindings=keys,
        prompt_continuation=" " * len(YOU),
        history=history,
        enable_suspend=True,
        output=None if screen.interactive else create_output(sys.stderr),
    )
    while True:
        if not screen.interactive:
            time.sleep(_PIPE_DELAY_S)
        try:
            line = prompt.prompt()
        except KeyboardInterrupt:
            if not prompt.default_buffer.text:
                screen.notify("Ctrl-D or /quit leaves the chat")
            continue
        except EOFError:
            return
        yield line


def piped_lines() -> Iterator[str]:
    """The lines of stdin as UTF-8. Invalid bytes become replacement characters."""
    if sys.stdin is None:  # started with stdin closed
        return
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(encoding="utf-8-sig", errors="replace")
    yield from sys.stdin


def chat_loop(backend: ChatBackend, screen: Screen, commands: Mapping[str, Command], lines: Iterable[str]) -> None:
    """Answer each line until the lines end or a command leaves the chat.

    On a terminal, Ctrl-C stops the answer; otherwise it is raised as KeyboardInterrupt.
    """
    for line in lines:
        text = line.strip()
        if not text:
            continue
        if command := LONE_WORDS.get(text.lower()):
            screen.notify(f"{text!r} is read as {command}")
            text = command
        try:
            if text.startswith("/") and not text.startswith("//"):
                result = run_command(text, commands)
                if result is None:
                    return
                if isinstance(result, str):
                    screen.show_reply(result)
                else:
                    for label, pieces in result:
                        screen.show_answer(pieces, label)
            else:
                screen.show_answer(backend.reply(text[1:] if text.startswith("//") else text))
        except KeyboardInterrupt:
            if not screen.interactive:
                raise
            screen.notify("stopped")
        except (ValueError, RuntimeError, MemoryError) as error:
            screen.notify(f"the answer failed: {one_line(error)}")


def _exit(*_: object) -> NoReturn:
    sys.exit(INTERRUPTED)
