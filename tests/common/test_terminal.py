"""What a terminal can do."""

import io

import pytest

from src.common.terminal import has_colours, in_terminal_width, is_terminal


class Tty(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("environ", "terminal", "colours"),
    [
        ({"TERM": "xterm"}, True, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, True, False),
        ({"TERM": "xterm", "NO_COLOR": ""}, True, True),  # no-color.org: an empty value counts as unset
        ({"TERM": "dumb"}, False, False),
    ],
)
def test_no_color_and_dumb_terminals_are_respected(monkeypatch, environ, terminal, colours):
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert (is_terminal(Tty()), has_colours(Tty())) == (terminal, colours)
    assert not has_colours(io.StringIO()) and not is_terminal(None)


def test_a_long_line_is_broken_between_words_on_a_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    text = "exercise 1 (dot_product): not yet: for a [1.0, 2.0]\n    return a * b --with-a-flag"
    assert in_terminal_width(text, io.StringIO()) == in_terminal_width(text, None) == text
    assert in_terminal_width(text, Tty(), indent="    ").splitlines() == [
        "exercise 1 (dot_product): not",
        "    yet: for a [1.0, 2.0]",
        "    return a * b --with-a-flag",
    ]
