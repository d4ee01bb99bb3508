"""The state of one sequence being generated. It knows nothing of a model or a cache.

V vocabulary.
"""

import logging

from torch import Generator, Tensor

from src.model.decoding.prompt_lookup import PromptLookup
from src.model.decoding.sampling import SamplingSettings, sample

logger = logging.getLogger(__name__)


class Sequence:
    """The tokens in the model's context window, with the sampling options and the random numbers for the next ones.

    One step: `slide_if_full`, `propose_draft`, a forward pass on the `pending` tokens and the draft, `sample` from the
    logits, `accept` the result.
    draft_tokens: maximum number of draft tokens per step. They change the speed and not the sequence, because every
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
        generator: Generator,
        draft_tokens: int = 0,
    ) -> None:
        self.sampling = sampling
        self._context_length, self._end_token, self._generator = context_length, end_token, generator
        # Tokens that stay if the context overflows. The rest is room for new tokens: up to half the context.
        self._kept_tokens = context_length - min(max_new_tokens, context_length // 2)
        self._truncated = len(prompt) > self._kept_tokens and len(prompt) + max_new_tokens > context_length
        self.ids = prompt[-self._kept_tokens :] if self._truncated else list(prompt)
        self.capacity = min(context_length, len(self.ids) + max_new_tokens)  # tokens that its cache needs room for
        self.remaining = max_new_tokens
        self._seen, self._warned = set(prompt), False
        self._max_draft_tokens, self._lookup = draft_tokens, PromptLookup()

    @property
    def finished(self) -> bool:
        """Whether no more tokens are to be generated."""
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
            message = "the text outgrew the context of %d tokens: the model no longer sees its beginning"
            logger.warning(message, self._context_length)
            self._warned = True
        if full:
            self.ids = self.ids[-self._kept_tokens :]
            self._lookup = PromptLookup()
        return full

    def pending(self, cached_tokens: int) -> list[int]:
        """The ids that still need a forward pass: at first the prompt, later the last token."""
        return self.ids[cached_tokens:]

    def propose_draft(self) -> list[int]:
        """Draft tokens for the next step, or none. They exceed neither the context nor the tokens left to generate."""
        if not self._max_draft_tokens:
            return []
        room = self._context_length - len(self.ids)
        return self._lookup.draft(self.ids, min(self._max_draft_tokens, self.remaining - 1, room))

    def sample(self, logits: Tensor, draft: list[int]) -> list[int]:
        """Sample from logits (1 + draft tokens, V): after the sequence's last token, and after each draft token.

        Returns the tokens up to the first that differs from the draft: later logits belong to another continuation.
        """
        tokens: list[int] = []
        for token_logits, draft_token in zip(logits, [*draft, None], strict=True):  # None: nothing left to compare
            seen = self._seen.union(tokens) if tokens else self._seen
            token = sample(token_logits, seen, self.sampling, self._generator)
            tokens.append(token)
            if token != draft_token or token == self._end_token:
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
