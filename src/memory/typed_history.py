"""The lines typed in earlier chats, for the arrow keys."""

from collections.abc import Callable, Iterable
from pathlib import Path

from prompt_toolkit.history import FileHistory

from src.common.messages import without_surrogates
from src.memory.private_files import locked, make_private_folder, write_private


class TypedHistory(FileHistory):
    """prompt_toolkit's history in a file that only its owner can read. `notify` gets a message if the disk fails."""

    def __init__(self, path: Path, notify: Callable[[str], None]) -> None:
        super().__init__(str(path))
        self._path, self._notify = path, notify
        try:
            make_private_folder(path.parent)
            path.touch(mode=0o600)
            path.open("rb").close()
        except OSError as error:
            notify(f"{path}: could not be opened, so the arrow keys know this chat only ({error.strerror or error})")

    def load_history_strings(self) -> Iterable[str]:
        try:
            return super().load_history_strings()
        except OSError:  # the user knows: see __init__
            return []

    def store_string(self, string: str) -> None:
        try:
            super().store_string(without_surrogates(string))
        except OSError as error:
            self._notify(f"{self._path}: could not save this line in the history ({error.strerror})")

    def delete(self, is_deleted: Callable[[str], bool]) -> int:
        """Delete the lines for which `is_deleted` is true, here and in the file, and return their number.

        Raises OSError with a one-line message if the file cannot be written.
        """
        with locked(self._path.parent):
            lines = list(self.load_history_strings())  # newest first; other chats may have added some
            kept = [line for line in lines if not is_deleted(line)]
            if len(kept) < len(lines):
                write_private(self._path, b"")
                for line in reversed(kept):
                    self.store_string(line)
        self._loaded_strings = [line for line in self._loaded_strings if not is_deleted(line)]
        return len(lines) - len(kept)
