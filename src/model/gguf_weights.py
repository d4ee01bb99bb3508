"""The weights in a GGUF file, the format of llama.cpp. Needs the package gguf."""

import re
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from src.common.messages import one_line

GGUF_SUFFIX = ".gguf"
_MAGIC = b"GGUF"
_PARTS = {  # llama.cpp's name of a part of the model -> GPT-2's
    "token_embd": "wte",
    "position_embd": "wpe",
    "output_norm": "ln_f",
    "output": "lm_head",
    "attn_norm": "ln_1",
    "attn_qkv": "attn.c_attn",
    "attn_output": "attn.c_proj",
    "ffn_norm": "ln_2",
    "ffn_up": "mlp.c_fc",
    "ffn_down": "mlp.c_proj",
}
_KEYS = {  # Hugging Face's name of a setting -> llama.cpp's
    "n_positions": "gpt2.context_length",
    "n_embd": "gpt2.embedding_length",
    "n_inner": "gpt2.feed_forward_length",
    "n_layer": "gpt2.block_count",
    "n_head": "gpt2.attention.head_count",
    "layer_norm_epsilon": "gpt2.attention.layer_norm_epsilon",
}


def holds_gguf(path: Path) -> bool:
    """Whether a file is in GGUF format, judging by its first bytes."""
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def gguf_fields(path: Path) -> dict[str, Any]:
    """The settings and the tokenizer in a GGUF file, by name. Raises ValueError if it is no GPT-2."""
    fields, _ = _contents(path)
    if (found := fields.get("general.architecture")) != "gpt2":
        raise ValueError(f"{path} holds a model of the architecture {found!r:.40}; only 'gpt2' is supported")
    return fields


def gguf_config(path: Path) -> dict[str, Any]:
    """The sizes in a GGUF file, as a Hugging Face config.json has them."""
    fields = gguf_fields(path)
    sizes = {theirs: fields.get(key) for theirs, key in _KEYS.items()}
    if isinstance(epsilon := sizes["layer_norm_epsilon"], float):
        sizes["layer_norm_epsilon"] = float(f"{epsilon:.6g}")  # the file has it as float32
    return {**sizes, "vocab_size": len(fields.get("tokenizer.ggml.tokens", ()))}


def gguf_tensors(path: Path) -> list[tuple[str, Callable[[], Tensor]]]:
    """The name of every tensor, as GPT-2 has it, and a function that reads it."""
    return [(_name(tensor.name), partial(_read, path, tensor)) for tensor in _contents(path)[1]]


def _contents(path: Path) -> tuple[dict[str, Any], list[Any]]:
    """The fields by name, and the tensors."""
    file = path.stat()
    return _parse(path, file.st_size, file.st_mtime_ns)


@cache  # a vocabulary of 50,257 tokens takes seconds, and a model is loaded in several steps
def _parse(path: Path, size: int, changed: int) -> tuple[dict[str, Any], list[Any]]:
    """size, changed: of the file, so that another file of the same name is parsed again."""
    try:
        from gguf import GGUFReader
    except ModuleNotFoundError as error:
        raise ValueError(f"{path} is a GGUF file, which needs the package gguf: pip install gguf") from error
    try:
        reader = GGUFReader(path)
        return {name: field.contents() for name, field in reader.fields.items()}, reader.tensors
    except (ValueError, IndexError, KeyError, OSError, OverflowError, TypeError, UnicodeError) as error:
        raise ValueError(f"{path} is not a complete GGUF file ({one_line(error)}); download it again") from error


def _name(theirs: str) -> str:
    match = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)(\.\w+)?", theirs)
    if match is None:
        return theirs
    block, part, kind = match.groups("")
    return (f"h.{block}." if block else "") + _PARTS.get(part, part) + kind


def _read(path: Path, tensor: Any) -> Tensor:
    from gguf.quants import dequantize

    try:
        values = dequantize(tensor.data, tensor.tensor_type)
    except NotImplementedError as error:
        raise ValueError(f"{path}: tensor {tensor.name} is stored as {tensor.tensor_type.name}; use f16") from error
    return torch.from_numpy(np.array(values, dtype=np.float32))
