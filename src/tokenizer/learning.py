"""Learn a byte-pair vocabulary from texts: GPT-2's splitting, and the merges that shorten these texts most."""

import hashlib
import json
from collections.abc import Iterable, Sequence

from src.tokenizer.byte_pairs import BytePairEncoding, bytes_of, require_exact_merges
from src.tokenizer.gpt2 import END_OF_TEXT, SPLIT

SMALLEST_VOCAB = 257  # every byte, and end-of-text
_MIN_COUNT = 2  # a pair that occurs only once is no pattern


def learn_byte_pairs(
    chunks: Sequence[str], vocab_size: int, always: Iterable[str] = (), saved: BytePairEncoding | None = None
) -> BytePairEncoding:
    """An encoding with up to `vocab_size` ids: the 256 bytes, the merges learned from the chunks, end-of-text last.

    It has fewer ids if no other pair of tokens occurs twice. always: texts to learn from besides the chunks.
    saved: an encoding that is returned if it was learned from the same chunks, for the same size.
    The result depends on nothing else: equally frequent pairs are merged in the order of their ids.
    """
    if vocab_size < SMALLEST_VOCAB:
        raise ValueError(f"a byte-pair vocabulary has at least {SMALLEST_VOCAB} ids, got {vocab_size}")
    source = _digest(chunks, vocab_size)
    if saved is not None and saved.learned_from == source:
        return saved
    vocabulary, merges = _train([*chunks, *always], vocab_size - 1)
    ranks = {bytes_of(spelling): id_ for spelling, id_ in vocabulary.items()}
    require_exact_merges(ranks, [(bytes_of(left), bytes_of(right)) for left, right in merges])
    end = len(ranks)
    return BytePairEncoding(ranks, {END_OF_TEXT: end}, {}, end, learned_from=source)


def spread_sample(chunks: Iterable[str], max_chars: int) -> tuple[list[str], int]:
    """(every n-th chunk, n), with the smallest power of two n for which they have at most `max_chars` characters.

    At least one chunk is returned. No more than the sample is in memory.
    """
    sample: list[str] = []
    stride, n_chars = 1, 0
    for i, chunk in enumerate(chunks):
        if i % stride == 0:
            sample.append(chunk)
            n_chars += len(chunk)
        while n_chars > max_chars and len(sample) > 1:
            sample, stride = sample[::2], 2 * stride
            n_chars = sum(map(len, sample))
    return sample, stride


def _train(texts: Iterable[str], size: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """(the id of each spelled token, the spelled pairs that are merged, in order)"""
    from tokenizers import Regex, Tokenizer
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split
    from tokenizers.trainers import BpeTrainer

    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = Sequence(
        [Split(Regex(SPLIT), "isolated"), ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    trainer = BpeTrainer(
        vocab_size=size, min_frequency=_MIN_COUNT, initial_alphabet=ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [(left, right) for left, right in model["merges"]]


def _digest(chunks: Iterable[str], vocab_size: int) -> str:
    digest = hashlib.sha256(f"{vocab_size}\n".encode("ascii"))
    for chunk in chunks:
        digest.update(chunk.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
