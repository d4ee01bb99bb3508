"""From lines to messages: a line is a message, and so are the lines between triple quotes."""

from collections.abc import Iterable, Iterator

QUOTES = '"""'  # before and after a message of several lines


def messages(lines: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """Yields (text, whether it was quoted) of each message. A quoted text is never a command, even with a slash."""
    block: list[str] = []
    for line in lines:
        block.append(line.rstrip("\r\n"))
        text = "\n".join(block)
        if is_open(text):
            continue
        block = []
        quoted = text.strip().startswith(QUOTES)
        yield (text.strip().removeprefix(QUOTES).removesuffix(QUOTES) if quoted else text).strip(), quoted
    if block:
        yield "\n".join(block).strip().removeprefix(QUOTES).strip(), True


def is_open(text: str) -> bool:
    """Whether the text begins with quotes that are not closed yet."""
    inner = text.strip()
    return inner.startswith(QUOTES) and (len(inner) < 2 * len(QUOTES) or not inner.endswith(QUOTES))
