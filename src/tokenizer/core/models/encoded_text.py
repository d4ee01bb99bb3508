"""An encoded text: its ids, with or without its tokens."""

from collections.abc import Iterable, Iterator, Sequence
from typing import overload


class EncodedText(Sequence[int]):
    """The ids of a text: a sequence of ints, equal to any list, tuple or encoded text of the same ints."""

    __slots__ = ("_ids",)

    def __init__(self, ids: Iterable[int]) -> None:
        self._ids = tuple(ids)

    @property
    def token_ids(self) -> list[int]:
        """The ids as a new list."""
        return list(self._ids)

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> "EncodedText": ...
    def __getitem__(self, index: int | slice) -> "int | EncodedText":
        return EncodedText(self._ids[index]) if isinstance(index, slice) else self._ids[index]

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[int]:
        return iter(self._ids)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, EncodedText | list | tuple):
            return self._ids == tuple(other)
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self._ids)

    def __repr__(self) -> str:
        return f"EncodedText({list(self._ids)})"


class EncodedTextWithTokens(EncodedText):
    """The ids of a text and its tokens, one per id. An unknown word keeps its spelling here."""

    __slots__ = ("_tokens",)

    def __init__(self, ids: Iterable[int], tokens: Iterable[str]) -> None:
        super().__init__(ids)
        self._tokens = tuple(tokens)

    @property
    def tokens(self) -> list[str]:
        """The tokens as a new list."""
        return list(self._tokens)

    def __repr__(self) -> str:
        return f"EncodedTextWithTokens({list(self._ids)}, {list(self._tokens)})"
