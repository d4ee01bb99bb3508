"""python -m src.export_hf: a checkpoint as a folder that transformers, and all that reads its GPT-2, can load.

The weights as model.safetensors, with config.json, GPT-2's own vocabulary files, and the prompt as a chat template
where the model was tuned with it. With GPT-2's vocabulary, every --model, --base and --weights here reads it, too.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from src.chat.start import MODELS
from src.checkpoint import PROMPT_TEMPLATE, LoadedModel, load_base
from src.cli import flag, parse
from src.common.messages import one_line
from src.data.prompts import TEMPLATE, as_jinja
from src.model.config import GPTConfig
from src.model.hub import CONFIG
from src.model.load_gpt2 import INPUT_FIRST, SIZES
from src.program import run_script
from src.tokenizer.gpt2 import END_OF_TEXT, vocabulary_file

WEIGHTS_FILE = "model.safetensors"
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


def export(base: LoadedModel, out: Path) -> None:
    """Write the folder in a temporary one beside its place, then move it: what stands there is whole.

    Raises OSError where it cannot be written.
    """
    from safetensors import SafetensorError

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export", dir=out.parent) as temporary:
            part = Path(temporary, "folder")
            part.mkdir()
            _write(base, part)
            os.replace(part, out)
    except (OSError, SafetensorError) as error:
        raise OSError(f"{out}: could not be written ({one_line(error)}); pass another folder as --out") from error


def _write(base: LoadedModel, part: Path) -> None:
    from safetensors.torch import save_file

    size, template = base.model.config, base.metadata.get("template")
    _write_json(part / CONFIG, config_json(size, base.encoding.eot_token) | {PROMPT_TEMPLATE: template})
    save_file(hugging_face_state_dict(base.model.state_dict()), part / WEIGHTS_FILE, metadata={"format": "pt"})
    shutil.copymode(part / CONFIG, part / WEIGHTS_FILE)  # safetensors lets nobody else read it
    if base.encoding.name == "gpt2":
        for theirs, ours in VOCABULARY.items():
            (part / theirs).write_bytes(vocabulary_file(ours))
        _write_json(part / "tokenizer_config.json", tokenizer_config(size.context_length, template))


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    flags, _ = parse(Config, argv, __doc__)
    out = Path(os.path.abspath(flags.out.expanduser()))
    if os.path.lexists(out):
        raise FileExistsError(f"{out} is there already; remove it, or pass another folder as --out")
    base = load_base(flags.model, MODELS)
    print(f"model      {base.path}, {base.reason}: {base.model.config.parameter_count()[0] / 1e6:.1f}M parameters")
    export(base, out)
    if base.encoding.name == "gpt2":
        chat = ", with the chat template" if base.metadata.get("template") == TEMPLATE else ""
        print(f"tokenizer  GPT-2's{chat}")
    else:
        print("tokenizer  none: Hugging Face has no form of a word tokenizer; encode texts with the checkpoint's own")
    print(f"written to {out}; read it with transformers: AutoModelForCausalLM.from_pretrained({str(out)!r})")
    return 0


if __name__ == "__main__":
    run_script(main)
