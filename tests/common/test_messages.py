"""Messages fit on one line and can be encoded."""

from pathlib import Path

import pytest

from src.common.messages import naming_file, one_line, without_surrogates


def test_an_error_becomes_one_line() -> None:
    assert one_line(ValueError(" two\r\nlines ")) == "two lines"
    assert one_line(ValueError()) == "ValueError"


def test_the_stack_trace_of_a_torch_error_is_dropped() -> None:
    error = RuntimeError(
        "bad zip file\nException raised from valid at inline_container.cc:113 (most recent call first):\n#0"
    )
    assert one_line(error) == "bad zip file"


def test_value_errors_name_the_file_and_others_pass_through() -> None:
    with pytest.raises(ValueError, match="^model.pt: too small$"), naming_file(Path("model.pt")):
        raise ValueError("too small")
    with pytest.raises(KeyError, match="^'too small'$"), naming_file(Path("model.pt")):
        raise KeyError("too small")


def test_lone_surrogates_are_replaced_and_pairs_kept() -> None:
    assert without_surrogates("a\ud800b \U0001f600") == "a\N{REPLACEMENT CHARACTER}b \U0001f600"
