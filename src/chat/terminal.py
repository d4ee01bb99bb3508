"""Where a chat's lines come from, typed or piped, and the loop that answers them."""

import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NoReturn

from src.chat.command_table import LONE_WORDS, Command, CommandFailed, LabelledAnswers, Question, Reply, run_command
from src.chat.lines import QUOTES, is_open, messages
from src.chat.screen import ASSISTANT, Screen, Styled, printable
from src.common.messages import OnceNote, count, one_line
from src.common.terminal import has_colours, is_terminal
from src.program import DONE, FAILED, INTERRUPTED, termination_signals

if TYPE_CHECKING:
    from prompt_toolkit.history import History
    from prompt_toolkit.key_binding import KeyBindings

    from src.chat.commands import ChatBackend

YOU = "You: "
LEAVE_HINT = "Ctrl-D or /quit leaves the chat"
TYPED_EARLIER = "typed earlier, not sent yet: Enter sends it, Ctrl-C drops it"
QUOTES_END = f"({QUOTES} ends) "  # in front of each further line of a quoted message


def read_lines(screen: Screen, commands: Sequence[Command], history: "History | None" = None) -> Iterator[str]:
    """The user's lines: typed at a terminal, or piped to stdin."""
    if not screen.has_person:
        return piped_lines()
    for number in termination_signals():  # the scripts' handler acts like Ctrl-C, which here would only stop an answer
        signal.signal(number, _exit)
    screen.introduce("/help lists commands; Ctrl-D or /quit leaves")
    if screen.interactive or (is_terminal(sys.stdin) and is_terminal(sys.stderr)):
        return typed_lines(screen, commands, history)
    return prompted_lines(screen)


def prompted_lines(screen: Screen) -> Iterator[str]:
    """Lines typed at a terminal that can only print, or if none of the outputs is a terminal.

    Such a terminal cannot put text into the line that the person edits. So what was typed before the prompt is printed
    after it, and is the start of the next line: Enter sends it.
    """
    output = sys.stderr if sys.stderr is not None and sys.stderr.isatty() else sys.stdout
    text = ""
    while True:
        screen.wait_for_pipe()
        try:
            with screen.type_ahead.paused():
                if waiting := printable(screen.type_ahead.take()):
                    screen.notify(OnceNote(TYPED_EARLIER))
                print((QUOTES_END if is_open(text) else YOU) + waiting, end="", file=output, flush=True)
                line = sys.stdin.readline()
        except KeyboardInterrupt:
            print(file=output)
            screen.notify(LEAVE_HINT)
            screen.end_turn()
            if not is_open(text):
                yield ""  # so that "yes" after it confirms nothing
            continue
        if not line:
            print(file=output)
            return
        line = waiting + line
        text = text + line if is_open(text) else line
        yield line


def typed_lines(screen: Screen, commands: Sequence[Command], history: "History | None" = None) -> Iterator[str]:
    """Lines edited with prompt_toolkit: arrow keys go through the history, Tab completes commands, Ctrl-D ends.

    Ctrl-C drops what is typed and yields an empty line. Alt-Enter starts a new line, and so does Enter after opening
    triple quotes; Ctrl-X Ctrl-E opens an editor. A paste of several lines is one message. If stdout is no terminal, as
    in `python chat.py | tee log`, the lines are edited on stderr.
    """
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import WordCompleter
    from prompt_toolkit.output import create_output

    helps = {command.name: command.help for command in commands}
    prompt: PromptSession[str] = PromptSession(
        [("bold" if has_colours(sys.stdout if screen.interactive else sys.stderr) else "", YOU)],
        completer=WordCompleter(list(helps), sentence=True, meta_dict=helps),
        complete_while_typing=False,
        key_bindings=_new_line_keys(),
        prompt_continuation=lambda *_: QUOTES_END if is_open(prompt.default_buffer.text) else " " * len(YOU),
        history=history,
        enable_suspend=True,
        enable_open_in_editor=True,
        output=None if screen.interactive else create_output(sys.stderr),
    )
    while True:
        screen.wait_for_pipe()
        try:
            with screen.type_ahead.paused():
                if waiting := screen.type_ahead.take():
                    screen.notify(OnceNote(TYPED_EARLIER))
                line = prompt.prompt(default=waiting)
        except KeyboardInterrupt:
            if not prompt.default_buffer.text:
                screen.notify(LEAVE_HINT)
                screen.end_turn()
            yield ""  # so that "yes" after it confirms nothing
            continue
        except EOFError:
            return
        yield line


def _new_line_keys() -> "KeyBindings":
    from prompt_toolkit.application import get_app
    from prompt_toolkit.filters import Condition
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    def new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    keys = KeyBindings()
    keys.add("escape", "enter")(new_line)
    keys.add("enter", filter=Condition(lambda: is_open(get_app().current_buffer.text)))(new_line)
    return keys


def piped_lines() -> Iterator[str]:
    """The lines of stdin as UTF-8. Invalid bytes become replacement characters."""
    if sys.stdin is None:  # started with stdin closed
        return
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(encoding="utf-8-sig", errors="replace")
    yield from sys.stdin


def chat_loop(backend: "ChatBackend", screen: Screen, commands: Sequence[Command], lines: Iterable[str]) -> int:
    """Answer each line until the lines end or a command leaves the chat. Returns the exit code.

    If a person types, Ctrl-C stops the answer, and errors are part of the conversation. Otherwise Ctrl-C is raised as
    KeyboardInterrupt, and an error makes the exit code 1.
    """
    reply: Reply = ""
    for text, quoted in messages(lines):
        text = text if quoted else _meant(text, reply)
        reply = ""
        if not text:
            continue
        try:
            reply = _reply_to(text, quoted, backend, commands)
            if reply is None:
                break
            show_result(reply, backend, screen)
        except KeyboardInterrupt:
            if not screen.has_person:
                raise
            screen.notify("Stopped" if isinstance(reply, str | Styled) else "Stopped. /retry answers again")
            screen.end_turn()
        except CommandFailed as error:
            screen.show_error(str(error))
        except (ValueError, RuntimeError, MemoryError) as error:
            screen.show_error(f"The answer failed: {one_line(error)}")
    return FAILED if screen.failed and not screen.has_person else DONE


def _meant(text: str, last: Reply) -> str:
    """The command that a lone word stands for: "quit", or "yes" after a question. Any other text as it is."""
    if isinstance(last, Question) and text.lower() == "yes":
        return last.command
    return LONE_WORDS.get(text.lower(), text)


def _reply_to(text: str, quoted: bool, backend: "ChatBackend", commands: Sequence[Command]) -> Reply:
    """The answer to a message, or the result of a command. After two slashes, a message begins with one."""
    if quoted or not text.startswith("/"):
        return [(ASSISTANT, backend.reply(text))]
    if text.startswith("//"):
        return [(ASSISTANT, backend.reply(text[1:]))]
    return run_command(text, commands)


def show_result(result: str | Styled | LabelledAnswers, backend: "ChatBackend", screen: Screen) -> None:
    """Show the reply to a command, or answers and, if the user wants to know it, their speed."""
    if isinstance(result, str | Styled):
        screen.show_reply(result)
        return
    for label, pieces in result:
        start, earlier = time.perf_counter(), backend.last_exchange
        screen.show_answer(pieces, label)
        exchange, seconds = backend.last_exchange, time.perf_counter() - start
        if screen.verbose and exchange is not earlier and (n_tokens := len(exchange.answer)):
            screen.notify(f"{count(n_tokens, 'token')} in {seconds:.2f} s: {n_tokens / seconds:.1f} tokens per second")
        screen.end_turn()


def _exit(*_: object) -> NoReturn:
    sys.exit(INTERRUPTED)
