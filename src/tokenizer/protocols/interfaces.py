"""What a tokenizer must offer so that a model can be trained with it and talk through it."""

import hashlib
from collections.abc import Sequence
from typing import Protocol, runtime_checkable


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

    def decode_single_token_bytes(self, token: int) -> bytes:
        """UTF-8 bytes of one token, possibly a part of a character."""


def fingerprint(encoding: Encoding) -> str:
    """SHA-256 over the bytes of every token in order: equal exactly when ids mean the same."""
    digest = hashlib.sha256()
    for token in range(encoding.n_vocab):
        try:
            spelling = encoding.decode_single_token_bytes(token)
        except KeyError:  # an id that the vocabulary leaves out
            spelling = b""
        digest.update(len(spelling).to_bytes(4, "little") + spelling)
    return digest.hexdigest()


def describe(encoding: Encoding) -> dict[str, str]:
    """What a checkpoint says of its tokenizer, so that another one is refused."""
    return {"name": encoding.name, "fingerprint": fingerprint(encoding)}
