"""The state of one sequence being generated. It knows nothing of a model or a cache.

Draft tokens are those of prompt-lookup decoding (Saxena 2023), a form of speculative decoding (Leviathan et al. 2023).
V vocabulary.
"""

import logging

import torch
from torch import Tensor

from src.model.decoding.sampling import SamplingSettings, sample

logger = logging.getLogger(__name__)

NGRAM = 3  # tokens that must match an earlier place before the tokens that followed there become the draft


class Sequence:
    """A sequence in the model's context window, with its sampling options and its random numbers.

    One step: `slide_if_full`, a forward pass on `pending` tokens, `sample` from the logits, `accept` the result.
    draft_tokens: maximum number of tokens to propose per step. They change the speed and not the sequence, since every
    token is sampled from its own logits.
    """

    def __init__(
        self,
        prompt: list[int],
        max_new_tokens: int,
        *,
        context_length: int,
        end_token: int,
        sampling: SamplingSettings,
        generator: torch.Generator,
        draft_tokens: int = 0,
    ) -> None:
        self.sampling = sampling
        self._context_length, self._end_token, self._generator = context_length, end_token, generator
        self._kept_tokens = context_length - min(max_new_tokens, context_length // 2)  # when the context overflows
        self._truncated = len(prompt) > self._kept_tokens and len(prompt) + max_new_tokens > context_length
        self.ids = prompt[-self._kept_tokens :] if self._truncated else list(prompt)
        self.capacity = min(context_length, len(self.ids) + max_new_tokens)  # tokens that its cache needs room for
        self.remaining = max_new_tokens
        self.draft: list[int] = []
        self._max_draft_tokens, self._seen, self._warned = draft_tokens, set(prompt), False
        self._following: dict[tuple[int, ...], int] = {}  # n-gram -> index of the token after its last occurrence
        self._indexed = 0  # tokens whose n-grams are in there

    @property
    def finished(self) -> bool:
        return self.remaining == 0

    def finish(self) -> None:
        """Generate no more tokens."""
        self.remaining = 0

    def slide_if_full(self) -> bool:
        """Drop the oldest tokens if the context is full. Returns whether it did.

        If so, no cached key or value is valid any more: position embeddings are absolute, and all positions change.
        """
        full = len(self.ids) > self._context_length
        if (full or self._truncated) and not self._warned:
            message = "the context of %d tokens is full: only the last %d tokens are used from here on"
            logger.warning(message, self._context_length, self._kept_tokens)
            self._warned = True
        if full:
            self.ids = self.ids[-self._kept_tokens :]
            self._following, self._indexed = {}, 0
        return full

    def pending(self, cached_tokens: int) -> list[int]:
        """The ids that still need a forward pass, after the first `cached_tokens`; the draft tokens come last."""
        self.draft = self._find_draft() if self._max_draft_tokens else []
        return self.ids[cached_tokens:] + self.draft

    def sample(self, logits: Tensor) -> list[int]:
        """Sample from logits (1 + draft tokens, V): after the last accepted token, and after each draft token.

        Returns the tokens up to the first that differs from the draft: later logits belong to another continuation.
        """
        tokens: list[int] = []
        for token_logits, draft_token in zip(logits, [*self.draft, None], strict=True):
            seen = self._seen.union(tokens) if tokens else self._seen
            tokens.append(sample(token_logits, seen, self.sampling, self._generator))
            if tokens[-1] != draft_token or draft_token == self._end_token:
                break
        return tokens

    def accept(self, tokens: list[int]) -> list[int]:
        """Append sampled tokens and return the new ones. An end-of-text is left out and finishes the sequence."""
        ended = tokens[-1] == self._end_token
        new = tokens[:-1] if ended else tokens
        self.remaining = 0 if ended else self.remaining - len(new)
        self.ids += new
        self._seen.update(new)
        return new

    def _find_draft(self) -> list[int]:
        """The tokens that followed the last occurrence of the current n-gram; a periodic match repeats cyclically."""
        length = len(self.ids)
        for end in range(max(self._indexed, NGRAM), length):
            self._following[tuple(self.ids[end - NGRAM : end])] = end
        self._indexed = length
        match = self.ids[self._following.get(tuple(self.ids[-NGRAM:]), length) :]
        count = min(self._max_draft_tokens, self.remaining - 1, self._context_length - length)
        return [match[i % len(match)] for i in range(count)] if match else []
