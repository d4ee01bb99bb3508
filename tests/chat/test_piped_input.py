"""A text that is piped to stdin next to --prompt."""

import os
import sys

import pytest

from src.chat import piped_input
from src.chat.piped_input import prompt_and_input


@pytest.fixture
def pipe(monkeypatch):
    """A function that makes stdin a pipe with some bytes in it, and the end that writes to it."""
    ends = []

    def pipe(content: bytes, *, closed: bool = True):
        reading, writing = os.pipe()
        os.write(writing, content)
        stdin = os.fdopen(reading, encoding="utf-8")
        ends.append(stdin)
        if closed:
            os.close(writing)
        else:
            ends.append(os.fdopen(writing, "wb"))
        monkeypatch.setattr(sys, "stdin", stdin)

    yield pipe
    for end in reversed(ends):
        end.close()


def test_piped_text_is_the_input_of_the_prompt(pipe):
    notes = []
    pipe("\ufeff\nSnow fell \u732b.\r\n\xff".encode()[:-1])
    assert prompt_and_input("What fell?", notes.append) == (
        "What fell?",
        "Snow fell \u732b.\r\n\N{REPLACEMENT CHARACTER}",
    )
    assert notes == ["stdin is the input of the prompt: 15 characters"]


def test_a_dash_reads_the_prompt_from_stdin(pipe):
    pipe(b"What fell?\n")
    assert prompt_and_input("-", pytest.fail) == ("What fell?\n", "")
    pipe(b" \n")
    with pytest.raises(ValueError, match="--prompt - reads the prompt from stdin, which is empty"):
        prompt_and_input("-", pytest.fail)


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_an_empty_pipe_adds_no_input(pipe, content):
    pipe(content)
    assert prompt_and_input("Hi", pytest.fail) == ("Hi", "")


def test_a_silent_pipe_does_not_hang(pipe, monkeypatch):
    monkeypatch.setattr(piped_input, "FIRST_BYTE_S", 0.01)
    notes = []
    pipe(b"", closed=False)
    assert prompt_and_input("Hi", notes.append) == ("Hi", "")
    assert len(notes) == 1 and "so it was not read; add </dev/null" in notes[0]


def test_a_terminal_or_a_closed_stdin_is_not_read(monkeypatch):
    class Terminal:
        def isatty(self):
            return True

    for stdin in (None, Terminal()):
        monkeypatch.setattr(sys, "stdin", stdin)
        assert prompt_and_input("Hi", pytest.fail) == ("Hi", "")


def test_an_endless_text_is_refused(pipe, monkeypatch):
    monkeypatch.setattr(piped_input, "MAX_BYTES", 1000)
    pipe(b"x" * 2000, closed=False)
    with pytest.raises(ValueError, match="stdin sends more than"):
        prompt_and_input("Hi", pytest.fail)
