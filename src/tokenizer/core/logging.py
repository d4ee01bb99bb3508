"""The log of the word tokenizer: silent until it is asked for."""

import logging
from functools import cache

_NAME = "src.tokenizer"


@cache
def get_logger() -> logging.Logger:
    """The one logger of the package. What it says goes only where the program that uses it sends its log."""
    logger = logging.getLogger(_NAME)
    # Without a handler, Python would print warnings on stderr by itself.
    logger.addHandler(logging.NullHandler())
    return logger


def show_log(level: int = logging.INFO) -> None:
    """Print what is logged from `level` on to stderr. Calling it again only changes the level."""
    logger = get_logger()
    logger.setLevel(level)
    if not any(type(handler) is logging.StreamHandler for handler in logger.handlers):
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
        logger.addHandler(handler)
