"""Tokenise a text of any size: read in pieces, encoded on all CPUs, written in shards that outlast an interruption."""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeAlias, TypeGuard

import numpy as np
import tiktoken
from numpy.typing import NDArray
from tqdm import tqdm

from src.common.atomic_file import remove_stale_temporaries
from src.common.disk import format_bytes, require_free_space
from src.common.machine import usable_cpus
from src.data.documents import PIECE_CHARS, DocumentReader, Notify, Piece
from src.data.split import token_bytes
from src.data.token_shards import EncodedPieces, Index, ResumePoint, read_index, token_dtype, write_shard
from src.tokenizer import Encoding
from src.tokenizer.gpt2 import END_OF_TEXT
from src.tokenizer.protocols.interfaces import BatchEncoding

IN_MEMORY_BYTES = 1 << 30  # the largest text whose tokens may stay in memory
_REPORT_S = 60.0  # between two lines on the progress, if there is no terminal to draw a bar on
_SAFETY = 1.1  # the disk must have room for more tokens than the start of the text predicts
_PREDICTED_FROM_BYTES = 4_000_000
_MORE_ROOM = "free some space, or move the text to another disk: its tokens are cached next to it"


Positioned: TypeAlias = tuple[float, EncodedPieces]  # their end in the text as a byte offset, and their ids


@dataclass(frozen=True)
class PieceBatch:
    """Pieces that are encoded together. next: where the text continues."""

    pieces: list[Piece]
    next: ResumePoint


def tokenise_in_memory(reader: DocumentReader, encoding: Encoding) -> NDArray[np.unsignedinteger]:
    """All ids of a text, with an end-of-text id between two documents."""
    encoded = _encode_all(_batches(reader.pieces(), ResumePoint(0, 0)), encoding)
    no_ids = np.empty(0, token_dtype(encoding.n_vocab))
    # The first id separates the first document from nothing.
    return np.concatenate([no_ids, *(pieces.ids for _, pieces in encoded)])[1:]


def tokenise_to_shards(index: Index, reader: DocumentReader, encoding: Encoding, notify: Notify) -> Index:
    """Write the shards that an index lacks; returns the complete index. Its folder must be locked.

    Raises OSError if the disk is full, and the errors of DocumentReader. The shards written so far stay.
    """
    index = read_index(index.folder, index.key, index.n_vocab, lambda _: None)  # another run may have continued it
    if index.complete:
        return index
    remove_stale_temporaries(index.folder)
    start = index.shards[-1].next if index.shards else ResumePoint(0, 0)
    if index.shards:
        notify(f"tokens: continuing in {index.folder}, after {len(index.shards)} complete shards")
    reader.notes.lines = index.notes  # saved with the shards
    pieces = reader.pieces(start.file)
    for _ in range(start.pieces_done):
        next(pieces)
    n_bytes = sum(reader.sizes)
    positioned = _check_disk(_encode_all(_batches(pieces, start), encoding), index, n_bytes)
    encoded = _with_progress(positioned, n_bytes, notify)
    if not index.shards:
        encoded = _without_first_id(encoded, encoding)
    while shard := write_shard(index.path(len(index.shards)), encoded, index.dtype):
        index.shards.append(shard)
        index.save()
    index.complete = True
    index.save()
    return index


def _batches(pieces: Iterable[Piece], start: ResumePoint) -> Iterator[PieceBatch]:
    """Join pieces to batches of about PIECE_CHARS: many short documents are encoded together.

    start: where the first piece is.
    """
    batch: list[Piece] = []
    chars, at = 0, start
    for piece in pieces:
        pieces_before = at.pieces_done if piece.file == at.file else 0
        at = ResumePoint(piece.file, pieces_before + 1)
        batch.append(piece)
        chars += len(END_OF_TEXT.join(piece.texts))
        if chars >= PIECE_CHARS:
            yield PieceBatch(batch, at)
            batch, chars = [], 0
    if batch:
        yield PieceBatch(batch, at)


def _encode_all(batches: Iterable[PieceBatch], encoding: Encoding) -> Iterator[Positioned]:
    """Yield the ids of each batch, in order.

    tiktoken's encodings work on all CPUs, because they do not need Python's lock.
    """
    workers = usable_cpus() if isinstance(encoding, BatchEncoding) else 1
    lengths = token_bytes(encoding)
    waiting: deque[tuple[float, Future[EncodedPieces]]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for batch in batches:
            waiting.append((batch.pieces[-1].position, pool.submit(_encode, batch, encoding, lengths)))
            if len(waiting) > 2 * workers:
                position, encoded = waiting.popleft()
                yield position, encoded.result()
        for position, encoded in waiting:
            yield position, encoded.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _encode(batch: PieceBatch, encoding: Encoding, lengths: NDArray[np.int64]) -> EncodedPieces:
    """The ids of a batch, with an end-of-text id before each document."""
    texts = [""]  # first the rest of a document that an earlier batch began
    for piece in batch.pieces:
        first, *others = piece.texts
        if piece.begins:
            texts.append(first)
        else:
            texts[-1] += first
        texts += others
    ids = _joined_ids(texts, encoding)
    if ids.size and not 0 <= ids.min() <= ids.max() < encoding.n_vocab:
        raise ValueError(
            f"the tokenizer gave ids from {ids.min()} to {ids.max()}, its vocabulary has {encoding.n_vocab}"
        )
    n_bytes = int(lengths[ids].sum())
    return EncodedPieces(ids.astype(token_dtype(encoding.n_vocab)), n_bytes, len(texts) - 1, batch.next)


def _joined_ids(texts: Sequence[str], encoding: Encoding) -> NDArray[np.integer]:
    """The ids of texts, with an end-of-text id between two of them.

    tiktoken encodes all texts in one call. Each call waits for Python's lock, so calls for many short texts would keep
    the threads waiting for each other.
    """
    joined = END_OF_TEXT.join(texts)
    if _spells_end_of_text(encoding) and joined.count(END_OF_TEXT) == len(texts) - 1:
        return encoding.encode_to_numpy(joined, allowed_special={END_OF_TEXT}, disallowed_special=())
    ids = [*encoding.encode_ordinary(texts[0])]
    for text in texts[1:]:
        ids += [encoding.eot_token, *encoding.encode_ordinary(text)]
    return np.array(ids, dtype=np.int64)


def _spells_end_of_text(encoding: Encoding) -> TypeGuard[tiktoken.Encoding]:
    """Whether tiktoken finds END_OF_TEXT in a text before it splits the rest, and gives it the end-of-text id."""
    return (
        isinstance(encoding, tiktoken.Encoding)
        and not getattr(encoding, "added", ())  # these would have to be found, too
        and END_OF_TEXT in encoding.special_tokens_set
        and encoding.encode_single_token(END_OF_TEXT) == encoding.eot_token
    )


def _without_first_id(encoded: Iterator[EncodedPieces], encoding: Encoding) -> Iterator[EncodedPieces]:
    """Drop the first id, which separates the first document from nothing."""
    n_bytes = int(token_bytes(encoding)[encoding.eot_token])
    for first in encoded:
        yield replace(first, ids=first.ids[1:], n_bytes=first.n_bytes - n_bytes)
        yield from encoded


def _check_disk(encoded: Iterator[Positioned], index: Index, n_bytes: int) -> Iterator[Positioned]:
    """Pass the ids on, and check the disk once the number of tokens can be predicted. n_bytes: of the whole text.

    Raises OSError if the tokens will not fit.
    """
    start: float | None = None
    tokens, checked = 0, False
    for position, pieces in encoded:
        start = position if start is None else start
        tokens += len(pieces.ids)
        if not checked and position - start >= _PREDICTED_FROM_BYTES:
            checked = True
            n_tokens = _SAFETY * tokens * (n_bytes - start) / (position - start)
            require_free_space(index.folder, round(n_tokens * index.dtype.itemsize), _MORE_ROOM)
        yield position, pieces


def _with_progress(encoded: Iterator[Positioned], n_bytes: int, notify: Notify) -> Iterator[EncodedPieces]:
    """Pass the ids on, and show how far they are in the text of `n_bytes`: in a bar, or in a line each minute."""
    start_s = reported_s = time.monotonic()
    start: float | None = None
    with tqdm(total=n_bytes, unit="B", unit_scale=True, desc="tokenising", leave=False, disable=None, delay=1.0) as bar:
        for position, pieces in encoded:
            if start is None:
                start = position
                bar.reset(n_bytes)
                bar.initial = bar.n = round(start)
            bar.update(round(position) - bar.n)
            if bar.disable and time.monotonic() - reported_s > _REPORT_S:
                reported_s = time.monotonic()
                left_s = (reported_s - start_s) * (n_bytes - position) / max(1.0, position - start)
                notify(f"tokens: {position / n_bytes:.0%} of {format_bytes(n_bytes)}, {left_s / 60:.0f} min left")
            yield pieces
