"""python -m benchmarks.draft_tokens: how many draft tokens are accepted in real text, and the time they save, at 124M.

Each text is replayed window by window, as if the model sampled exactly its tokens, and the accepted draft tokens are
counted. Forward passes on one and more tokens are timed with random weights. The time of a text is the sum of its
passes. Texts: Shakespeare, and this project's source.
"""

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from benchmarks.harness import check_rounds, seconds
from src.chat.session import ChatSettings
from src.cli import flag, parse
from src.data.gutenberg import strip_boilerplate
from src.data.shakespeare import SHAKESPEARE_PATH, ensure_shakespeare
from src.data.text_files import read_text
from src.model.decoding import prompt_lookup
from src.model.decoding.cached_model import CachedModel
from src.model.decoding.output_head import OutputHead
from src.model.decoding.sampling import SamplingSettings
from src.model.decoding.sequence import Sequence as TokenSequence
from src.model.gpt import GPT_CONFIGS, GPTModel
from src.program import run_script
from src.tokenizer import load_gpt2_encoding

WINDOW, PROMPT = 1024, 32  # tokens of a replayed window, and how many of them are its prompt
DRAFT_TOKENS = (0, 2, 3, 5, 8)


@dataclass(frozen=True, kw_only=True)
class Flags:
    ngram: int = flag(prompt_lookup.NGRAM, "tokens that must match before a draft is made")
    tokens: int = flag(60_000, "tokens of each text")
    rounds: int = flag(9, "timed forward passes of each length")


def forward_ms(lengths: Iterable[int], rounds: int) -> dict[int, float]:
    """Milliseconds of a chat's forward pass on each number of tokens, with half a window cached. Lengths take turns."""
    model = GPTModel({**GPT_CONFIGS["gpt2-124M"], "dropout": 0.0}).eval()
    head = OutputHead(model, model.config.vocab_size)
    head.prepare_fast_head(wait=True)
    cached, top_k = CachedModel(model, head, model.new_cache()), ChatSettings().top_logits_needed
    cached.forward([0] * (WINDOW // 2))
    times: dict[int, list[float]] = {length: [] for length in lengths}
    for _ in range(rounds + 1):
        for length, measured in times.items():
            measured.append(seconds(partial(cached.forward, [5] * length, length, top_k)))
            cached.rollback(length)
    return {length: statistics.median(measured[1:]) * 1e3 for length, measured in times.items()}


def replay(window: list[int], draft_tokens: int, vocab_size: int) -> Counter[int]:
    """Count the forward passes that generate a window after its prompt, by their number of tokens."""
    replayed = TokenSequence(
        window[:PROMPT],
        len(window) - PROMPT,
        context_length=WINDOW,
        end_token=-1,
        sampling=SamplingSettings(temperature=0),
        generator=torch.Generator(),
        draft_tokens=draft_tokens,
    )
    passes: Counter[int] = Counter()
    while not replayed.finished:
        known = len(replayed.ids)
        draft = replayed.propose_draft()
        n_logits = 1 + len(draft)
        passes[n_logits] += 1
        next_ids = torch.tensor(window[known : known + n_logits])
        replayed.accept(replayed.sample(torch.nn.functional.one_hot(next_ids, vocab_size).float(), draft))
    return passes


def main(argv: Sequence[str] | None = None) -> int:
    flags, _ = parse(Flags, argv, __doc__)
    check_rounds(flags.rounds)
    ensure_shakespeare()
    prompt_lookup.NGRAM = flags.ngram
    source = "".join(file.read_text(encoding="utf-8") for file in sorted(Path("src").rglob("*.py")))
    texts = {"Shakespeare": strip_boilerplate(read_text(SHAKESPEARE_PATH)).text, "Python source": source}
    pass_ms = forward_ms(range(1, max(DRAFT_TOKENS) + 2), flags.rounds)
    print("tokens in a forward pass, ms: " + ", ".join(f"{length}: {ms:.1f}" for length, ms in pass_ms.items()))
    for name, text in texts.items():
        ids = load_gpt2_encoding().encode_ordinary(text[: 8 * flags.tokens])[: flags.tokens]
        renumbered = {id: i for i, id in enumerate(dict.fromkeys(ids))}  # a small vocabulary makes small logits
        ids = [renumbered[id] for id in ids]
        windows = [ids[start : start + WINDOW] for start in range(0, len(ids) - PROMPT, WINDOW)]
        generated = sum(len(window) - PROMPT for window in windows)
        for draft_tokens in DRAFT_TOKENS:
            passes = sum((replay(window, draft_tokens, len(renumbered)) for window in windows), Counter())
            ms = sum(pass_ms[length] * count for length, count in passes.items()) / generated
            accepted = 1 - passes.total() / generated
            print(f"{name:<14} {draft_tokens} draft tokens: {ms:5.2f} ms per token, {accepted:4.0%} accepted")
    return 0


if __name__ == "__main__":
    run_script(main)
