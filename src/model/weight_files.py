"""The tensors in weights files, whatever their format: safetensors, PyTorch state dicts, and nanoGPT's checkpoints."""

import pickle
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from src.common.messages import one_line
from src.model.foreign import foreign_file
from src.model.gguf_weights import GGUF_SUFFIX, gguf_config, gguf_tensors, holds_gguf

FILE_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", GGUF_SUFFIX)
_WRAPPERS = ("model", "state_dict", "model_state_dict")  # where training programs put the weights in their checkpoints
_OURS = "gpt2-pipeline"  # the "format" of this project's checkpoints


class WeightTensors(Mapping[str, Tensor]):
    """The tensors of one or more files, each read on access.

    nanogpt: the `model_args` of nanoGPT's checkpoint, otherwise None. gguf: the config of a GGUF file, otherwise None.
    A safetensors file is reopened for each tensor: closing it releases the pages of its memory map, so peak memory is
    the model plus one tensor rather than twice the model.
    """

    def __init__(self, files: list[Path]) -> None:
        self._read: dict[str, Callable[[], Tensor]] = {}
        self.nanogpt: dict[str, Any] | None = None
        self.gguf: dict[str, Any] | None = None
        for path in files:
            for name, read in self._readers(path):
                if name in self._read:
                    raise ValueError(f"{path}: tensor {name} is also in another file of the model")
                self._read[name] = read

    def __getitem__(self, name: str) -> Tensor:
        return self._read[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._read)

    def __len__(self) -> int:
        return len(self._read)

    def _readers(self, path: Path) -> list[tuple[str, Callable[[], Tensor]]]:
        """The name of every tensor in a file, and a function that reads it. The file's first bytes tell its format."""
        if foreign := foreign_file(path):
            raise ValueError(f"{path} is {foreign}")
        if holds_gguf(path):
            self.gguf = gguf_config(path)
            return gguf_tensors(path)
        with path.open("rb") as file:
            start = file.read(4)
        pickled = start.startswith((b"PK", b"\x80"))
        if holds_safetensors(path) or (path.suffix == ".safetensors" and not pickled):
            return [(name, partial(_read_safetensor, path, name)) for name in _safetensor_names(path)]
        if not pickled and path.suffix not in FILE_SUFFIXES:
            raise ValueError(f"{path} is not a weights file; expected one ending in {', '.join(FILE_SUFFIXES)}")
        content = _unpickle(path, zipped=start == b"PK\x03\x04")
        tensors = _named_tensors(path, content)
        if isinstance(content.get("model_args"), dict):
            self.nanogpt = content["model_args"]
        return [(name, partial(tensors.__getitem__, name)) for name in tensors]


def parameter_name(name: str) -> str:
    """A tensor's name without `transformer.` and the prefixes of model wrappers."""
    return re.sub(r"^(?:(?:module|_orig_mod|transformer)\.)+", "", name)


def holds_safetensors(path: Path) -> bool:
    """Whether a file has the format of safetensors, judging by its first bytes: a length, then a JSON object."""
    with path.open("rb") as file:
        return file.read(10)[8:] == b'{"'


def _safetensor_names(path: Path) -> list[str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return list(file.keys())
    except SafetensorError as error:
        raise ValueError(f"{path} is not a complete safetensors file ({one_line(error)}); download it again") from error


def _read_safetensor(path: Path, name: str) -> Tensor:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return file.get_tensor(name)


def _unpickle(path: Path, zipped: bool) -> dict[str, Any]:
    """The dictionary in a PyTorch file, memory-mapped if the format allows it. Code in the file is never executed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are about details of a damaged file
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except PermissionError:
        raise
    except Exception as error:  # a damaged pickle can raise anything, and torch's message may advise running its code
        code = re.search(r"GLOBAL (\S+)", str(error))
        if isinstance(error, pickle.UnpicklingError) and code:
            raise ValueError(f"{path} would run {code[1]}; not loaded, use a .safetensors file instead") from error
        raise ValueError(f"{path} is not a complete PyTorch weights file; download it again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} contains a {type(content).__name__}; expected a dict of tensors")
    if str(content.get("format")).startswith(_OURS):
        raise ValueError(f"{path} is a checkpoint of this project; rename it to {path.stem}.pt")
    return content


def _named_tensors(path: Path, content: dict[str, Any]) -> dict[str, Tensor]:
    """The state dict in a file's dictionary, or in an entry of it.

    Raises ValueError if there is none, and for tensors that are not dense or claim more than the file can hold.
    """
    wrapped = [content[key] for key in _WRAPPERS if isinstance(content.get(key), dict)]
    tensors = next((part for part in wrapped if any(isinstance(value, Tensor) for value in part.values())), content)
    n_bytes = 0
    for name, value in tensors.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ValueError(f"{path}: entry {name!r:.60} is a {type(value).__name__}; expected only named tensors")
        try:
            require_dense(value)
        except ValueError as error:
            raise ValueError(f"{path}: entry {name!r:.60} {error}") from error
        n_bytes += value.numel() * value.element_size()
    if n_bytes > 2 * path.stat().st_size:  # a tied head and embedding are one tensor in the file
        raise ValueError(f"{path} holds tensors that are larger than the file")
    return tensors


def require_dense(tensor: Tensor) -> None:
    """Raise ValueError unless a tensor is dense and has memory for all of its values.

    A tensor with stride 0, made by `expand`, claims more memory than it has. A subclass may compute anything.
    """
    if type(tensor) not in (Tensor, torch.nn.Parameter):
        raise ValueError(f"contains a {type(tensor).__name__}; only plain tensors are accepted")
    if tensor.layout != torch.strided or tensor.is_nested or tensor.is_quantized or tensor.is_meta:
        raise ValueError(f"contains a sparse, nested, quantized or meta tensor ({tensor.dtype}); make it dense")
    if tensor.is_conj() or tensor.is_neg():
        raise ValueError("contains a conjugated view; pass tensor.resolve_conj().resolve_neg()")
    if tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
        raise ValueError(f"contains a tensor of shape {tuple(tensor.shape)} that has memory for less than that")
