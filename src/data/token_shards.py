"""Token ids in files: shards of 33 million tokens with an index, written one by one and mapped into memory.

tokens-00000.bin, tokens-00001.bin, ...    the ids, uint16 or uint32, and nothing else
index.json                                 what was tokenised; the size and the checksums of each shard
"""

import hashlib
import json
import re
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import accumulate, chain, pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from src.common.atomic_file import atomic_write
from src.common.messages import Notify, one_line

SHARD_TOKENS = 1 << 25
INDEX = "index.json"
_BLOCK_BYTES = 1 << 20  # each has a checksum
_HASHED_TOKENS = 1 << 20  # in memory together
_VERSION = 2

TokenDtype: TypeAlias = np.dtype[np.unsignedinteger]


class ResumePoint(NamedTuple):
    """Where a text continues: the index of a file, and how many of its pieces are done."""

    file: int
    pieces_done: int


def token_dtype(n_vocab: int) -> TokenDtype:
    """The smaller of uint16 and uint32 that holds every id of a vocabulary."""
    return np.dtype(np.uint16 if n_vocab <= 1 << 16 else np.uint32)


@dataclass(frozen=True)
class EncodedPieces:
    """The ids of a few pieces of a text, shape (tokens,). A shard is made of several.

    n_bytes: the length of the pieces in UTF-8. documents: how many begin in them. next: where the text continues.
    """

    ids: NDArray[np.unsignedinteger]
    n_bytes: int
    documents: int
    next: ResumePoint


@dataclass(frozen=True)
class Shard:
    """A complete file of token ids.

    n_bytes: the length of its text in UTF-8. documents: how many begin in it. next: where the next shard continues.
    checksums: the CRC-32 of each block of the file.
    """

    tokens: int
    n_bytes: int
    documents: int
    next: ResumePoint
    checksums: list[int]


@dataclass
class Index:
    """The index of a folder of shards. complete: they hold the whole text, so nothing is left to tokenise."""

    folder: Path
    key: str
    n_vocab: int
    shards: list[Shard] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    complete: bool = False

    @property
    def dtype(self) -> TokenDtype:
        """The type of the ids."""
        return token_dtype(self.n_vocab)

    def path(self, number: int) -> Path:
        """The file of a shard, counted from 0."""
        return self.folder / f"tokens-{number:05}.bin"

    def save(self) -> None:
        """Write index.json atomically."""
        content = {**asdict(self), "folder": None, "version": _VERSION}
        with atomic_write(self.folder / INDEX) as out:
            out.write(json.dumps({**content, "digest": _digest(content)}).encode("ascii"))

    def tokens(self) -> "ShardedTokens | NDArray[np.unsignedinteger]":
        """All ids: an array if they are one shard or none, otherwise a ShardedTokens, which reads them lazily."""
        if len(self.shards) > 1:
            return ShardedTokens(_MappedShards(self))
        if not any(shard.tokens for shard in self.shards):
            return np.empty(0, self.dtype)
        return np.memmap(self.path(0), self.dtype, mode="r")


def read_index(folder: Path, key: str, n_vocab: int, notify: Notify) -> Index:
    """The index of a folder, with the shards before the first one that is missing or damaged.

    A text of one shard is compared with all of its checksums. Of several shards, the first and the last block are; the
    others are compared when they are first read.
    """
    index = Index(folder, key, n_vocab)
    try:
        content = json.loads((folder / INDEX).read_bytes())
        digest = content.pop("digest", None)
        if digest != _digest(content):
            raise ValueError("its checksum is wrong")
        if (content["version"], content["key"], content["n_vocab"]) != (_VERSION, key, n_vocab):
            raise ValueError("it is the index of another text or tokenizer")
        shards = [Shard(**{**shard, "next": ResumePoint(*shard["next"])}) for shard in content["shards"]]
        index.notes, index.complete = content["notes"], content["complete"]
    except FileNotFoundError:
        return index
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        notify(f"tokens: cannot use {folder / INDEX} ({one_line(error)}), tokenising again")
        return index
    for number, shard in enumerate(shards):
        try:
            _check_shard(index.path(number), shard, index.dtype, every_block=len(shards) == 1)
        except (OSError, ValueError) as error:
            notify(f"tokens: cannot use {index.path(number)} ({one_line(error)}), tokenising again from there")
            index.complete = False
            break
        index.shards.append(shard)
    return index


def write_shard(path: Path, encoded: Iterator[EncodedPieces], dtype: TokenDtype) -> Shard | None:
    """Write the next pieces of a text to a shard, up to SHARD_TOKENS or the text's end; None if no piece is left."""
    if (first := next(encoded, None)) is None:
        return None
    tokens = n_bytes = documents = 0
    with atomic_write(path) as out:
        for pieces in chain([first], encoded):
            out.write(pieces.ids.astype(dtype, copy=False).data)
            tokens += len(pieces.ids)
            n_bytes += pieces.n_bytes
            documents += pieces.documents
            if tokens >= SHARD_TOKENS:
                break
        out.flush()
        with open(out.name, "rb") as written:
            checksums = [zlib.crc32(block) for block in iter(lambda: written.read(_BLOCK_BYTES), b"")]
    return Shard(tokens, n_bytes, documents, pieces.next, checksums)


class ShardedTokens:
    """The ids of a text in several shards. A slice reads nothing; `np.asarray` and the other methods do."""

    def __init__(self, mapped: "_MappedShards", start: int = 0, stop: int | None = None) -> None:
        self._mapped, self._start = mapped, start
        self._stop = mapped.bounds[-1] if stop is None else stop
        self.dtype, self.shape = mapped.index.dtype, (self._stop - self._start,)

    def __len__(self) -> int:
        return self._stop - self._start

    def __getitem__(self, part: slice) -> "ShardedTokens":
        start, stop, step = part.indices(len(self))
        if step != 1:
            raise ValueError(f"token ids can be sliced in steps of 1 only, not {step}")
        return ShardedTokens(self._mapped, self._start + start, self._start + max(start, stop))

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray:
        parts = list(self._mapped.read(self._start, self._stop))
        ids = parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, self.dtype), *parts])
        return ids.astype(dtype or self.dtype, copy=bool(copy))

    def astype(self, dtype: DTypeLike) -> NDArray:
        """A copy of the ids in memory, shape (tokens,)."""
        return np.array(self, dtype)

    def tolist(self) -> list[int]:
        """The ids as Python integers."""
        ids: list[int] = np.asarray(self).tolist()
        return ids

    def shards(self) -> "list[tuple[ShardedTokens, int]]":
        """The ids of each shard, and the number of their bytes. Raises ValueError for a slice of the text."""
        bounds, shards = self._mapped.bounds, self._mapped.index.shards
        if (self._start, self._stop) != (0, bounds[-1]):
            raise ValueError("only a part of the shards is here")
        return [(self[a:b], shard.n_bytes) for (a, b), shard in zip(pairwise(bounds), shards, strict=True)]

    def sha256(self) -> str:
        """SHA-256 of the ids, as of one array. It is cached next to the shards, since it reads all of them."""
        cached = self._mapped.index.folder / f"{self._start}-{self._stop}.sha256"
        try:
            found = cached.read_text(encoding="ascii")
        except (OSError, ValueError):
            found = ""
        if re.fullmatch("[0-9a-f]{64}", found):
            return found
        digest = hashlib.sha256()
        for start in range(0, len(self), _HASHED_TOKENS):
            digest.update(np.asarray(self[start : start + _HASHED_TOKENS]).data)
        with suppress(OSError), atomic_write(cached) as out:
            out.write(digest.hexdigest().encode("ascii"))
        return digest.hexdigest()


class _MappedShards:
    """The shards of an index, mapped into memory. A block is checked when it is first read.

    bounds: the number of the first token of each shard, and at the end the number of all tokens.
    """

    def __init__(self, index: Index) -> None:
        self.index = index
        self.bounds = [0, *accumulate(shard.tokens for shard in index.shards)]
        self._maps = [np.memmap(index.path(i), index.dtype, mode="r") for i in range(len(index.shards))]
        self._checked = [np.zeros(len(shard.checksums), bool) for shard in index.shards]  # each block

    def read(self, start: int, stop: int) -> Iterator[NDArray[np.unsignedinteger]]:
        """Yield the ids from start to stop: one array of each shard that has some of them."""
        for number in range(bisect_right(self.bounds, start) - 1, len(self._maps)):
            first, end = self.bounds[number : number + 2]
            if stop <= first:
                return
            part = slice(max(start, first) - first, min(stop, end) - first)
            self._check(number, part)
            yield self._maps[number][part]

    def _check(self, number: int, part: slice) -> None:
        """Raises ValueError if a block that these ids of a shard are in is damaged."""
        size, checked = self.index.dtype.itemsize, self._checked[number]
        blocks = range(part.start * size // _BLOCK_BYTES, -(-part.stop * size // _BLOCK_BYTES))
        if unchecked := [block for block in blocks if not checked[block]]:
            path = self.index.path(number)
            try:
                _check_blocks(path, self.index.shards[number], unchecked)
            except ValueError as error:
                raise ValueError(f"{path}: {error}; delete the folder {path.parent} to tokenise again") from None
            checked[unchecked] = True


def _check_shard(path: Path, shard: Shard, dtype: TokenDtype, *, every_block: bool) -> None:
    """Raise OSError or ValueError if a shard is missing, has another size, or one of the checked blocks is damaged."""
    if path.stat().st_size != shard.tokens * dtype.itemsize:
        raise ValueError(f"it has {path.stat().st_size:,} bytes, expected {shard.tokens * dtype.itemsize:,}")
    last = len(shard.checksums) - 1
    _check_blocks(path, shard, range(last + 1) if every_block else sorted({0, last}))


def _check_blocks(path: Path, shard: Shard, blocks: Iterable[int]) -> None:
    # Read, not mapped: mapped pages would count as memory of this process.
    with open(path, "rb") as file:
        for block in blocks:
            file.seek(block * _BLOCK_BYTES)
            if zlib.crc32(file.read(_BLOCK_BYTES)) != shard.checksums[block]:
                raise ValueError("its checksum is wrong")


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode("ascii")).hexdigest()


# One-dimensional, uint16 or uint32. A read-only np.memmap if the tokens are cached in one shard.
TokenArray: TypeAlias = NDArray[np.unsignedinteger] | ShardedTokens
