"""The lines typed in earlier chats, for the arrow keys."""

from collections.abc import Callable
from pathlib import Path

from prompt_toolkit.history import FileHistory

from src.common.messages import without_surrogates
from src.memory.private_files import make_private_folder


class TypedHistory(FileHistory):
    """prompt_toolkit's history in a file that only its owner can read. `notify` gets a message if a write fails.

    Raises OSError if the file cannot be created.
    """

    def __init__(self, path: Path, notify: Callable[[str], None]) -> None:
        make_private_folder(path.parent)
        path.touch(mode=0o600)
        super().__init__(str(path))
        self._path, self._notify = path, notify

    def store_string(self, string: str) -> None:
        try:
            super().store_string(without_surrogates(string))
        except OSError as error:
            self._notify(f"{self._path}: could not save this line in the history ({error.strerror})")
