"""Text out of a model: one token at a time, over a cache, streamed as whole characters."""

import codecs
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from src.model.attention import KeyValueCache
from src.model.gpt import GPTModel
from src.model.sampling import SamplingSettings, candidates

logger = logging.getLogger(__name__)


class TokenCodec(Protocol):
    """What generation needs of a tokenizer; `tiktoken.Encoding` has it."""

    @property
    def name(self) -> str: ...
    @property
    def n_vocab(self) -> int: ...
    @property
    def eot_token(self) -> int: ...
    def encode_ordinary(self, text: str) -> list[int]: ...
    def decode(self, tokens: Sequence[int]) -> str: ...
    def decode_bytes(self, tokens: Sequence[int]) -> bytes: ...
    def decode_single_token_bytes(self, token: int) -> bytes: ...


@dataclass
class KeptCache:
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

    def generate(self, prompt: str | Sequence[int], max_new_tokens: int = 100, **settings: Any) -> str:
        """The new text only. Takes the settings of `stream` and equals the join of its pieces."""
        return "".join(self.stream(prompt, max_new_tokens, **settings))

    def stream(
        self,
        prompt: str | Sequence[int],
        max_new_tokens: int = 100,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        repetition_penalty: float = 1.0,
        stop: str | Sequence[str] | None = None,
        seed: int | None = None,
        kept: KeptCache | None = None,
    ) -> "TextStream":
        """The new text in pieces of whole characters, as they come.

        prompt: text, in which a special token's spelling is ordinary text, or token ids. An empty prompt starts after
        an end-of-text. stop: a string or several; the text ends before the first that appears. seed: None draws a
        new one. kept: reads only what follows the tokens that it holds already, and holds the new ones afterwards.
        Where prompt and answer outgrow the context, the last part is read again and a warning is logged.

        Raises ValueError naming each bad setting.
        """
        if isinstance(max_new_tokens, bool) or not isinstance(max_new_tokens, int) or max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be a whole number of at least 1, got {max_new_tokens!r}")
        sampling = SamplingSettings(temperature, top_k, top_p, repetition_penalty)
        ids = self.prompt_ids(prompt)
        tokens = self._next_tokens(ids, max_new_tokens, sampling, _random_generator(seed), kept or KeptCache())
        before = ids[-1:] if ids[-1] < self.encoding.n_vocab and ids[-1] != self.encoding.eot_token else []
        return TextStream(tokens, self.encoding, max_new_tokens, _stop_strings(stop), before)

    def sample(self, beginning: str | Sequence[int], max_new_tokens: int, seed: int) -> str:
        """A beginning and what the model makes of it, up to half a context: the same draw whenever the seed is."""
        ids, most = self.prompt_ids(beginning), max(1, self.model.config.context_length // 2)
        new = self.generate(ids, min(max_new_tokens, most), temperature=0.8, top_k=40, seed=seed)
        return self.encoding.decode(ids) + new

    def predict_next_token(self, prompt: str | Sequence[int], top_k: int = 5) -> list[tuple[str, float]]:
        """The `top_k` most likely next tokens as (text, probability), highest first, without any filter."""
        SamplingSettings(top_k=top_k)
        context = self.prompt_ids(prompt)[-self.model.config.context_length :]
        probabilities = torch.softmax(self._read(context, cache=None), dim=0)
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

    def _next_tokens(
        self, prompt: list[int], limit: int, sampling: SamplingSettings, generator: torch.Generator, kept: KeptCache
    ) -> Iterator[int]:
        """At most `limit` new ids, ending before an end-of-text."""
        context = self.model.config.context_length
        room = context - min(limit, context // 2)  # tokens that a window keeps when more than the context have come
        outgrows = len(prompt) + limit > context
        window = prompt[-room:] if outgrows else list(prompt)
        seen, told = set(prompt), False
        cache = self._cache_for(window, min(context, len(window) + limit), kept)
        try:
            for _ in range(limit):
                full = len(window) > context
                if full:
                    # Positions are learned: what is kept gets other ones, so its keys and values have to be made anew.
                    window, cache.length = window[-room:], 0
                if not told and (full or len(window) < len(prompt)):
                    logger.warning(
                        "the context of %d tokens is full: going on from the last %d, read again", context, room
                    )
                    told = True
                logits = self._read(window[cache.length :], cache)
                ids, probabilities = candidates(logits, seen, sampling)
                token = int(ids[torch.multinomial(probabilities, 1, generator=generator)]) if len(ids) > 1 else int(ids)
                if token == self.encoding.eot_token:
                    return
                yield token
                seen.add(token)
                window.append(token)
        finally:
            kept.ids, kept.cache = window[: cache.length], cache

    @torch.inference_mode()
    def _cache_for(self, window: list[int], capacity: int, kept: KeptCache) -> KeyValueCache:
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
                grown.take(cache, known)
            cache = grown
        cache.length = known
        return cache

    @torch.inference_mode()
    def _read(self, ids: list[int], cache: KeyValueCache | None) -> Tensor:
        """Logits (n_vocab,) in float32 on the CPU of the token after `ids`; ids that spell nothing get -inf.

        Choosing on the CPU makes a seed give the same text on every device.
        """
        with self.model.evaluating():
            hidden = self.model.hidden_states(torch.tensor([ids], device=self.device), cache)
            logits = self.model.head(hidden[0, -1]).float().cpu()
        logits[self.encoding.n_vocab :] = -torch.inf
        return logits


class TextStream(Iterator[str]):
    """Pieces of text as tokens come in, never half a character, never a part of a stop string.

    `ids` are the tokens made so far; `finish_reason` is None until the end, then "stop" (end-of-text or a stop
    string) or "length" (max_new_tokens). `before` is the token that the text goes on from, or nothing: a word after
    another begins with a space where the tokenizer is of words.
    """

    def __init__(
        self, tokens: Iterable[int], encoding: TokenCodec, limit: int, stops: Sequence[str], before: Sequence[int] = ()
    ) -> None:
        self.ids: list[int] = []
        self.finish_reason: Literal["stop", "length"] | None = None
        self._encoding, self._limit, self._stops, self._before = encoding, limit, stops, list(before)
        self._pieces = self._cut(self._characters(tokens))

    def __next__(self) -> str:
        return next(self._pieces)

    def _characters(self, tokens: Iterable[int]) -> Iterator[str]:
        """The text of each token, a character being held back until its last byte has come."""
        decoder, before = codecs.getincrementaldecoder("utf-8")(errors="replace"), self._before
        for token in tokens:
            self.ids.append(token)
            known = len(self._encoding.decode_bytes(before))
            yield decoder.decode(self._encoding.decode_bytes([*before, token])[known:])
            before = [token]
        yield decoder.decode(b"", final=True)

    def _cut(self, pieces: Iterator[str]) -> Iterator[str]:
        """The text before the first stop string; what could be the beginning of one is held back."""
        held = ""
        for piece in pieces:
            held += piece
            ends = [at for stop in self._stops if (at := held.find(stop)) >= 0]
            if ends:
                self.finish_reason = "stop"
                held = held[: min(ends)]
                break
            safe = len(held) - max((_overlap(held, stop) for stop in self._stops), default=0)
            if safe:
                yield held[:safe]
            held = held[safe:]
        else:
            self.finish_reason = "length" if len(self.ids) >= self._limit else "stop"
        if held:
            yield held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a proper beginning of `stop`."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)


def _stop_strings(stop: str | Sequence[str] | None) -> tuple[str, ...]:
    stops = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if not all(isinstance(s, str) and s for s in stops):
        raise ValueError(f"stop must be a non-empty string or a list of them, got {stop!r}")
    return stops


def _random_generator(seed: int | None) -> torch.Generator:
    generator = torch.Generator()
    if seed is None:
        generator.seed()
        return generator
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise ValueError(f"seed must be a whole number from 0 to 2**63 - 1, or None, got {seed!r}")
    return generator.manual_seed(seed)
