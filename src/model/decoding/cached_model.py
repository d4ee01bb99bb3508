"""Forward passes over a KV cache: prefill, and decode steps of one token.

T tokens, C channels, V vocabulary.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from src.model.decoding.output_head import OutputHead
from src.model.decoding.step import SingleTokenStep
from src.model.few_rows import parts_are_faster
from src.model.gpt import GPTModel
from src.model.kv_cache import KeyValueCache
from src.model.quantize import Int8GPT


def default_draft_tokens(model: GPTModel) -> int:
    """Draft tokens that cost almost nothing extra to verify.

    0 in int8 and on AMD's processors, where three tokens take twice the time of one or more, and in half precision,
    where batching often changes which of two nearly equal logits is the larger.
    """
    full_precision = model.wpe.weight.dtype in (torch.float32, torch.float64)
    on_amd = model.wpe.weight.is_cpu and parts_are_faster()
    return 2 if full_precision and not isinstance(model, Int8GPT) and not on_amd else 0


@dataclass
class PrefixCache:
    """The token ids in a KV cache, so that a longer prompt with the same prefix only computes its new tokens.

    Pass the same object to each `stream` of a conversation. It is valid for one model with unchanged weights.
    """

    ids: list[int] = field(default_factory=list)
    cache: KeyValueCache | None = None

    @torch.inference_mode()
    def take(self, model: GPTModel, ids: list[int], capacity: int) -> KeyValueCache:
        """A cache with room for `capacity` tokens that already holds the longest cached prefix of `ids`.

        The last token is always recomputed, because its logits are needed. This object is empty until `put`, so a
        second stream that starts before the first has ended gets a cache of its own.
        """
        length = _common_prefix_length(self.ids, ids[:-1])
        cache, self.ids, self.cache = self.cache, [], None
        if cache is None or cache.capacity < capacity:
            larger = model.new_cache(capacity=capacity)
            if cache is not None:
                larger.copy_from(cache, length)
            cache = larger
        cache.length = length
        return cache

    def put(self, ids: list[int], cache: KeyValueCache) -> None:
        """Give back a cache that holds a prefix of `ids`."""
        self.ids, self.cache = ids[: cache.length], cache


class CachedModel:
    """A model and the KV cache of one sequence. Each forward pass appends its tokens to the cache."""

    def __init__(self, model: GPTModel, head: OutputHead, cache: KeyValueCache) -> None:
        self.cache = cache
        self._model, self._head, self._step = model, head, SingleTokenStep(model)

    @torch.inference_mode()
    def forward(self, ids: list[int], n_logits: int = 1, top_logits_needed: int | None = None) -> Tensor:
        """The logits (n_logits, V) after each of the last `n_logits` ids; see `OutputHead.logits`.

        One id is a decode step. More are a prefill, or the last token and a draft.
        """
        if len(ids) == 1:
            states = self._step.hidden_states(ids, self.cache, [self.cache.length])
            self.cache.length += 1
        else:
            states = _hidden_states(self._model, ids, self.cache)[-n_logits:]
        return self._head.logits(states, top_logits_needed)

    def rollback(self, n_tokens: int) -> None:
        """Remove the last tokens from the cache."""
        self.cache.length -= n_tokens

    def clear(self) -> None:
        """Remove all tokens from the cache."""
        self.cache.length = 0


class CachedBatch:
    """A model and a KV cache with one sequence per row. The rows have different lengths."""

    @torch.inference_mode()
    def __init__(self, model: GPTModel, head: OutputHead, n_rows: int, capacity: int) -> None:
        self._model, self._head, self._step = model, head, SingleTokenStep(model)
        self._cache = model.new_cache(n_rows, capacity)
        self._cache.keys_values.zero_()  # masked positions must not hold NaN
        self._rows = [self._cache.row(i) for i in range(n_rows)]

    @property
    def n_rows(self) -> int:
        """How many sequences it has room for."""
        return len(self._rows)

    def cached_tokens(self, row: int) -> int:
        """The number of tokens in the cache of a row."""
        return self._rows[row].length

    @torch.inference_mode()
    def prefill(self, row: int, ids: list[int]) -> None:
        """Append ids to the cache of a row."""
        _hidden_states(self._model, ids, self._rows[row])

    @torch.inference_mode()
    def decode_one_token(self, ids: list[int], top_logits_needed: int | None = None) -> Tensor:
        """Append one id to each of the first len(ids) rows, and return the logits (len(ids), V) after them."""
        rows = self._rows[: len(ids)]
        states = self._step.hidden_states(ids, self._cache, [row.length for row in rows])
        for row in rows:
            row.length += 1
        return self._head.logits(states, top_logits_needed)

    @torch.inference_mode()
    def move(self, source: int, target: int) -> None:
        """Copy the cached tokens of one row to another."""
        self._rows[target].copy_from(self._rows[source], self._rows[source].length)

    def clear(self, row: int) -> None:
        """Remove all tokens from the cache of a row."""
        self._rows[row].length = 0


def _hidden_states(model: GPTModel, ids: list[int], cache: KeyValueCache) -> Tensor:
    """The hidden states (T, C) of tokens, which are appended to a cache."""
    with model.evaluating():
        return model.hidden_states(torch.tensor([ids], device=model.wpe.weight.device), cache)[0]


def _common_prefix_length(a: list[int], b: list[int]) -> int:
    length = 0
    for id_a, id_b in zip(a, b, strict=False):
        if id_a != id_b:
            break
        length += 1
    return length
