"""What a terminal can do."""

import io

import pytest

from src.common.terminal import has_colours, is_terminal


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
