"""A model as a folder in Hugging Face's format."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from src.checkpoint import PROMPT_TEMPLATE, LoadedModel
from src.data.prompts import as_jinja
from src.export.card import model_card
from src.model.config import GPTConfig
from src.model.foreign import CONFIG_FILE
from src.model.load_gpt2 import CONFIG_KEYS, TRANSPOSED
from src.tokenizer import Encoding
from src.tokenizer.byte_pair_vocabulary import end_of_text_name
from src.tokenizer.hugging_face import SPECIAL_TOKENS, tokenizer_files

WEIGHTS_FILE = "model.safetensors"
ACTIVATIONS = {"gelu_tanh": "gelu_new"}  # our name -> Hugging Face's, if they differ


def write_folder(base: LoadedModel, folder: Path) -> None:
    """Write the files into an existing folder."""
    from safetensors.torch import save_file

    config, template = base.model.config, base.metadata.get("template")
    _write_json(folder / CONFIG_FILE, config_json(config, base.encoding.eot_token) | {PROMPT_TEMPLATE: template})
    _write_json(folder / "generation_config.json", generation_config(config, base.encoding.eot_token))
    (folder / "README.md").write_text(model_card(base), encoding="utf-8")
    save_file(hugging_face_state_dict(base.model.state_dict()), folder / WEIGHTS_FILE, metadata={"format": "pt"})
    # safetensors makes its file readable by the owner only.
    shutil.copymode(folder / CONFIG_FILE, folder / WEIGHTS_FILE)
    vocabulary = tokenizer_files(base.encoding)
    for name, content in vocabulary.items():
        (folder / name).write_bytes(content)
    if vocabulary:
        _write_json(folder / "tokenizer_config.json", tokenizer_config(config.context_length, template, base.encoding))


def config_json(config: GPTConfig, end_of_text: int | None) -> dict[str, Any]:
    """The content of config.json. end_of_text: the token's id."""
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        **{theirs: getattr(config, ours) for theirs, ours in CONFIG_KEYS.items()},
        "n_ctx": config.context_length,  # llama.cpp's converter reads this older name of n_positions
        "n_inner": config.d_ff,
        "activation_function": ACTIVATIONS.get(config.activation, config.activation),
        "layer_norm_epsilon": config.layer_norm_epsilon,
        **dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), config.dropout),
        **_end_ids(end_of_text),
        "tie_word_embeddings": True,
        "dtype": "float32",
    }


def generation_config(config: GPTConfig, end_of_text: int) -> dict[str, Any]:
    """The content of generation_config.json. An answer may fill half of the context, as in a chat."""
    return {**_end_ids(end_of_text), "max_new_tokens": max(1, config.context_length // 2)}


def _end_ids(end_of_text: int | None) -> dict[str, Any]:
    return dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), end_of_text)


def hugging_face_state_dict(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A GPTModel's state dict with Hugging Face's names; the blocks' matrices are (in, out) and contiguous."""
    return {
        f"transformer.{name}": (tensor.t() if name.endswith(TRANSPOSED) else tensor).contiguous()
        for name, tensor in weights.items()
    }


def tokenizer_config(context_length: int, template: str | None, encoding: Encoding) -> dict[str, Any]:
    """The content of tokenizer_config.json for a byte-pair encoding like GPT-2's."""
    special = dict.fromkeys(SPECIAL_TOKENS, end_of_text_name(encoding))
    content = {"tokenizer_class": "GPT2Tokenizer", "model_max_length": context_length, **special}
    return content | ({"chat_template": as_jinja(encoding, template)} if template else {})


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
