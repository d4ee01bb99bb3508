"""The token ids of a text, cached in a file next to it and mapped into memory."""

import glob
import hashlib
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from src.common.atomic_file import atomic_write
from src.common.messages import one_line

# One-dimensional, uint16 or uint32. A read-only np.memmap if the tokens are cached in a file.
TokenArray: TypeAlias = NDArray[np.unsignedinteger]
TokenDtype: TypeAlias = np.dtype[np.unsignedinteger]

_CHECKSUM_BYTES = 4
_LONGEST_PREFIX_BYTES = 180  # a file name has at most 255 bytes, and the temporary file's name is longer


def token_dtype(n_vocab: int) -> TokenDtype:
    return np.dtype(np.uint16 if n_vocab <= 1 << 16 else np.uint32)


def cache_path(text: Path, key: str) -> Path:
    """The cache file of a text, or of a folder of texts. A long name is shortened, and completed with its hash."""
    text = text if text.name.strip(".") else Path(os.path.abspath(text))
    name = text.name
    if len(os.fsencode(name)) > _LONGEST_PREFIX_BYTES:
        name = f"{name[:40]}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}"
    return text.with_name(f"{name}.{key}.tokens.npy")


def open_cache(cache: Path, n_vocab: int, notify: Callable[[str], None]) -> TokenArray | None:
    """The cached tokens, or None if there are none or the file is damaged."""
    try:
        with open(cache, "rb") as stored:
            checksum = _crc32(stored, cache.stat().st_size - _CHECKSUM_BYTES)
            if checksum.to_bytes(_CHECKSUM_BYTES, "little") != stored.read():
                raise ValueError("its checksum is wrong")
        tokens = _map(cache)
        if tokens.dtype != token_dtype(n_vocab) or tokens.ndim != 1:
            raise ValueError(f"it holds {tokens.dtype} of shape {tokens.shape}")
        if len(tokens) and (largest := int(tokens.max())) >= n_vocab:
            raise ValueError(f"it holds the id {largest}, and the vocabulary ends at {n_vocab - 1}")
        return _map(cache)  # pages of the first mapping would count as memory of this process
    except FileNotFoundError:
        return None
    except Exception as error:  # NumPy parses the header as Python code, and a damaged one can raise anything
        notify(f"tokens: cannot use {cache} ({one_line(error)}), tokenising again")
        return None


def store(tokens: TokenArray, cache: Path, notify: Callable[[str], None]) -> TokenArray:
    """Write the cache and return the tokens mapped from it, or the tokens themselves if it cannot be written."""
    try:
        with atomic_write(cache) as out:
            np.save(out, tokens, allow_pickle=False)
            out.flush()
            with open(out.name, "rb") as written:
                checksum = _crc32(written, out.tell())
            # After the array, where np.load does not look.
            out.write(checksum.to_bytes(_CHECKSUM_BYTES, "little"))
        return _map(cache)
    except OSError as error:
        notify(f"tokens: not cached, {cache} cannot be written ({error.strerror or error})")
        return tokens


def remove_other_caches(keep: Path) -> None:
    """Delete the caches of earlier versions of the same text, and of other tokenizers."""
    prefix = keep.name.rsplit(".", 3)[0]
    for other in keep.parent.glob(f"{glob.escape(prefix)}.{'[0-9a-f]' * 16}.tokens.npy"):
        if other != keep:
            try:
                other.unlink(missing_ok=True)
            except OSError:  # the disk is read-only or, on Windows, another run has it open
                continue


def _map(cache: Path) -> TokenArray:
    tokens: TokenArray = np.load(cache, mmap_mode="r", allow_pickle=False)
    return tokens


def _crc32(file: BinaryIO, length: int) -> int:
    # Read in blocks, not mapped: mapped pages would count as memory of this process.
    checksum = 0
    while length > 0 and (block := file.read(min(length, 1 << 20))):
        checksum = zlib.crc32(block, checksum)
        length -= len(block)
    return checksum
