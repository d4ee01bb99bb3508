"""python -m src.export_hf: export a checkpoint in Hugging Face's format, which transformers can load.

Writes the weights as model.safetensors, config.json, the vocabulary, and the prompt template as a chat template if the
model was tuned with it. The folder also works as --model, --base or --weights. The word tokenizer is not exported,
because Hugging Face has none of its kind. With --gguf, writes a GGUF file for llama.cpp and a Modelfile for Ollama.
"""

if __name__ == "__main__":  # at the top: see run_module
    from src.entry import run_module

    run_module("src.export_hf", outlives_output=True)

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from src.checkpoint import MODEL_HELP, LoadedModel, load_base
from src.cli import flag, parse
from src.common.messages import one_line
from src.data.prompts import OLD_TEMPLATE
from src.export.card import OLD_TEMPLATE_NOTE, model_card
from src.export.folder import write_folder
from src.export.gguf_file import Kind, check_gguf, modelfile, write_gguf


@dataclass(frozen=True, kw_only=True)
class Flags:
    model: str = flag("auto", MODEL_HELP, path=True)
    out: Path = flag(Path("checkpoints/hugging_face"), "folder to write; it must not exist yet")
    gguf: Kind | None = flag(None, "write a GGUF file and Ollama's Modelfile instead, with 16 or 8 bits per weight")


def export(base: LoadedModel, out: Path, gguf: Kind | None = None) -> None:
    """Write the folder `out`. Raises OSError if that fails.

    The files are written to a temporary folder next to `out` first, so `out` is never incomplete.
    """
    from safetensors import SafetensorError

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export", dir=out.parent) as temporary:
            folder = Path(temporary, "folder")
            folder.mkdir()
            if gguf:
                _write_gguf_files(base, folder, gguf)
            else:
                write_folder(base, folder)
            os.replace(folder, out)
    except (OSError, SafetensorError) as error:
        raise OSError(f"{out}: could not be written ({one_line(error)}); pass another folder as --out") from error


def _write_gguf_files(base: LoadedModel, folder: Path, kind: Kind) -> None:
    name = f"model-{kind}.gguf"
    write_gguf(base, folder / name, kind)
    (folder / "Modelfile").write_text(modelfile(base, name), encoding="utf-8")
    (folder / "README.md").write_text(model_card(base), encoding="utf-8")


def _tokenizer(base: LoadedModel) -> str:
    """One line on the tokenizer that is exported."""
    if base.encoding.name == "word":
        return "none: Hugging Face has no word tokenizer of this kind; use the checkpoint's own"
    chat = ", with the chat template" if base.metadata.get("template") else ""
    return ("GPT-2's" if base.encoding.name == "gpt2" else "the model's own byte pairs") + chat


def main(argv: Sequence[str] | None = None) -> int:
    """Write the export and print what it holds; returns the exit code."""
    flags, _ = parse(Flags, argv, __doc__)
    out = Path(os.path.abspath(flags.out.expanduser()))
    if os.path.lexists(out):
        raise FileExistsError(f"{out} already exists; remove it, or pass another folder as --out")
    base = load_base(flags.model)
    print(f"model      {base.path}, {base.reason}: {base.model.config.parameter_count()[0] / 1e6:.1f}M parameters")
    if base.metadata.get("template") == OLD_TEMPLATE:
        print(f"note       {OLD_TEMPLATE_NOTE}")
    if flags.gguf:
        check_gguf(base)
    export(base, out, flags.gguf)
    print(f"tokenizer  {_tokenizer(base)}")
    if flags.gguf:
        print(f"written to {out}; for Ollama: cd {out} && ollama create NAME -f Modelfile")
        return 0
    print(f"written to {out}; load it with transformers: AutoModelForCausalLM.from_pretrained({str(out)!r})")
    return 0
