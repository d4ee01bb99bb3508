"""Load GPT-2's weights from Hugging Face's format into a GPTModel, checking every tensor.

C channels, V vocabulary.
"""

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from src.common.checks import is_count
from src.common.json_file import read_json_object
from src.model.config import GPTConfig
from src.model.foreign import CONFIG_FILE, is_part
from src.model.gpt import GPTModel
from src.model.hub import download_model, find_weight_files
from src.model.meta_device import model_to_fill
from src.model.nanogpt import from_nanogpt
from src.model.weight_files import FILE_SUFFIXES, WeightTensors, parameter_name

HUB_IDS = {
    "gpt2-124M": "openai-community/gpt2",
    "gpt2-355M": "openai-community/gpt2-medium",
    "gpt2-774M": "openai-community/gpt2-large",
    "gpt2-1558M": "openai-community/gpt2-xl",
    "gpt2": "openai-community/gpt2",
    "gpt2-medium": "openai-community/gpt2-medium",
    "gpt2-large": "openai-community/gpt2-large",
    "gpt2-xl": "openai-community/gpt2-xl",
    "distilgpt2": "distilbert/distilgpt2",
}
_HEAD_SIZE = 64  # of every released GPT-2

CONFIG_KEYS = {
    "vocab_size": "vocab_size",
    "n_positions": "context_length",
    "n_embd": "d_model",
    "n_head": "n_heads",
    "n_layer": "n_layers",
}
_REQUIRED_VALUES = {
    "model_type": "gpt2",
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
}
_TANH_GELU = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast")
_ACTIVATIONS = {**dict.fromkeys(_TANH_GELU, "gelu_tanh"), "gelu": "gelu", "relu": "relu"}

_MASK_BUFFER = re.compile(r"h\.\d+\.attn\.(?:bias|masked_bias)")
TRANSPOSED = ("c_attn.weight", "c_proj.weight", "c_fc.weight")  # (in, out) in the file, (out, in) in nn.Linear


def load_gpt2(name_or_path: str | Path, cache: str | Path | None = None) -> GPTModel:
    """GPT-2 with trained weights: fp32, on the CPU, in eval mode, without dropout.

    `name_or_path` is a size (gpt2-124M, gpt2-355M, gpt2-774M, gpt2-1558M), the id of a GPT-2 on the hub, a Hugging Face
    folder, a .safetensors, .bin, .pt or .pth file of a state dict, a .gguf file, or nanoGPT's ckpt.pt. cache: the
    folder for downloads (None: huggingface_hub's own). If there is no config.json next to a single file, its sizes are
    derived from the tensors.

    Raises ValueError for an invalid name, config or tensor, FileNotFoundError for missing files, and OSError
    if a download fails. Each message is one line that names the file, tensor or config entry.
    """
    path = find_weights(name_or_path, cache)
    found = WeightTensors(find_weight_files(path) if path.is_dir() else [path])
    tensors: Mapping[str, Tensor] = found
    if found.nanogpt:
        config, tensors = from_nanogpt(found, found.nanogpt, str(path))
    else:
        config = _load_config(path, found)
    state = state_dict_from_hugging_face(tensors, config, source=str(path))
    model = model_to_fill(config, len(state))
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval()


@torch.no_grad()
def state_dict_from_hugging_face(
    tensors: Mapping[str, Tensor], config: GPTConfig, source: str = "state dict"
) -> dict[str, Tensor]:
    """Hugging Face's GPT-2 tensors as the fp32 state dict of a GPTModel, which shares no memory with them.

    Names may begin with `transformer.` and the prefixes of model wrappers. Mask buffers are dropped. `lm_head.weight`
    must equal `wte.weight` if it is there. Matrices may have nn.Linear's orientation instead, as in nanoGPT.

    Raises ValueError naming a tensor that is missing, unknown, duplicate, of a wrong shape, not floating point or not
    finite.
    """
    shapes = _expected_shapes(config, len(tensors), source)
    linear = _has_linear_orientation(tensors, config)
    state: dict[str, Tensor] = {}
    head: Tensor | None = None
    for name, tensor in tensors.items():
        ours = parameter_name(name)
        if _MASK_BUFFER.fullmatch(ours):
            continue
        if ours == "lm_head.weight":
            head = tensor
        elif ours not in shapes:
            raise ValueError(f"{source}: unknown tensor {name}; this is not a plain GPT-2 with a language model head")
        elif ours in state:
            raise ValueError(f"{source}: tensor {name} occurs twice, with different prefixes")
        else:
            transposed = not linear and name.endswith(TRANSPOSED)
            state[ours] = _convert(tensor, shapes[ours], transposed, f"{source}: tensor {name}")
    missing = sorted(shapes.keys() - state.keys())
    if missing:
        others = f" and {len(missing) - 1} more are" if len(missing) > 1 else " is"
        raise ValueError(f"{source}: tensor {missing[0]}{others} missing; the model needs {len(shapes)} tensors")
    if head is not None and not torch.equal(head.to(torch.float32), state["wte.weight"]):
        raise ValueError(f"{source}: lm_head.weight differs from wte.weight; this project's models tie the two")
    return state


def config_from_hugging_face(raw: Mapping[str, Any], source: str = CONFIG_FILE) -> GPTConfig:
    """A GPTConfig (dropout 0) from the content of a GPT-2's config.json.

    Raises ValueError naming an entry that is missing, invalid, or not supported by GPTModel.
    """
    for key, needed in _REQUIRED_VALUES.items():
        if raw.get(key, needed) != needed:
            raise ValueError(f"{source}: {key} is {raw[key]!r:.100}; only {needed!r} is supported")
    activation = raw.get("activation_function", "gelu_new")
    if activation not in tuple(_ACTIVATIONS):
        raise ValueError(f"{source}: activation_function is {activation!r}; expected one of {', '.join(_ACTIVATIONS)}")
    entries = {"n_positions": raw.get("n_ctx"), **raw}  # the oldest files have n_ctx only
    for key in (*CONFIG_KEYS, "n_inner"):
        value = entries.get(key)
        optional = key == "n_inner" and value is None
        if not optional and not is_count(value):
            raise ValueError(f"{source}: {key} must be a whole number of at least 1, got {value!r:.100}")
    try:
        return GPTConfig(
            **{ours: entries[key] for key, ours in CONFIG_KEYS.items()},
            d_ff=entries.get("n_inner"),
            activation=_ACTIVATIONS[activation],
            layer_norm_epsilon=entries.get("layer_norm_epsilon", 1e-5),
        )
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def find_weights(name_or_path: str | Path, cache: str | Path | None = None) -> Path:
    """The local file or folder that `load_gpt2` reads, downloaded if needed. A Path is never a name on the hub."""
    name = str(name_or_path)
    if isinstance(name_or_path, str) and name in HUB_IDS:
        return download_model(HUB_IDS[name], cache)
    path = Path(name).expanduser()
    if name and (path.is_file() or path.is_dir()):
        if path.is_file() and is_part(path):
            raise ValueError(f"{path} is a part of a model; pass its folder, {path.parent}")
        return path
    if isinstance(name_or_path, Path) or path.suffix in FILE_SUFFIXES or (name and path.exists()):
        raise FileNotFoundError(f"{path} not found; expected a Hugging Face folder or weights file")
    if re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name):
        if path.parent.is_dir():
            print(f"{name} is not a local file or folder; looking for it on the hub", file=sys.stderr)
        return download_model(name, cache)
    raise ValueError(
        f"{name!r} is not a known GPT-2; expected {', '.join(list(HUB_IDS)[:4])}, a hub id like "
        f"{HUB_IDS['gpt2']}, a Hugging Face folder, or a file ending in {', '.join(FILE_SUFFIXES)}"
    )


def _load_config(path: Path, tensors: WeightTensors) -> GPTConfig:
    if tensors.gguf:
        return config_from_hugging_face(tensors.gguf, str(path))
    file = (path if path.is_dir() else path.parent) / CONFIG_FILE
    if not file.is_file():
        if path.is_dir():
            raise FileNotFoundError(f"{file} not found; download it from the source of the weights")
        return _config_from_shapes(path, tensors)
    raw = read_json_object(file)
    config = config_from_hugging_face(raw, str(file))
    if raw.get("tie_word_embeddings", True) is not True and "lm_head.weight" not in map(parameter_name, tensors):
        raise ValueError(f"{file}: tie_word_embeddings is false, but {path} has no lm_head.weight")
    return config


def _config_from_shapes(path: Path, tensors: Mapping[str, Tensor]) -> GPTConfig:
    shapes = {parameter_name(name): tensors[name].shape for name in tensors}
    try:
        vocab_size, d_model = shapes["wte.weight"]
        context_length, _ = shapes["wpe.weight"]
        d_ff = max(shapes["h.0.mlp.c_fc.weight"], key=lambda size: size != d_model)  # in either orientation
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{path} has no {CONFIG_FILE} next to it, and its tensors are not those of a GPT-2; "
            f"expected wte.weight, wpe.weight, ..., found {', '.join(list(shapes)[:2]) or 'none'}"
        ) from error
    if d_model % _HEAD_SIZE:
        raise ValueError(
            f"{path}: width {d_model} is not a multiple of GPT-2's head size {_HEAD_SIZE}; add its {CONFIG_FILE}"
        )
    n_layers = sum(re.fullmatch(r"h\.\d+\.ln_1\.weight", name) is not None for name in shapes)
    n_heads = d_model // _HEAD_SIZE
    print(f"{path} has no {CONFIG_FILE} next to it: assuming {n_layers} layers and {n_heads} heads", file=sys.stderr)
    return GPTConfig(vocab_size, context_length, d_model, n_heads, n_layers, d_ff=d_ff)


def _expected_shapes(config: GPTConfig, n_tensors: int, source: str) -> dict[str, tuple[int, ...]]:
    try:
        return {name: tuple(value.shape) for name, value in model_to_fill(config, n_tensors).state_dict().items()}
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def _has_linear_orientation(tensors: Mapping[str, Tensor], config: GPTConfig) -> bool:
    """Whether matrices are (out, in). c_attn.weight shows it, because it is not square."""
    name = next((name for name in tensors if parameter_name(name) == "h.0.attn.c_attn.weight"), None)
    return name is not None and tuple(tensors[name].shape) == (3 * config.d_model, config.d_model)


def _convert(tensor: Tensor, shape: tuple[int, ...], transposed: bool, name: str) -> Tensor:
    """A copy of a tensor in fp32 and nn.Linear's orientation. `shape` is the model's."""
    expected = shape[::-1] if transposed else shape
    if tuple(tensor.shape) != expected:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}; the config requires {expected}")
    if not tensor.is_floating_point():
        raise ValueError(f"{name} has dtype {tensor.dtype}; expected floating point")
    value = torch.empty(shape, dtype=torch.float32).copy_(tensor.t() if transposed else tensor)
    if not torch.stack(value.aminmax()).isfinite().all():
        raise ValueError(f"{name} contains values that are not finite; download the file again")
    return value
