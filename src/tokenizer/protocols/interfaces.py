"""Interfaces: what training and chat need from a tokenizer, and what the word tokenizer needs from its parts."""

from collections.abc import Hashable, Iterable, Sequence
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Encoding(Hashable, Protocol):
    """The part of `tiktoken.Encoding` that this project uses. Any object with these members is accepted."""

    @property
    def name(self) -> str:
        """The kind of tokenizer, such as "gpt2"."""

    @property
    def n_vocab(self) -> int:
        """Number of ids; every id is in range(n_vocab)."""

    @property
    def eot_token(self) -> int:
        """Id of the end-of-text token. No text encodes to it; code inserts the id."""

    def encode_ordinary(self, text: str) -> list[int]:
        """Ids of a text. A special token spelled in it is encoded as ordinary text."""

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of a sequence of ids."""

    def decode_bytes(self, tokens: Sequence[int]) -> bytes:
        """UTF-8 of a sequence, which may end inside a character. A prefix of the ids gives a prefix of the bytes."""

    def decode_single_token_bytes(self, token: int) -> bytes:
        """UTF-8 bytes of one token, possibly only a part of a character."""


@runtime_checkable
class BatchEncoding(Encoding, Protocol):
    """An encoding that encodes several texts in parallel."""

    def encode_ordinary_batch(self, text: list[str], *, num_threads: int = 8) -> list[list[int]]:
        """`encode_ordinary` of each text."""


@runtime_checkable
class Storable(Protocol):
    """An encoding that a checkpoint must contain completely, because no package provides it."""

    def state(self) -> dict[str, Any]:
        """Everything that determines the ids of a text, in plain values, for `src.tokenizer.load_encoding`."""


@runtime_checkable
class WordEncoding(Encoding, Protocol):
    """An encoding of whole words, whose vocabulary may lack some of them."""

    def unknown(self, text: str) -> list[str]:
        """The tokens of a text that the vocabulary lacks, each once, in order of appearance."""


class Cleaner(Protocol):
    """Normalises a text, for example curly quotes to straight ones."""

    @property
    def rules(self) -> tuple[str, ...]:
        """Names of the rules that it applies."""

    def clean(self, text: str) -> str:
        """The normalised text; cleaning it again changes nothing."""


class Splitter(Protocol):
    """Splits a text into tokens and joins tokens into a text; split(join(split(text))) == split(text)."""

    def split(self, text: str) -> list[str]:
        """The tokens of a text, in order."""

    def join(self, tokens: Iterable[str]) -> str:
        """The text of tokens."""
