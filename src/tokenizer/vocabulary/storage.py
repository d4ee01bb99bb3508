"""Save and load vocabularies: self-describing JSON with a hash, written atomically."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src.common.atomic_file import atomic_write
from src.common.checks import is_whole_number
from src.tokenizer.core.constants import VERSION
from src.tokenizer.core.exceptions import (
    FileAccessError,
    MissingFileError,
    TokenizerError,
    VocabularyError,
)
from src.tokenizer.core.models import Vocabulary
from src.tokenizer.processing.cleaner import TextCleaner

_FORMAT = "word vocabulary"


def vocabulary_state(vocabulary: Vocabulary) -> dict[str, Any]:
    """The plain values that describe a vocabulary."""
    return {"version": VERSION, "cleaning": list(vocabulary.cleaning), "tokens": list(vocabulary.tokens)}


def vocabulary_from_state(state: Mapping[str, Any]) -> Vocabulary:
    """The vocabulary that `vocabulary_state` described. Every value is checked.

    Raises VocabularyError or SettingError that says what is wrong.
    """
    version, cleaning, tokens = (state.get(key) for key in ("version", "cleaning", "tokens"))
    if not is_whole_number(version) or version != VERSION:
        raise VocabularyError(f"its version is {version!r:.60}, this program reads version {VERSION}")
    for key, value in (("cleaning", cleaning), ("tokens", tokens)):
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise VocabularyError(f"its {key!r} must be a list of strings")
    assert isinstance(cleaning, list) and isinstance(tokens, list)
    return Vocabulary(tokens, TextCleaner(cleaning).rules)


def save_vocabulary(vocabulary: Vocabulary, path: Path) -> None:
    """Write a vocabulary as JSON, atomically. Raises FileAccessError if it cannot be written."""
    state = vocabulary_state(vocabulary)
    content = json.dumps({"format": _FORMAT, **state, "sha256": _hash(state)}, indent=0)
    try:
        with atomic_write(path) as file:
            file.write(content.encode("utf-8"))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise FileAccessError(
            f"{path} cannot be written ({reason}); its old content is unchanged; choose another path"
        ) from None


def load_vocabulary(path: Path) -> Vocabulary:
    """The vocabulary in a file that `save_vocabulary` wrote.

    Raises MissingFileError, FileAccessError, or VocabularyError if the file is damaged, edited or not a vocabulary.
    """
    content = _json_object(path)
    state = {key: value for key, value in content.items() if key not in ("format", "sha256")}
    try:
        if content.get("format") != _FORMAT:
            raise VocabularyError("it is not a vocabulary of this project")
        vocabulary = vocabulary_from_state(state)
        if content.get("sha256") != _hash(state):
            raise VocabularyError("its content does not match its hash: it was edited or is damaged")
    except TokenizerError as error:
        raise _unusable(path, str(error)) from None
    return vocabulary


def _json_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise MissingFileError(
            f"{path} not found; check the path, or create it with TokenizerApplication.save_vocabulary"
        ) from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise FileAccessError(
            f"{path} cannot be read ({reason}); check its permissions, and that it is a file"
        ) from None
    except (ValueError, RecursionError):  # not UTF-8, not JSON, or nested too deeply
        raise _unusable(path, "it is not JSON, or truncated") from None
    if not isinstance(content, dict):
        raise _unusable(path, "it is not a vocabulary of this project")
    return content


def _unusable(path: Path, problem: str) -> VocabularyError:
    return VocabularyError(f"{path} is not a usable vocabulary: {problem}; build it again from the text and save it")


def _hash(state: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode("ascii")).hexdigest()
