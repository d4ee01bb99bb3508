"""python -m src.export_hf: export a checkpoint in Hugging Face's format, which transformers can load.

Writes the weights as model.safetensors, config.json, the vocabulary, and the prompt template as a chat template if the
model was tuned with it. The folder also works as --model, --base or --weights. The word tokenizer is not exported,
because Hugging Face has none of its kind.
"""

if __name__ == "__main__":  # at the top: see run_module
    from src.entry import run_module

    run_module("src.export_hf", outlives_output=True)

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from src.checkpoint import MODEL_HELP, PROMPT_TEMPLATE, LoadedModel, load_base
from src.cli import flag, parse
from src.common.messages import one_line
from src.data.prompts import as_jinja
from src.model.config import GPTConfig
from src.model.hub import CONFIG_FILE
from src.model.load_gpt2 import CONFIG_KEYS, TRANSPOSED
from src.tokenizer import Encoding
from src.tokenizer.hugging_face import end_of_text_name, tokenizer_files

WEIGHTS_FILE = "model.safetensors"
ACTIVATIONS = {"gelu_tanh": "gelu_new"}  # our name -> Hugging Face's, if they differ


@dataclass(frozen=True, kw_only=True)
class Flags:
    model: str = flag("auto", MODEL_HELP, path=True)
    out: Path = flag(Path("checkpoints/hugging_face"), "folder to write; it must not exist yet")


def config_json(config: GPTConfig, end_of_text: int | None) -> dict[str, Any]:
    """The content of config.json. end_of_text: the token's id."""
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        **{theirs: getattr(config, ours) for theirs, ours in CONFIG_KEYS.items()},
        "n_inner": config.d_ff,
        "activation_function": ACTIVATIONS.get(config.activation, config.activation),
        "layer_norm_epsilon": config.layer_norm_epsilon,
        **dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), config.dropout),
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "tie_word_embeddings": True,
        "dtype": "float32",
    }


def hugging_face_state_dict(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A GPTModel's state dict with Hugging Face's names; the blocks' matrices are (in, out) and contiguous."""
    return {
        f"transformer.{name}": (tensor.t() if name.endswith(TRANSPOSED) else tensor).contiguous()
        for name, tensor in weights.items()
    }


def tokenizer_config(context_length: int, template: str | None, encoding: Encoding) -> dict[str, Any]:
    """The content of tokenizer_config.json for a byte-pair encoding like GPT-2's."""
    special = dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), end_of_text_name(encoding))
    content = {"tokenizer_class": "GPT2Tokenizer", "model_max_length": context_length, **special}
    return content | ({"chat_template": as_jinja(encoding, template)} if template else {})


def export(base: LoadedModel, out: Path) -> None:
    """Write the folder `out`. Raises OSError if that fails.

    The files are written to a temporary folder next to `out` first, so `out` is never incomplete.
    """
    from safetensors import SafetensorError

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export", dir=out.parent) as temporary:
            folder = Path(temporary, "folder")
            folder.mkdir()
            _write_files(base, folder)
            os.replace(folder, out)
    except (OSError, SafetensorError) as error:
        raise OSError(f"{out}: could not be written ({one_line(error)}); pass another folder as --out") from error


def _write_files(base: LoadedModel, folder: Path) -> None:
    from safetensors.torch import save_file

    config, template = base.model.config, base.metadata.get("template")
    _write_json(folder / CONFIG_FILE, config_json(config, base.encoding.eot_token) | {PROMPT_TEMPLATE: template})
    save_file(hugging_face_state_dict(base.model.state_dict()), folder / WEIGHTS_FILE, metadata={"format": "pt"})
    # safetensors makes its file readable by the owner only.
    shutil.copymode(folder / CONFIG_FILE, folder / WEIGHTS_FILE)
    vocabulary = tokenizer_files(base.encoding)
    for name, content in vocabulary.items():
        (folder / name).write_bytes(content)
    if vocabulary:
        _write_json(folder / "tokenizer_config.json", tokenizer_config(config.context_length, template, base.encoding))


def _tokenizer(base: LoadedModel) -> str:
    """One line on the tokenizer that is exported."""
    if base.encoding.name == "word":
        return "none: Hugging Face has no word tokenizer of this kind; use the checkpoint's own"
    chat = ", with the chat template" if base.metadata.get("template") else ""
    return ("GPT-2's" if base.encoding.name == "gpt2" else "the model's own byte pairs") + chat


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    flags, _ = parse(Flags, argv, __doc__)
    out = Path(os.path.abspath(flags.out.expanduser()))
    if os.path.lexists(out):
        raise FileExistsError(f"{out} already exists; remove it, or pass another folder as --out")
    base = load_base(flags.model)
    print(f"model      {base.path}, {base.reason}: {base.model.config.parameter_count()[0] / 1e6:.1f}M parameters")
    export(base, out)
    print(f"tokenizer  {_tokenizer(base)}")
    print(f"written to {out}; load it with transformers: AutoModelForCausalLM.from_pretrained({str(out)!r})")
    return 0
