"""Vocabularies in files: they round-trip, and damaged or other files are refused."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from src.common import atomic_file
from src.tokenizer.core.exceptions import (
    FileAccessError,
    MissingFileError,
    TokenizerError,
    VocabularyError,
)
from src.tokenizer.core.models import Vocabulary
from src.tokenizer.vocabulary.storage import load_vocabulary, save_vocabulary

VOCABULARY = Vocabulary(["<UNK>", "<ENDOFTEXT>", "\n", "caf\xe9", "\u201c", "\ud83d"], ["spaces", "unicode"])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "new folder" / "words.json"


def error(file: Path, kind: type[Exception] = VocabularyError) -> str:
    with pytest.raises(kind) as caught:
        load_vocabulary(file)
    assert isinstance(caught.value, TokenizerError)
    message = str(caught.value)
    assert message.startswith(str(file)) and "\n" not in message
    return message.removeprefix(str(file))


def test_a_vocabulary_round_trips(file: Path) -> None:
    save_vocabulary(VOCABULARY, file)
    assert load_vocabulary(file) == VOCABULARY
    assert [*file.parent.iterdir()] == [file]


# Changes to a valid file, and the error that they cause. None removes the entry.
DAMAGE: list[tuple[dict[str, Any], str]] = [
    ({"format": "weights"}, "it is not a vocabulary of this project"),
    ({"version": 2}, "its version is 2, this program reads version 1"),
    ({"version": True}, "its version is True, this program reads version 1"),
    ({"version": None}, "its version is None, this program reads version 1"),
    ({"tokens": None}, "its 'tokens' must be a list of strings"),
    ({"tokens": ["<UNK>", "<ENDOFTEXT>", 3]}, "its 'tokens' must be a list of strings"),
    ({"tokens": "<UNK>"}, "its 'tokens' must be a list of strings"),
    ({"cleaning": [None]}, "its 'cleaning' must be a list of strings"),
    ({"cleaning": ["magic"]}, "there is no cleaning rule 'magic'; choose from line_ends, "),
    ({"tokens": ["<UNK>", "<ENDOFTEXT>", "a", "a"]}, "the vocabulary has 'a' twice, as id 2 and 3; "),
    ({"tokens": ["<UNK>", "a"]}, "the vocabulary starts with ['<UNK>', 'a'], not with "),
    ({"tokens": ["<UNK>", "<ENDOFTEXT>", "a"]}, "its content does not match its hash: it was edited or"),
    ({"cleaning": ["spaces"]}, "its content does not match its hash: "),
    ({"more": 1}, "its content does not match its hash: "),
    ({"sha256": None}, "its content does not match its hash: "),
]


@pytest.mark.parametrize(("change", "problem"), DAMAGE)
def test_a_changed_file_is_refused(file: Path, change: dict[str, Any], problem: str) -> None:
    save_vocabulary(VOCABULARY, file)
    content = {**json.loads(file.read_bytes()), **change}
    file.write_text(json.dumps({k: v for k, v in content.items() if v is not None}), encoding="utf-8")
    message = error(file)
    assert message.startswith(f" is not a usable vocabulary: {problem}")
    assert message.endswith("; build it again from the text and save it")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"1" * 5000, b'"\\ud8'])
def test_invalid_json_is_refused(file: Path, content: bytes) -> None:
    file.parent.mkdir()
    file.write_bytes(content)
    assert error(file).startswith(" is not a usable vocabulary: it is not JSON, or truncated;")


@pytest.mark.parametrize("content", [b"[]", b"null", b"{}", b'"text"'])
def test_other_json_is_refused(file: Path, content: bytes) -> None:
    file.parent.mkdir()
    file.write_bytes(content)
    assert error(file).startswith(" is not a usable vocabulary: it is not a vocabulary of this project;")


def test_a_missing_file_and_a_folder_are_named(file: Path) -> None:
    assert "not found; check the path, or create it with TokenizerApplication.save_vocabulary" in error(
        file, MissingFileError
    )
    file.mkdir(parents=True)
    assert "cannot be read (" in error(file, FileAccessError)


def test_a_failed_save_leaves_the_old_file_unchanged(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_vocabulary(VOCABULARY, file)

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(atomic_file.os, "fsync", full)
    with pytest.raises(FileAccessError, match="cannot be written .*; its old content is unchanged; choose"):
        save_vocabulary(Vocabulary(["<UNK>", "<ENDOFTEXT>", "other"], []), file)
    assert load_vocabulary(file) == VOCABULARY
    assert [*file.parent.iterdir()] == [file]


def test_a_path_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileAccessError, match="words.json cannot be written .*; choose another path$"):
        save_vocabulary(VOCABULARY, tmp_path / "file" / "words.json")
