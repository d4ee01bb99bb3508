"""Standard output and standard error of a script, which may outlive their reader."""

import os
import re
from collections.abc import Callable
from typing import Any, TextIO

from src.common.messages import visible

# These pass to a terminal: bold, dim and green text, and how tqdm redraws its bars.
_TERMINAL_CODES = re.compile(r"(^\r|\x1b\[A|\x1b\[(?:0|1|2|(?:0;)?1;32)m)")


class Output:
    """A text stream that shows control characters instead of sending them, and that survives a failing write.

    If its pipe is closed, its terminal gone or its disk full, `on_loss` gets the error, once. Later text is dropped.
    """

    def __init__(self, stream: TextIO, on_loss: Callable[[OSError], None]) -> None:
        self._stream, self._on_loss, self._lost = stream, on_loss, False

    def write(self, text: str) -> int:
        """Write the text, and return its length even if it could not be written."""
        self._attempt(self._stream.write, self._harmless(text))
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        self._attempt(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _harmless(self, text: str) -> str:
        if not self._stream.isatty():
            return visible(text)
        return "".join(part if i % 2 else visible(part) for i, part in enumerate(_TERMINAL_CODES.split(text)))

    def _attempt(self, action: Callable[..., object], *arguments: str) -> None:
        if self._lost:
            return
        try:
            action(*arguments)
        except OSError as error:
            self._lost = True
            self._discard_buffer()
            self._on_loss(error)
        except RuntimeError:  # a signal handler interrupted a write to this stream, and writes to it itself
            return

    def _discard_buffer(self) -> None:
        """Let Python flush the rest of its buffer at exit without another error."""
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._stream.fileno())
        os.close(null)
