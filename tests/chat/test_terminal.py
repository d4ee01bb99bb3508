"""Typed lines, and the loop that answers them."""

import io
import sys

import pytest
from prompt_toolkit.output import DummyOutput

from src.chat.commands import common_commands
from src.chat.screen import Screen
from src.chat.terminal import chat_loop, read_lines, typed_lines
from src.model.generate import TextGenerator
from tests.fakes import ANSWER, stream_that_fails_once, terminal_with_keys


def test_reset_clears_the_conversation(session, capsys):
    chat_loop(session, Screen(interactive=False), common_commands(session), ["Hello", "/reset"])
    assert session.messages == ()
    assert capsys.readouterr().out == f"Assistant: {ANSWER}\nThe conversation is cleared. /undo brings it back.\n"


def test_two_slashes_send_a_message_that_starts_with_one(session):
    chat_loop(session, Screen(interactive=False), common_commands(session), [" //usr/bin is what?"])
    assert [message.text for message in session.messages] == ["/usr/bin is what?", ANSWER]


@pytest.mark.parametrize("word", ["exit", "QUIT", "bye", ":q", " exit() "])
def test_a_lone_word_leaves_the_chat(session, word, capsys):
    chat_loop(session, Screen(interactive=False), common_commands(session), [word, "France?"])
    assert session.messages == ()
    assert capsys.readouterr().err == f"note: {word.strip()!r} is read as /quit\n"


@pytest.mark.parametrize("word", ["help", "?"])
def test_a_lone_word_lists_the_commands(session, word, capsys):
    chat_loop(session, Screen(interactive=False), common_commands(session), [word, "Bye, and thanks."])
    assert len(session.messages) == 2
    assert "/quit     leave the chat" in capsys.readouterr().out


class Tty(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_a_prompt_is_visible_if_stdout_is_a_pipe(session, monkeypatch, term):
    """As in `python chat.py | tee log`, with stderr on the terminal or not."""
    monkeypatch.setenv("TERM", term)
    stderr = io.StringIO() if term == "xterm" else Tty()
    monkeypatch.setattr(sys, "stdin", Tty("Hi\nthere\n"))
    monkeypatch.setattr(sys, "stderr", stderr)
    lines = read_lines(Screen(interactive=False), common_commands(session))
    assert list(lines) == ["Hi\n", "there\n"]
    assert stderr.getvalue() == "note: /help lists the commands, Ctrl-D leaves\nYou: You: You: \n"


def test_lines_are_edited_on_stderr_if_stdout_is_a_pipe(session, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    outputs = []
    monkeypatch.setattr("prompt_toolkit.output.create_output", lambda stream: outputs.append(stream) or DummyOutput())
    monkeypatch.setattr(sys, "stdin", Tty())
    monkeypatch.setattr(sys, "stderr", Tty())
    with terminal_with_keys("helo\x1b[Dl\r\x04"):
        assert list(read_lines(Screen(interactive=False), common_commands(session))) == ["hello"]
    assert outputs == [sys.stderr]


def test_ctrl_c_stops_an_answer_but_not_the_chat(session, monkeypatch, capsys):
    monkeypatch.setattr(TextGenerator, "stream", stream_that_fails_once(["Once upon ", "a time "], KeyboardInterrupt()))
    with terminal_with_keys():
        chat_loop(session, Screen(interactive=True), common_commands(session), ["Tell", "France?"])
    assert [message.text for message in session.messages] == ["Tell", "Once upon a time", "France?", ANSWER]
    assert capsys.readouterr().out == f"Once upon a \n\n{ANSWER}\n\n"


def test_typed_lines_can_be_edited_and_cleared(session):
    left = "\x1b[D"
    with terminal_with_keys(f"helo{left}l\r" + "cleared\x03" + "\x03" + "bye\r" + "\x04"):
        assert list(typed_lines(Screen(interactive=True), common_commands(session))) == ["hello", "bye"]
