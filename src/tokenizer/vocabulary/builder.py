"""Building: choose the tokens of a vocabulary, and their ids."""

from collections import Counter
from collections.abc import Iterable
from typing import Literal

from src.common.checks import is_count
from src.tokenizer.core.constants import LONGEST_TOKEN_CHARS, RESERVED
from src.tokenizer.core.exceptions import EmptyTextError, SettingError
from src.tokenizer.core.logging import get_logger
from src.tokenizer.core.models import Vocabulary
from src.tokenizer.processing.cleaner import TextCleaner
from src.tokenizer.processing.splitter import TextSplitter
from src.tokenizer.protocols.interfaces import Cleaner, Splitter

Order = Literal["frequency", "alphabet"]
_ORDERS = ("frequency", "alphabet")


class VocabularyBuilder:
    """Counts the tokens of texts, then chooses the tokens of a vocabulary.

    order: "frequency" (most frequent first, ties in alphabetical order) or "alphabet".
    min_count: how often a token must occur. max_size: the maximum number of ids, including the two reserved ones; the
    most frequent tokens are chosen. always: texts whose tokens are included however rare they are.
    The order in which texts are added does not matter. Raises SettingError for invalid settings.
    """

    def __init__(
        self,
        *,
        order: Order = "frequency",
        min_count: int = 1,
        max_size: int | None = None,
        always: Iterable[str] = (),
        cleaner: Cleaner | None = None,
    ) -> None:
        _check_settings(order, min_count, max_size, always)
        self._order, self._min_count, self._max_size = order, min_count, max_size
        self._cleaner: Cleaner = cleaner or TextCleaner()
        self._splitter: Splitter = TextSplitter()
        self._counts: Counter[str] = Counter()
        self._always = {token for text in always for token in self._tokens(text)} - {*RESERVED}
        smallest = len(RESERVED) + max(1, len(self._always))
        if max_size is not None and max_size < smallest:
            others = f"the {len(self._always)} tokens of `always`" if self._always else "one token of the text"
            raise SettingError(
                f"max_size {max_size} is too small: the {len(RESERVED)} reserved tokens and {others} must fit; pass at "
                f"least {smallest}"
            )

    def add(self, text: str) -> None:
        """Count the tokens of a text. A long text can be added in chunks that end after a line break or a space."""
        self._counts.update(self._tokens(text))

    @property
    def counts(self) -> Counter[str]:
        """A copy of the counts of all tokens so far."""
        return self._counts.copy()

    def build(self) -> Vocabulary:
        """The vocabulary of the counted tokens. Raises EmptyTextError if it would have none."""
        chosen = [*self._always, *self._most_frequent()]
        if not chosen:
            raise EmptyTextError(
                f"none of the {len(self._counts)} distinct tokens occurs at least {self._min_count} times; "
                "add more text, or lower min_count"
            )
        by_alphabet = self._order == "alphabet"
        chosen.sort(key=lambda token: (0 if by_alphabet else -self._counts[token], token))
        return Vocabulary([*RESERVED, *chosen], self._cleaner.rules)

    def _tokens(self, text: str) -> list[str]:
        return self._splitter.split(self._cleaner.clean(text))

    def _most_frequent(self) -> list[str]:
        """The tokens chosen by their count, up to max_size."""
        excluded = self._always | {*RESERVED} | self._overlong()
        frequent = [t for t, n in self._counts.items() if n >= self._min_count and t not in excluded]
        if self._max_size is None:
            return frequent
        frequent.sort(key=lambda token: (-self._counts[token], token))
        return frequent[: self._max_size - len(RESERVED) - len(self._always)]

    def _overlong(self) -> set[str]:
        overlong = {token for token in self._counts if len(token) > LONGEST_TOKEN_CHARS}
        if overlong:
            get_logger().warning(
                "%d tokens of more than %d characters are left out: they are not words",
                len(overlong),
                LONGEST_TOKEN_CHARS,
            )
        return overlong


def _check_settings(order: object, min_count: object, max_size: object, always: object) -> None:
    if order not in _ORDERS:
        raise SettingError(f"order is {order!r:.60}; choose {' or '.join(map(repr, _ORDERS))}")
    if not is_count(min_count):
        raise SettingError(f"min_count is {min_count!r:.60}; it must be a whole number of at least 1")
    if max_size is not None and not is_count(max_size):
        raise SettingError(f"max_size is {max_size!r:.60}; it must be a whole number of at least 1, or None")
    if isinstance(always, str):
        raise SettingError(f"always is the str {always!r:.60}; pass a list of texts")
