"""Digests of a checkpoint's content: equal content has the same digest, whatever file or library version holds it."""

import hashlib
import math
import struct
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from src.model.weight_files import require_dense

WEIGHT_SUFFIXES = (".safetensors", ".bin")  # weights in Hugging Face's format, not a checkpoint of ours
_MAX_DEPTH = 100


def entry_digests(content: Mapping[str, Any], max_bytes: float = math.inf) -> dict[str, str]:
    """The SHA-256 of each entry: its name, the names, types and values in it, and its tensors' dtypes and shapes.

    The name is covered, too. A file may store it once for an entry and its digest, so damage would change both alike.

    max_bytes: limit for the tensors of all entries together, so that a small file cannot claim to hold huge ones.
    Raises ValueError naming the entry that is over the limit, or holds anything but tensors and plain values.
    """
    hasher = _Hasher(max_bytes)
    digests = {}
    for name, value in content.items():
        try:
            digests[name] = _sha256("entry", hasher.digest(name) + hasher.digest(value)).hex()
        except ValueError as error:
            raise ValueError(f"entry {name!r:.60} {error}") from error
    return digests


def weights_sha256(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of named tensors: names, dtypes, shapes and values. It identifies a model, whatever file holds it."""
    return _Hasher(math.inf).digest(dict(weights)).hex()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, or of all weights files in a directory."""
    digest = hashlib.sha256()
    for part in sorted(f for f in path.iterdir() if f.suffix in WEIGHT_SUFFIXES) if path.is_dir() else [path]:
        with open(part, "rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    return digest.hexdigest()


class _Hasher:
    """Hashes each value once, so a small file that repeats a value many times takes no longer than any other."""

    def __init__(self, max_bytes: float) -> None:
        self._bytes_left = max_bytes
        self._known: dict[Hashable, bytes] = {}

    def digest(self, value: object, depth: int = 0) -> bytes:
        if depth > _MAX_DEPTH:
            raise ValueError(f"is nested more than {_MAX_DEPTH} levels deep")
        key = _storage_key(value) if isinstance(value, Tensor) else id(value)
        if key not in self._known:
            self._known[key] = self._compute(value, depth + 1)
        return self._known[key]

    def _compute(self, value: object, depth: int) -> bytes:
        if isinstance(value, Tensor):
            return self._tensor(value)
        if isinstance(value, dict) and type(value) in (dict, OrderedDict):
            pairs = sorted(self.digest(name, depth) + self.digest(part, depth) for name, part in value.items())
            return _sha256("dict", b"".join(pairs))
        if isinstance(value, list | tuple) and type(value) in (list, tuple):
            return _sha256(type(value).__name__, b"".join(self.digest(part, depth) for part in value))
        return _sha256(type(value).__name__, _plain_bytes(value))

    def _tensor(self, tensor: Tensor) -> bytes:
        self._bytes_left -= tensor.numel() * tensor.element_size()
        if self._bytes_left < 0:
            raise ValueError("holds tensors that are larger than the file")
        kind = f"{tensor.dtype} {tuple(tensor.shape)}"
        flat = tensor.detach().cpu().reshape(-1)  # a copy only if the tensor is not contiguous
        return _sha256(kind, flat.view(torch.uint8).numpy().data if flat.numel() else b"")


def _storage_key(tensor: Tensor) -> Hashable:
    """Equal for tensors that view the same memory in the same way. Raises ValueError unless the tensor is dense."""
    require_dense(tensor)
    return tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


def _plain_bytes(value: object) -> bytes:
    if isinstance(value, str) and type(value) is str:
        return value.encode("utf-8", "surrogatepass")
    if type(value) in (int, bool) and isinstance(value, int):
        return b"%x" % value
    if type(value) is float:
        return struct.pack("<d", value)
    if type(value) is bytes:
        return value
    if value is None:
        return b""
    raise ValueError(f"contains a {type(value).__name__}, which is neither a tensor nor a plain value")


def _sha256(kind: str, content: bytes | memoryview) -> bytes:
    digest = hashlib.sha256(f"{kind}\n".encode())
    digest.update(content)
    return digest.digest()
