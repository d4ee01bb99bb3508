"""python -m src.export_hf: a checkpoint as a folder that transformers, and all that reads its GPT-2, can load.

The weights as model.safetensors, with config.json, GPT-2's own vocabulary files, and the prompt as a chat template
where the model was tuned with it. Every --model, --base and --weights here reads that folder, too.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from src.chat_start import MODELS
from src.checkpoint import Base, load_base
from src.cli import flag, parse, run
from src.data.prompts import TEMPLATE, as_jinja
from src.model.config import GPTConfig
from src.model.hub import CONFIG, first_line
from src.model.load_gpt2 import INPUT_FIRST, SIZES
from src.tokenizer import load_encoding
from src.tokenizer.gpt2 import END_OF_TEXT, vocabulary_file

WEIGHTS = "model.safetensors"
ACTIVATIONS = {"gelu_tanh": "gelu_new"}  # where Hugging Face has another name for one
VOCABULARY = {"vocab.json": "encoder.json", "merges.txt": "vocab.bpe"}  # its names of OpenAI's files


@dataclass(frozen=True, kw_only=True)
class Config:
    model: str = flag("auto", f"auto (the first of {', '.join(MODELS)} that is there), one of these, or a path")
    out: Path = flag(Path("checkpoints/hugging_face"), "folder to write; it must not be there yet")


def config_json(config: GPTConfig, end: int | None) -> dict[str, Any]:
    """The content of a config.json; `end` is the id of end-of-text."""
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        **{theirs: getattr(config, ours) for theirs, ours in SIZES.items()},
        "n_inner": config.d_ff,
        "activation_function": ACTIVATIONS.get(config.activation, config.activation),
        "layer_norm_epsilon": config.layer_norm_epsilon,
        **dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), config.dropout),
        "bos_token_id": end,
        "eos_token_id": end,
        "tie_word_embeddings": True,
        "dtype": "float32",
    }


def hugging_face_state_dict(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A GPTModel's state dict under Hugging Face's names, the blocks' matrices as (in, out), each whole in memory."""
    return {
        f"transformer.{name}": (tensor.t() if name.endswith(INPUT_FIRST) else tensor).contiguous()
        for name, tensor in weights.items()
    }


def tokenizer_config(context_length: int, template: str | None) -> dict[str, Any]:
    """The content of a tokenizer_config.json for GPT-2's vocabulary."""
    special = dict.fromkeys(("bos_token", "eos_token", "unk_token"), END_OF_TEXT)
    found = {"tokenizer_class": "GPT2Tokenizer", "model_max_length": context_length, **special}
    return found | ({"chat_template": as_jinja()} if template == TEMPLATE else {})


def export(base: Base, out: Path) -> None:
    """Write the folder beside its place, then rename it: what stands there is whole.

    Raises FileExistsError where something is there already, and OSError where it cannot be written.
    """
    if out.exists():
        raise FileExistsError(f"{out} is there already; remove it, or pass another folder as --out")
    part = out.with_name(out.name + ".tmp")
    shutil.rmtree(part, ignore_errors=True)  # of an export that was interrupted
    part.mkdir(parents=True)
    try:
        _write_json(part / CONFIG, config_json(base.model.config, base.encoding.eot_token))
        _write_weights(base, part / WEIGHTS)
        shutil.copymode(part / CONFIG, part / WEIGHTS)  # safetensors lets nobody else read it
        if base.encoding.name == "gpt2":
            for theirs, ours in VOCABULARY.items():
                (part / theirs).write_bytes(vocabulary_file(ours))
            settings = tokenizer_config(base.model.config.context_length, base.metadata.get("template"))
            _write_json(part / "tokenizer_config.json", settings)
        os.replace(part, out)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write_weights(base: Base, path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(hugging_face_state_dict(base.model.state_dict()), path, metadata={"format": "pt"})
    except SafetensorError as error:
        raise OSError(f"{path}: could not be written ({first_line(error)})") from error


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    flags, _ = parse(Config, argv, __doc__)
    base = load_base(flags.model, MODELS, load_encoding)
    print(f"model      {base.path}, {base.why}: {base.model.config.parameter_count()[0] / 1e6:.1f}M parameters")
    export(base, flags.out)
    if base.encoding.name == "gpt2":
        chat = ", with the chat template" if base.metadata.get("template") == TEMPLATE else ""
        print(f"tokenizer  GPT-2's{chat}")
    else:
        print("tokenizer  none: a word tokenizer has no form there; take the ids from this project's")
    print(
        f"written to {flags.out}; read it with transformers: AutoModelForCausalLM.from_pretrained({str(flags.out)!r})"
    )
    return 0


if __name__ == "__main__":
    run(main)
