"""The data sets of all stages: their examples, and the order of these in each epoch.

An order depends only on (seed, epoch), so a run can be resumed at any step.
"""

import hashlib
import random
from abc import abstractmethod
from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from src.data.prompts import Example
from src.data.token_shards import ShardedTokens, TokenArray


class EpochDataset(Dataset[Any]):
    """A PyTorch dataset that also defines the order of its keys in each epoch, as a function of (seed, epoch)."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of keys in every epoch."""

    @abstractmethod
    def order(self, epoch: int) -> Sequence[Any]:
        """The keys of an epoch."""

    @abstractmethod
    def content_hash(self) -> str:
        """SHA-256 of the examples: a resumed run must find the same."""


class ExampleDataset(EpochDataset):
    """A list of examples, or of pairs of them, in a new random order each epoch."""

    def __init__(self, examples: Sequence[Any], seed: int) -> None:
        self.examples, self.seed = examples, seed

    def __getitem__(self, key: Any) -> Any:
        return self.examples[key]

    def __len__(self) -> int:
        return len(self.examples)

    def order(self, epoch: int) -> Sequence[Any]:
        return shuffled(len(self), self.seed, epoch)

    def content_hash(self) -> str:
        return content_hash(self.examples)


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
        opening, indexes = key
        opening_ids = [] if opening is None else list(self.openings[opening])
        max_ids = self.context_length + 1  # the model's inputs, and the target of the last one
        if len(opening_ids) + len(self.examples[indexes[-1]].ids) > max_ids:
            opening_ids = []
        ids: list[int] = []
        mask: list[bool] = []
        for index in reversed(indexes):  # the last example is always kept
            example = self.examples[index]
            if ids and len(opening_ids) + len(ids) + len(example.ids) > max_ids:
                break
            ids, mask = example.ids + ids, example.mask + mask
        return Example(opening_ids + ids, [False] * len(opening_ids) + mask)

    def __len__(self) -> int:
        return -(-len(self.examples) // self.turns)

    def order(self, epoch: int) -> Sequence[Any]:
        """The keys of an epoch. A chat's key is the index of its opening or None, and the indexes of its examples."""
        indexes = shuffled(len(self.examples), self.seed, epoch)
        chats = [indexes[start : start + self.turns] for start in range(0, len(indexes), self.turns)]
        rng = random.Random(f"openings {self.seed} {epoch}")
        return [(self._draw_opening(rng), chat) for chat in chats]

    def _draw_opening(self, rng: random.Random) -> int | None:
        return rng.randrange(len(self.openings)) if rng.random() < self.opening_share else None

    def content_hash(self) -> str:
        return content_hash(
            [*self.examples, *self.openings, self.opening_share] if self.opening_share else self.examples
        )


class TextWindows(EpochDataset):
    """Windows of `context_length` tokens over a text, from a new offset and in a new order each epoch.

    A window's key is the index of its first token. Offset and order depend only on (seed, epoch), so a run can be
    resumed at any step. The offset is in [0, context_length). From there, the windows of an epoch follow one another to
    the end of the text. The last window is shifted back if it would cross the end.
    """

    def __init__(self, ids: TokenArray, context_length: int, seed: int) -> None:
        """ids: shape (tokens,). Raises ValueError if there are too few for one window and its targets."""
        if context_length < 1:
            raise ValueError(f"--context-length is {context_length}, at least 1 is needed")
        if len(ids) <= context_length:
            raise ValueError(
                f"the text, --val-data, or the part that --val-fraction holds out, has {len(ids)} tokens; one window "
                f"needs {context_length + 1}: lower --context-length, change --val-fraction, or pass a longer text"
            )
        self.ids, self._context_length, self._seed = ids, context_length, seed

    def __len__(self) -> int:
        return (len(self.ids) - 1) // self._context_length

    def __getitem__(self, start: int) -> tuple[Tensor, Tensor]:
        """The window from token `start`: (inputs, targets), int64 (T,) each. Targets are shifted by one token."""
        if not 0 <= start < len(self.ids) - self._context_length:
            raise IndexError(f"no window starts at token {start} of {len(self.ids)}")
        # A copy: a window must not keep pages of the file in memory, and embedding and loss need int64.
        tokens = torch.from_numpy(self.ids[start : start + self._context_length + 1].astype(np.int64))
        return tokens[:-1], tokens[1:]

    def order(self, epoch: int) -> "array[int]":
        """The index of the first token of each window of an epoch, shuffled: 8 bytes for each."""
        # Hash, so neighbouring seeds and epochs share nothing.
        mixed = hashlib.sha256(f"{self._seed} {epoch}".encode()).digest()[:8]
        generator = torch.Generator().manual_seed(int.from_bytes(mixed, "little") >> 1)
        offset = torch.randint(self._context_length, (1,), generator=generator)
        starts = offset + self._context_length * torch.randperm(len(self), generator=generator)
        starts.clamp_(max=len(self.ids) - 1 - self._context_length)
        return array("q", starts.numpy().tobytes())

    def content_hash(self) -> str:
        if isinstance(self.ids, ShardedTokens):
            return self.ids.sha256()
        return hashlib.sha256(np.ascontiguousarray(self.ids).data).hexdigest()


def content_hash(examples: Sequence[Any]) -> str:
    """SHA-256 of the `repr` of examples, in their order. Saved runs hold it, so an Example prints as a plain tuple."""
    return hashlib.sha256(repr(examples).encode("utf-8")).hexdigest()


def shuffled(count: int, seed: int, epoch: int) -> list[int]:
    """The numbers below `count`, in an order that depends only on (seed, epoch)."""
    return torch.randperm(count, generator=torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)).tolist()
