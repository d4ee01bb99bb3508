"""The model that DPO training starts from, frozen: what it gives every answer, computed once and kept in a file."""

import hashlib
import json
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from src.checkpoint import read_checkpoint, save_checkpoint
from src.training.losses import answer_logprobs

REFERENCE = "reference_logprobs.pt"
VERSION = 1  # of the way the log-probabilities are computed and kept
# How far a kept log-probability, a sum over an answer, may be from a live one, in nats. Half precision rounds each
# state to 3 (bf16) or 4 digits, differently in batches of other sizes.
TOLERANCE = {torch.float32: 1e-3, torch.float16: 0.1, torch.bfloat16: 0.5}


@dataclass
class Reference:
    """The frozen model and its log-probabilities of the answers of all pairs.

    They are computed when first asked for, in the precision of the training that asks, and kept at `path` for the runs
    to come, as long as `identity` is the same: the hashes of the pairs, the model's file and the tokenizer.
    """

    model: Any  # in eval mode, on the device of the training
    batches: Iterable[Any]  # all pairs in the order of their keys, gone through anew each time
    path: Path
    identity: Mapping[str, str | None]

    def logprobs(self, batch: Any) -> Tensor:
        """Log-probabilities (2P,), summed over each answer of a batch: the chosen ones, then the rejected."""
        return self._all[:, batch.keys].flatten()

    @cached_property
    def _all(self) -> Tensor:
        """(2, pairs): of the chosen and of the rejected answers, on the model's device."""
        key = self._key()
        kept, why = self._kept(key)
        if kept is not None:
            _say(f"reference log-probabilities: of {kept.shape[1]} pairs from {self.path}, they agree with live ones")
            return kept
        start = time.perf_counter()
        bar = tqdm(self.batches, "reference", unit="batch", leave=False, disable=not sys.stderr.isatty())
        computed = torch.cat([self._live(batch) for batch in bar], dim=1)
        seconds = time.perf_counter() - start
        save_checkpoint(self.path, {"key": key, "logprobs": computed.cpu(), "sha256": _sha256(computed)})
        done = f"of {computed.shape[1]} pairs computed in {seconds:.1f} s, kept in {self.path}"
        _say(f"reference log-probabilities: {done} ({why})")
        return computed

    def _kept(self, key: str) -> tuple[Tensor | None, str]:
        """The log-probabilities in the file, or None and why they are none to use."""
        if not self.path.is_file():
            return None, "there were none yet"
        try:
            content = read_checkpoint(self.path)
        except ValueError:
            return None, "the file was damaged"
        if content.get("key") != key:
            return None, "there were some of other data, another base, tokenizer or precision"
        kept = content.get("logprobs")
        if not isinstance(kept, Tensor) or content.get("sha256") != _sha256(kept):
            return None, "the file was damaged"
        kept = kept.to(self._device)
        first = next(iter(self.batches))
        gap = float((kept[:, first.keys.to(self._device)] - self._live(first)).abs().max())
        if not gap <= TOLERANCE[self._dtype]:
            return None, f"those kept were {gap:.2g} nats off live ones"
        return kept, ""

    @torch.no_grad()
    def _live(self, batch: Any) -> Tensor:
        """(2, P), by the model itself."""
        return answer_logprobs(self.model, batch.to(self._device)).view(2, -1)

    @property
    def _device(self) -> torch.device:
        return self.model.wte.weight.device

    @property
    def _dtype(self) -> torch.dtype:
        """Of the arithmetic around the call."""
        kind = self._device.type
        return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32

    def _key(self) -> str:
        """SHA-256 over all that the log-probabilities follow from."""
        told = {**self.identity, "precision": str(self._dtype), "version": VERSION}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode("utf-8")).hexdigest()


def _say(text: str) -> None:
    tqdm.write(text)
    sys.stdout.flush()


def _sha256(values: Tensor) -> str:
    return hashlib.sha256(values.cpu().contiguous().numpy().tobytes()).hexdigest()
