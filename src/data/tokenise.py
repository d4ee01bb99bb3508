"""Tokenise a text of any size: read in pieces, encoded on all CPUs, written in shards that outlast an interruption."""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeGuard

import numpy as np
import tiktoken
from numpy.typing import NDArray
from tqdm import tqdm

from src.common.atomic_file import remove_stale_temporaries
from src.common.disk import format_bytes, require_free_space
from src.common.machine import usable_cpus
from src.data.documents import PIECE_CHARS, DocumentReader, Notify, Piece
from src.data.split import token_bytes
from src.data.token_shards import Group, Index, ResumePoint, read_index, token_dtype, write_shard
from src.tokenizer import Encoding
from src.tokenizer.gpt2 import END_OF_TEXT
from src.tokenizer.protocols.interfaces import BatchEncoding

IN_MEMORY_BYTES = 1 << 30  # the largest text whose tokens may stay in memory
_REPORT_S = 60.0  # between two lines on the progress, if there is no terminal to draw a bar on
_SAFETY = 1.1  # the disk must have room for more tokens than the start of the text predicts
_PREDICTED_FROM_BYTES = 4_000_000
_MORE_ROOM = "free some space, or move the text to another disk: its tokens are cached next to it"


@dataclass(frozen=True)
class PieceBatch:
    """Pieces that are encoded together. next: where the text continues."""

    pieces: list[Piece]
    next: ResumePoint


def tokenise_in_memory(reader: DocumentReader, encoding: Encoding) -> NDArray[np.unsignedinteger]:
    """All ids of a text, with an end-of-text id between two documents."""
    groups = _encoded(_batches(reader.pieces(), (0, 0)), encoding)
    return np.concatenate([np.empty(0, token_dtype(encoding.n_vocab)), *(group.ids for _, group in groups)])[1:]


def tokenise_to_shards(index: Index, reader: DocumentReader, encoding: Encoding, notify: Notify) -> Index:
    """Write the shards that an index lacks; returns the complete index. Its folder must be locked.

    Raises OSError if the disk is full, and the errors of DocumentReader. The shards written so far stay.
    """
    index = read_index(index.folder, index.key, index.n_vocab, lambda _: None)  # another run may have continued it
    if index.complete:
        return index
    remove_stale_temporaries(index.folder)
    first_file, done = index.shards[-1].next if index.shards else (0, 0)
    if index.shards:
        notify(f"tokens: continuing in {index.folder}, after {len(index.shards)} complete shards")
    reader.notes.lines = index.notes  # saved with the shards
    pieces = reader.pieces(first_file)
    for _ in range(done):
        next(pieces)
    encoded = _encoded(_batches(pieces, (first_file, done)), encoding)
    groups = _with_progress(encoded, index, reader, notify)
    if not index.shards:
        groups = _without_first_id(groups, encoding)
    while shard := write_shard(index.path(len(index.shards)), groups, index.dtype):
        index.shards.append(shard)
        index.save()
    index.complete = True
    index.save()
    return index


def _batches(pieces: Iterable[Piece], start: ResumePoint) -> Iterator[PieceBatch]:
    """Join pieces to batches of about PIECE_CHARS: many short documents are encoded together."""
    batch: list[Piece] = []
    chars, (file, done) = 0, start
    for piece in pieces:
        file, done = piece.file, done + 1 if piece.file == file else 1
        batch.append(piece)
        chars += len(END_OF_TEXT.join(piece.texts))
        if chars >= PIECE_CHARS:
            yield PieceBatch(batch, (file, done))
            batch, chars = [], 0
    if batch:
        yield PieceBatch(batch, (file, done))


def _encoded(batches: Iterable[PieceBatch], encoding: Encoding) -> Iterator[tuple[float, Group]]:
    """Yield the position in the text, and the ids, of each batch, in order.

    tiktoken's encodings work on all CPUs, because they do not need Python's lock.
    """
    workers = usable_cpus() if isinstance(encoding, BatchEncoding) else 1
    lengths = token_bytes(encoding)
    waiting: deque[tuple[float, Future[Group]]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for batch in batches:
            waiting.append((batch.pieces[-1].position, pool.submit(_encode, batch, encoding, lengths)))
            if len(waiting) > 2 * workers:
                position, group = waiting.popleft()
                yield position, group.result()
        for position, group in waiting:
            yield position, group.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _encode(batch: PieceBatch, encoding: Encoding, lengths: NDArray[np.int64]) -> Group:
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
    return Group(ids.astype(token_dtype(encoding.n_vocab)), n_bytes, len(texts) - 1, batch.next)


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


def _without_first_id(groups: Iterator[Group], encoding: Encoding) -> Iterator[Group]:
    """Drop the first id, which separates the first document from nothing."""
    n_bytes = int(token_bytes(encoding)[encoding.eot_token])
    for first in groups:
        yield replace(first, ids=first.ids[1:], n_bytes=first.n_bytes - n_bytes)
        yield from groups


def _with_progress(
    groups: Iterable[tuple[float, Group]], index: Index, reader: DocumentReader, notify: Notify
) -> Iterator[Group]:
    """Yield the groups, show how far they are, and check the disk once the number of tokens can be predicted."""
    n_bytes, tokens, checked = sum(reader.sizes), 0, False
    start_s = reported_s = time.monotonic()
    start: float | None = None
    with tqdm(total=n_bytes, unit="B", unit_scale=True, desc="tokenising", leave=False, disable=None, delay=1.0) as bar:
        for at, group in groups:
            tokens += len(group.ids)
            if start is None:
                start = at
                bar.reset(n_bytes)
                bar.initial = bar.n = round(start)
            bar.update(round(at) - bar.n)
            if not checked and at - start >= _PREDICTED_FROM_BYTES:
                checked = True
                n_tokens = _SAFETY * tokens * (n_bytes - start) / (at - start)
                require_free_space(index.folder, round(n_tokens * index.dtype.itemsize), _MORE_ROOM)
            if bar.disable and time.monotonic() - reported_s > _REPORT_S:
                reported_s = time.monotonic()
                left_s = (reported_s - start_s) * (n_bytes - at) / max(1.0, at - start)
                notify(f"tokens: {at / n_bytes:.0%} of {format_bytes(n_bytes)}, {left_s / 60:.0f} min left")
            yield group
