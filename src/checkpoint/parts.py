"""The tensors of a checkpoint in files of their own, so that each process of a run writes and reads only its part.

The checkpoint file holds everything else, the name of a folder next to it, and the SHA-256 of each file in the folder.
It is written last, so a save that is killed leaves the earlier checkpoint and its folder. The files are safetensors,
written and read by torch.distributed.checkpoint; unlike its own format, they cannot contain code.
"""

import re
import warnings
from collections.abc import Collection, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from src.checkpoint.digest import file_sha256
from src.common.messages import one_line

PARTS = "parts"  # the entry of a checkpoint that names its folder and files
SHARDED = ("model", "optimizer")  # the entries whose tensors are in the folder
_FOLDER = re.compile(r"parts-[\w-]+")


def take_tensors(content: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The content without the tensors of SHARDED, and these by path, such as "optimizer/state/0/exp_avg".

    Tensors without dimensions, such as an optimizer's step, stay in the content. They are copied, because training
    changes them in place while a save is being written.
    """
    tensors: dict[str, Tensor] = {}
    rest = {key: _move_tensors(value, key, tensors) if key in SHARDED else value for key, value in content.items()}
    return rest, tensors


def _move_tensors(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """The value without its tensors, which are added to `tensors` by path. Those without dimensions are copied."""
    if isinstance(value, Tensor):
        return value.clone()
    if not isinstance(value, Mapping):
        return value
    rest = {}
    for key, part in value.items():
        if isinstance(part, Tensor) and part.dim():
            tensors[f"{path}/{key}"] = part
        else:
            rest[key] = _move_tensors(part, f"{path}/{key}", tensors)
    return rest


def put_tensors(content: dict[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The inverse of `take_tensors`; changes and returns the content. Raises ValueError for an impossible path."""
    for path, tensor in tensors.items():
        *parents, name = (int(key) if key.isdecimal() else key for key in path.split("/"))
        place: Any = content
        for key in parents:
            place = place.setdefault(key, {}) if isinstance(place, dict) else None
        if not isinstance(place, dict):
            raise ValueError(f"tensor {path:.60} fits no entry")
        place[name] = tensor
    return content


def write_in_background(folder: Path, tensors: Mapping[str, Tensor], group: Any) -> "Future[Any]":
    """Write sharded tensors in the background, each process its own part. Returns a future of the end of the write.

    This process's part is copied first, so training can continue. group: the processes, connected by Gloo. Nothing
    else may use the group until the write has ended.
    """
    from torch.distributed import checkpoint as dcp  # slow to import, and only needed here

    future: Any = dcp.async_save(dict(tensors), storage_writer=_writer(folder, tensors), process_group=group)
    return future


def write_tensors(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write whole tensors, in one process."""
    from torch.distributed import checkpoint as dcp

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        dcp.save(dict(tensors), storage_writer=_writer(folder, tensors), no_dist=True)


def _writer(folder: Path, tensors: Collection[str]) -> Any:
    """A writer that puts 16 tensors into each file, because a file is prepared in memory."""
    from torch.distributed import checkpoint as dcp

    file_numbers = {name: 1 + position // 16 for position, name in enumerate(tensors)}
    return dcp.HuggingFaceStorageWriter(str(folder), fqn_to_index_mapping=file_numbers, save_distributed=True)


def new_folder(path: Path, step: int, run_id: str) -> Path:
    """A new name, next to a checkpoint, for the folder of its parts."""
    name, number = f"parts-{step:06}-{run_id}", 1
    while (folder := path.with_name(f"{name}{f'-{number}' * (number > 1)}")).exists():
        number += 1
    return folder


def digests_of_process(folder: Path, rank: int) -> dict[str, str]:
    """The SHA-256 of each file that a process has written."""
    return {path.name: file_sha256(path) for path in sorted(folder.glob(f"shard-{rank + 1:05}-*.safetensors"))}


@dataclass(frozen=True)
class Parts:
    """The files with the tensors of a checkpoint, and their SHA-256 by name."""

    folder: Path
    files: Mapping[str, str]

    @classmethod
    def of(cls, path: Path, entry: object) -> "Parts":
        """The parts that an entry of the checkpoint at `path` names. Raises ValueError if they are missing."""
        entry = entry if isinstance(entry, dict) else {}
        folder, files = entry.get("folder"), entry.get("files")
        if not isinstance(folder, str) or not _FOLDER.fullmatch(folder) or not isinstance(files, dict) or not files:
            raise ValueError(f"damaged: its entry {PARTS!r} is unreadable")
        parts = cls(path.parent / folder, files)
        if not parts.folder.is_dir():
            raise ValueError(f"its tensors are in the folder {parts.folder}, which is missing; copy it there")
        if found := {file.name for file in parts.folder.glob("*.safetensors")} ^ set(files):
            raise ValueError(f"damaged: {parts.folder / str(min(found, key=str))} is missing or not part of it")
        return parts

    def verify(self, rank: int = 0, count: int = 1) -> None:
        """Compare every file with its digest, or this process's share of the files. Raises ValueError naming one."""
        for name in sorted(self.files)[rank::count]:
            if file_sha256(self.folder / name) != self.files[name]:
                raise ValueError(f"damaged: {self.folder / name} changed since saving")

    def shapes(self) -> dict[str, tuple[torch.Size, torch.dtype]]:
        """Shape and dtype of each tensor, by path. Raises ValueError if the files do not hold all of its values."""
        from torch.distributed import checkpoint as dcp

        try:
            found: Mapping[str, Any] = (
                dcp.HuggingFaceStorageReader(str(self.folder)).read_metadata().state_dict_metadata
            )
        except Exception as error:  # a damaged header can raise anything
            raise ValueError(f"damaged: {self.folder} cannot be read ({one_line(error)})") from error
        for name, tensor in found.items():
            if sum(chunk.sizes.numel() for chunk in tensor.chunks) != tensor.size.numel():
                raise ValueError(f"damaged: {self.folder} does not hold all values of {name:.60}")
        return {name: (tensor.size, tensor.properties.dtype) for name, tensor in found.items()}

    def read_into(self, tensors: Mapping[str, Tensor]) -> None:
        """Replace the values of tensors, given by path. Of a sharded tensor, only this process's part is read."""
        from torch.distributed import checkpoint as dcp

        reader = dcp.HuggingFaceStorageReader(str(self.folder))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            dcp.load(dict(tensors), storage_reader=reader, no_dist=True)

    def read(self, without: Collection[str] = ()) -> dict[str, Tensor]:
        """The whole tensors by path, except those of the entries `without`."""
        tensors = {
            name: torch.empty(shape, dtype=dtype)
            for name, (shape, dtype) in self.shapes().items()
            if name.split("/")[0] not in without
        }
        self.read_into(tensors)
        return tensors
