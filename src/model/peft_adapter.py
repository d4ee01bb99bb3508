"""A LoRA adapter in PEFT's files: adapter_config.json, and adapter_model.safetensors (or .bin, of older versions).

PEFT names a tensor after the module in transformers' model. Its A and B have the same orientation as ours. The entry
`fan_in_fan_out` is about the layer's own weight, so it is not needed here.
"""

import json
import math
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from src.common.checks import is_count, is_number
from src.common.json_file import read_json_object
from src.model.foreign import ADAPTER_CONFIG, CONFIG_FILE
from src.model.gpt import GPTModel
from src.model.lora import A, Adapter, B
from src.model.weight_files import WeightTensors, holds_safetensors, parameter_name

WEIGHT_FILES = ("adapter_model.safetensors", "adapter_model.bin")
BASE_SHA256 = "base_weights_sha256"  # our entry in the header of the weights file
_PREFIX = "base_model.model."
_REQUIRED = {"peft_type": "LORA", "bias": "none"}
# Entries that say nothing about how to merge. Any other entry must be off: it may belong to another kind of adapter.
_IGNORED = {
    *_REQUIRED,
    "auto_mapping",
    "base_model_name_or_path",
    "ensure_weight_tying",
    "fan_in_fan_out",
    "inference_mode",
    "loftq_config",
    "lora_alpha",
    "lora_dropout",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "r",
    "revision",
    "target_modules",
    "task_type",
    "use_rslora",
}
_INIT_METHODS = (True, False, "gaussian", "orthogonal")  # ways to draw A and B that leave the base's weights alone
_LAYER = re.compile(r"h\.\d+\.(?:attn\.c_attn|attn\.c_proj|mlp\.c_fc|mlp\.c_proj)")


@dataclass(frozen=True)
class AdapterFiles:
    """An adapter, the name or path of its base, and the names of the layers that it must have.

    metadata: texts in the header of the safetensors file, next to the tensors.
    """

    adapter: Adapter
    base: str
    targets: tuple[str, ...]
    metadata: Mapping[str, str]

    def require_base(self, model: GPTModel) -> None:
        """Raise ValueError unless the adapter has A and B for each of its target layers in the model, and no others."""
        matrices = {
            name.removesuffix(".weight"): weight
            for name, weight in model.state_dict().items()
            if _LAYER.fullmatch(name.removesuffix(".weight"))
        }
        layers = self.adapter.layers()
        expected = {name for name in matrices if any(f".{name}".endswith(f".{target}") for target in self.targets)}
        if different := layers.keys() ^ expected:
            name = min(different)
            raise ValueError(f"the tensors of {name} are missing" if name in expected else f"the base has no {name}")
        for name, (a, b) in layers.items():
            outputs, inputs = matrices[name].shape
            if (a.shape[1], b.shape[0]) != (inputs, outputs):
                raise ValueError(
                    f"it belongs to another base: {name} has {inputs} inputs and {outputs} outputs, "
                    f"the adapter is for {a.shape[1]} and {b.shape[0]}"
                )


def holds_adapter(path: Path) -> bool:
    """Whether a path is a folder with an adapter, and not with a whole model."""
    return (path / ADAPTER_CONFIG).is_file() and not (path / CONFIG_FILE).is_file()


def read_adapter(folder: Path) -> AdapterFiles:
    """The adapter in a folder. Raises ValueError or FileNotFoundError naming the file, entry or tensor at fault."""
    path = folder / ADAPTER_CONFIG
    config = read_json_object(path)
    if problem := next(_problems(config), None):
        raise ValueError(f"{path}: {problem}")
    weights = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if weights is None:
        raise FileNotFoundError(f"{folder} has no {WEIGHT_FILES[0]}; copy it there, next to {ADAPTER_CONFIG}")
    rank, alpha = config["r"], config["lora_alpha"]
    tensors = _tensors(weights, rank)  # before arithmetic on the rank, which they prove to be possible
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    adapter = Adapter(rank, alpha, tensors, scale)
    return AdapterFiles(adapter, config["base_model_name_or_path"], (*config["target_modules"],), _metadata(weights))


def write_adapter(folder: Path, adapter: Adapter, base: str, metadata: Mapping[str, str]) -> None:
    """Write the adapter's two files into an existing folder, with PEFT's names for transformers' GPT2LMHeadModel.

    base: the name on the hub, or the path, of the model that the adapter belongs to.
    """
    from safetensors.torch import save_file

    targets = {name.rpartition(".")[2] for name in adapter.layers()}
    config = {
        "base_model_name_or_path": base,
        "bias": "none",
        "fan_in_fan_out": True,  # transformers keeps GPT-2's matrices as (in, out)
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": adapter.alpha,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": adapter.rank,
        "target_modules": sorted(targets),
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }
    tensors = {f"{_PREFIX}transformer.{name}.weight": tensor.contiguous() for name, tensor in adapter.tensors.items()}
    save_file(tensors, folder / WEIGHT_FILES[0], metadata={"format": "pt", **metadata})
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    # safetensors makes its file readable by the owner only.
    shutil.copymode(folder / ADAPTER_CONFIG, folder / WEIGHT_FILES[0])


def _problems(config: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with, or not supported in, the content of adapter_config.json."""
    for name, value in _REQUIRED.items():
        if config.get(name, value) != value:
            yield f"{name} is {config[name]!r:.60}; only {value!r} is supported"
    for name, value in config.items():
        if value and name == "init_lora_weights" and value not in _INIT_METHODS:
            yield f"init_lora_weights is {value!r:.60}, which changes the base; convert it to a plain LoRA with PEFT"
        elif value and name not in _IGNORED and name != "init_lora_weights":
            yield f"{name!r:.60} is not supported; merge the adapter with PEFT's merge_and_unload() instead"
    if not is_count(config.get("r")):
        yield f"r, the rank, must be a whole number of at least 1, got {config.get('r')!r:.60}"
    if not is_number(config.get("lora_alpha")) or config["lora_alpha"] <= 0:
        yield f"lora_alpha must be a number above 0, got {config.get('lora_alpha')!r:.60}"
    if not isinstance(config.get("use_rslora", False), bool):
        yield f"use_rslora must be true or false, got {config['use_rslora']!r:.60}"
    targets = config.get("target_modules")
    if not isinstance(targets, list) or not targets or not all(isinstance(name, str) for name in targets):
        yield f"target_modules must be a list of layer names, got {targets!r:.60}"
    base = config.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        yield f"base_model_name_or_path must name the base model, got {base!r:.60}; write its path there"


def _tensors(path: Path, rank: int) -> dict[str, Tensor]:
    """A and B of each layer in float32. Raises ValueError naming a tensor that is unknown, missing or impossible."""
    found = WeightTensors([path])
    if not found:
        raise ValueError(f"{path} holds no tensors")
    tensors: dict[str, Tensor] = {}
    for name in found:
        ours = parameter_name(name.removeprefix(_PREFIX)).removesuffix(".weight")
        layer, _, matrix = ours.rpartition(".")
        if not _LAYER.fullmatch(layer) or matrix not in (A, B):
            raise ValueError(f"{path}: unknown tensor {name:.100}; this is not a LoRA adapter of GPT-2's linear layers")
        tensor = found[name]
        if tensor.dim() != 2 or tensor.shape[0 if matrix == A else 1] != rank or not tensor.is_floating_point():
            raise ValueError(
                f"{path}: {name:.100} is {tensor.dtype} {tuple(tensor.shape)}, expected floats of rank {rank}"
            )
        tensors[ours] = tensor.to(torch.float32, copy=True)
        if not torch.stack(tensors[ours].aminmax()).isfinite().all():
            raise ValueError(f"{path}: {name:.100} contains values that are not finite")
    for name in tensors:
        layer, _, matrix = name.rpartition(".")
        if (other := f"{layer}.{B if matrix == A else A}") not in tensors:
            raise ValueError(f"{path}: {other} is missing")
    return tensors


def _metadata(path: Path) -> dict[str, str]:
    if not holds_safetensors(path):
        return {}
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return file.metadata() or {}
