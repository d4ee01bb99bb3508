"""latest_model.pt under FSDP: each process writes its shard of the tensors, in the background."""

import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from src.checkpoint.files import read_without_parts, save_checkpoint
from src.checkpoint.parts import (
    PARTS,
    SHARDED,
    Parts,
    digests_of_process,
    new_folder,
    take_tensors,
    write_in_background,
)
from src.common.disk import require_free_space
from src.common.messages import one_line
from src.distributed.environment import rank, world_size
from src.distributed.processes import Processes
from src.training.optim import MuonAndAdamW, Optimizer, optimizer_parts


class PartsSaver:
    """Saves a checkpoint whose tensors are sharded among the processes, one save at a time.

    Training continues while the files are written; a copy of this process's shard is made first. The checkpoint file is
    written last, by the first process, so it always names complete parts.
    """

    def __init__(self, path: Path, processes: Processes) -> None:
        self._path, self._processes = path, processes
        self._group = dist.new_group(backend="gloo")  # training exchanges gradients through the other one meanwhile
        self._executor = ThreadPoolExecutor(1, "save")
        self._saving: Future[None] | None = None

    def save(self, content: Mapping[str, Any], step: int, run_id: str, saved: Callable[[], None]) -> None:
        """Start a save. When it is complete, the first process calls `saved`. All processes must call this."""
        self.wait()
        rest, tensors = take_tensors(content)
        first = self._processes.rank == 0
        folder = self._processes.from_first(new_folder(self._path, step, run_id) if first else Path())
        if first:
            n_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
            require_free_space(folder, n_bytes, "nothing was overwritten")
        written = write_in_background(folder, tensors, self._group)
        self._saving = self._executor.submit(self._complete, written, folder, rest, saved)

    def wait(self) -> None:
        """Wait until the last save is complete. Raises its error, if any."""
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.result()

    def close(self) -> None:
        """End the thread and the connections, after the last save. Does not raise the error of that save."""
        if self._saving is not None:
            wait([self._saving])
        self._executor.shutdown()
        dist.destroy_process_group(self._group)

    def _require_written(self, written: "Future[Any]") -> None:
        """Wait for the files of all processes. Raises OSError with the reason of the first process that failed.

        PyTorch's own error holds a traceback of each process, and is not even an Exception.
        """
        from torch.distributed.checkpoint.api import CheckpointException  # slow to import, and only needed here

        try:
            written.result()
        except CheckpointException as error:
            failed, (reason, _) = min(error.failures.items())
            problem = f"rank {failed} could not write its shard ({one_line(reason)})"
            raise OSError(f"{self._path}: {problem}; its old content is unchanged") from error

    def _complete(
        self, written: "Future[Any]", folder: Path, rest: Mapping[str, Any], saved: Callable[[], None]
    ) -> None:
        self._require_written(written)
        own, first = digests_of_process(folder, self._processes.rank), self._processes.rank == 0
        gathered: list[Any] | None = [None] * self._processes.count if first else None
        dist.gather_object(own, gathered, group=self._group)
        if gathered is not None:
            files = {name: digest for digests in gathered for name, digest in digests.items()}
            save_checkpoint(self._path, {**rest, PARTS: {"folder": folder.name, "files": files}})
            saved()
        dist.barrier(group=self._group)  # no process starts the next save before this one is complete


def remove_unused_parts(out: Path) -> None:
    """Delete the folders of parts that no checkpoint in a run's folder names, if all checkpoints can be read."""
    folders = {path for path in out.glob("parts-*") if path.is_dir()}
    try:
        for path in out.glob("*.pt") if folders else ():
            _, parts = read_without_parts(path, mapped=True, without=(*SHARDED, "logprobs"))
            folders -= {parts.folder} if parts else set()
    except (ValueError, OSError):
        return
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def read_own_part(parts: Parts, model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """This process's shard of the weights and the optimizer state, by path. The model and the optimizer are unchanged.

    Raises ValueError for a damaged file, an unknown tensor or a wrong shape. The processes share the work of comparing
    the files with their digests.
    """
    parts.verify(rank(), world_size())
    owners: dict[str, Tensor] = {f"model/{name}": parameter for name, parameter in model.named_parameters()}
    prefixes = ["optimizer/muon", "optimizer/adamw"] if isinstance(optimizer, MuonAndAdamW) else ["optimizer"]
    for prefix, part in zip(prefixes, optimizer_parts(optimizer), strict=True):
        parameters = [parameter for group in part.param_groups for parameter in group["params"]]
        owners |= {f"{prefix}/state/{number}": parameter for number, parameter in enumerate(parameters)}
    tensors = {}
    for path, (shape, dtype) in parts.shapes().items():
        owner = owners.get(path, owners.get(path.rpartition("/")[0]))
        if owner is None or owner.shape != shape:
            raise ValueError(f"{path:.60} is of shape {tuple(shape)}, expected {owner and tuple(owner.shape)}")
        tensors[path] = torch.empty_like(owner, dtype=dtype, requires_grad=False)
    parts.read_into(tensors)
    return tensors
