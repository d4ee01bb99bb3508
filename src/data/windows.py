"""Training windows over the token ids of a text."""

import hashlib
from array import array

import numpy as np
import torch
from torch import Tensor

from src.data.batching import EpochDataset
from src.data.token_shards import ShardedTokens, TokenArray


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
                f"the text, or the part that --val-fraction holds out, has {len(ids)} tokens; one window needs "
                f"{context_length + 1}: lower --context-length, change --val-fraction, or pass a longer text"
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
