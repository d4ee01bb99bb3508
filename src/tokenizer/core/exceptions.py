"""The errors of the word tokenizer. Every message is one line that says what is wrong and what to do.

Each class is also the built-in exception that callers expect, so `except ValueError` and `except OSError` work.
"""


class TokenizerError(Exception):
    """Base class of all errors of the word tokenizer."""


class MissingFileError(TokenizerError, FileNotFoundError):
    """A file does not exist, or a folder has no texts."""


class FileAccessError(TokenizerError, OSError):
    """A file cannot be read or written, or is a folder."""


class TextEncodingError(TokenizerError, ValueError):
    """A file is not UTF-8 text."""


class EmptyTextError(TokenizerError, ValueError):
    """There are no tokens to build a vocabulary from."""


class SettingError(TokenizerError, ValueError):
    """An unknown setting, or an invalid value of one."""


class VocabularyError(TokenizerError, ValueError):
    """A list of tokens, or a file, is not a valid vocabulary."""


class VocabularyNotLoadedError(TokenizerError, ValueError):
    """A vocabulary is needed but none is loaded."""


class UnknownTokensError(TokenizerError, ValueError):
    """A text has words that the vocabulary lacks, and the tokenizer has no id for unknown words."""


class TokenIdError(TokenizerError, ValueError):
    """A value to decode is not an id of the vocabulary."""
