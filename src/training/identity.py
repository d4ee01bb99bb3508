"""Everything that determines the result of a run. A run can be resumed only if it is the same."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from src.checkpoint import weights_sha256
from src.data.batching import Batch
from src.model.config import GPTConfig
from src.training.flags import TrainingFlags, plain_settings
from src.training.stage import Stage

# Settings that may change on resume. Paths are among them because `run_identity` hashes the content of the files.
_MAY_CHANGE = (
    "max_steps",
    "epochs",
    "eval_every",
    "patience",
    "save_every",
    "keep",
    "device",
    "out",
    "log_dir",
    "tensorboard",
    "resume",
    "compile",
    "strategy",
    "activation_checkpointing",
    "memory_check",
    "data",
    "val_data",
    "weights",
    "skip_bad",
    "show_data",
    "show_mask",
)


def run_identity(stage: Stage, config: GPTConfig, flags: TrainingFlags, precision: str) -> dict[str, Any]:
    """The settings, the precision and the model, and the hashes of the data, the base and the tokenizer."""
    parent = stage.metadata.get("parent") or {}
    return {
        "stage": stage.name,
        **{name: value for name, value in plain_settings(flags).items() if name not in _MAY_CHANGE},
        "precision": precision,
        "model": asdict(config),
        "data": stage.loader.dataset.content_hash(),
        "evaluation": _hash_of_batches(stage.evaluation),
        "base": parent.get("weights_sha256"),
        "tokenizer": (stage.metadata.get("tokenizer") or {}).get("fingerprint"),
    }


def _hash_of_batches(batches: Sequence[Batch]) -> str:
    tensors = {}
    for number, batch in enumerate(batches):
        for name, value in vars(batch).items():
            if isinstance(value, torch.Tensor):
                tensors[f"{number} {name}"] = value
    return weights_sha256(tensors)
