"""The logger of the word tokenizer. It prints nothing unless asked to."""

import logging
from functools import cache

_NAME = "src.tokenizer"


@cache
def get_logger() -> logging.Logger:
    """The logger of the package. The program that uses the package decides where its messages go."""
    logger = logging.getLogger(_NAME)
    # Without a handler, Python would print warnings to stderr.
    logger.addHandler(logging.NullHandler())
    return logger


def show_log(level: int = logging.INFO) -> None:
    """Print log messages of at least `level` to stderr. Another call only changes the level."""
    logger = get_logger()
    logger.setLevel(level)
    if not any(type(handler) is logging.StreamHandler for handler in logger.handlers):
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
        logger.addHandler(handler)
