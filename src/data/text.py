"""A text as token ids: tokenised once and cached, then split into training windows."""

import glob
import hashlib
import re
import zlib
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from src.common.atomic_file import atomic_write
from src.common.machine import usable_cpus
from src.common.messages import naming_file
from src.data.batching import EpochDataset
from src.data.examples import tuning_texts
from src.data.files import read_text
from src.data.gutenberg import strip_boilerplate
from src.data.shakespeare import SHAKESPEARE_PATH, ensure_shakespeare
from src.tokenizer import build_word_encoding, encoding_fingerprint, load_gpt2_encoding
from src.tokenizer.protocols.interfaces import BatchEncoding, Encoding

# One-dimensional, uint16 or uint32. A read-only np.memmap if the tokens are cached in a file.
TokenArray: TypeAlias = NDArray[np.unsignedinteger]
TokenDtype: TypeAlias = np.dtype[np.unsignedinteger]

_CACHE_VERSION = 1
_CHECKSUM_BYTES = 4
_CHUNK_CHARS = 1 << 16
_CHUNKS_PER_BATCH = 64
_LONE_NEWLINE = re.compile(r"\w\n(?=\w)")


def choose_encoding(tokenizer: Literal["gpt2", "word"], path: Path) -> Encoding:
    """GPT-2's tokenizer, or a word tokenizer with the words of a text file and of the examples for SFT and DPO.

    If the text file is Shakespeare's works and does not exist, it is downloaded first.
    """
    if tokenizer == "gpt2":
        return load_gpt2_encoding()
    if path == SHAKESPEARE_PATH and not path.is_file():
        ensure_shakespeare(path)
    return build_word_encoding(path, always=tuning_texts())


def load_tokens(path: Path, encoding: Encoding, *, notify: Callable[[str], None] = print) -> TokenArray:
    """Return all token ids of a UTF-8 text file, without Project Gutenberg's additions.

    The ids are cached next to the text in a .npy file, which is mapped into memory. The cache's name contains a hash
    of text and tokenizer, so the text is tokenised again when either changes. If the cache cannot be written, the ids
    stay in memory. `notify` gets one line per step.
    The shape is (tokens,); the type is uint16 if every id fits, and uint32 otherwise.
    Raises FileNotFoundError or ValueError if the text cannot be used.
    """
    path = Path(path)
    text = _read_clean(path, notify)
    dtype: TokenDtype = np.dtype(np.uint16 if encoding.n_vocab <= 1 << 16 else np.uint32)
    cache = path.with_name(f"{path.name}.{_cache_key(text, encoding)}.tokens.npy")
    tokens = _open_cache(cache, dtype, notify)
    if tokens is None:
        tokens = _store(_tokenise(text, encoding, dtype), cache, notify)
        _remove_other_caches(path, keep=cache)
    notify(f"tokens: {len(tokens)} in {path}")
    return tokens


def _read_clean(path: Path, notify: Callable[[str], None]) -> str:
    text = read_text(path)
    with naming_file(path):
        cleaned = strip_boilerplate(text)
    if cleaned.kept_fraction < 1.0:
        additions = "header and licence" if cleaned.n_books == 1 else f"headers and licences ({cleaned.n_books} books)"
        notify(f"text: using {cleaned.kept_fraction:.1%} of {path}, without Project Gutenberg's {additions}")
    return cleaned.text


def _cache_key(text: str, encoding: Encoding) -> str:
    text_hash = hashlib.sha256(text.encode("utf-8")).hexdigest()
    key = f"{_CACHE_VERSION} {text_hash} {encoding_fingerprint(encoding)}"
    return hashlib.sha256(key.encode("ascii")).hexdigest()[:16]


def _store(tokens: TokenArray, cache: Path, notify: Callable[[str], None]) -> TokenArray:
    """Write the cache and return the tokens mapped from it, or the tokens themselves if it cannot be written."""
    try:
        with atomic_write(cache) as out:
            np.save(out, tokens, allow_pickle=False)
            out.flush()
            with open(out.name, "rb") as written:
                checksum = _crc32(written, out.tell())
            # After the array, where np.load does not look.
            out.write(checksum.to_bytes(_CHECKSUM_BYTES, "little"))
        mapped: TokenArray = np.load(cache, mmap_mode="r", allow_pickle=False)
        return mapped
    except OSError as error:
        notify(f"tokens: not cached, {cache} cannot be written ({error.strerror or error})")
        return tokens


def _open_cache(cache: Path, dtype: TokenDtype, notify: Callable[[str], None]) -> TokenArray | None:
    """The cached tokens, or None if there are none or the file is damaged."""
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
        notify(f"tokens: cannot use {cache} ({error}), tokenising again")
        return None


def _crc32(file: BinaryIO, length: int) -> int:
    # Read in blocks, not mapped: mapped pages would count as memory of this process.
    checksum = 0
    while length > 0 and (block := file.read(min(length, 1 << 20))):
        checksum = zlib.crc32(block, checksum)
        length -= len(block)
    return checksum


def _remove_other_caches(path: Path, keep: Path) -> None:
    """Delete the caches of earlier versions of the text and of other tokenizers."""
    for other in path.parent.glob(f"{glob.escape(path.name)}.{'[0-9a-f]' * 16}.tokens.npy"):
        if other != keep:
            try:
                other.unlink()
            except PermissionError:  # Windows: another run has it open
                continue


def _tokenise(text: str, encoding: Encoding, dtype: TokenDtype) -> TokenArray:
    """The ids of the whole text. An encoding that takes batches (tiktoken) works on all CPUs."""
    if not isinstance(encoding, BatchEncoding):
        return _as_array(encoding.encode_ordinary(text), encoding.n_vocab, dtype)
    chunks, parts = _chunks(text), []
    while batch := list(islice(chunks, _CHUNKS_PER_BATCH)):
        encoded = encoding.encode_ordinary_batch(batch, num_threads=usable_cpus())
        parts += [_as_array(ids, encoding.n_vocab, dtype) for ids in encoded]
    return np.concatenate(parts)


def _chunks(text: str) -> Iterator[str]:
    """Cut a text into chunks that together have the same tokens as the whole text.

    tiktoken's encodings split a text into pieces before they merge bytes. A newline between two letters or digits is
    always a piece of its own, also at the end of a text, so cutting after it changes no piece on either side.
    """
    start = 0
    while start < len(text):
        cut = _LONE_NEWLINE.search(text, start + _CHUNK_CHARS)
        end = cut.end() if cut else len(text)
        yield text[start:end]
        start = end


def _as_array(ids: list[int], n_vocab: int, dtype: TokenDtype) -> TokenArray:
    as_int64 = np.array(ids, dtype=np.int64)
    if as_int64.size and not 0 <= as_int64.min() <= as_int64.max() < n_vocab:
        raise ValueError(
            f"the tokenizer gave ids from {as_int64.min()} to {as_int64.max()}, its vocabulary has {n_vocab}"
        )
    return as_int64.astype(dtype)


def split_tokens(ids: TokenArray, val_fraction: float) -> tuple[TokenArray, TokenArray]:
    """Split into (train, val). Val is the last `val_fraction` (between 0 and 1) of the tokens.

    Raises ValueError if either part would be empty.
    """
    n_val = round(len(ids) * val_fraction)
    if not (0.0 < val_fraction < 1.0 and 0 < n_val < len(ids)):
        raise ValueError(
            f"a validation fraction of {val_fraction:g} leaves {len(ids) - n_val} of {len(ids)} tokens for training "
            f"and {n_val} for validation; both need some: change --val-fraction, or use a longer text"
        )
    return ids[:-n_val], ids[-n_val:]


class TextWindows(EpochDataset):
    """Windows of `context_length` tokens over a text, from a new offset and in a new order each epoch.

    A window's key is the index of its first token. Offset and order depend only on (seed, epoch), so a run can be
    resumed at any step. The offset is in [0, context_length). From there, the windows of an epoch follow one another to
    the end of the text. The last window is shifted back if it would cross the end.
    """

    def __init__(self, ids: TokenArray, context_length: int, seed: int) -> None:
        """ids: shape (tokens,). Raises ValueError if there are too few for one window and its targets."""
        if context_length < 1:
            raise ValueError(f"--context-length is {context_length}, at least 1 is needed")
        if len(ids) <= context_length:
            raise ValueError(
                f"the text, or the part that --val-fraction holds out, has {len(ids)} tokens; one window needs "
                f"{context_length + 1}: lower --context-length, change --val-fraction, or pass a longer text"
            )
        self.ids, self._context_length, self._seed = ids, context_length, seed

    def __len__(self) -> int:
        return (len(self.ids) - 1) // self._context_length

    def __getitem__(self, start: int) -> tuple[Tensor, Tensor]:
        """The window from token `start`: (inputs, targets), int64 (T,) each. Targets are shifted by one token."""
        if not 0 <= start < len(self.ids) - self._context_length:
            raise IndexError(f"no window starts at token {start} of {len(self.ids)}")
        # A copy: a window must not keep pages of the file in memory, and embedding and loss need int64.
        tokens = torch.from_numpy(self.ids[start : start + self._context_length + 1].astype(np.int64))
        return tokens[:-1], tokens[1:]

    def order(self, epoch: int) -> list[int]:
        """The index of the first token of each window of an epoch, shuffled."""
        # Hash, so neighbouring seeds and epochs share nothing.
        mixed = hashlib.sha256(f"{self._seed} {epoch}".encode()).digest()[:8]
        generator = torch.Generator().manual_seed(int.from_bytes(mixed, "little") >> 1)
        offset = torch.randint(self._context_length, (1,), generator=generator)
        starts = offset + self._context_length * torch.randperm(len(self), generator=generator)
        return starts.clamp(max=len(self.ids) - 1 - self._context_length).tolist()

    def content_hash(self) -> str:
        return hashlib.sha256(np.ascontiguousarray(self.ids).data).hexdigest()
