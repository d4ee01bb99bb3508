"""python -m src.export_hf: export a checkpoint in Hugging Face's format, which transformers can load.

Writes the weights as model.safetensors, config.json, the vocabulary, and the prompt template as a chat template if the
model was tuned with it. The folder also works as --model, --base or --weights. The word tokenizer is not exported,
because Hugging Face has none of its kind. With --gguf, writes a GGUF file for llama.cpp and a Modelfile for Ollama.
With --adapter, writes the adapter of a model that was trained with --lora, without its base, for PEFT.
"""

if __name__ == "__main__":  # before the slow imports: Ctrl-C during them is one line
    from src.entry import run_module

    run_module("src.export_hf", outlives_output=True)

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from src.checkpoint import MODEL_HELP, LoadedModel, as_argument, load_base
from src.cli import flag, parse
from src.common.messages import one_line, shown_command
from src.data.prompts import OLD_TEMPLATE
from src.export.adapter import adapter_base, adapter_in, write_adapter_folder
from src.export.card import OLD_TEMPLATE_NOTE, model_card
from src.export.folder import write_folder
from src.export.gguf_file import Kind, check_gguf, modelfile, write_gguf
from src.model.load_gpt2 import HUB_IDS


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Raises ValueError if --gguf and --adapter are given together."""

    model: str = flag("auto", MODEL_HELP, path=True)
    out: Path = flag(Path("checkpoints/hugging_face"), "folder to write; it must not exist yet")
    gguf: Kind | None = flag(None, "write a GGUF file and Ollama's Modelfile instead, with 16 or 8 bits per weight")
    adapter: bool = flag(False, "write the LoRA adapter alone, as PEFT reads it, of a model trained with --lora")

    def __post_init__(self) -> None:
        if self.gguf and self.adapter:
            raise ValueError("--adapter writes PEFT's files, --gguf a whole model; pass only one of them")


def export(base: LoadedModel, out: Path, write: Callable[[LoadedModel, Path], None] = write_folder) -> None:
    """Write the folder `out`. Raises OSError if that fails.

    The files are written to a temporary folder next to `out` first, so `out` is never incomplete.
    """
    from safetensors import SafetensorError

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export", dir=out.parent) as temporary:
            folder = Path(temporary, "folder")
            folder.mkdir()
            write(base, folder)
            os.replace(folder, out)
    except (OSError, SafetensorError) as error:
        raise OSError(f"{out}: could not be written ({one_line(error)}); pass another folder as --out") from error


def _write_gguf_files(base: LoadedModel, folder: Path, *, kind: Kind) -> None:
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


def _export_adapter(base: LoadedModel, out: Path) -> int:
    adapter, of = adapter_in(base), adapter_base(base)
    export(base, out, write_adapter_folder)
    print(f"adapter    LoRA rank {adapter.rank}, alpha {adapter.alpha:g}, of {of}")
    loaded = repr(of)
    if of not in HUB_IDS.values():
        command = ["python", "-m", "src.export_hf", "--model", as_argument(Path(of)), "--out", "FOLDER"]
        print(f"base       transformers cannot read {of}; export it, too: {shown_command(command)}")
        loaded = "'FOLDER'"
    base_model = f"AutoModelForCausalLM.from_pretrained({loaded})"
    print(f"written to {out}; load it with PEFT: PeftModel.from_pretrained({base_model}, {str(out)!r})")
    return 0


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
    if flags.adapter:
        return _export_adapter(base, out)
    if flags.gguf:
        check_gguf(base)
    export(base, out, partial(_write_gguf_files, kind=flags.gguf) if flags.gguf else write_folder)
    print(f"tokenizer  {_tokenizer(base)}")
    if flags.gguf:
        print(f"written to {out}; for Ollama: cd {out} && ollama create NAME -f Modelfile")
        return 0
    print(f"written to {out}; load it with transformers: AutoModelForCausalLM.from_pretrained({str(out)!r})")
    return 0
