"""Text out of a model: one token at a time, over a cache, streamed as whole characters."""

import codecs
import logging
from collections.abc import Iterable, Iterator, Sequence
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
    def decode_single_token_bytes(self, token: int) -> bytes: ...


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
    ) -> "TextStream":
        """The new text in pieces of whole characters, as they come.

        prompt: text, in which a special token's spelling is ordinary text, or token ids. An empty prompt starts after
        an end-of-text. stop: a string or several; the text ends before the first that appears. seed: None draws a
        new one. Where prompt and answer outgrow the context, the last part is read again and a warning is logged.

        Raises ValueError naming each bad setting.
        """
        if isinstance(max_new_tokens, bool) or not isinstance(max_new_tokens, int) or max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be a whole number of at least 1, got {max_new_tokens!r}")
        sampling = SamplingSettings(temperature, top_k, top_p, repetition_penalty)
        tokens = self._next_tokens(self.prompt_ids(prompt), max_new_tokens, sampling, _random_generator(seed))
        return TextStream(tokens, self.encoding, max_new_tokens, _stop_strings(stop))

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
        self, prompt: list[int], limit: int, sampling: SamplingSettings, generator: torch.Generator
    ) -> Iterator[int]:
        """At most `limit` new ids, ending before an end-of-text."""
        context = self.model.config.context_length
        kept = context - min(limit, context // 2)  # tokens that a window keeps when more than the context have come
        outgrows = len(prompt) + limit > context
        window = prompt[-kept:] if outgrows else list(prompt)
        seen, unread, told = set(prompt), window, False
        cache = self._new_cache(min(context, len(window) + limit))
        for _ in range(limit):
            full = cache.length + len(unread) > context
            if full:
                # Positions are learned: what is kept gets other ones, so its keys and values have to be made anew.
                window = window[-kept:]
                cache.length, unread = 0, window
            if not told and (full or len(window) < len(prompt)):
                logger.warning("the context of %d tokens is full: going on from the last %d, read again", context, kept)
                told = True
            logits = self._read(unread, cache)
            ids, probabilities = candidates(logits, torch.tensor(sorted(seen)), sampling)
            token = int(ids[torch.multinomial(probabilities, 1, generator=generator)]) if len(ids) > 1 else int(ids)
            if token == self.encoding.eot_token:
                return
            yield token
            seen.add(token)
            window.append(token)
            unread = [token]

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

    @torch.inference_mode()
    def _new_cache(self, capacity: int) -> KeyValueCache:
        return self.model.new_cache(capacity=capacity)


class TextStream(Iterator[str]):
    """Pieces of text as tokens come in, never half a character, never a part of a stop string.

    `ids` are the tokens made so far; `finish_reason` is None until the end, then "stop" (end-of-text or a stop
    string) or "length" (max_new_tokens).
    """

    def __init__(self, tokens: Iterable[int], encoding: TokenCodec, limit: int, stops: tuple[str, ...]) -> None:
        self.ids: list[int] = []
        self.finish_reason: Literal["stop", "length"] | None = None
        self._encoding, self._limit, self._stops = encoding, limit, stops
        self._pieces = self._cut(self._characters(tokens))

    def __next__(self) -> str:
        return next(self._pieces)

    def _characters(self, tokens: Iterable[int]) -> Iterator[str]:
        """The text of each token, a character being held back until its last byte has come."""
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        for token in tokens:
            self.ids.append(token)
            yield decoder.decode(self._encoding.decode_single_token_bytes(token))
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
