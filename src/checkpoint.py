"""Checkpoint files: tensors and plain values that describe themselves, written whole or not at all."""

import hashlib
import json
import os
import platform
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from src.common.atomic_file import atomic_write, remove_stale_temporaries
from src.common.messages import naming_file, one_line
from src.model.config import GPTConfig
from src.model.gpt import GPTModel, on_meta_device
from src.model.hub import CONFIG_FILE
from src.model.load_gpt2 import load_gpt2
from src.tokenizer import Encoding, load_encoding

FORMAT = "gpt2-pipeline 1"
CHECKPOINTS = Path("checkpoints")
BEST, LATEST = "best_model.pt", "latest_model.pt"
WEIGHT_SUFFIXES = (".safetensors", ".bin")  # Hugging Face's, as opposed to a checkpoint of ours
PROMPT_TEMPLATE = "prompt_template"  # our entry in a Hugging Face folder's config.json: how the model was asked
_RESERVE_BYTES = 16 * 2**20  # room that a save leaves free on the disk

# What --model and --base may name: the file, and the command that makes it.
STAGE_OUTPUTS = {
    "dpo": (CHECKPOINTS / "dpo_aligned" / BEST, "python dpo_train.py"),
    "sft": (CHECKPOINTS / "instruction_tuned" / BEST, "python instruction_tune.py"),
    "finetuned": (CHECKPOINTS / "gpt2_shakespeare" / BEST, "python finetune_gpt2.py"),
    "pretrained": (CHECKPOINTS / "gpt2_pretrained.pt", "python finetune_gpt2.py"),
    "scratch": (CHECKPOINTS / "scratch" / BEST, "python main.py"),
}
MODELS = (*STAGE_OUTPUTS,)  # --model auto takes the first that exists
MODEL_HELP = f"auto (the first of {', '.join(MODELS)} that exists), one of these, or a path"


def save_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint beside its place, flush it to the disk, then rename: the old stays until the new is whole.

    Raises OSError where the disk is too full, before anything is written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_stale_temporaries(path)  # their room may be needed
    size = sum(t.numel() * t.element_size() for t in _tensors(content))
    free = shutil.disk_usage(path.parent).free
    if free < size + _RESERVE_BYTES:
        raise OSError(
            f"{path}: needs {size / 1e6:.0f} MB, the disk has {free / 1e6:.0f} MB free; nothing was overwritten"
        )
    try:
        with atomic_write(path) as file:
            torch.save({"format": FORMAT, "versions": _versions(), **content}, file)
    except (RuntimeError, OSError) as error:
        raise OSError(f"{path}: could not be written ({one_line(error)}); the file before it is untouched") from error


def read_checkpoint(path: Path, *, mapped: bool = False) -> dict[str, Any]:
    """Everything that a checkpoint holds, tensors on the CPU; `mapped` leaves them in the file until they are used.

    Raises FileNotFoundError, PermissionError, or ValueError for a file that is not whole or not one of ours. Nothing in
    it is executed.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such checkpoint; make it with {producing_command(path)}, or pass another path"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped and os.name != "nt")
    except PermissionError:
        raise
    except Exception as error:  # a damaged pickle fails in any way, and torch's words then advise to run its code
        code = re.search(r"GLOBAL (\S+)", str(error))
        wrong = f"refused, it holds {code[1]} beside tensors and plain values" if code else "damaged or cut off"
        raise ValueError(f"{path}: {wrong}; make it again with {producing_command(path)}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path}: not one of this project's checkpoints; make one with {producing_command(path)}")
    return content


def load_model(path: str | Path, device: torch.device | str = "cpu") -> tuple[GPTModel, dict[str, Any]]:
    """(model in eval mode, metadata) of one of our checkpoints, a Hugging Face directory or a weights file.

    The metadata is the checkpoint without its weights; `template` is the name of the prompt template, or None.
    Raises FileNotFoundError or ValueError with one line that says what is wrong with the file.
    """
    path = _resolve(Path(path))
    if path.is_dir() or path.suffix in WEIGHT_SUFFIXES:
        model = load_gpt2(path)
        metadata: dict[str, Any] = {"stage": "pretrained", "template": _template_beside(path), "tokenizer": None}
        return model.to(device), {**metadata, "config": asdict(model.config)}
    content = read_checkpoint(path, mapped=True)
    weights, config = content.pop("model", None), content.get("config")
    try:
        model = _skeleton(config, weights)
        _check_weights(model, weights)
    except ValueError as error:
        raise ValueError(f"{path}: {one_line(error)}; make it again with {producing_command(path)}") from error
    model.load_state_dict({name: tensor.float() for name, tensor in weights.items()}, assign=True)
    return model.to(device).eval(), content


def load_checkpoint(
    path: str | Path, model: GPTModel, optimizer: torch.optim.Optimizer | None = None
) -> dict[str, Any]:
    """Load weights into `model` (and the state into `optimizer`).

    Returns the rest: 'epoch', 'step', 'train_loss', 'val_loss' (of weights that were not trained here 0 and None), ...
    Raises ValueError where the file does not fit the model, or holds no optimizer state (best_model.pt has none).
    Where it raises, model and optimizer are as they were.
    """
    content = read_checkpoint(Path(path))
    weights, state = content.pop("model", None), content.pop("optimizer", None)
    try:
        _check_weights(model, weights)
    except ValueError as error:
        action = "a model of the right size is what src.checkpoint.load_model returns"
        raise ValueError(f"{path}: {error}; {action}") from error
    if optimizer is not None and state is None:
        raise ValueError(f"{path}: holds no optimizer state; pass the {LATEST} beside it")
    try:
        if optimizer is not None:
            optimizer.load_state_dict(state)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        action = "make it with src.training.optim.make_adamw"
        raise ValueError(f"{path}: its state does not fit the optimizer ({one_line(error)}); {action}") from error
    model.load_state_dict(weights)
    return {"epoch": 0, "step": 0, "train_loss": None, "val_loss": None, **content}


def find_model(name: str, order: Sequence[str]) -> tuple[Path, str]:
    """(path, reason) of the model that --model or --base names: "auto", a name of `order`, or a path.

    "auto" takes the first of `order` that is there. Raises FileNotFoundError naming the command that makes it.
    """
    if name in STAGE_OUTPUTS:
        path, command = STAGE_OUTPUTS[name]
        if not path.is_file():
            raise FileNotFoundError(f"{path}: not there yet; make it with {command}")
        return path, f"{name}, as asked"
    if name != "auto":
        if not Path(name).exists():
            known = ", ".join(order)
            raise FileNotFoundError(
                f"{name}: no such file; pass {known}, a checkpoint, a Hugging Face directory or a weights file"
            )
        return _resolve(Path(name)), "as asked"
    for i, choice in enumerate(order):
        path, _ = STAGE_OUTPUTS[choice]
        if path.is_file():
            passed = f" (no {', '.join(order[:i])} yet)" if i else ""
            return path, f"the best that is here{passed}"
    path, command = STAGE_OUTPUTS[order[-1]]
    raise FileNotFoundError(f"{path}: not there yet; make it with {command}, or pass a path")


@dataclass(frozen=True)
class LoadedModel:
    """A model with its metadata and its tokenizer, the file it came from, and the reason why that file was taken."""

    model: GPTModel
    metadata: dict[str, Any]
    encoding: Encoding
    path: Path
    reason: str

    @property
    def parent(self) -> dict[str, str]:
        """How a checkpoint names the one before it."""
        return {"path": str(self.path), "sha256": file_sha256(self.path)}


def load_base(name: str, order: Sequence[str] = MODELS) -> LoadedModel:
    """The model that --base or --model names, with the tokenizer that its file describes.

    Raises FileNotFoundError or ValueError as `find_model` and `load_model` do, and ValueError if the tokenizer is
    damaged or unknown.
    """
    path, reason = find_model(name, order)
    model, metadata = load_model(path)
    with naming_file(path):
        encoding = load_encoding(metadata.get("tokenizer"))
    return LoadedModel(model, metadata, encoding, path, reason)


def producing_command(path: Path) -> str:
    """The command that makes a checkpoint in the folder of `path`."""
    for made, command in STAGE_OUTPUTS.values():
        if path.parent.name == made.parent.name and (made.name == BEST or path.name == made.name):
            return command
    return "one of the training scripts"


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, or of the weights files in a directory, read in pieces."""
    digest = hashlib.sha256()
    for part in sorted(f for f in path.iterdir() if f.suffix in WEIGHT_SUFFIXES) if path.is_dir() else [path]:
        with open(part, "rb") as file:
            while piece := file.read(2**20):
                digest.update(piece)
    return digest.hexdigest()


def _resolve(path: Path) -> Path:
    """What a path stands for: of a folder its best_model.pt, or the folder itself where it is Hugging Face's."""
    best = path / BEST
    if path.is_dir() and not best.is_file() and not (path / CONFIG_FILE).is_file():
        raise FileNotFoundError(
            f"{path}: a folder without {BEST} or a Hugging Face model's {CONFIG_FILE}; "
            f"make one with {producing_command(best)}"
        )
    return best if best.is_file() else path


def _template_beside(path: Path) -> str | None:
    """The prompt template that a Hugging Face folder's config.json names; foreign ones name none."""
    file = (path if path.is_dir() else path.parent) / CONFIG_FILE
    named = json.loads(file.read_text(encoding="utf-8")).get(PROMPT_TEMPLATE) if file.is_file() else None
    return named if isinstance(named, str) else None


def _skeleton(config: Any, weights: Any) -> GPTModel:
    """The model of a config with shapes but without memory, which an absurd config could ask for too much of.

    Raises ValueError for a config that is none, or that the weights cannot bear out.
    """
    if not isinstance(config, dict) or not isinstance(weights, dict):
        raise ValueError("holds no model")
    size = GPTConfig.of(config)
    if size.n_layers > len(weights):
        raise ValueError(f"model config: {size.n_layers} layers, but only {len(weights)} tensors")
    try:
        return on_meta_device(size)
    except (RuntimeError, TypeError, OverflowError) as error:
        raise ValueError(f"model config: impossible sizes ({one_line(error)})") from error


def _check_weights(model: GPTModel, weights: Any) -> None:
    """Raises ValueError for weights that are not the model's: other names, other shapes, not floating or not finite."""
    if not isinstance(weights, dict):
        raise ValueError("holds no model")
    expected = model.state_dict()
    for name in sorted(expected.keys() ^ weights.keys(), key=str):
        raise ValueError(f"{'missing' if name in expected else 'unknown'} tensor {name}")
    for name, tensor in expected.items():
        found = weights[name]
        if not isinstance(found, torch.Tensor) or found.shape != tensor.shape or not found.is_floating_point():
            kind = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, torch.Tensor) else type(found).__name__
            raise ValueError(f"{name} is {kind}, the model's is float {tuple(tensor.shape)}")
        if not torch.stack(found.float().aminmax()).isfinite().all():
            raise ValueError(f"{name} holds values that are not finite")


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, Mapping):
        return [tensor for part in value.values() for tensor in _tensors(part)]
    return []


def _versions() -> dict[str, str]:
    return {"torch": str(torch.__version__), "python": platform.python_version()}
