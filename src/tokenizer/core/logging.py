"""The logger of the word tokenizer. It prints nothing; a program can add a handler."""

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
