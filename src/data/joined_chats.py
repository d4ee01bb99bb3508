"""Examples joined into chats, some of them after a made-up opening."""

import random
from collections.abc import Sequence
from typing import Any

from src.data.batching import Example, ExampleDataset, content_hash, shuffled


class JoinedChats(ExampleDataset):
    """Examples joined into chats of `turns` examples, regrouped each epoch.

    Within a chat, the model sees earlier turns, and positions that single examples never reach. A model tuned on single
    examples only is confused by both. A chat longer than the context drops its oldest examples, as chat.py does.
    """

    def __init__(self, examples: Sequence[Example], seed: int, *, turns: int, context_length: int) -> None:
        super().__init__(examples, seed)
        self.turns, self.context_length = turns, context_length
        self.openings: Sequence[Sequence[int]] = ()
        self.opening_share = 0.0

    def add_openings(self, openings: Sequence[Sequence[int]], share: float) -> None:
        """Let a random `share` of the chats begin with a random one of the openings: the ids of system messages.

        They are not supervised.
        """
        self.openings, self.opening_share = openings, share if openings else 0.0

    def __getitem__(self, key: tuple[int | None, Sequence[int]]) -> Example:
        opening, chat = key
        start = [] if opening is None else list(self.openings[opening])
        if len(start) + len(self.examples[chat[-1]][0]) > self.context_length + 1:
            start = []
        ids: list[int] = []
        mask: list[bool] = []
        for i in reversed(chat):
            earlier_ids, earlier_mask = self.examples[i]
            if ids and len(start) + len(ids) + len(earlier_ids) > self.context_length + 1:
                break
            ids, mask = earlier_ids + ids, earlier_mask + mask
        return start + ids, [False] * len(start) + mask

    def __len__(self) -> int:
        return -(-len(self.examples) // self.turns)

    def order(self, epoch: int) -> Sequence[Any]:
        """The keys of an epoch. A chat's key is the index of its opening or None, and the list of its examples."""
        keys = shuffled(len(self.examples), self.seed, epoch)
        rng = random.Random(f"openings {self.seed} {epoch}")
        return [
            (
                rng.randrange(len(self.openings)) if rng.random() < self.opening_share else None,
                keys[start : start + self.turns],
            )
            for start in range(0, len(keys), self.turns)
        ]

    def content_hash(self) -> str:
        return content_hash(
            [*self.examples, *self.openings, self.opening_share] if self.opening_share else self.examples
        )
