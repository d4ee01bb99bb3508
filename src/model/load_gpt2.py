"""Load GPT-2's weights from Hugging Face's format into a GPTModel, checking every tensor.

C channels, V vocabulary.
"""

import json
import pickle
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from src.common.checks import is_count
from src.common.messages import one_line
from src.model.config import GPTConfig
from src.model.gpt import GPTModel, on_meta_device
from src.model.hub import CONFIG_FILE, download_model, find_weight_files

HUB_IDS = {
    "gpt2-124M": "openai-community/gpt2",
    "gpt2-355M": "openai-community/gpt2-medium",
    "gpt2-774M": "openai-community/gpt2-large",
    "gpt2-1558M": "openai-community/gpt2-xl",
    "gpt2": "openai-community/gpt2",
    "gpt2-medium": "openai-community/gpt2-medium",
    "gpt2-large": "openai-community/gpt2-large",
    "gpt2-xl": "openai-community/gpt2-xl",
}
_SUFFIXES = (".safetensors", ".bin", ".pt")
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
    folder, or a .safetensors, .bin or .pt file of a state dict. cache: the folder for downloads (None:
    huggingface_hub's own). If there is no config.json next to a single file, the sizes are derived from the tensors.

    Raises ValueError for an invalid name, config or tensor, FileNotFoundError for missing files, and OSError
    if a download fails. Each message is one line that names the file, tensor or config entry.
    """
    path = _find_weights(name_or_path, cache)
    tensors = _LazyTensors(find_weight_files(path) if path.is_dir() else [path])
    config = _load_config(path, tensors)
    state = state_dict_from_hugging_face(tensors, config, source=str(path))
    model = on_meta_device(config)
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval()


@torch.no_grad()
def state_dict_from_hugging_face(
    tensors: Mapping[str, Tensor], config: GPTConfig, source: str = "state dict"
) -> dict[str, Tensor]:
    """Hugging Face's GPT-2 tensors as the fp32 state dict of a GPTModel, which shares no memory with them.

    Names may begin with `transformer.` and the prefixes of model wrappers. Mask buffers are dropped. `lm_head.weight`
    must equal `wte.weight` if it is there.

    Raises ValueError naming a tensor that is missing, unknown, duplicate, of a wrong shape, not floating point or not
    finite.
    """
    shapes = {name: tuple(value.shape) for name, value in on_meta_device(config).state_dict().items()}
    state: dict[str, Tensor] = {}
    head: Tensor | None = None
    for name, tensor in tensors.items():
        ours = _parameter_name(name)
        if _MASK_BUFFER.fullmatch(ours):
            continue
        if ours == "lm_head.weight":
            head = tensor
        elif ours not in shapes:
            raise ValueError(f"{source}: unknown tensor {name}; this is not a plain GPT-2 with a language model head")
        elif ours in state:
            raise ValueError(f"{source}: tensor {name} occurs twice, with different prefixes")
        else:
            state[ours] = _convert(tensor, shapes[ours], name, source)
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
            raise ValueError(f"{source}: {key} is {raw[key]!r}; only {needed!r} is supported")
    activation = raw.get("activation_function", "gelu_new")
    if activation not in tuple(_ACTIVATIONS):
        raise ValueError(f"{source}: activation_function is {activation!r}; expected one of {', '.join(_ACTIVATIONS)}")
    entries = {"n_positions": raw.get("n_ctx"), **raw}  # the oldest files have n_ctx only
    for key in (*CONFIG_KEYS, "n_inner"):
        value = entries.get(key)
        optional = key == "n_inner" and value is None
        if not optional and not is_count(value):
            raise ValueError(f"{source}: {key} must be a whole number of at least 1, got {value!r}")
    try:
        return GPTConfig(
            **{ours: entries[key] for key, ours in CONFIG_KEYS.items()},
            d_ff=entries.get("n_inner"),
            activation=_ACTIVATIONS[activation],
            layer_norm_epsilon=entries.get("layer_norm_epsilon", 1e-5),
        )
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


class _LazyTensors(Mapping[str, Tensor]):
    """The tensors of one or more files, each read on access.

    A safetensors file is reopened for each tensor: closing it releases the pages of its memory map, so peak memory is
    the model plus one tensor rather than twice the model.
    """

    def __init__(self, files: list[Path]) -> None:
        self._read: dict[str, Callable[[], Tensor]] = {}
        for path in files:
            for name, read in _readers(path):
                if name in self._read:
                    raise ValueError(f"{path}: tensor {name} is also in another file of the model")
                self._read[name] = read

    def __getitem__(self, name: str) -> Tensor:
        return self._read[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._read)

    def __len__(self) -> int:
        return len(self._read)


def _readers(path: Path) -> list[tuple[str, Callable[[], Tensor]]]:
    """The name of every tensor in a file, and a function that reads it."""
    with path.open("rb") as file:
        start = file.read(23)
    if start == b"version https://git-lfs":
        raise ValueError(f"{path} is a Git LFS pointer, not the weights; in its folder run: git lfs pull")
    if path.suffix == ".safetensors":
        return [(name, partial(_read_safetensor, path, name)) for name in _safetensor_names(path)]
    tensors = _load_pickle(path, zipped=start.startswith(b"PK\x03\x04"))
    return [(name, partial(tensors.__getitem__, name)) for name in tensors]


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


def _load_pickle(path: Path, zipped: bool) -> dict[str, Tensor]:
    """The state dict in a PyTorch file, memory-mapped if the format allows it. Code in the file is never executed."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # a damaged pickle can raise anything, and torch's message may advise running its code
        code = re.search(r"GLOBAL (\S+)", str(error))
        if isinstance(error, pickle.UnpicklingError) and code:
            raise ValueError(f"{path} would run {code[1]}; not loaded, use a .safetensors file instead") from error
        raise ValueError(f"{path} is not a complete PyTorch weights file; download it again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} contains a {type(content).__name__}; expected a dict of tensors")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ValueError(f"{path}: entry {name!r} is a {type(value).__name__}; expected only named tensors")
    return content


def _find_weights(name_or_path: str | Path, cache: str | Path | None) -> Path:
    """The local file or folder, downloaded if needed. A Path is never a name on the hub."""
    name = str(name_or_path)
    if isinstance(name_or_path, str) and name in HUB_IDS:
        return download_model(HUB_IDS[name], cache)
    path = Path(name).expanduser()
    if name and path.exists():
        if path.is_file() and path.suffix not in _SUFFIXES:
            raise ValueError(
                f"{path} is not a weights file; expected a folder or a file ending in {', '.join(_SUFFIXES)}"
            )
        return path
    if isinstance(name_or_path, Path) or path.suffix in _SUFFIXES:
        raise FileNotFoundError(f"{path} not found; expected a Hugging Face folder or weights file")
    if re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name):
        if path.parent.is_dir():
            print(f"{name} is not a local file or folder; looking for it on the hub", file=sys.stderr)
        return download_model(name, cache)
    raise ValueError(
        f"{name!r} is not a known GPT-2; expected {', '.join(list(HUB_IDS)[:4])}, a hub id like "
        f"{HUB_IDS['gpt2']}, a Hugging Face folder, or a file ending in {', '.join(_SUFFIXES)}"
    )


def _load_config(path: Path, tensors: Mapping[str, Tensor]) -> GPTConfig:
    file = (path if path.is_dir() else path.parent) / CONFIG_FILE
    if not file.is_file():
        if path.is_dir():
            raise FileNotFoundError(f"{file} not found; download it from the source of the weights")
        return _config_from_shapes(path, tensors)
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not valid JSON ({one_line(error)}); download it again") from error
    if not isinstance(raw, dict):
        raise ValueError(f"{file} contains a {type(raw).__name__}; expected a JSON object")
    config = config_from_hugging_face(raw, str(file))
    if raw.get("tie_word_embeddings", True) is not True and "lm_head.weight" not in map(_parameter_name, tensors):
        raise ValueError(f"{file}: tie_word_embeddings is false, but {path} has no lm_head.weight")
    return config


def _config_from_shapes(path: Path, tensors: Mapping[str, Tensor]) -> GPTConfig:
    shapes = {_parameter_name(name): tensors[name].shape for name in tensors}
    try:
        vocab_size, d_model = shapes["wte.weight"]
        context_length, _ = shapes["wpe.weight"]
        _, d_ff = shapes["h.0.mlp.c_fc.weight"]
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path} has no {CONFIG_FILE} next to it, and its tensors are not those of a GPT-2") from error
    if d_model % _HEAD_SIZE:
        raise ValueError(
            f"{path}: width {d_model} is not a multiple of GPT-2's head size {_HEAD_SIZE}; add its {CONFIG_FILE}"
        )
    n_layers = sum(re.fullmatch(r"h\.\d+\.ln_1\.weight", name) is not None for name in shapes)
    n_heads = d_model // _HEAD_SIZE
    print(f"{path} has no {CONFIG_FILE} next to it: assuming {n_layers} layers and {n_heads} heads", file=sys.stderr)
    return GPTConfig(vocab_size, context_length, d_model, n_heads, n_layers, d_ff=d_ff)


def _parameter_name(name: str) -> str:
    """A tensor's name without `transformer.` and the prefixes of model wrappers."""
    return re.sub(r"^(?:(?:module|_orig_mod|transformer)\.)+", "", name)


def _convert(tensor: Tensor, shape: tuple[int, ...], name: str, source: str) -> Tensor:
    """A copy of a tensor in fp32 and nn.Linear's orientation. `shape` is the model's."""
    transposed = name.endswith(TRANSPOSED)
    expected = shape[::-1] if transposed else shape
    if tuple(tensor.shape) != expected:
        raise ValueError(f"{source}: tensor {name} has shape {tuple(tensor.shape)}; the config requires {expected}")
    if not tensor.is_floating_point():
        raise ValueError(f"{source}: tensor {name} has dtype {tensor.dtype}; expected floating point")
    value = torch.empty(shape, dtype=torch.float32).copy_(tensor.t() if transposed else tensor)
    if not torch.stack(value.aminmax()).isfinite().all():
        raise ValueError(f"{source}: tensor {name} contains values that are not finite; download the file again")
    return value
