"""Typed lines, and the loop that answers them."""

from src.chat.commands import common_commands
from src.chat.screen import Screen
from src.chat.terminal import chat_loop, typed_lines
from src.model.generate import TextGenerator
from tests.fakes import ANSWER, stream_that_fails_once, terminal_with_keys


def test_reset_clears_the_conversation(session, capsys):
    chat_loop(session, Screen(interactive=False), common_commands(session), ["Hello", "/reset"])
    assert session.messages == ()
    assert capsys.readouterr().out == f"Assistant: {ANSWER}\nconversation cleared\n"


def test_two_slashes_send_a_message_that_starts_with_one(session):
    chat_loop(session, Screen(interactive=False), common_commands(session), [" //usr/bin is what?"])
    assert [message.text for message in session.messages] == ["/usr/bin is what?", ANSWER]


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
