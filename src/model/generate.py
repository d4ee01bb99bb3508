"""Text generation: sample one token at a time over a KV cache, and stream the text in whole characters.

Its naive form, with `sample` of decoding/sampling.py:

    for _ in range(max_new_tokens):
        logits = model(torch.tensor([ids]))[0, -1]  # (V,), of the next token
        next_id = sample(logits, ids, settings, random_numbers)
        if next_id == encoding.eot_token:
            break
        ids.append(next_id)

While the text fits in the context, the tokens are the same (test_generation_equals_its_naive_form). The rest is for
speed, for text that is shown while it is generated, and for longer texts.

The parts are in `src.model.decoding`: cached_model.py runs the model on tokens, sequence.py samples the next ones,
scheduler.py decodes several sequences together, and text_stream.py turns tokens into text.
"""

import collections.abc
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from src.common.checks import is_count, is_seed
from src.model.decoding.cached_model import CachedModel, PrefixCache, default_draft_tokens
from src.model.decoding.output_head import OutputHead
from src.model.decoding.sampling import SamplingSettings
from src.model.decoding.scheduler import decode_batch
from src.model.decoding.sequence import Sequence
from src.model.decoding.text_stream import TextStream, stop_strings
from src.model.gpt import GPTModel
from src.tokenizer.protocols.interfaces import Encoding

__all__ = ["PrefixCache", "TextGenerator", "TextStream"]

Prompt = str | collections.abc.Sequence[int]  # text, or token ids
Stop = str | collections.abc.Sequence[str] | None


class TextGenerator:
    """Continues text with a model. Moves the model to `device` (None: not) and leaves its training mode unchanged.

    Raises ValueError if the encoding has ids that the model does not have.
    """

    def __init__(self, model: GPTModel, encoding: Encoding, device: torch.device | str | None = "cpu") -> None:
        if encoding.n_vocab > model.config.vocab_size:
            raise ValueError(
                f"the tokenizer has {encoding.n_vocab} ids, the model has {model.config.vocab_size}; "
                "use the tokenizer that the model was trained with"
            )
        self.model = model.to(device or model.wpe.weight.device)
        self.encoding = encoding
        self._head = OutputHead(self.model, encoding.n_vocab)

    def prepare_fast_decoding(self, *, wait: bool = False) -> None:
        """Call this when the weights are final and many texts will follow: builds a 16-bit copy of the output head.

        The copy makes greedy and top-k sampling without a repetition penalty faster on a CPU if the head is large; see
        `HalfPrecisionHead`. Texts stay the same, unless two logits differ only by rounding. If the weights change after
        all, create a new TextGenerator.
        wait: block until the copy is ready, and raise any error. Otherwise it is built in the background, in about a
        second at 124M, and generation does without it until then, or if it fails.
        """
        self._head.prepare_fast_head(wait=wait)

    def settle(self, *, wait: bool = False) -> None:
        """Deprecated name of `prepare_fast_decoding`."""
        warnings.warn("settle is deprecated; call prepare_fast_decoding", DeprecationWarning, stacklevel=2)
        self.prepare_fast_decoding(wait=wait)

    def generate(self, prompt: Prompt, max_new_tokens: int = 100, **settings: Any) -> str:
        """The new text, without the prompt: the joined pieces of `stream`, which explains the settings."""
        return "".join(self.stream(prompt, max_new_tokens, **settings))

    def stream(
        self,
        prompt: Prompt,
        max_new_tokens: int = 100,
        *,
        stop: Stop = None,
        seed: int | None = None,
        draft_tokens: int | None = None,
        prefix_cache: PrefixCache | None = None,
        **sampling: Any,
    ) -> TextStream:
        """Yield the new text in pieces of whole characters as it is generated.

        prompt: text (special tokens in it are encoded as ordinary text), or token ids. Empty: an end-of-text.
        stop: one or more strings; the text ends before the first that occurs.
        seed: None draws a new one.
        draft_tokens: the most draft tokens for prompt-lookup decoding. They change the speed and not the text. None
        picks a good default.
        prefix_cache: its tokens are reused, and the new ones are added to it.
        sampling: the fields of `SamplingSettings`, such as temperature=, top_k=, top_p= and repetition_penalty=.
        If the context overflows, only the last tokens are used from there on, and a warning is logged.

        Raises ValueError naming each bad setting.
        """
        ids = self.prompt_ids(prompt)
        draft_tokens = default_draft_tokens(self.model) if draft_tokens is None else draft_tokens
        sequence = self._sequence(ids, max_new_tokens, SamplingSettings(**sampling), seed, draft_tokens)
        return self._text_stream(ids, self._generate_ids(sequence, prefix_cache or PrefixCache()), max_new_tokens, stop)

    def generate_batch(
        self,
        prompts: collections.abc.Sequence[Prompt],
        max_new_tokens: int = 100,
        *,
        stop: Stop = None,
        seed: int | None = None,
        batch_size: int = 8,
        **sampling: Any,
    ) -> list[str]:
        """The new text of each prompt, equal to `generate` with `seed` for the first, `seed + 1` for the second, ...

        batch_size: number of sequences decoded together; when one finishes, a waiting one takes its row (continuous
        batching). The other settings are those of `stream`. Rounding can make a batched text differ from the single
        one if two tokens are almost equally likely: in int8 and half precision, rarely in fp32.

        Raises ValueError naming each bad setting.
        """
        settings, stops = SamplingSettings(**sampling), stop_strings(stop)
        if isinstance(prompts, str):
            raise ValueError("prompts must be a list of prompts, got a single string")
        if not is_count(batch_size):
            raise ValueError(f"batch_size must be a whole number of at least 1, got {batch_size!r}")
        prompt_ids = [self.prompt_ids(prompt) for prompt in prompts]
        seeds = [None if seed is None else seed + i for i in range(len(prompts))]
        batch = [self._sequence(ids, max_new_tokens, settings, s) for ids, s in zip(prompt_ids, seeds, strict=True)]
        new_ids: list[list[int]] = [[] for _ in batch]
        for i, tokens in decode_batch(self.model, self._head, batch, batch_size):
            new_ids[i] += tokens
            if stops and any(stop in self.encoding.decode(new_ids[i]) for stop in stops):
                batch[i].finish()
        results = zip(prompt_ids, new_ids, strict=True)
        return ["".join(self._text_stream(ids, new, max_new_tokens, stop)) for ids, new in results]

    def sample(self, prompt: Prompt, max_new_tokens: int, seed: int) -> str:
        """The prompt and its continuation of up to half a context; deterministic for a given seed."""
        ids, half_context = self.prompt_ids(prompt), max(1, self.model.config.context_length // 2)
        new = self.generate(ids, min(max_new_tokens, half_context), temperature=0.8, top_k=40, seed=seed)
        return self.encoding.decode(ids) + new

    def predict_next_token(self, prompt: Prompt, top_k: int = 5) -> list[tuple[str, float]]:
        """The `top_k` most likely next tokens as (text, probability), highest first, before any filter."""
        SamplingSettings(top_k=top_k)  # raises ValueError for a bad value
        ids = self.prompt_ids(prompt)[-self.model.config.context_length :]
        logits = CachedModel(self.model, self._head, self.model.new_cache(capacity=len(ids))).forward(ids)[0]
        top = torch.softmax(logits, dim=0).topk(min(top_k, len(logits)))
        return [(self.encoding.decode([i]), p) for i, p in zip(top.indices.tolist(), top.values.tolist(), strict=True)]

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        """The token ids of a prompt, at least one. Raises ValueError for an id outside the vocabulary."""
        ids = self.encoding.encode_ordinary(prompt) if isinstance(prompt, str) else list(prompt)
        for i in ids:
            if not 0 <= i < self.model.config.vocab_size:
                raise ValueError(f"prompt id {i} is outside the vocabulary of {self.model.config.vocab_size}")
        return ids or [self.encoding.eot_token]

    def _sequence(
        self, ids: list[int], max_new_tokens: int, sampling: SamplingSettings, seed: int | None, draft_tokens: int = 0
    ) -> Sequence:
        if not is_count(max_new_tokens):
            raise ValueError(f"max_new_tokens must be a whole number of at least 1, got {max_new_tokens!r}")
        if draft_tokens != 0 and not is_count(draft_tokens):
            raise ValueError(f"draft_tokens must be a whole number of at least 0, got {draft_tokens!r}")
        return Sequence(
            ids,
            max_new_tokens,
            context_length=self.model.config.context_length,
            end_token=self.encoding.eot_token,
            sampling=sampling,
            generator=_random_generator(seed),
            draft_tokens=draft_tokens,
        )

    def _generate_ids(self, sequence: Sequence, prefix_cache: PrefixCache) -> Iterator[int]:
        """Yield new ids until the sequence is finished. Even after an interrupt, `prefix_cache` gets a usable cache."""
        cache = prefix_cache.take(self.model, sequence.ids, sequence.capacity)
        model, top_logits_needed = CachedModel(self.model, self._head, cache), sequence.sampling.top_logits_needed
        try:
            while not sequence.finished:
                if sequence.slide_if_full():
                    model.clear()
                draft = sequence.propose_draft()
                logits = model.forward(sequence.pending(cache.length) + draft, 1 + len(draft), top_logits_needed)
                tokens = sequence.sample(logits, draft)
                model.rollback(len(logits) - len(tokens))  # drop rejected draft tokens before any interrupt
                yield from sequence.accept(tokens)
        finally:
            prefix_cache.put(sequence.ids, cache)

    def _text_stream(
        self, prompt_ids: list[int], new_ids: Iterable[int], max_new_tokens: int, stop: Stop
    ) -> TextStream:
        last = prompt_ids[-1]
        previous = [last] if last < self.encoding.n_vocab and last != self.encoding.eot_token else []
        return TextStream(new_ids, self.encoding, max_new_tokens, stop_strings(stop), previous)


def _random_generator(seed: int | None) -> torch.Generator:
    generator = torch.Generator()
    if seed is None:
        generator.seed()
        return generator
    if not is_seed(seed):
        raise ValueError(f"seed must be a whole number from 0 to 2**63 - 1, or None, got {seed!r}")
    return generator.manual_seed(seed)
