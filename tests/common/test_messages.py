"""Messages fit on one line and can be encoded."""

import os
from pathlib import Path

import pytest

from src.common.messages import capitalised, naming_file, one_line, shown_command, visible, without_surrogates


def test_an_error_becomes_one_line() -> None:
    assert one_line(ValueError(" two\r\nlines ")) == "two lines"
    assert one_line(ValueError()) == "ValueError"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31m\x07\x7f\x9b", r"a\x1b[31m\x07\x7f\x9b"),
        ("a\rb\u202ec\u2066\udcff", r"a\rb\u202ec\u2066\udcff"),
        ("Ž\t字\n👩‍🚀", "Ž\t字\n👩‍🚀"),
    ],
)
def test_unprintable_characters_become_visible(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert one_line(ValueError(text)) == " ".join(shown.replace(r"a\rb", "a b").split())


@pytest.mark.skipif(os.name == "nt", reason="another shell")
def test_a_shown_command_can_be_pasted() -> None:
    assert shown_command(["python", "main.py", "--out", "my run", "$x"]) == "python main.py --out 'my run' '$x'"


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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("there is no fact 7", "There is no fact 7"),
        ("max-tokens must be", "max-tokens must be"),
        ("stopped", "Stopped"),
        ("logs/x.json: damaged", "logs/x.json: damaged"),
        ("nowhere: no such file", "nowhere: no such file"),
        ("my model.pt: damaged", "my model.pt: damaged"),
        ("the model: damaged", "The model: damaged"),
        ("--seed is", "--seed is"),
        ("", ""),
    ],
)
def test_a_message_begins_with_a_capital_unless_it_begins_with_a_name(
    text: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my model.pt").touch()
    assert capitalised(text) == shown
