"""Checkpoint files: save and read them, load the model in one, and find the model that a script should start from."""

import hashlib
import json
import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from src.common.atomic_file import atomic_write, remove_stale_temporaries
from src.common.disk import require_free_space
from src.common.messages import naming_file, one_line
from src.model.config import GPTConfig
from src.model.gpt import GPTModel, on_meta_device
from src.model.hub import CONFIG_FILE
from src.model.load_gpt2 import load_gpt2
from src.tokenizer import Encoding, load_encoding

FORMAT = "gpt2-pipeline 1"
CHECKPOINTS = Path("checkpoints")
BEST, LATEST = "best_model.pt", "latest_model.pt"
WEIGHT_SUFFIXES = (".safetensors", ".bin")  # weights in Hugging Face's format, not a checkpoint of ours
PROMPT_TEMPLATE = "prompt_template"  # our key in a Hugging Face config.json for the name of the prompt template
_RESERVE_BYTES = 16 * 2**20  # disk space that a save leaves free

# The names that --model and --base accept: each stage's checkpoint, and the command that makes it.
STAGE_OUTPUTS = {
    "dpo": (CHECKPOINTS / "dpo_aligned" / BEST, "python dpo_train.py"),
    "sft": (CHECKPOINTS / "instruction_tuned" / BEST, "python instruction_tune.py"),
    "finetuned": (CHECKPOINTS / "gpt2_shakespeare" / BEST, "python finetune_gpt2.py"),
    "pretrained": (CHECKPOINTS / "gpt2_pretrained.pt", "python finetune_gpt2.py"),
    "scratch": (CHECKPOINTS / "scratch" / BEST, "python main.py"),
}
MODELS = (*STAGE_OUTPUTS,)  # --model auto takes the first that exists
MODEL_HELP = f"auto (the first of {', '.join(MODELS)} that exists), one of these, or a path"
_FORMER_SCRATCH = CHECKPOINTS / "pretrained" / BEST  # main.py saved there in earlier versions


# --- save and read files


def save_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically: `path` keeps its old content until the new file is complete.

    Raises OSError if the disk has too little space (before anything is written) or if writing fails.
    """
    remove_stale_temporaries(path.parent)  # their space may be needed
    n_bytes = sum(tensor.numel() * tensor.element_size() for tensor in _tensors(content))
    require_free_space(path, n_bytes + _RESERVE_BYTES, "nothing was overwritten")
    versions = {"torch": str(torch.__version__), "python": platform.python_version()}
    try:
        with atomic_write(path) as file:
            torch.save({"format": FORMAT, "versions": versions, **content}, file)
    except (RuntimeError, OSError) as error:
        raise OSError(f"{path}: could not be written ({one_line(error)}); its old content is unchanged") from error


def read_checkpoint(path: Path, *, mapped: bool = False) -> dict[str, Any]:
    """Return the content of a checkpoint, with tensors on the CPU. No code in the file is executed.

    mapped: memory-map the file, so that a tensor is read from disk only when it is used.
    Raises FileNotFoundError, PermissionError, or ValueError if the file is damaged or not a checkpoint of ours.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such checkpoint; make it with {producing_command(path)}, or pass another path"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped and os.name != "nt")
    except PermissionError:
        raise
    except Exception as error:  # a damaged pickle can raise anything, and PyTorch's message suggests weights_only=False
        code = re.search(r"GLOBAL (\S+)", str(error))
        problem = f"refused, it contains code ({code[1]}), not just tensors and plain values" if code else "damaged"
        raise ValueError(f"{path}: {problem}; make it again with {producing_command(path)}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path}: not a checkpoint of this project; make one with {producing_command(path)}")
    return content


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, or of all weights files in a directory."""
    digest = hashlib.sha256()
    for part in sorted(f for f in path.iterdir() if f.suffix in WEIGHT_SUFFIXES) if path.is_dir() else [path]:
        with open(part, "rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    return digest.hexdigest()


def _tensors(value: object) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, Mapping):
        return [tensor for part in value.values() for tensor in _tensors(part)]
    return []


# --- load a model


def load_model(path: str | Path, device: torch.device | str = "cpu") -> tuple[GPTModel, dict[str, Any]]:
    """Load a model in eval mode from one of our checkpoints, a Hugging Face directory or a weights file.

    Returns (model, metadata). The metadata is the rest of the checkpoint; its "template" is the name of the prompt
    template that the model was tuned with, or None.
    Raises FileNotFoundError or ValueError; the message is one line that names the file and the problem.
    """
    path = _resolve(Path(path))
    if path.is_dir() or path.suffix in WEIGHT_SUFFIXES:
        model = load_gpt2(path)
        metadata = {"stage": "pretrained", "template": _saved_template(path), "tokenizer": None}
        return model.to(device), {**metadata, "config": asdict(model.config)}
    content = read_checkpoint(path, mapped=True)
    weights, config = content.pop("model", None), content.get("config")
    try:
        model = _model_without_weights(config, weights)
        _check_weights(model, weights)
    except ValueError as error:
        raise ValueError(f"{path}: {one_line(error)}; make it again with {producing_command(path)}") from error
    model.load_state_dict({name: tensor.float() for name, tensor in weights.items()}, assign=True)
    return model.to(device).eval(), content


def load_checkpoint(
    path: str | Path, model: GPTModel, optimizer: torch.optim.Optimizer | None = None
) -> dict[str, Any]:
    """Load a checkpoint's weights into `model` and, if given, its optimizer state into `optimizer`.

    Returns the rest of the checkpoint: "epoch", "step", "train_loss", "val_loss" and more. For converted weights,
    which were not trained here, these are 0, 0, None and None.
    Raises ValueError if the checkpoint does not fit the model or the optimizer, or has no optimizer state, like
    best_model.pt. Model and optimizer are then unchanged.
    """
    content = read_checkpoint(Path(path))
    weights, state = content.pop("model", None), content.pop("optimizer", None)
    try:
        _check_weights(model, weights)
    except ValueError as error:
        advice = "src.checkpoint.load_model returns a model of the right size"
        raise ValueError(f"{path}: {error}; {advice}") from error
    if optimizer is not None and state is None:
        raise ValueError(f"{path}: contains no optimizer state; pass the {LATEST} next to it")
    try:
        if optimizer is not None:
            optimizer.load_state_dict(state)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        advice = "create the optimizer with src.training.optim.make_adamw"
        raise ValueError(f"{path}: its state does not fit the optimizer ({one_line(error)}); {advice}") from error
    model.load_state_dict(weights)
    return {"epoch": 0, "step": 0, "train_loss": None, "val_loss": None, **content}


def _model_without_weights(config: object, weights: object) -> GPTModel:
    """The model of a config on the meta device, so that a bogus config cannot allocate memory.

    Raises ValueError if the config is missing, impossible, or has more layers than the weights.
    """
    if not isinstance(config, dict) or not isinstance(weights, dict):
        raise ValueError("contains no model")
    size = GPTConfig.of(config)
    if size.n_layers > len(weights):
        raise ValueError(f"model config: {size.n_layers} layers, but only {len(weights)} tensors")
    try:
        return on_meta_device(size)
    except (RuntimeError, TypeError, OverflowError) as error:
        raise ValueError(f"model config: impossible sizes ({one_line(error)})") from error


def _check_weights(model: GPTModel, weights: object) -> None:
    """Raise ValueError unless the weights have the model's names and shapes, and all values are finite floats."""
    if not isinstance(weights, dict):
        raise ValueError("contains no model")
    expected = model.state_dict()
    if different := expected.keys() ^ weights.keys():
        name = min(different, key=str)
        raise ValueError(f"{'missing' if name in expected else 'unknown'} tensor {name}")
    for name, tensor in expected.items():
        found = weights[name]
        if not isinstance(found, torch.Tensor) or found.shape != tensor.shape or not found.is_floating_point():
            kind = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, torch.Tensor) else type(found).__name__
            raise ValueError(f"{name} is {kind}, expected float {tuple(tensor.shape)}")
        if not torch.stack(found.float().aminmax()).isfinite().all():
            raise ValueError(f"{name} has values that are not finite")


def _saved_template(path: Path) -> str | None:
    """The prompt template named in the config.json of a Hugging Face directory that we exported, otherwise None."""
    file = (path if path.is_dir() else path.parent) / CONFIG_FILE
    name = json.loads(file.read_text(encoding="utf-8")).get(PROMPT_TEMPLATE) if file.is_file() else None
    return name if isinstance(name, str) else None


# --- find a model


@dataclass(frozen=True)
class LoadedModel:
    """A model with its metadata and its tokenizer, the file it came from, and the reason why that file was chosen."""

    model: GPTModel
    metadata: dict[str, Any]
    encoding: Encoding
    path: Path
    reason: str

    @property
    def parent(self) -> dict[str, str]:
        """The file's path and hash, as a checkpoint of the next stage records them."""
        return {"path": str(self.path), "sha256": file_sha256(self.path)}


def load_base(name: str, order: Sequence[str] = MODELS) -> LoadedModel:
    """Load the model that --model or --base names, and its tokenizer.

    Raises FileNotFoundError or ValueError as `find_model` and `load_model` do, and ValueError if the tokenizer is
    damaged or unknown.
    """
    path, reason = find_model(name, order)
    model, metadata = load_model(path)
    with naming_file(path):
        encoding = load_encoding(metadata.get("tokenizer"))
    return LoadedModel(model, metadata, encoding, path, reason)


def find_model(name: str, order: Sequence[str] = MODELS) -> tuple[Path, str]:
    """Return the path of a model, and the reason why it was chosen.

    name: "auto" (the first model of `order` that exists), a name in STAGE_OUTPUTS, or a path.
    Raises FileNotFoundError that names the command which makes the model.
    """
    if name == "auto":
        return _first_existing(order)
    if name in STAGE_OUTPUTS:
        path, command = STAGE_OUTPUTS[name]
        if not path.is_file():
            raise FileNotFoundError(_not_found(name))
        return path, f"{name}, as asked"
    if not Path(name).exists():
        known = ", ".join(order)
        raise FileNotFoundError(
            f"{name}: no such file; pass {known}, a checkpoint, a Hugging Face directory or a weights file"
        )
    return _resolve(Path(name)), "as asked"


def producing_command(path: Path) -> str:
    """The command that makes the checkpoint at `path`, judging by the name of its folder."""
    for output, command in STAGE_OUTPUTS.values():
        if path.parent.name == output.parent.name and (output.name == BEST or path.name == output.name):
            return command
    return "one of the training scripts"


def _first_existing(order: Sequence[str]) -> tuple[Path, str]:
    for position, name in enumerate(order):
        path, _ = STAGE_OUTPUTS[name]
        if path.is_file():
            missing = ", ".join(order[:position])
            return path, "the best model found" + (f" (no {missing} yet)" if missing else "")
    raise FileNotFoundError(f"{_not_found(order[-1])}, or pass a path")


def _not_found(name: str) -> str:
    path, command = STAGE_OUTPUTS[name]
    if name == "scratch" and _FORMER_SCRATCH.is_file():
        return f"{path}: not found, but {_FORMER_SCRATCH} exists; rename {_FORMER_SCRATCH.parent} to {path.parent}"
    return f"{path}: not found; make it with {command}"


def _resolve(path: Path) -> Path:
    """The best_model.pt in a folder of ours; any other path, such as a Hugging Face folder, is returned unchanged."""
    best = path / BEST
    if path.is_dir() and not best.is_file() and not (path / CONFIG_FILE).is_file():
        raise FileNotFoundError(
            f"{path}: a folder without {BEST} or a Hugging Face model's {CONFIG_FILE}; "
            f"make one with {producing_command(best)}"
        )
    return best if best.is_file() else path
