"""Messages for a person: errors as one line, and text that every terminal and file can hold."""


def one_line(error: BaseException) -> str:
    """The error's message on one line; its type if it has no message.

    PyTorch appends a C++ stack trace to some messages. It is dropped.
    """
    message = str(error).partition("\nException raised from")[0]
    return " ".join(message.split()) or type(error).__name__


def without_surrogates(text: str) -> str:
    """The text with lone surrogates replaced by U+FFFD. UTF-8 cannot encode them."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
