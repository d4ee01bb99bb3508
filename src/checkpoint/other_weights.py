"""Models that other programs saved: Hugging Face folders and weights files, with their tokenizers."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from src.checkpoint.digest import WEIGHT_SUFFIXES
from src.common.json_file import read_json_object
from src.model.foreign import CONFIG_FILE
from src.model.gguf_weights import gguf_fields, holds_gguf
from src.model.gpt import GPTModel
from src.model.load_gpt2 import load_gpt2
from src.model.weight_files import holds_safetensors
from src.tokenizer import Encoding, describe, load_gpt2_encoding, read_folder_encoding
from src.tokenizer.gguf import gguf_encoding

PROMPT_TEMPLATE = "prompt_template"  # our key in a Hugging Face config.json for the name of the prompt template
_MAX_PADDING = 127  # ids beyond the tokenizer's: models are padded to a multiple of 64 or 128


def holds_other_weights(path: Path) -> bool:
    """Whether a path is certainly not one of our checkpoints: a folder, a safetensors or .bin file, or a GGUF file."""
    if path.is_dir() or path.suffix in WEIGHT_SUFFIXES:
        return True
    return path.is_file() and (holds_safetensors(path) or holds_gguf(path))


def load_weights(path: Path) -> tuple[GPTModel, dict[str, Any]]:
    """(model, metadata) of a Hugging Face folder, or of a weights file in any format that `load_gpt2` reads."""
    model = load_gpt2(path)
    encoding = _encoding_of_weights(path, model.config.vocab_size)
    tokenizer = None if encoding is load_gpt2_encoding() else describe(encoding)
    metadata = {"stage": "pretrained", "template": _saved_template(path), "tokenizer": tokenizer}
    return model, {**metadata, "config": asdict(model.config)}


def _encoding_of_weights(path: Path, vocab_size: int) -> Encoding:
    """The tokenizer in the folder of Hugging Face weights. GPT-2's if there is none, with a note.

    Raises ValueError if it cannot be used, or if the model has many more ids than the tokenizer.
    """
    if path.is_file() and holds_gguf(path):
        return gguf_encoding(gguf_fields(path), str(path))
    folder = path if path.is_dir() else path.parent
    encoding = read_folder_encoding(folder) if (folder / CONFIG_FILE).is_file() else None
    found = encoding or load_gpt2_encoding()
    if vocab_size > found.n_vocab + _MAX_PADDING:
        whose = "its" if encoding else "GPT-2's"
        raise ValueError(
            f"{path} has {vocab_size} token ids and {whose} tokenizer has {found.n_vocab}: "
            "it was trained with another tokenizer, so its output would be nonsense"
        )
    if encoding is None and path.is_dir():
        print(f"{path} has no tokenizer files: assuming GPT-2's", file=sys.stderr)
    return found


def _saved_template(path: Path) -> str | None:
    """The prompt template named in what we exported: a Hugging Face directory or a GGUF file. Otherwise None."""
    file = (path if path.is_dir() else path.parent) / CONFIG_FILE
    if path.is_file() and holds_gguf(path):
        name = gguf_fields(path).get(PROMPT_TEMPLATE)
        return name if isinstance(name, str) else None
    name = read_json_object(file).get(PROMPT_TEMPLATE) if file.is_file() else None
    return name if isinstance(name, str) else None
