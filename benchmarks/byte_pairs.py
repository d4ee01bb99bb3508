"""python -m benchmarks.byte_pairs: time to learn a vocabulary from a text, and to encode with it.

Encoding is compared with GPT-2's vocabulary, both in tiktoken on one core. The two take turns, and the ratio is the
median over the pairs. Bytes per token are those of the last tenth of the text, from which nothing was learned.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.harness import check_rounds, seconds, time_in_turns
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
    encoders = {encoding.name: partial(encoding.encode_ordinary, text) for encoding in (gpt2, own)}
    gpt2_s, own_s = time_in_turns(encoders, flags.rounds).values()
    ratio = statistics.median(a / b for a, b in zip(own_s, gpt2_s, strict=True))
    print(f"{len(text) / 1e6:.1f} million characters")
    print(f"learning     {statistics.median(learning):.2f} s, the text read and cleaned")
    medians = f"{statistics.median(gpt2_s):.3f} s with GPT-2's vocabulary, {statistics.median(own_s):.3f} s with ours"
    print(f"encoding     {medians}: {ratio:.2f}")
    for encoding in (gpt2, own):
        print_compactness(encoding, text)
    return 0


if __name__ == "__main__":
    run_script(main)
