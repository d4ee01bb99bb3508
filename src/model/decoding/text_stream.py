"""Token ids to text that can be shown immediately."""

import codecs
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from src.tokenizer.protocols.interfaces import Encoding


class TextStream(Iterator[str]):
    """Yields the text of incoming tokens in pieces: never a part of a character, never a part of a stop string.

    `ids` are the tokens so far. `finish_reason` is None until the end, then "stop" (end-of-text or a stop string) or
    "length" (max_new_tokens). previous: the token before the text, if any. A word tokenizer needs it: a word that
    follows another word begins with a space.
    """

    def __init__(
        self,
        tokens: Iterable[int],
        encoding: Encoding,
        max_new_tokens: int,
        stops: Sequence[str],
        previous: Sequence[int] = (),
    ) -> None:
        self.ids: list[int] = []
        self.finish_reason: Literal["stop", "length"] | None = None
        self._encoding, self._max_new_tokens, self._stops = encoding, max_new_tokens, stops
        self._pieces = self._before_stop(self._characters(tokens, list(previous)))

    def __next__(self) -> str:
        return next(self._pieces)

    def _characters(self, tokens: Iterable[int], previous: list[int]) -> Iterator[str]:
        """The text of each token. An incomplete character is held back until its last byte arrives."""
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        for token in tokens:
            self.ids.append(token)
            n_previous = len(self._encoding.decode_bytes(previous))
            yield decoder.decode(self._encoding.decode_bytes([*previous, token])[n_previous:])
            previous = [token]
        yield decoder.decode(b"", final=True)

    def _before_stop(self, pieces: Iterator[str]) -> Iterator[str]:
        """The text before the first stop string. Text that may begin one is held back."""
        held = ""
        for piece in pieces:
            held += piece
            starts = [start for stop in self._stops if (start := held.find(stop)) >= 0]
            if starts:
                self.finish_reason = "stop"
                held = held[: min(starts)]
                break
            safe = len(held) - max((_overlap(held, stop) for stop in self._stops), default=0)
            if safe:
                yield held[:safe]
            held = held[safe:]
        else:
            self.finish_reason = "length" if len(self.ids) >= self._max_new_tokens else "stop"
        if held:
            yield held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest suffix of `text` that is a proper prefix of `stop`."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)


def stop_strings(stop: str | Sequence[str] | None) -> tuple[str, ...]:
    """A `stop=` argument as a tuple. Raises ValueError for an empty string or something other than strings."""
    stops = (stop,) if isinstance(stop, str) else stop or ()
    if not isinstance(stops, Sequence) or not all(isinstance(s, str) and s for s in stops):
        raise ValueError(f"stop must be a non-empty string or a list of them, got {stop!r:.100}")
    return tuple(stops)
