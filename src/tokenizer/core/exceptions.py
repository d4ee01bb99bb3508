"""What can go wrong. Every message is one line: what it is about, what is wrong with it, and what to do.

Each is also the built-in exception that callers expect, so `except ValueError` and `except OSError` work as usual.
"""


class TokenizerError(Exception):
    """Any error of the word tokenizer that a person can mend."""


class MissingFileError(TokenizerError, FileNotFoundError):
    """There is no such file, or no text in a folder."""


class FileAccessError(TokenizerError, OSError):
    """The system does not let a file be read or written, or it is a folder."""


class TextEncodingError(TokenizerError, ValueError):
    """The file's bytes are not text in UTF-8."""


class EmptyTextError(TokenizerError, ValueError):
    """There is nothing to make a vocabulary of."""


class SettingError(TokenizerError, ValueError):
    """A setting that does not exist, or a value that it cannot have."""


class VocabularyError(TokenizerError, ValueError):
    """A list of tokens, or a file with one, that is not a vocabulary."""


class VocabularyNotLoadedError(TokenizerError, ValueError):
    """A tokenizer was asked for before there was a vocabulary."""


class UnknownTokensError(TokenizerError, ValueError):
    """A text has words that the vocabulary lacks, and the tokenizer has no id for them."""


class TokenIdError(TokenizerError, ValueError):
    """Something that should be decoded is no id of the vocabulary."""
