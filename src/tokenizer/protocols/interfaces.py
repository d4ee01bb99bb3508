"""What a tokenizer must offer so that a model can be trained with it and talk through it, and its parts each other."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Encoding(Protocol):
    """The part of `tiktoken.Encoding` that this project uses; any object with these members will do."""

    @property
    def name(self) -> str: ...

    @property
    def n_vocab(self) -> int:
        """Number of ids; every id is in range(n_vocab)."""

    @property
    def eot_token(self) -> int:
        """Id of the end-of-text token. It is only ever inserted by id, never spelled out in text."""

    def encode_ordinary(self, text: str) -> list[int]:
        """Ids of a text in which every character counts as text, also one that spells a special token."""

    def decode(self, tokens: Sequence[int]) -> str: ...

    def decode_bytes(self, tokens: Sequence[int]) -> bytes:
        """UTF-8 of a sequence, whose ends may be parts of a character; that of a beginning is the beginning of that."""

    def decode_single_token_bytes(self, token: int) -> bytes:
        """UTF-8 bytes of one token, possibly a part of a character."""


@runtime_checkable
class BatchEncoding(Encoding, Protocol):
    """An encoding that encodes several texts in parallel."""

    def encode_ordinary_batch(self, text: list[str], *, num_threads: int = 8) -> list[list[int]]: ...


@runtime_checkable
class Storable(Protocol):
    """An encoding that no package carries: a checkpoint has to hold all of it."""

    def state(self) -> dict[str, Any]:
        """Everything that decides which ids a text gets, in plain values; `src.tokenizer.load_encoding` reads it."""


@runtime_checkable
class WordEncoding(Encoding, Protocol):
    """An encoding of whole words, which may lack some."""

    def unknown(self, text: str) -> list[str]:
        """The tokens of a text that the vocabulary lacks, each once, in their order."""


class Cleaner(Protocol):
    """Makes one text of the many ways to write the same one."""

    @property
    def rules(self) -> tuple[str, ...]:
        """Names of what it does."""

    def clean(self, text: str) -> str: ...


class Splitter(Protocol):
    """Cuts a text into tokens and puts tokens together again: split(join(split(text))) is split(text)."""

    def split(self, text: str) -> list[str]: ...

    def join(self, tokens: Iterable[str]) -> str: ...


def encoding_fingerprint(encoding: Encoding) -> str:
    """SHA-256 over the bytes of every token in order: equal exactly when ids mean the same."""
    digest = hashlib.sha256()
    for token in range(encoding.n_vocab):
        try:
            spelling = encoding.decode_single_token_bytes(token)
        except KeyError:  # an id that the vocabulary leaves out
            spelling = b""
        digest.update(len(spelling).to_bytes(4, "little") + spelling)
    return digest.hexdigest()


def describe(encoding: Encoding) -> dict[str, Any]:
    """What a checkpoint says of its tokenizer, so that it is found again and another one is refused."""
    description = {"name": encoding.name, "fingerprint": encoding_fingerprint(encoding)}
    return {**description, "state": encoding.state()} if isinstance(encoding, Storable) else description
