"""The lines typed in earlier chats."""

import os
from pathlib import Path

import pytest

from src.memory import private_files
from src.memory.typed_history import TypedHistory


def test_lines_are_saved_for_the_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "sessions" / "typed_lines"
    TypedHistory(path, pytest.fail).store_string("a\nb\ud800")
    assert list(TypedHistory(path, pytest.fail).load_history_strings()) == ["a\nb\N{REPLACEMENT CHARACTER}"]
    assert os.name == "nt" or path.stat().st_mode & 0o777 == 0o600


def test_foreign_bytes_are_read_as_far_as_possible(tmp_path: Path) -> None:
    path = tmp_path / "typed_lines"
    path.write_bytes(b"\xff\xfe\n+good\n\x00\n+\xff\n")
    assert list(TypedHistory(path, pytest.fail).load_history_strings()) == ["\N{REPLACEMENT CHARACTER}", "good"]


def test_a_failed_deletion_names_the_file_and_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    history = TypedHistory(tmp_path / "typed_lines", pytest.fail)
    history.append_string("a")
    monkeypatch.setattr(private_files, "LOCK_TIMEOUT_S", 0.1)
    with (
        private_files.locked(tmp_path),
        pytest.raises(OSError, match="typed_lines: nothing is deleted .*locked") as error,
    ):
        history.delete(lambda _: True)
    assert "--memory-dir" not in str(error.value)  # chat.py has no such flag
    assert history.delete(lambda _: True) == 1


def test_an_unusable_file_is_noted_and_the_chat_continues(tmp_path: Path) -> None:
    notes: list[str] = []
    path = tmp_path / "typed_lines"
    path.mkdir()
    history = TypedHistory(path, notes.append)
    assert list(history.load_history_strings()) == []
    for line in ("a", "b"):
        history.append_string(line)
    assert len(notes) == 1 and notes[0].startswith(f"Typed lines are not saved for the arrow keys: {path}: ")
    assert history.delete(lambda line: line == "a") == 1 and history.get_strings() == ["b"]
