"""The reference model of DPO: frozen, its log-probabilities of all answers computed once and cached in a file."""

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from src.checkpoint import LoadedModel, load_model, read_checkpoint, save_checkpoint
from src.data.batching import PairBatch
from src.distributed.environment import is_first
from src.distributed.processes import Processes
from src.distributed.sharding import run_sharded
from src.model.gpt import GPTModel
from src.model.lora import copy_sharing_weights
from src.training.losses import answer_logprobs
from src.training.reporter import Reporter

T = TypeVar("T")

REFERENCE = "reference_logprobs.pt"
VERSION = 1  # of the computation and the file
# How far a cached log-probability, a sum over an answer, may be from a recomputed one, in nats. Half precision rounds
# each hidden state to 3 (bf16) or 4 (fp16) digits, and the rounding changes with the batch size.
TOLERANCE = {torch.float32: 1e-3, torch.float16: 0.1, torch.bfloat16: 0.5}


@dataclass
class Reference:
    """The frozen model and its log-probabilities of the answers of all pairs.

    They are computed on first use, in the precision of the training, and cached at `path`. Later runs reuse the file
    if `identity` is the same: the hashes of the pairs, of the model's file, and of the tokenizer.
    module: the model as `shard` returned it under FSDP, in which all processes compute together; otherwise None.
    """

    model: GPTModel  # in eval mode, on the training device
    batches: Iterable[PairBatch]  # all pairs, in the order of their keys; iterated more than once
    path: Path
    identity: Mapping[str, str | None]
    processes: Processes = Processes()
    module: Any = None

    def run(self, function: Callable[[GPTModel, PairBatch], T], batch: PairBatch) -> T:
        """function(model, batch), even if FSDP shards the model."""
        return function(self.model, batch) if self.module is None else run_sharded(self.module, function, batch)

    def logprobs(self, batch: PairBatch) -> Tensor:
        """Log-probabilities (2P,), each summed over one answer: all chosen answers, then all rejected ones."""
        return self._all[:, batch.keys].flatten()

    @cached_property
    def _all(self) -> Tensor:
        """(2, pairs) on the model's device: the chosen answers, then the rejected ones."""
        key = self._cache_key()
        cached, reason = self.processes.from_first(self._read_cache(key))
        if cached is not None:
            cached, reason = self._compared(cached)
        if cached is not None:
            Reporter.say(
                f"reference log-probabilities: {cached.shape[1]} pairs from {self.path}, checked against the model"
            )
            return cached
        start = time.perf_counter()
        bar = tqdm(self.batches, "reference", unit="batch", leave=False, disable=not sys.stderr.isatty())
        computed = torch.cat([self._compute(batch) for batch in bar], dim=1)
        seconds = time.perf_counter() - start
        if is_first():
            save_checkpoint(self.path, {"key": key, "logprobs": computed.cpu(), "sha256": _sha256(computed)})
        done = f"{computed.shape[1]} pairs computed in {seconds:.1f} s, cached in {self.path}"
        Reporter.say(f"reference log-probabilities: {done} ({reason})")
        return computed

    def _read_cache(self, key: str) -> tuple[Tensor | None, str]:
        """(the cached log-probabilities, ""), or (None, the reason the cache is unusable)."""
        if not self.path.is_file():
            return None, "not cached yet"
        try:
            content = read_checkpoint(self.path)
        except ValueError:
            return None, "the file was damaged"
        if content.get("key") != key:
            return None, "the cache was for other data, or another base, tokenizer or precision"
        cached = content.get("logprobs")
        if not isinstance(cached, Tensor) or content.get("sha256") != _sha256(cached):
            return None, "the file was damaged"
        return cached, ""

    def _compared(self, cached: Tensor) -> tuple[Tensor | None, str]:
        """The cached log-probabilities on the model's device, or None and why they are not used.

        Those of the first batch are compared with recomputed ones.
        """
        cached = cached.to(self._device)
        first = next(iter(self.batches))
        recomputed = self._compute(first)
        gap = self.processes.from_first(float((cached[:, first.keys.to(self._device)] - recomputed).abs().max()))
        if not gap <= TOLERANCE[self._dtype]:
            return None, f"the cache was {gap:.2g} nats off recomputed values"
        return cached, ""

    @torch.no_grad()
    def _compute(self, batch: PairBatch) -> Tensor:
        """Log-probabilities (2, P) from a forward pass."""
        return self.run(answer_logprobs, batch.to(self._device)).view(2, -1)

    @property
    def _device(self) -> torch.device:
        return self.model.wte.weight.device

    @property
    def _dtype(self) -> torch.dtype:
        """The dtype of the surrounding autocast, or float32."""
        kind = self._device.type
        return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32

    def _cache_key(self) -> str:
        """SHA-256 of everything that determines the log-probabilities."""
        determined_by = {**self.identity, "precision": str(self._dtype), "version": VERSION}
        return hashlib.sha256(json.dumps(determined_by, sort_keys=True).encode("utf-8")).hexdigest()


def frozen_model(base: LoadedModel, *, shared: bool) -> GPTModel:
    """The base without dropout and gradients, loaded from its file a second time because training changes the first.

    shared: training does not change the base's weights, so both models have the same tensors.
    """
    frozen = copy_sharing_weights(base.model) if shared else load_model(base.path)[0]
    frozen.set_dropout(0.0)
    return frozen.requires_grad_(False)


def _sha256(values: Tensor) -> str:
    return hashlib.sha256(values.cpu().contiguous().numpy().tobytes()).hexdigest()
