"""Tokens as they come, turned into text that can be shown at once."""

import codecs
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, Protocol


class TokenCodec(Protocol):
    """What generation needs of a tokenizer; `tiktoken.Encoding` has it."""

    @property
    def name(self) -> str: ...
    @property
    def n_vocab(self) -> int: ...
    @property
    def eot_token(self) -> int: ...
    def encode_ordinary(self, text: str) -> list[int]: ...
    def decode(self, tokens: Sequence[int]) -> str: ...
    def decode_bytes(self, tokens: Sequence[int]) -> bytes: ...
    def decode_single_token_bytes(self, token: int) -> bytes: ...


class TextStream(Iterator[str]):
    """Pieces of text as tokens come in, never half a character, never a part of a stop string.

    `ids` are the tokens made so far; `finish_reason` is None until the end, then "stop" (end-of-text or a stop
    string) or "length" (max_new_tokens). `before` is the token that the text goes on from, or nothing: a word after
    another begins with a space where the tokenizer is of words.
    """

    def __init__(
        self, tokens: Iterable[int], encoding: TokenCodec, limit: int, stops: Sequence[str], before: Sequence[int] = ()
    ) -> None:
        self.ids: list[int] = []
        self.finish_reason: Literal["stop", "length"] | None = None
        self._encoding, self._limit, self._stops, self._before = encoding, limit, stops, list(before)
        self._pieces = self._cut(self._characters(tokens))

    def __next__(self) -> str:
        return next(self._pieces)

    def _characters(self, tokens: Iterable[int]) -> Iterator[str]:
        """The text of each token, a character being held back until its last byte has come."""
        decoder, before = codecs.getincrementaldecoder("utf-8")(errors="replace"), self._before
        for token in tokens:
            self.ids.append(token)
            known = len(self._encoding.decode_bytes(before))
            yield decoder.decode(self._encoding.decode_bytes([*before, token])[known:])
            before = [token]
        yield decoder.decode(b"", final=True)

    def _cut(self, pieces: Iterator[str]) -> Iterator[str]:
        """The text before the first stop string; what could be the beginning of one is held back."""
        held = ""
        for piece in pieces:
            held += piece
            ends = [at for stop in self._stops if (at := held.find(stop)) >= 0]
            if ends:
                self.finish_reason = "stop"
                held = held[: min(ends)]
                break
            safe = len(held) - max((_overlap(held, stop) for stop in self._stops), default=0)
            if safe:
                yield held[:safe]
            held = held[safe:]
        else:
            self.finish_reason = "length" if len(self.ids) >= self._limit else "stop"
        if held:
            yield held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a proper beginning of `stop`."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)


def stop_strings(stop: str | Sequence[str] | None) -> tuple[str, ...]:
    stops = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if not all(isinstance(s, str) and s for s in stops):
        raise ValueError(f"stop must be a non-empty string or a list of them, got {stop!r}")
    return stops
