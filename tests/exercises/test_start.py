"""python -m exercises.start: every stub is copied once, and no answer is changed."""

import os
from pathlib import Path

import pytest

from exercises import check, start

MODULES = sorted({exercise.module for exercise in check.all_exercises().values()})


def test_every_stub_is_copied_and_is_to_do(answers: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert start.main([]) == 0
    assert capsys.readouterr().out.splitlines() == [
        *(f"created {Path('answers', module)}.py" for module in MODULES),
        "Write your answers in answers; git ignores this folder.",
        "The first task is in exercises/attention_exercises.md. Check your answer to it: python -m exercises.check 1",
    ]
    assert check.main([]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    states = [line.split(maxsplit=2)[2] for line in lines if line.startswith("  ")]
    assert set(states) == {"to do"}, "an answer is in exercises/, where git keeps the stubs: move it to answers/"
    assert last == f"0 of {len(states)} done; next: python -m exercises.check 1"


def test_a_second_start_changes_no_answer(answers: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start.main([])
    broken, shorter, deleted, *others = (answers / f"{module}.py" for module in MODULES)
    broken.write_text(broken.read_text(encoding="utf-8") + "\n1 +\n", encoding="utf-8")
    removed = start.FUNCTION.findall(shorter.read_text(encoding="utf-8"))
    shorter.write_text("x = 1\n", encoding="utf-8")
    deleted.unlink()
    before = broken.read_bytes()
    capsys.readouterr()
    assert start.main([]) == 0
    lines = capsys.readouterr().out.splitlines()[:3]
    assert lines[0] == f"kept    {broken.relative_to(answers.parent)}" and broken.read_bytes() == before
    assert lines[1].startswith(f"kept    {shorter.relative_to(answers.parent)}; copy what it lacks from ")
    assert lines[1].endswith(", ".join(removed)) and shorter.read_text(encoding="utf-8") == "x = 1\n"
    assert lines[2] == f"created {deleted.relative_to(answers.parent)}" and deleted.exists()


def test_a_folder_that_cannot_be_written_is_an_error(answers: Path) -> None:
    answers.write_text("a file", encoding="utf-8")
    with pytest.raises(OSError, match="^can't write to answers: .+; it must be a folder that you may write to$"):
        start.main([])
    assert os.listdir(answers.parent) == ["answers"]
