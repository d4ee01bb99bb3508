"""The lines typed in earlier chats, for the arrow keys."""

from collections.abc import Callable, Iterable
from pathlib import Path

from prompt_toolkit.history import FileHistory

from src.common.messages import Notify, without_surrogates
from src.memory.private_files import locked, make_private_folder, reason, write_private


class TypedHistory(FileHistory):
    """prompt_toolkit's history in a file that only its owner can read.

    If the disk fails, `notify` gets one message, and later lines are not saved.
    """

    def __init__(self, path: Path, notify: Notify) -> None:
        super().__init__(str(path))
        self._path, self._notify, self._is_saved = path, notify, True
        try:
            make_private_folder(path.parent)
            path.touch(mode=0o600)
            path.open("rb").close()
        except OSError as error:
            self._stop_saving(error)

    def load_history_strings(self) -> Iterable[str]:
        try:
            return super().load_history_strings()
        except OSError:  # the user knows: see __init__
            return []

    def store_string(self, string: str) -> None:
        if not self._is_saved:
            return
        try:
            super().store_string(without_surrogates(string))
        except OSError as error:
            self._stop_saving(error)

    def _stop_saving(self, error: OSError) -> None:
        self._is_saved = False
        self._notify(f"Typed lines are not saved for the arrow keys: {self._path}: {reason(error)}")

    def delete(self, is_deleted: Callable[[str], bool]) -> int:
        """Delete the lines for which `is_deleted` is true, here and in the file, and return their number.

        Raises OSError with a one-line message if the file cannot be written.
        """
        if not self._path.is_file():
            return self._delete_here(is_deleted)
        try:
            with locked(self._path.parent):
                deleted = self._delete_from_file(is_deleted)
        except OSError as error:
            remedy = "check its free space and permissions, and close other chats"
            raise OSError(f"{self._path}: nothing is deleted ({reason(error)}); {remedy}") from error
        self._delete_here(is_deleted)
        return deleted

    def _delete_from_file(self, is_deleted: Callable[[str], bool]) -> int:
        lines = list(self.load_history_strings())  # newest first; other chats may have added some
        kept = [line for line in lines if not is_deleted(line)]
        if len(kept) < len(lines):
            write_private(self._path, b"")
            for line in reversed(kept):
                self.store_string(line)
        return len(lines) - len(kept)

    def _delete_here(self, is_deleted: Callable[[str], bool]) -> int:
        before = len(self._loaded_strings)
        self._loaded_strings = [line for line in self._loaded_strings if not is_deleted(line)]
        return before - len(self._loaded_strings)
