"""Running text as tokens: read and cached once, split, and cut into windows to predict the next token in."""

import glob
import hashlib
import os
import re
import zlib
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import torch
from torch import Tensor

from src.common.atomic_file import atomic_write
from src.data.batching import StepLoader, stack_windows
from src.data.files import read_text
from src.data.shakespeare import strip_boilerplate
from src.tokenizer.protocols.interfaces import Encoding

# One-dimensional, uint16 or uint32; a read-only np.memmap where the tokens lie in a file.
TokenArray: TypeAlias = np.ndarray[Any, Any]

_CACHE_VERSION = 1
_CHECKSUM_BYTES = 4
_CHUNK_CHARS = 1 << 16
_CHUNKS_AT_ONCE = 64
_LONE_NEWLINE = re.compile(r"\w\n(?=\w)")


def load_tokens(
    path: Path, encoding: Encoding, fingerprint: str, *, notify: Callable[[str], None] = print
) -> TokenArray:
    """All tokens of a UTF-8 text file, without what Project Gutenberg put around it.

    They are cached beside the text in a .npy file and mapped into memory read-only. Its name carries a hash of the
    text and of `fingerprint` (what tells one tokenizer from another), so a changed text or tokenizer is tokenised
    anew. Where the folder can't be written, the tokens are kept in memory, and `notify` is told.
    Returns shape (tokens,), uint16 when every id fits, else uint32.
    Raises FileNotFoundError or ValueError for a text that can't be used.
    """
    path = Path(path)
    text = _read_clean(path, notify)
    dtype = np.dtype(np.uint16 if encoding.n_vocab <= 1 << 16 else np.uint32)
    cache = path.with_name(f"{path.name}.{_key(text, fingerprint)}.tokens.npy")
    tokens = _open_cache(cache, dtype, notify)
    if tokens is None:
        tokens = _tokenise(text, encoding, dtype)
        tokens = _store(tokens, cache, notify)
        _remove_other_caches(path, keep=cache)
    notify(f"tokens: {len(tokens)} in {path}")
    return tokens


def _read_clean(path: Path, notify: Callable[[str], None]) -> str:
    text = read_text(path)
    try:
        cleaned = strip_boilerplate(text)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if cleaned.kept_fraction < 1.0:
        notify(f"text: {cleaned.kept_fraction:.1%} of {path} kept, the rest is Project Gutenberg's header and licence")
    return cleaned.text


def _key(text: str, fingerprint: str) -> str:
    text_hash = hashlib.sha256(text.encode("utf-8")).hexdigest()
    return hashlib.sha256(f"{_CACHE_VERSION} {text_hash} {fingerprint}".encode()).hexdigest()[:16]


def _store(tokens: TokenArray, cache: Path, notify: Callable[[str], None]) -> TokenArray:
    """Write the cache and return the tokens as mapped from it; as they are where it can't be written."""
    try:
        with atomic_write(cache) as out:
            np.save(out, tokens, allow_pickle=False)
            out.flush()
            with open(out.name, "rb") as written:
                checksum = _crc32(written, out.tell())
            # Behind the array, where readers of .npy files don't look.
            out.write(checksum.to_bytes(_CHECKSUM_BYTES, "little"))
        mapped: TokenArray = np.load(cache, mmap_mode="r", allow_pickle=False)
        return mapped
    except OSError as error:
        notify(f"tokens: kept in memory only, {cache} can't be written ({error.strerror or error})")
        return tokens


def _open_cache(cache: Path, dtype: np.dtype[Any], notify: Callable[[str], None]) -> TokenArray | None:
    """The cached tokens, or None where there are none, or damaged ones."""
    if not cache.exists():
        return None
    try:
        with open(cache, "rb") as stored:
            checksum = _crc32(stored, cache.stat().st_size - _CHECKSUM_BYTES)
            if checksum.to_bytes(_CHECKSUM_BYTES, "little") != stored.read():
                raise ValueError("its checksum is wrong")
        tokens: TokenArray = np.load(cache, mmap_mode="r", allow_pickle=False)
        if tokens.dtype != dtype or tokens.ndim != 1:
            raise ValueError(f"it holds {tokens.dtype} of shape {tokens.shape}")
        return tokens
    except (OSError, ValueError, EOFError) as error:
        notify(f"tokens: {cache} can't be used ({error}); it is made again")
        return None


def _crc32(handle: BinaryIO, length: int) -> int:
    # Read, not mapped: pages of a map would count as this process's memory.
    checksum = 0
    while length > 0 and (block := handle.read(min(length, 1 << 20))):
        checksum = zlib.crc32(block, checksum)
        length -= len(block)
    return checksum


def _remove_other_caches(path: Path, keep: Path) -> None:
    """Remove the caches of older contents of `path`, and of other tokenizers."""
    for other in path.parent.glob(f"{glob.escape(path.name)}.{'[0-9a-f]' * 16}.tokens.npy"):
        if other != keep:
            try:
                other.unlink()
            except PermissionError:  # Windows: another run has it open
                continue


def _tokenise(text: str, encoding: Encoding, dtype: np.dtype[Any]) -> TokenArray:
    """The ids of the whole text; in chunks on all cores where the encoding offers that (tiktoken does)."""
    batch_encode = getattr(encoding, "encode_ordinary_batch", None)
    if batch_encode is None:
        return _as_array(encoding.encode_ordinary(text), encoding.n_vocab, dtype)
    chunks, parts = _chunks(text), []
    while group := list(islice(chunks, _CHUNKS_AT_ONCE)):
        encoded = batch_encode(group, num_threads=os.cpu_count() or 1)
        parts += [_as_array(ids, encoding.n_vocab, dtype) for ids in encoded]
    return np.concatenate(parts)


def _chunks(text: str) -> Iterator[str]:
    """Cut a text only where tiktoken's encodings give the same tokens as for the whole.

    They split before they merge, and a newline between two letters or digits is always a piece of its own, whether
    the text goes on behind it or ends there. So both sides of the cut split as they do in the whole text.
    """
    start = 0
    while start < len(text):
        cut = _LONE_NEWLINE.search(text, start + _CHUNK_CHARS)
        end = cut.end() if cut else len(text)
        yield text[start:end]
        start = end


def _as_array(ids: list[int], n_vocab: int, dtype: np.dtype[Any]) -> TokenArray:
    wide = np.array(ids, dtype=np.int64)
    if wide.size and not 0 <= wide.min() <= wide.max() < n_vocab:
        raise ValueError(f"the tokenizer gave ids from {wide.min()} to {wide.max()}, its vocabulary has {n_vocab}")
    return wide.astype(dtype)


def split_tokens(ids: TokenArray, val_fraction: float) -> tuple[TokenArray, TokenArray]:
    """Split into (train, val): the last `val_fraction` (between 0 and 1) of the tokens, in one piece, is val.

    Raises ValueError when one of the two would be empty.
    """
    n_val = round(len(ids) * val_fraction)
    if not (0.0 < val_fraction < 1.0 and 0 < n_val < len(ids)):
        raise ValueError(
            f"a validation fraction of {val_fraction:g} leaves {len(ids) - n_val} of {len(ids)} tokens to train on and "
            f"{n_val} to validate on; both must have some: change --val-fraction, or give a longer text"
        )
    return ids[:-n_val], ids[-n_val:]


def create_loaders(train_ids: TokenArray, val_ids: TokenArray, flags: Any) -> tuple[StepLoader, StepLoader | None]:
    """The loaders of a split as the flags of a script ask; None for a validation part without tokens."""
    train = TextWindows(train_ids, flags.context_length, flags.seed)
    train_loader = StepLoader(train, stack_windows, flags.batch_size, flags.grad_accum)
    if not len(val_ids):
        return train_loader, None
    val = TextWindows(val_ids, flags.context_length, flags.seed)
    return train_loader, StepLoader(val, stack_windows, flags.batch_size)


class TextWindows:
    """Windows of `context_length` tokens over a text, in a new order and from a new offset in every epoch.

    A window's key is its first token. Which window comes where depends on (seed, epoch) alone, so a run can be resumed
    at any point. In each epoch the windows follow each other from the offset, in [0, context_length), to the end of
    the text; the last one is moved forward where it would cross the end.
    """

    def __init__(self, ids: TokenArray, context_length: int, seed: int) -> None:
        """`ids` has shape (tokens,). Raises ValueError when it has no room for one window and its targets."""
        if context_length < 1:
            raise ValueError(f"--context-length is {context_length}, at least 1 is needed")
        if len(ids) <= context_length:
            raise ValueError(
                f"the text, or the part of it that --val-fraction keeps back, has {len(ids)} tokens; one window needs "
                f"{context_length + 1}: lower --context-length, change --val-fraction, or give a longer text"
            )
        self._ids, self._context_length, self._seed = ids, context_length, seed

    def __len__(self) -> int:
        """Number of windows in every epoch."""
        return (len(self._ids) - 1) // self._context_length

    def __getitem__(self, start: int) -> tuple[Tensor, Tensor]:
        """The window from token `start` as (inputs, targets), int64 (T,); targets are the inputs one token later."""
        if not 0 <= start < len(self._ids) - self._context_length:
            raise IndexError(f"no window starts at token {start} of {len(self._ids)}")
        # A copy: a window must not keep the file's pages, and embedding and loss want int64.
        tokens = torch.from_numpy(self._ids[start : start + self._context_length + 1].astype(np.int64))
        return tokens[:-1], tokens[1:]

    def order(self, epoch: int) -> list[int]:
        """First token of each window of an epoch, shuffled."""
        # Hashed, so that neighbouring seeds and epochs have nothing in common.
        mixed = hashlib.sha256(f"{self._seed} {epoch}".encode()).digest()[:8]
        generator = torch.Generator().manual_seed(int.from_bytes(mixed, "little") >> 1)
        offset = torch.randint(self._context_length, (1,), generator=generator)
        starts = offset + self._context_length * torch.randperm(len(self), generator=generator)
        return starts.clamp(max=len(self._ids) - 1 - self._context_length).tolist()

    def content_hash(self) -> str:
        """SHA-256 of the tokens."""
        return hashlib.sha256(np.ascontiguousarray(self._ids).data).hexdigest()
