"""One text while it is written: which tokens the model has to read next, and which token its logits lead to.

T tokens, V vocabulary.
"""

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from src.model.attention import KeyValueCache
from src.model.decoding.sampling import SamplingSettings, candidates

logger = logging.getLogger(__name__)

NGRAM = 3  # tokens that have to be the same before a guess is what followed them last time


class Writer:
    """The state of one text: its window on the model's context, what is left to write, and its random numbers.

    lookup: so many tokens at most are guessed from what followed the same words before, and read together with the
    last one. Each is then chosen from its own logits as ever, so that guesses change the speed and not the text.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        limit: int,
        *,
        context: int,
        end: int,
        sampling: SamplingSettings,
        generator: torch.Generator,
        lookup: int = 0,
    ) -> None:
        self.sampling = sampling
        self._context, self._end, self._generator = context, end, generator
        self._room = context - min(limit, context // 2)  # tokens that a window keeps when more than the context come
        self.window = list(prompt[-self._room :] if len(prompt) + limit > context else prompt)
        self.capacity = min(context, len(self.window) + limit)
        self._left, self._lookup, self._seen = limit, lookup, set(prompt)
        self._shortened, self._told = len(self.window) < len(prompt), False
        self._after: dict[tuple[int, ...], int] = {}  # where in the window what followed some tokens begins
        self._indexed = 0
        self.guesses: list[int] = []

    @property
    def finished(self) -> bool:
        return self._left == 0

    def end(self) -> None:
        """Nothing more is written."""
        self._left = 0

    def unread(self, cache: KeyValueCache) -> list[int]:
        """The tokens to read next behind those that the cache holds: the last of them are `guesses`."""
        full = len(self.window) > self._context
        if full:
            # Positions are learned: what is kept gets other ones, so its keys and values have to be made anew.
            self.window, cache.length = self.window[-self._room :], 0
            self._after, self._indexed = {}, 0
        if not self._told and (full or self._shortened):
            logger.warning(
                "the context of %d tokens is full: going on from the last %d, read again", self._context, self._room
            )
            self._told = True
        self.guesses = self._guess() if self._lookup else []
        return self.window[cache.length :] + self.guesses

    def write(self, logits: Tensor, cache: KeyValueCache) -> list[int]:
        """The new tokens, from the logits (1 + guesses, V) behind the last known token and behind each guess.

        The first that is not what was guessed is the last: the logits behind it are those of another text.
        """
        new: list[int] = []
        # Guesses count as read once they have come true: what interrupts this leaves a cache to go on from.
        read, cache.length = cache.length, len(self.window)
        for position, guess in zip(logits, [*self.guesses, None], strict=True):
            ids, probabilities = candidates(position, self._seen, self.sampling)
            token = (
                int(ids[torch.multinomial(probabilities, 1, generator=self._generator)]) if len(ids) > 1 else int(ids)
            )
            if token == self._end:
                self.end()
                break
            new.append(token)
            self._seen.add(token)
            self.window.append(token)
            self._left -= 1
            if token != guess or not self._left:
                break
        cache.length = min(read, len(self.window) - bool(new))
        return new

    def _guess(self) -> list[int]:
        """What followed the last few tokens when they came before."""
        known = len(self.window)
        for at in range(max(self._indexed, NGRAM), known):
            self._after[tuple(self.window[at - NGRAM : at])] = at
        self._indexed = known
        followed = self.window[self._after.get(tuple(self.window[-NGRAM:]), known) :]
        most = min(self._lookup, self._left - 1, self._context - known)
        return [followed[i % len(followed)] for i in range(most)] if followed else []  # a loop goes on as a loop
