"""What the screen shows: streamed and wrapped answers, without control characters."""

import io
import os
import sys

import pytest
from prompt_toolkit.utils import get_cwidth

from src.chat.screen import Screen, printable, wrapped


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_broken_pipe_keeps_the_partial_answer(session, monkeypatch):
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            if "Paris" in text:
                raise BrokenPipeError
            return len(text)

    answer = session.reply("France?")
    monkeypatch.setattr(sys, "stdout", Closed())
    with pytest.raises(BrokenPipeError):
        Screen(interactive=False).show_answer(answer)
    assert session.messages[1].text == "Paris"


def test_printable_keeps_text_and_replaces_control_characters():
    text = "caf\u00e9 \u4e16\u754c \U0001f468\u200d\U0001f469\n"
    assert printable(text) == text
    assert printable("a\x00b\x1b]0;title\x07\x7f\x9b") == "a\ufffdb\ufffd]0;title\ufffd\ufffd\ufffd"
    assert printable("one\r\ntwo\tthree \u202eevil\ud800") == "one\ntwo    three \ufffdevil\ufffd"


def test_wrapping_does_not_split_words():
    text = "Once upon a time there was a king, " * 4 + "and\n\nthe end" + "\u4e16\u754c" * 20
    pieces = [text[i : i + 3] for i in range(0, len(text), 3)]
    for width in range(14, 60):
        shown = "".join(wrapped(pieces, lambda: width, 11))  # noqa: B023
        first, *others = shown.split("\n")
        assert get_cwidth(first) <= width - 11
        assert all(get_cwidth(line) <= width for line in others)
        assert shown.split()[:34] == text.split()[:34]
        assert "".join(shown.split()) == "".join(text.split())
    assert "".join(wrapped(pieces, lambda: 1000, 11)) == text


def test_wrapped_answers_stream_word_by_word():
    def pieces():
        yield from ["One", " two", " thr"]
        raise AssertionError("read ahead before showing a complete word")

    shown = wrapped(pieces(), lambda: 80)
    assert [next(shown) for _ in range(4)] == ["One", " ", "two", " "]


def test_a_word_longer_than_the_line_is_not_held_back():
    for text in ("x" * 25, "\u4e16" * 25):
        shown = list(wrapped([text], lambda: 10))
        assert "".join(shown).replace("\n", "") == text
        assert max(map(get_cwidth, shown)) <= 10


def test_a_window_that_changes_its_width_during_the_text_is_followed():
    widths = [20]
    shown = wrapped(["one two three four five six seven eight"], lambda: widths[0])
    start = "".join(next(shown) for _ in range(8))
    widths[0] = 10
    assert (start, "".join(shown)) == ("one two three four ", "\nfive six \nseven \neight")


def test_words_stay_whole_on_every_terminal(monkeypatch):
    """Also on one that can only print (TERM=dumb), and with --prompt."""

    monkeypatch.setenv("COLUMNS", "12")
    monkeypatch.setattr(sys, "stdout", Tty())
    monkeypatch.setattr(sys, "stderr", Tty())
    screen = Screen(interactive=False)
    screen.notify("two words too many")
    screen.show_answer((piece for piece in ["Paris is", " the capital."]), label="")
    assert sys.stderr.getvalue() == "note: Two \nwords too \nmany\n"
    assert sys.stdout.getvalue() == "Paris is the\ncapital.\n"


def test_notes_are_wrapped_on_the_terminal_if_stderr_is_a_file(monkeypatch):
    """As in `python chat.py 2>errors`: on a terminal, notes go to stdout."""
    monkeypatch.setenv("COLUMNS", "12")
    shown = []
    monkeypatch.setattr("prompt_toolkit.print_formatted_text", lambda text, **_: shown.append(text[0][1]))
    monkeypatch.setattr(sys, "stdout", Tty())
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    Screen(interactive=True).notify("two words too many")
    assert shown == ["(Two words \ntoo many)\n"]


def test_a_note_waits_until_tee_has_printed_the_answer(monkeypatch):
    pauses = []
    monkeypatch.setattr("time.sleep", pauses.append)
    for screen in (Screen(interactive=False, has_person=True), Screen(interactive=False)):
        screen.notify("stdout is no pipe")
    assert pauses == []
    monkeypatch.setattr("src.chat.screen.is_pipe", lambda stream: stream is sys.stdout)
    Screen(interactive=False, has_person=True).notify("remembered")
    Screen(interactive=False).notify("no person waits for it")
    assert len(pauses) == 1


@pytest.mark.parametrize(
    ("has_person", "shown"), [(True, "Paris is the\ncapital.\n\n"), (False, "Paris is the capital.\n")]
)
def test_words_stay_whole_if_a_person_types_and_stdout_is_a_pipe(monkeypatch, has_person, shown):
    """As in `python chat.py | tee log`. Another program reads the text as it is."""
    monkeypatch.setenv("COLUMNS", "12")
    read, write = os.pipe()
    with open(read, encoding="utf-8") as reader:
        with open(write, "w", encoding="utf-8") as stdout:
            monkeypatch.setattr(sys, "stdout", stdout)
            screen = Screen(interactive=False, has_person=has_person)
            screen.show_answer((piece for piece in ["Paris is", " the capital."]), label="")
            screen.end_turn()
        assert reader.read() == shown
