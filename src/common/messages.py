"""Messages for the user: errors on one line, and text that UTF-8 can encode."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def one_line(error: BaseException) -> str:
    """The error's message on one line, or its type if it has no message. PyTorch's C++ stack traces are dropped."""
    message = str(error).partition("\nException raised from")[0]
    return " ".join(message.split()) or type(error).__name__


@contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """Put the file's path in front of the message of every ValueError raised inside."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def without_surrogates(text: str) -> str:
    """The text with lone surrogates replaced by U+FFFD. UTF-8 cannot encode them."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
