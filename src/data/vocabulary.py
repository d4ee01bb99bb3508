"""A vocabulary of byte pairs, learned from the text of a training run."""

import time
from collections.abc import Callable, Iterable

from src.data.examples import tuning_texts
from src.data.prompts import headings
from src.tokenizer.byte_pairs import BytePairEncoding
from src.tokenizer.learning import learn_byte_pairs, spread_sample
from src.tokenizer.protocols.interfaces import Encoding

_LEARNED_CHARS = 1 << 25  # a longer text is sampled
_CHARS_PER_TEMPLATE = 10_000


def learned_encoding(
    chunks: Iterable[str], vocab_size: int, saved: Encoding | None, notify: Callable[[str], None]
) -> Encoding:
    """Byte pairs learned from the chunks of a text, the prompt template, and the examples for SFT and DPO.

    A long text is sampled. saved: an encoding that is returned if it was learned from the same text.
    `notify` gets one line on the vocabulary, and one if it is smaller than `vocab_size`.
    """
    start = time.perf_counter()
    sample, stride = spread_sample(chunks, _LEARNED_CHARS)
    same_kind = saved if isinstance(saved, BytePairEncoding) else None
    # Every prompt has the template's headings. Repeat them, so that they become few tokens even after a long text.
    repeated = headings() * (sum(map(len, sample)) // _CHARS_PER_TEMPLATE)
    encoding = learn_byte_pairs(sample, vocab_size, always=[*tuning_texts(), *repeated], saved=same_kind)
    if encoding is saved:
        notify(f"vocabulary: {encoding.n_vocab:,} tokens, those of the run in --out")
        return encoding
    part = f"one part in {stride} of the text" if stride > 1 else "the text"
    notify(f"vocabulary: {encoding.n_vocab:,} tokens, learned from {part} in {time.perf_counter() - start:.1f} s")
    if encoding.n_vocab < vocab_size:
        notify(f"note: not {vocab_size:,} tokens as in --vocab-size: no other pair of tokens occurs twice in the text")
    return encoding
