"""Typed lines, and the loop that answers them."""

import io
import sys

import pytest
from prompt_toolkit.output import DummyOutput

from src.chat.command_table import Command, Question
from src.chat.screen import Screen
from src.chat.terminal import chat_loop, prompted_lines, read_lines, typed_lines
from src.model.generate import TextGenerator
from tests.fakes import ANSWER, stream_that_fails_once, terminal_with_keys


def talk(chat, *lines, screen=None):
    """The exit code of a chat with these lines."""
    chat.screen = screen or chat.screen
    return chat_loop(chat.backend, chat.screen, chat.commands, lines)


def test_reset_clears_the_conversation(chat, capsys):
    assert talk(chat, "Hello", "/reset") == 0
    assert chat.backend.messages == ()
    assert capsys.readouterr().out == f"Assistant: {ANSWER}\nThe conversation is cleared. /undo brings it back.\n"


def test_two_slashes_send_a_message_that_starts_with_one(chat):
    talk(chat, " //usr/bin is what?")
    assert [message.text for message in chat.backend.messages] == ["/usr/bin is what?", ANSWER]


@pytest.mark.parametrize("word", ["exit", "QUIT", "bye", ":q", " exit() "])
def test_a_lone_word_leaves_the_chat(chat, word, capsys):
    assert talk(chat, word, "France?") == 0
    assert chat.backend.messages == ()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("word", ["help", "?"])
def test_a_lone_word_lists_the_commands(chat, word, capsys):
    talk(chat, word, "Bye, and thanks.")
    assert len(chat.backend.messages) == 2
    assert "/quit                    leave the chat" in capsys.readouterr().out


def test_a_quoted_message_is_never_a_command(chat):
    talk(chat, '"""', "/quit", '"""', '"""exit"""')
    assert [message for message, _ in chat.backend.turns] == ["/quit", "exit"]


def test_errors_of_piped_lines_are_on_stderr_and_in_the_exit_code(chat, capsys):
    assert talk(chat, "/foo", "France?") == 1
    out, err = capsys.readouterr()
    assert out == f"Assistant: {ANSWER}\n"
    assert err == "error: Unknown command /foo. /help lists commands; to send the line as a message, begin it with //\n"


def test_errors_of_a_person_are_replies(chat):
    assert talk(chat, "/foo", screen=Screen(interactive=False, has_person=True)) == 0


def test_verbose_shows_the_speed_of_every_answer(chat, capsys):
    talk(chat, "/verbose on", "France?", "/retry")
    notes = capsys.readouterr().err.splitlines()
    assert len(notes) == 2
    assert all(note.startswith("note: 7 tokens in ") and note.endswith(" tokens per second") for note in notes)


class Tty(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("term", "stderr_is_a_terminal"), [("xterm", False), ("dumb", True), ("dumb", False)])
def test_a_prompt_is_visible_if_stdout_is_a_pipe(chat, monkeypatch, capsys, term, stderr_is_a_terminal):
    """As in `python chat.py | tee log`, with stderr on the terminal or not."""
    monkeypatch.setenv("TERM", term)
    stderr, screen = Tty() if stderr_is_a_terminal else io.StringIO(), Screen(interactive=False, has_person=True)
    monkeypatch.setattr(sys, "stdin", Tty("Hi\nthere\n"))
    monkeypatch.setattr(sys, "stderr", stderr)
    assert list(read_lines(screen, chat.commands)) == ["Hi\n", "there\n"]
    assert stderr.getvalue().startswith("note: /help lists commands; Ctrl-D or /quit leaves\n")
    shown_on = stderr.getvalue() if stderr_is_a_terminal else capsys.readouterr().out
    assert shown_on.endswith("You: You: You: \n")


def test_lines_inside_quotes_have_no_prompt(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", Tty('"""\ntwo\n"""\nx\n'))
    monkeypatch.setattr(sys, "stderr", Tty())
    list(prompted_lines(Screen(interactive=False)))
    assert sys.stderr.getvalue() == 'You: (""" ends) (""" ends) You: You: \n'


def test_lines_are_edited_on_stderr_if_stdout_is_a_pipe(chat, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    outputs, screen = [], Screen(interactive=False, has_person=True)
    monkeypatch.setattr("prompt_toolkit.output.create_output", lambda stream: outputs.append(stream) or DummyOutput())
    monkeypatch.setattr(sys, "stdin", Tty())
    monkeypatch.setattr(sys, "stderr", Tty())
    with terminal_with_keys("helo\x1b[Dl\r\x04"):
        assert list(read_lines(screen, chat.commands)) == ["hello"]
    assert outputs == [sys.stderr]


def test_the_notes_about_an_answer_come_before_the_empty_line(chat, monkeypatch, capsys):
    monkeypatch.setattr(Screen, "_print", lambda self, text, style, file: print(text, end=""))
    stream = stream_that_fails_once(["Once "], KeyboardInterrupt())
    talk(chat, "France?", screen=Screen(interactive=True, verbose=True))
    monkeypatch.setattr(TextGenerator, "stream", stream)
    talk(chat, "Tell", screen=Screen(interactive=True))
    answered, stopped = capsys.readouterr().out.split("\n\n", 1)
    assert answered.startswith(f"Assistant: {ANSWER}\n(7 tokens in ") and answered.endswith(" tokens per second)")
    assert stopped == "Assistant: Once\n(Stopped. /retry answers again)\n\n"


def test_ctrl_c_stops_an_answer_but_not_the_chat(chat, monkeypatch, capsys):
    monkeypatch.setattr(TextGenerator, "stream", stream_that_fails_once(["Once upon ", "a time "], KeyboardInterrupt()))
    with terminal_with_keys():
        talk(chat, "Tell", "France?", screen=Screen(interactive=True))
    texts = [message.text for message in chat.backend.messages]
    assert texts == ["Tell", "Once upon a time", "France?", ANSWER]
    assert capsys.readouterr().out == f"Once upon a time\n\n{ANSWER}\n\n"


def test_ctrl_c_of_a_person_at_a_dumb_terminal_stops_the_answer_only(chat, monkeypatch):
    monkeypatch.setattr(TextGenerator, "stream", stream_that_fails_once(["Once "], KeyboardInterrupt()))
    assert talk(chat, "Tell", "France?", screen=Screen(interactive=False, has_person=True)) == 0
    assert len(chat.backend.turns) == 2


def test_typed_lines_can_be_edited_and_cleared(chat):
    left = "\x1b[D"
    with terminal_with_keys(f"helo{left}l\r" + "cleared\x03" + "\x03" + "bye\r" + "\x04"):
        assert list(typed_lines(Screen(interactive=True), chat.commands)) == ["hello", "", "", "bye"]


def test_enter_after_opening_quotes_starts_a_new_line(chat):
    with terminal_with_keys('"""two\rlines"""\rone\r\x04'):
        assert list(typed_lines(Screen(interactive=True), chat.commands)) == ['"""two\nlines"""', "one"]


def test_an_editor_can_be_opened(chat, monkeypatch, tmp_path):
    editor = tmp_path / "editor.sh"
    editor.write_text('#!/bin/sh\nprintf "%s edited" "$(cat "$1")" > "$1"\n', encoding="utf-8")
    editor.chmod(0o755)
    monkeypatch.setenv("VISUAL", str(editor))
    with terminal_with_keys("text\x18\x05"):
        assert next(typed_lines(Screen(interactive=True), chat.commands)) == "text edited"


def screen_with_typed(*lines):
    """A screen of a person who typed these lines before the prompt, the last one without Enter."""
    screen = Screen(interactive=False, has_person=True)
    *ended, screen.type_ahead._line = lines
    screen.type_ahead._lines.extend(ended)
    return screen


def test_each_line_typed_before_the_prompt_waits_unsent_in_a_prompt_of_its_own(chat):
    screen = screen_with_typed("/undo", "/retry", "Who wrote")
    screen.interactive = True
    with terminal_with_keys("\r\r Hamlet?\r\x04"):
        assert list(typed_lines(screen, chat.commands)) == ["/undo", "/retry", "Who wrote Hamlet?"]
    assert screen.type_ahead.take() == ""


class InterruptedOnce(Tty):
    """Ctrl-C is pressed at the first prompt."""

    interrupted = False

    def readline(self):
        if not self.interrupted:
            self.interrupted = True
            raise KeyboardInterrupt
        return super().readline()


def test_a_dumb_terminal_shows_what_was_typed_during_the_answer_and_sends_it_after_enter(monkeypatch, capsys):
    screen = screen_with_typed("Who wro")
    monkeypatch.setattr(sys, "stdin", Tty("te Hamlet?\n"))
    assert list(prompted_lines(screen)) == ["Who wrote Hamlet?\n"]
    out, err = capsys.readouterr()
    assert out == "You: Who wroYou: \n"
    assert err == "note: Typed earlier, not sent yet: Enter sends it, Ctrl-C drops it\n"


def test_ctrl_c_at_the_prompt_of_a_dumb_terminal_does_not_leave_the_chat(monkeypatch, capsys):
    screen = screen_with_typed("dropped")
    monkeypatch.setattr(sys, "stdin", InterruptedOnce("Hi\n"))
    assert list(prompted_lines(screen)) == ["", "Hi\n"]
    assert "Ctrl-D or /quit leaves the chat" in capsys.readouterr().err


def test_a_stopped_answer_can_be_asked_for_again(chat, monkeypatch, capsys):
    monkeypatch.setattr(TextGenerator, "stream", stream_that_fails_once([], KeyboardInterrupt()))
    talk(chat, "France?", "/retry", screen=Screen(interactive=False, has_person=True))
    assert capsys.readouterr().err == "note: Stopped. /retry answers again\n"
    assert chat.backend.turns == [("France?", ANSWER)]


@pytest.mark.parametrize(
    ("lines", "deleted"), [(["yes"], True), (["YES"], True), (["", "yes"], False), (["no", "yes"], False)]
)
def test_yes_right_after_a_question_confirms_it(chat, capsys, lines, deleted):
    def wipe(argument):
        return "Deleted." if argument == "yes" else Question("This deletes it.", "/wipe yes")

    chat.commands.append(Command("/wipe", "delete it", wipe, "yes", deletes=True))
    talk(chat, "/wipe", *lines)
    out = capsys.readouterr().out
    assert out.startswith("This deletes it. To confirm, type yes.\n") and ("Deleted." in out) == deleted
    assert len(chat.backend.turns) == (0 if deleted else len(list(filter(None, lines))))


def test_an_empty_line_follows_the_hint_how_to_leave(chat, monkeypatch, capsys):
    monkeypatch.setattr(Screen, "_print", lambda self, text, style, file: print(text, end=""))
    with terminal_with_keys("\x03\x04"):
        assert list(typed_lines(Screen(interactive=True), chat.commands)) == [""]
    assert capsys.readouterr().out == "(Ctrl-D or /quit leaves the chat)\n\n"


def test_a_line_typed_before_the_prompt_is_noted_once(chat, monkeypatch, capsys):
    screen = screen_with_typed("Who?", "Why?")
    screen.interactive = True
    monkeypatch.setattr(Screen, "_print", lambda self, text, style, file: print(text, end=""))
    with terminal_with_keys("\r\r\x04"):
        assert list(typed_lines(screen, chat.commands)) == ["Who?", "Why?"]
    assert capsys.readouterr().out == "(Typed earlier, not sent yet: Enter sends it, Ctrl-C drops it)\n"
