"""Text out of a model: one token at a time, over a cache, streamed as whole characters."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from src.common.checks import is_count, is_seed
from src.model.attention import KeyValueCache
from src.model.decoding.fast_head import HalfPrecisionHead
from src.model.decoding.sampling import SamplingSettings
from src.model.decoding.sequence import Writer
from src.model.decoding.step import SingleTokenStep, default_draft_tokens
from src.model.decoding.text_stream import TextStream, TokenCodec, stop_strings
from src.model.gpt import GPTModel

__all__ = ["PrefixCache", "TextGenerator", "TextStream", "TokenCodec"]


@dataclass
class PrefixCache:
    """What a model has read and written, kept so that a text that goes on from there is read from there only.

    Pass the same one to each `stream` of a conversation. It is good for one model with the weights it had.
    """

    ids: list[int] = field(default_factory=list)
    cache: KeyValueCache | None = None


class TextGenerator:
    """Continues text with a model. The model is moved to `device`; its training mode is left as it was found.

    Raises ValueError where the encoding has ids that the model does not know.
    """

    def __init__(self, model: GPTModel, encoding: TokenCodec, device: torch.device | str = "cpu") -> None:
        if encoding.n_vocab > model.config.vocab_size:
            raise ValueError(
                f"the tokenizer has {encoding.n_vocab} ids, the model knows {model.config.vocab_size}; "
                "use the tokenizer that the model was trained with"
            )
        self.device = torch.device(device)
        self.model = model.to(self.device)
        self.encoding = encoding
        self._settling: Future[HalfPrecisionHead] | None = None

    def prepare_fast_decoding(self, *, wait: bool = False) -> None:
        """The model's weights will stay as they are, and many texts be written: what is prepared makes them faster.

        In the background (a second at 124M) a large head is copied in 16 bits, which serves greedy and top-k sampling
        without a repetition penalty, on a CPU: see `HalfPrecisionHead`. The texts are the same, unless two logits
        differ by the rounding of their sums only. Where weights change after all, make a new TextGenerator.
        wait: come back when it is done; raises what went wrong. Otherwise texts are then written as before.
        """
        if self._settling is None and HalfPrecisionHead.pays(self.model):
            threads = ThreadPoolExecutor(1)
            self._settling = threads.submit(HalfPrecisionHead, self.model.wte.weight[: self.encoding.n_vocab].detach())
            threads.shutdown(wait=False)
        if self._settling is not None and wait:
            self._settling.result()

    def settle(self, *, wait: bool = False) -> None:
        """Deprecated name of `prepare_fast_decoding`."""
        warnings.warn("settle is called prepare_fast_decoding now", DeprecationWarning, stacklevel=2)
        self.prepare_fast_decoding(wait=wait)

    def generate(self, prompt: str | Sequence[int], max_new_tokens: int = 100, **settings: Any) -> str:
        """The new text only. Takes the settings of `stream` and equals the join of its pieces."""
        return "".join(self.stream(prompt, max_new_tokens, **settings))

    def stream(
        self,
        prompt: str | Sequence[int],
        max_new_tokens: int = 100,
        *,
        stop: str | Sequence[str] | None = None,
        seed: int | None = None,
        draft_tokens: int | None = None,
        prefix_cache: PrefixCache | None = None,
        **sampling: Any,
    ) -> "TextStream":
        """The new text in pieces of whole characters, as they come.

        prompt: text, in which a special token's spelling is ordinary text, or token ids. An empty prompt starts after
        an end-of-text. sampling: the options of `SamplingSettings`, as temperature=, top_k=, top_p= and
        repetition_penalty=. stop: a string or several; the text ends before the first that appears. seed: None draws a
        new one. lookup: where the text repeats itself, so many tokens at most are guessed ahead and read at once: the
        same text, sooner; None guesses as many as cost the model next to nothing. kept: reads only what follows the
        tokens that it holds already, and holds the new ones afterwards. Where prompt and answer outgrow the context,
        the last part is read again and a warning is logged.

        Raises ValueError naming each bad setting.
        """
        ids = self.prompt_ids(prompt)
        guesses = default_draft_tokens(self.model) if draft_tokens is None else draft_tokens
        writer = self._writer(ids, max_new_tokens, SamplingSettings(**sampling), seed, guesses)
        return self._text(ids, self._next_tokens(writer, prefix_cache or PrefixCache()), max_new_tokens, stop)

    def generate_batch(
        self,
        prompts: Sequence[str | Sequence[int]],
        max_new_tokens: int = 100,
        *,
        stop: str | Sequence[str] | None = None,
        seed: int | None = None,
        batch_size: int = 8,
        **sampling: Any,
    ) -> list[str]:
        """The new text of each prompt: what `generate` gives it, the first with `seed`, the next with `seed + 1`.

        batch_size: so many texts are written at once, a token of each in one step; when one ends, the next begins in
        its place. The other settings are those of `stream`. In 8 bits and in half precision, rounding can make a text
        that is written with others another one. Raises ValueError naming each bad setting.
        """
        settings, stops = SamplingSettings(**sampling), stop_strings(stop)
        if isinstance(prompts, str):
            raise ValueError("prompts must be several prompts in a list, got a single text")
        if not is_count(batch_size):
            raise ValueError(f"batch_size must be a whole number of at least 1, got {batch_size!r}")
        beginnings = [self.prompt_ids(prompt) for prompt in prompts]
        seeds = [None if seed is None else seed + i for i in range(len(prompts))]
        writers = [self._writer(ids, max_new_tokens, settings, s) for ids, s in zip(beginnings, seeds, strict=True)]
        written: list[list[int]] = [[] for _ in writers]
        for i, tokens in self._write_together(writers, batch_size):
            written[i] += tokens
            if stops and any(found in self.encoding.decode(written[i]) for found in stops):
                writers[i].end()
        texts = zip(beginnings, written, strict=True)
        return ["".join(self._text(ids, new, max_new_tokens, stop)) for ids, new in texts]

    def sample(self, beginning: str | Sequence[int], max_new_tokens: int, seed: int) -> str:
        """A beginning and what the model makes of it, up to half a context: the same draw whenever the seed is."""
        ids, most = self.prompt_ids(beginning), max(1, self.model.config.context_length // 2)
        new = self.generate(ids, min(max_new_tokens, most), temperature=0.8, top_k=40, seed=seed)
        return self.encoding.decode(ids) + new

    def predict_next_token(self, prompt: str | Sequence[int], top_k: int = 5) -> list[tuple[str, float]]:
        """The `top_k` most likely next tokens as (text, probability), highest first, without any filter."""
        SamplingSettings(top_k=top_k)
        context = self.prompt_ids(prompt)[-self.model.config.context_length :]
        probabilities = torch.softmax(self._read(context, self.model.new_cache(capacity=len(context)))[0], dim=0)
        best = probabilities.topk(min(top_k, len(probabilities)))
        return [
            (self.encoding.decode([i]), p) for i, p in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]

    def prompt_ids(self, prompt: str | Sequence[int]) -> list[int]:
        """The ids that generation starts from. Raises ValueError for an id outside the vocabulary."""
        ids = self.encoding.encode_ordinary(prompt) if isinstance(prompt, str) else list(prompt)
        for i in ids:
            if not 0 <= i < self.model.config.vocab_size:
                raise ValueError(f"prompt id {i} is outside the vocabulary of {self.model.config.vocab_size}")
        return ids or [self.encoding.eot_token]

    def _writer(
        self, ids: list[int], limit: int, sampling: SamplingSettings, seed: int | None, lookup: int = 0
    ) -> Writer:
        if not is_count(limit):
            raise ValueError(f"max_new_tokens must be a whole number of at least 1, got {limit!r}")
        if lookup != 0 and not is_count(lookup):
            raise ValueError(f"draft_tokens must be a whole number of at least 0, got {lookup!r}")
        end, context, generator = self.encoding.eot_token, self.model.config.context_length, _random_generator(seed)
        return Writer(ids, limit, context=context, end=end, sampling=sampling, generator=generator, lookup=lookup)

    def _text(
        self, ids: list[int], tokens: Iterable[int], limit: int, stop: str | Sequence[str] | None
    ) -> "TextStream":
        before = ids[-1:] if ids[-1] < self.encoding.n_vocab and ids[-1] != self.encoding.eot_token else []
        return TextStream(tokens, self.encoding, limit, stop_strings(stop), before)

    def _next_tokens(self, writer: Writer, kept: PrefixCache) -> Iterator[int]:
        """New ids, ending before an end-of-text."""
        cache, decoder = self._cache_for(writer.window, writer.capacity, kept), SingleTokenStep(self.model)
        top_logits_needed = writer.sampling.top_logits_needed
        try:
            while not writer.finished:
                ids = writer.unread(cache)
                if len(ids) == 1:
                    logits = self._read_one_each(ids, decoder, cache, [cache], top_logits_needed)
                else:
                    logits = self._read(ids, cache, 1 + len(writer.guesses), top_logits_needed)
                yield from writer.write(logits, cache)
        finally:
            kept.ids, kept.cache = writer.window[: cache.length], cache

    def _write_together(self, writers: Sequence[Writer], rows: int) -> Iterator[tuple[int, list[int]]]:
        """(which text, its new ids), text by text and step by step; those being written are the cache's first rows."""
        if not writers:
            return
        waiting, decoder = iter(enumerate(writers)), SingleTokenStep(self.model)
        cache = self.model.new_cache(min(rows, len(writers)), max(writer.capacity for writer in writers))
        cache.keys_values.zero_()  # what a shorter text is masked from may be anything but not a number
        texts: list[tuple[int, Writer, KeyValueCache]] = []
        while True:
            while len(texts) < rows and (following := next(waiting, None)):
                texts.append((*following, cache.row(len(texts))))
            if not texts:
                return
            ids = [writer.unread(row) for _, writer, row in texts]
            for (_, _, row), unread in zip(texts, ids, strict=True):
                if len(unread) > 1:
                    self._states(unread[:-1], row)
            last, top_logits_needed = (
                [unread[-1] for unread in ids],
                texts[0][1].sampling.top_logits_needed,
            )  # all have the same
            logits = self._read_one_each(last, decoder, cache, [row for _, _, row in texts], top_logits_needed)
            for (i, writer, row), position in zip(texts, logits, strict=True):
                yield i, writer.write(position[None], row)
            for place in reversed(range(len(texts))):
                if texts[place][1].finished:
                    _give_away(place, texts, cache)

    @torch.inference_mode()
    def _cache_for(self, window: list[int], capacity: int, kept: PrefixCache) -> KeyValueCache:
        """A cache with room for `capacity` tokens that holds the beginning of the window as far as `kept` has it.

        At least the last token is left to be read: its logits are wanted. Meanwhile `kept` is empty, so that a second
        stream that begins before the first has ended gets a cache of its own.
        """
        same = (known == new for known, new in zip(kept.ids, window[:-1], strict=False))
        known = sum(takewhile(bool, same))
        cache, kept.ids, kept.cache = kept.cache, [], None
        if cache is None or cache.capacity < capacity:
            grown = self.model.new_cache(capacity=capacity)
            if cache is not None:
                grown.copy_from(cache, known)
            cache = grown
        cache.length = known
        return cache

    def _read(
        self, ids: list[int], cache: KeyValueCache, positions: int = 1, top_logits_needed: int | None = None
    ) -> Tensor:
        """Logits (positions, V) of the tokens after each of the last ids, which continue what the cache holds."""
        return self._logits(self._states(ids, cache)[-positions:], top_logits_needed)

    @torch.inference_mode()
    def _states(self, ids: list[int], cache: KeyValueCache) -> Tensor:
        """The states (ids, C) that the head reads."""
        with self.model.evaluating():
            return self.model.hidden_states(torch.tensor([ids], device=self.device), cache)[0]

    @torch.inference_mode()
    def _read_one_each(
        self,
        ids: list[int],
        decoder: SingleTokenStep,
        cache: KeyValueCache,
        rows: Sequence[KeyValueCache],
        top_logits_needed: int | None,
    ) -> Tensor:
        """Logits (rows, V) after one more token in each of the first rows of a cache."""
        logits = self._logits(decoder.states(ids, cache, [row.length for row in rows]), top_logits_needed)
        for row in rows:
            row.length += 1
        return logits

    @torch.inference_mode()
    def _logits(self, states: Tensor, top_logits_needed: int | None) -> Tensor:
        """Logits (n, V) in float32 on the CPU of states (n, C); ids that spell nothing get -inf.

        top_logits_needed: only this many of the largest logits need to be exact. Choosing on the CPU makes a seed give
        the same text on every device.
        """
        known, settling = self.encoding.n_vocab, self._settling
        if top_logits_needed and settling is not None and settling.done() and not settling.exception():
            listed = settling.result().logits(states, top_logits_needed)
            if listed is not None:
                return F.pad(listed, (0, self.model.config.vocab_size - known), value=-torch.inf)
        logits = self.model.head(states).float().cpu()
        logits[:, known:] = -torch.inf
        return logits


def _give_away(place: int, texts: list[tuple[int, Writer, KeyValueCache]], cache: KeyValueCache) -> None:
    """End the text at a place; the last one moves there, so that the rest are the cache's first rows again."""
    i, writer, row = texts.pop()
    if place < len(texts):
        texts[place] = i, writer, cache.row(place)
        texts[place][2].copy_from(row, row.length)


def _random_generator(seed: int | None) -> torch.Generator:
    generator = torch.Generator()
    if seed is None:
        generator.seed()
        return generator
    if not is_seed(seed):
        raise ValueError(f"seed must be a whole number from 0 to 2**63 - 1, or None, got {seed!r}")
    return generator.manual_seed(seed)
