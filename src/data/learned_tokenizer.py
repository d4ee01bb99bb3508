"""The tokenizer of a model trained from scratch: GPT-2's, or one learned from the training text."""

import re
import time
from collections.abc import Iterable, Iterator
from itertools import takewhile
from typing import Literal, TypeAlias

from src.common.messages import Notify
from src.data.documents import BEFORE_SPACE, LINE_END, DocumentReader, Documents, Piece, cut_document
from src.data.examples import tuning_texts
from src.data.prompts import headings
from src.data.split import training_part
from src.data.text import find_text_files
from src.data.text_files import TextPaths, is_stored
from src.distributed.processes import Processes, first_process_first
from src.tokenizer import Encoding, describe, load_encoding, load_gpt2_encoding, word_encoding_of
from src.tokenizer.byte_pairs import BytePairEncoding
from src.tokenizer.learning import learn_byte_pairs, spread_sample

Tokenizer: TypeAlias = Literal["gpt2", "bpe", "word"]

_LEARNED_CHARS = 1 << 25  # a longer text is sampled
_CHARS_PER_TEMPLATE = 10_000
_SMALL_BYTES = 1 << 24


def choose_encoding(
    tokenizer: Tokenizer,
    paths: TextPaths,
    documents: Documents = None,
    *,
    vocab_size: int = 4096,
    val_fraction: float = 0.0,
    skip_bad: bool = False,
    saved: Encoding | None = None,
    processes: Processes | None = None,
    notify: Notify = print,
) -> Encoding:
    """GPT-2's tokenizer, or one with the words or the byte pairs of a text and of the examples for SFT and DPO.

    Byte pairs are learned without the last `val_fraction` of the text. vocab_size: the number of tokens to learn.
    saved: an encoding to use instead, if it was learned from the same text.
    Only the first of several processes learns it; the others get its result.
    If the text file is Shakespeare's works and does not exist, it is downloaded first.
    Raises ValueError for a pipe, which cannot be read a second time for its tokens.
    """
    if tokenizer == "gpt2":
        return load_gpt2_encoding()
    processes = processes or Processes()
    encoding: Encoding | None = None
    with first_process_first():  # the others wait here, because a large text takes longer than their usual time limit
        if processes.rank == 0:
            _refuse_pipes(tokenizer, paths)
            if tokenizer == "word":
                texts = training_texts(paths, documents, cut=LINE_END, skip_bad=skip_bad)
                encoding = word_encoding_of(texts, always=tuning_texts())
            else:
                texts = training_texts(paths, documents, val_fraction=val_fraction, skip_bad=skip_bad)
                encoding = _learn_byte_pairs(texts, vocab_size, saved, notify)
    description = processes.from_first(describe(encoding) if encoding is not None else None)
    return encoding if encoding is not None else load_encoding(description)


def _refuse_pipes(tokenizer: Tokenizer, paths: TextPaths) -> None:
    if pipes := [file for file in find_text_files(paths) if file.exists() and not is_stored(file)]:
        raise ValueError(
            f"--tokenizer {tokenizer} reads the text twice, and {pipes[0]} is a pipe or a device; "
            "save it as a file first"
        )


def _learn_byte_pairs(chunks: Iterable[str], vocab_size: int, saved: Encoding | None, notify: Notify) -> Encoding:
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


def training_texts(
    paths: TextPaths,
    documents: Documents = None,
    *,
    val_fraction: float = 0.0,
    skip_bad: bool = False,
    cut: re.Pattern[str] = BEFORE_SPACE,
) -> Iterator[str]:
    """Yield the training documents of a text one after another, for a tokenizer to learn from. Memory stays flat.

    A document of over 65,536 characters comes in several pieces, which end where `cut` matches: by default, before a
    space or at a line break. The texts can be read again by calling this again.
    val_fraction: the validation part, as in `split_tokens`, is left out. In a text of over 16 MB, the validation part
    is known only after reading all of it, so twice this share is left out.
    Raises the errors of `load_tokens` in text.py.
    """
    reader = DocumentReader(find_text_files(paths), cut, documents, skip_bad=skip_bad, notify=lambda _: None)
    n_bytes = sum(reader.sizes)
    if n_bytes > _SMALL_BYTES:
        limit = (1 - 2 * val_fraction) * n_bytes
        for piece in takewhile(lambda piece: piece.position <= limit, reader.pieces()):
            yield from piece.texts
    else:
        for document in training_part(_whole_documents(reader.pieces()), val_fraction):
            yield from cut_document([document], cut)


def _whole_documents(pieces: Iterable[Piece]) -> list[str]:
    """The documents, each with its pieces joined."""
    whole: list[list[str]] = []
    for piece in pieces:
        for number, text in enumerate(piece.texts):
            if number or piece.begins:
                whole.append([])
            whole[-1].append(text)
    return ["".join(texts) for texts in whole]
