"""The output of a script: what reaches the terminal, and what happens if it cannot be written."""

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tqdm import tqdm

from src.common.output import Output


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


class Broken(io.TextIOWrapper):
    """A stream whose writes fail as on a full disk."""

    error: Exception = OSError(28, "No space left on device")

    def write(self, _: str) -> int:
        raise self.error


@pytest.fixture
def broken(tmp_path: Path) -> Iterator[Broken]:
    with open(tmp_path / "out", "wb") as file, Broken(file) as stream:
        yield stream


def sent(stream: io.StringIO, text: str) -> str:
    """What reaches the stream."""
    print(text, file=Output(stream, pytest.fail), end="")
    return stream.getvalue()


@pytest.mark.parametrize("text", ["a\x1b]0;x\x07b", "a\rb", "\x1b[31mred", "\x1b[2J", "\x9b1m", "a\u202eb", "\x00"])
@pytest.mark.parametrize("kind", [Terminal, io.StringIO])
def test_control_characters_are_shown(kind: type[io.StringIO], text: str) -> None:
    assert sent(kind(), text) == "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


@pytest.mark.parametrize("text", ["\x1b[0;1;32mgreen\x1b[0m, \x1b[1mbold\x1b[0m", "\rbar   ", "\x1b[A\x1b[A"])
def test_styles_and_progress_bars_reach_a_terminal_only(text: str) -> None:
    assert sent(Terminal(), text) == text
    assert "\x1b" not in sent(io.StringIO(), text) and "\r" not in sent(io.StringIO(), text)


def test_a_progress_bar_is_redrawn_through_it() -> None:
    direct, through = Terminal(), Terminal()
    for stream, file in ((direct, direct), (through, Output(through, pytest.fail))):
        with tqdm(total=3, file=file, mininterval=0, bar_format="{desc}{n}") as bar, tqdm(file=file, bar_format="{n}"):
            bar.update(1)
        assert stream.getvalue().count("\x1b[A") > 0
    assert through.getvalue() == direct.getvalue()


def test_the_first_failing_write_is_reported_and_later_text_is_dropped(broken: Broken) -> None:
    errors: list[OSError] = []
    output = Output(broken, errors.append)
    for _ in range(3):
        print("text", file=output, flush=True)
    assert errors == [broken.error]
    os.write(broken.fileno(), b"what is still in a buffer")
    assert Path(broken.name).read_bytes() == b""


def test_a_write_from_a_signal_handler_may_be_refused(broken: Broken) -> None:
    broken.error = RuntimeError("reentrant call inside <_io.BufferedWriter>")
    print("text", file=Output(broken, pytest.fail), end="")


def test_it_has_the_other_attributes_of_its_stream(broken: Broken) -> None:
    output = Output(broken, pytest.fail)
    assert (output.fileno(), output.encoding, output.buffer) == (broken.fileno(), broken.encoding, broken.buffer)
