"""An empty folder for the learner's answers. No test reads or changes the real one."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import exercises
from exercises import start


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that takes the place of exercises/answers. It does not exist yet. The current folder is its parent."""
    monkeypatch.setattr(start, "ANSWERS", tmp_path / "answers")
    monkeypatch.setattr(exercises, "__path__", [str(tmp_path)])
    monkeypatch.chdir(tmp_path)
    forget_answers()
    yield tmp_path / "answers"
    forget_answers()


def forget_answers() -> None:
    """Make the next import of an answer read its file again."""
    for name in [name for name in sys.modules if name.split(".")[:2] == ["exercises", "answers"]]:
        del sys.modules[name]
