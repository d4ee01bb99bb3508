"""python -m benchmarks.draft_tokens: what guessed tokens would bring to texts that are there already, at 124M.

Each text is written once more, window by window, as if every draw of the model were its next token: which guesses are
made, and which come true, is then counted. What reading so many tokens at once takes is measured on a model of random
weights, and a text's time is the sum of its reads. Texts: Shakespeare, and this project's own source.
"""

import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import torch

from benchmarks.harness import check_rounds
from src.chat.session import ChatSettings
from src.cli import flag, parse
from src.data.files import read_text
from src.data.gutenberg import strip_boilerplate
from src.data.shakespeare import SHAKESPEARE_PATH
from src.model.attention import KeyValueCache
from src.model.decoding import sequence
from src.model.decoding.fast_head import HalfPrecisionHead
from src.model.decoding.sampling import SamplingSettings
from src.model.decoding.step import SingleTokenStep
from src.model.gpt import GPT_CONFIGS, GPTModel
from src.program import run_script
from src.tokenizer import load_gpt2_encoding

WINDOW, BEGINNING = 1024, 32  # tokens of a text, and how many of them are its prompt
GUESSES = (0, 2, 3, 5, 8)


@dataclass(frozen=True, kw_only=True)
class Config:
    ngram: int = flag(sequence.NGRAM, "tokens that have to be the same before a guess")
    tokens: int = flag(60_000, "tokens of each text")
    rounds: int = flag(9, "reads of each length that count")


@torch.inference_mode()
def read_ms(lengths: Sequence[int], rounds: int) -> dict[int, float]:
    """Milliseconds that a chat's reading of so many tokens takes behind half a window; the lengths take turns."""
    model = GPTModel({**GPT_CONFIGS["gpt2-124M"], "dropout": 0.0}).eval()
    cache, decoder, head = model.new_cache(), SingleTokenStep(model), HalfPrecisionHead(model.wte.weight)
    model.hidden_states(torch.zeros(1, WINDOW // 2, dtype=torch.int64), cache)
    times: dict[int, list[float]] = {length: [] for length in lengths}
    for _ in range(rounds + 1):
        for length, found in times.items():
            start = time.perf_counter()
            if length == 1:
                states = decoder.states([5], cache, [WINDOW // 2])
            else:
                states = model.hidden_states(torch.full((1, length), 5), cache)[0]
            head.logits(states, ChatSettings().sampling_options()["top_k"])  # never None: random rows differ
            found.append(time.perf_counter() - start)
            cache.length = WINDOW // 2
    return {length: statistics.median(found[1:]) * 1e3 for length, found in times.items()}


def reads(window: Sequence[int], lookup: int, vocab_size: int) -> Counter[int]:
    """How often so many tokens are read at once while a text is written; the prompt is left out."""
    greedy = SamplingSettings(temperature=0)
    copy = sequence.Writer(
        window[:BEGINNING],
        len(window) - BEGINNING,
        context=WINDOW,
        end=-1,
        sampling=greedy,
        generator=torch.Generator(),
        lookup=lookup,
    )
    cache = cast(KeyValueCache, SimpleNamespace(length=0))  # no more of it is looked at
    found: Counter[int] = Counter()
    while not copy.finished:
        unread, known = copy.unread(cache), len(copy.window)
        found[1 + len(copy.guesses)] += 1
        cache.length += len(unread)
        following = window[known : known + 1 + len(copy.guesses)]
        copy.write(torch.nn.functional.one_hot(torch.tensor(following), vocab_size).float(), cache)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    flags, _ = parse(Config, argv, __doc__)
    check_rounds(flags.rounds)
    sequence.NGRAM = flags.ngram
    source = "".join(file.read_text(encoding="utf-8") for file in sorted(Path("src").rglob("*.py")))
    texts = {"Shakespeare": strip_boilerplate(read_text(SHAKESPEARE_PATH)).text, "Python source": source}
    cost = read_ms(range(1, max(GUESSES) + 2), flags.rounds)
    print("tokens at once, ms: " + ", ".join(f"{length}: {ms:.1f}" for length, ms in cost.items()))
    for name, text in texts.items():
        ids = load_gpt2_encoding().encode_ordinary(text[: 8 * flags.tokens])[: flags.tokens]
        of_id = {id: i for i, id in enumerate(dict.fromkeys(ids))}
        numbers = [of_id[id] for id in ids]
        windows = [numbers[at : at + WINDOW] for at in range(0, len(numbers) - BEGINNING, WINDOW)]
        written = sum(len(window) - BEGINNING for window in windows)
        for lookup in GUESSES:
            found = sum((reads(window, lookup, len(of_id)) for window in windows), Counter())
            ms = sum(cost[length] * times for length, times in found.items()) / written
            guessed = 1 - found.total() / written
            print(f"{name:<14} {lookup} guesses: {ms:5.2f} ms a token, {guessed:4.0%} of the tokens guessed right")
    return 0


if __name__ == "__main__":
    run_script(main)
