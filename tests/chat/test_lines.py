"""Which lines make a message."""

import pytest

from src.chat.lines import messages


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["Hello\n", " /why \n"], [("Hello", False), ("/why", False)]),
        (['"""\n', "/two\n", "\n", "lines\n", '"""\n', "x"], [("/two\n\nlines", True), ("x", False)]),
        (['"""one\n', 'two"""\n'], [("one\ntwo", True)]),
        (['"""exit"""'], [("exit", True)]),
        (['"""\nfrom an editor\n"""'], [("from an editor", True)]),
        (['"""\n', "never closed\n"], [("never closed", True)]),
        (['He said """no""".'], [('He said """no""".', False)]),
        (['"""', '"""'], [("", True)]),
    ],
)
def test_triple_quotes_make_one_message(lines, expected):
    assert list(messages(lines)) == expected
