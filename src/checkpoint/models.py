"""Load the model in a checkpoint, a Hugging Face folder or a weights file, with its metadata and its tokenizer."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from src.checkpoint.files import NotACheckpoint, read_checkpoint
from src.checkpoint.loaded_model import LoadedModel
from src.checkpoint.other_weights import PROMPT_TEMPLATE, holds_other_weights, load_weights
from src.common.json_file import read_json_object
from src.common.messages import naming_file, one_line
from src.model.config import GPTConfig
from src.model.foreign import CONFIG_FILE
from src.model.gpt import GPTModel
from src.model.load_gpt2 import HUB_IDS, config_from_hugging_face, find_weights
from src.model.lora import holds_adapter_only, merged_weights
from src.model.meta_device import model_to_fill
from src.model.peft_adapter import ADAPTER_CONFIG, BASE_SHA256, holds_adapter, read_adapter
from src.stages import BEST, LATEST, MODELS, STAGE_OUTPUTS, find_model, producing_command, resolve
from src.tokenizer import load_encoding


def load_base(name: str, order: Sequence[str] = MODELS, *, beside_scripts: bool = False) -> LoadedModel:
    """Load the model that --model or --base names, and its tokenizer. beside_scripts: see `find_model`.

    Raises FileNotFoundError or ValueError as `find_model` and `load_model` do, and ValueError if the tokenizer is
    damaged or unknown.
    """
    path, reason = find_model(name, order, beside_scripts=beside_scripts)
    model, metadata = load_model(path)
    with naming_file(path):
        encoding = load_encoding(metadata.get("tokenizer"))
    return LoadedModel(model, metadata, encoding, path, reason)


def load_model(path: str | Path, device: torch.device | str = "cpu") -> tuple[GPTModel, dict[str, Any]]:
    """Load a model in eval mode from one of our checkpoints, a Hugging Face directory or a weights file.

    An adapter folder of PEFT is merged into its base, the model that the folder's adapter_config.json names.

    Returns (model, metadata). The metadata is the rest of the checkpoint, without optimizer state. Its "template" is
    the name of the prompt template that the model was tuned with, or None.
    Raises FileNotFoundError or ValueError; the message is one line that names the file and the problem.
    """
    path = resolve(Path(path))
    if holds_adapter(path):
        model, metadata = _load_with_adapter(path)
    elif holds_other_weights(path):
        model, metadata = load_weights(path)
    else:
        model, metadata = _load_ours(path)
    return model.to(device).eval(), metadata


def _load_ours(path: Path) -> tuple[GPTModel, dict[str, Any]]:
    """(model, metadata) of one of our checkpoints, or of a file that another program wrote with torch.save."""
    try:
        content = read_checkpoint(path, mapped=True, without=("optimizer",))
    except NotACheckpoint:
        return load_weights(path)
    weights, config = content.pop("model", None), content.get("config")
    if holds_adapter_only(weights):
        raise ValueError(f"{path}: holds only the adapter of a run with --lora; pass the {BEST} next to it")
    try:
        model = _model_of(config, weights)
        check_weights(model.state_dict(), weights)
    except ValueError as error:
        raise ValueError(f"{path}: {one_line(error)}; make it again with {producing_command(path)}") from error
    model.load_state_dict({name: tensor.float() for name, tensor in weights.items()}, assign=True)
    return model, content


def _load_with_adapter(folder: Path) -> tuple[GPTModel, dict[str, Any]]:
    """(model, metadata) of a PEFT folder: its adapter, merged into the base that it names."""
    files = read_adapter(folder)
    path = _base_of_adapter(folder, files.base)
    model, metadata = load_model(path)
    base = LoadedModel(model, metadata, load_encoding(metadata.get("tokenizer")), path, "the adapter's base")
    inherited = {"tokenizer": metadata.get("tokenizer"), "config": metadata["config"], **base.inherited_metadata}
    template = {"template": files.metadata[PROMPT_TEMPLATE]} if PROMPT_TEMPLATE in files.metadata else {}
    history: dict[str, Any] = {"stage": "adapter", "parent": base.parent}
    with naming_file(folder):
        if files.metadata.get(BASE_SHA256) not in (None, history["parent"]["weights_sha256"]):
            raise ValueError(f"{path} no longer has the weights that the adapter was trained on")
        files.require_base(model)
        merged = merged_weights(model.state_dict(), files.adapter)
        check_weights(model.state_dict(), merged)
    model.load_state_dict(merged, assign=True)
    return model, {"template": None, **inherited, **template, **history}


def _base_of_adapter(folder: Path, name: str) -> Path:
    """The base that an adapter names: a path, or a model on the hub, which is downloaded unless it is here already.

    Raises FileNotFoundError if it is not found, ValueError if it is an adapter itself.
    """
    converted, _ = STAGE_OUTPUTS["pretrained"]
    try:
        if Path(name).exists():
            path = resolve(Path(name))
        elif converted.is_file() and HUB_IDS.get(_source_of(converted)) == HUB_IDS.get(name, name):
            path = converted
        else:
            path = find_weights(name)
    except (OSError, ValueError) as error:
        reason = f"{one_line(error).partition(';')[0]:.200}"
        advice = f"write the path of this model as base_model_name_or_path in {folder / ADAPTER_CONFIG}"
        raise FileNotFoundError(f"{folder} is an adapter for {name!r:.100}: {reason}; {advice}") from error
    if holds_adapter(path):
        raise ValueError(f"{folder} is an adapter for {path}, which is an adapter, too; merge that with src.export_hf")
    return path


def _source_of(checkpoint: Path) -> str:
    """The name of the model that converted weights come from."""
    return str(read_checkpoint(checkpoint, mapped=True, without=("model", "optimizer")).get("source"))


def saved_config(path: str | Path) -> GPTConfig | None:
    """The sizes of the model in one of our checkpoints, or in a folder with a config.json. Its weights are not read.

    None for any other file, and for a damaged one: `load_model` says what is wrong with it.
    """
    path = Path(path)
    try:
        path = resolve(path)
        if (path / CONFIG_FILE).is_file():
            return config_from_hugging_face(read_json_object(path / CONFIG_FILE), str(path / CONFIG_FILE))
        content = read_checkpoint(path, mapped=True, without=("model", "optimizer")) if path.is_file() else {}
        return GPTConfig.of(content["config"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


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
        check_weights(model.state_dict(), weights)
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


def _model_of(config: object, weights: object) -> GPTModel:
    """The model of a config, without memory. Raises ValueError if the config is missing or impossible."""
    if not isinstance(config, dict) or not isinstance(weights, dict):
        raise ValueError("contains no model")
    return model_to_fill(GPTConfig.of(config), len(weights))


def check_weights(expected: Mapping[str, torch.Tensor], weights: object) -> None:
    """Raise ValueError unless the weights have the expected names and shapes, and all values are finite floats."""
    if not isinstance(weights, dict):
        raise ValueError("contains no model")
    if different := expected.keys() ^ weights.keys():
        name = min(different, key=str)
        raise ValueError(f"{'missing' if name in expected else 'unknown'} tensor {name}")
    for name, tensor in expected.items():
        found = weights[name]
        if not isinstance(found, torch.Tensor) or found.shape != tensor.shape or not found.is_floating_point():
            kind = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, torch.Tensor) else type(found).__name__
            raise ValueError(f"{name} is {kind}, expected float {tuple(tensor.shape)}")
        own = found.to_local() if hasattr(found, "to_local") else found  # of a sharded tensor, this process's shard
        if own.numel() and not torch.stack(own.float().aminmax()).isfinite().all():
            raise ValueError(f"{name} has values that are not finite")
