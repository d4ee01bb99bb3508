"""What is typed while an answer appears, on a real pseudo-terminal."""

import os
import sys

import pytest

from src.chat.type_ahead import TypeAhead

pty = pytest.importorskip("pty", reason="Windows has no pseudo-terminals")
termios = pytest.importorskip("termios")


@pytest.fixture
def keyboard(monkeypatch):
    """Presses keys on a terminal that is stdin. What is typed is a line of its own after each Enter, here a |."""
    master, slave = pty.openpty()
    stdin = os.fdopen(slave, encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", stdin)
    yield lambda keys: os.write(master, keys)
    stdin.close()
    os.close(master)


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        (b"Who wrote", "Who wrote"),
        (b"Who?\r\rWhy?\rHow", "Who?|Why?|How"),
        (b'"""one\rtwo"""\r/undo\r', '"""one\ntwo"""|/undo'),
        (b"Whoo\x7f?", "Who?"),
        (b"\x1b[200~one\r\ntwo\x1b[201~", "one\ntwo"),
        (b"a\x1b[A\x1b[Db", "ab"),  # arrows do nothing here
        (b"if x:\r\treturn", "if x:|\treturn"),  # pasted at a terminal that does not mark it
        ("Äpfel \u732b".encode(), "Äpfel \u732b"),
        (b"", ""),
    ],
)
def test_keys_are_collected(keyboard, keys, text):
    with TypeAhead(active=True) as type_ahead:
        keyboard(keys)
        with type_ahead.paused():
            assert [type_ahead.take() for _ in text.split("|")] == text.split("|")
            assert type_ahead.take() == ""


def test_a_long_paste_survives_if_it_is_read_along(keyboard):
    text = "word " * 3000
    with TypeAhead(active=True) as type_ahead:
        for start in range(0, len(text), 1000):
            keyboard(text[start : start + 1000].encode())
            type_ahead.read()
    assert type_ahead.take() == text


def test_the_terminal_shows_no_keys_meanwhile_and_is_as_before_afterwards(keyboard):
    before = termios.tcgetattr(sys.stdin)
    with TypeAhead(active=True):
        assert not termios.tcgetattr(sys.stdin)[3] & termios.ECHO
        assert termios.tcgetattr(sys.stdin)[3] & termios.ISIG  # Ctrl-C interrupts
    assert termios.tcgetattr(sys.stdin) == before


def test_a_prompt_and_an_exit_find_the_terminal_as_it_was(keyboard):
    before = termios.tcgetattr(sys.stdin)
    with TypeAhead(active=True) as type_ahead:
        with type_ahead.paused():
            assert termios.tcgetattr(sys.stdin) == before
        assert termios.tcgetattr(sys.stdin) != before
        type_ahead.restore()
        assert termios.tcgetattr(sys.stdin) == before


def test_after_the_shell_showed_the_keys_they_are_hidden_again(keyboard):
    """As after Ctrl-Z and fg during an answer."""
    before = termios.tcgetattr(sys.stdin)
    with TypeAhead(active=True) as type_ahead:
        hidden = termios.tcgetattr(sys.stdin)
        termios.tcsetattr(sys.stdin, termios.TCSANOW, before)
        type_ahead.read()
        assert termios.tcgetattr(sys.stdin) == hidden


def test_without_a_terminal_nothing_is_read(monkeypatch):
    with open(os.devnull, encoding="utf-8") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        with TypeAhead(active=True) as type_ahead:
            type_ahead.read()
    assert type_ahead.take() == ""
