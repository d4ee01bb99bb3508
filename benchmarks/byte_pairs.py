"""python -m benchmarks.byte_pairs: time to learn a vocabulary from a text, and to encode with it.

Encoding is compared with tiktoken with GPT-2's vocabulary: the same text, one core. The two take turns, and the ratio
is the median over the pairs. Bytes per token are those of the last tenth, which is not learned.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.harness import check_rounds
from src.cli import flag, parse
from src.data.gutenberg import strip_boilerplate
from src.data.instructions import INSTRUCTIONS, load_conversations
from src.data.learned_tokenizer import choose_encoding
from src.data.prompts import render_conversation
from src.data.shakespeare import SHAKESPEARE_PATH
from src.data.split import training_part
from src.data.text_files import read_text
from src.program import run_script
from src.tokenizer import Encoding, load_gpt2_encoding

HELD_OUT = 0.1


@dataclass(frozen=True, kw_only=True)
class Flags:
    data: Path = flag(SHAKESPEARE_PATH, "text file in UTF-8")
    vocab_size: int = flag(4096, "tokens to learn")
    rounds: int = flag(9, "measurements, after one to warm up")


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def print_compactness(encoding: Encoding, text: str) -> None:
    """Bytes per token of the part that is not learned, and tokens of the shipped conversations."""
    end = text[len(next(training_part([text], HELD_OUT))) :]
    per_token = len(end.encode("utf-8")) / len(encoding.encode_ordinary(end))
    prompts = [
        render_conversation(conversation.messages, encoding)[0] for conversation in load_conversations(INSTRUCTIONS)
    ]
    mean = statistics.mean(map(len, prompts))
    sizes = f"{per_token:.2f} bytes per token   {mean:.1f} tokens per shipped conversation"
    print(f"{encoding.name:<12} {encoding.n_vocab:>6,} tokens   {sizes}")


def main(argv: Sequence[str] | None = None) -> int:
    flags, _ = parse(Flags, argv, __doc__)
    check_rounds(flags.rounds)

    def learn() -> Encoding:
        return choose_encoding(
            "bpe", flags.data, vocab_size=flags.vocab_size, val_fraction=HELD_OUT, notify=lambda _: None
        )

    gpt2, own = load_gpt2_encoding(), learn()
    learning = [seconds(learn) for _ in range(3)]
    text = strip_boilerplate(read_text(flags.data)).text
    times = [[seconds(partial(e.encode_ordinary, text)) for e in (gpt2, own)] for _ in range(flags.rounds + 1)][1:]
    medians = [statistics.median(column) for column in zip(*times, strict=True)]
    ratio = statistics.median(ours / theirs for theirs, ours in times)
    print(f"{len(text) / 1e6:.1f} million characters")
    print(f"learning     {statistics.median(learning):.2f} s, the text read and cleaned")
    print(
        f"encoding     {medians[0]:.3f} s with GPT-2's vocabulary, {medians[1]:.3f} s with the learned one: {ratio:.2f}"
    )
    for encoding in (gpt2, own):
        print_compactness(encoding, text)
    return 0


if __name__ == "__main__":
    run_script(main)
