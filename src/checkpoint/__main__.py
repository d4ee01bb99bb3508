"""python -m src.checkpoint PATH: print what a model is and where it comes from.

PATH is a checkpoint, a Hugging Face folder, a weights file, or the name of a stage such as sft. Shown are the model's
size, training, data, settings and tokenizer, and the chain of the models that it was trained from. Each of their files
is compared with the recorded hash of its weights. --one-file and --in-parts convert a checkpoint between the two forms.
"""

if __name__ == "__main__":  # at the top: see run_module
    from src.entry import run_module

    run_module("src.checkpoint.__main__")

import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from src.checkpoint.files import read_checkpoint, save_checkpoint
from src.checkpoint.lineage import ancestors, state_of
from src.checkpoint.models import LoadedModel, load_base
from src.checkpoint.parts import PARTS, digests_of_process, new_folder, take_tensors, write
from src.cli import Parser
from src.common.disk import format_bytes
from src.common.messages import visible
from src.program import DONE
from src.stages import MODEL_HELP, find_model

_WIDTH = 12


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(__doc__)
    parser.add_argument("path", metavar="PATH", help=MODEL_HELP)
    target = parser.add_mutually_exclusive_group()
    target.add_argument("--one-file", metavar="FILE", type=Path, help="save the checkpoint as one file")
    target.add_argument("--in-parts", metavar="FILE", type=Path, help="save it with its tensors in a folder of files")
    flags = parser.parse_args(argv)
    if new := flags.one_file or flags.in_parts:
        return _convert(find_model(flags.path)[0], new, in_parts=new == flags.in_parts)
    base = load_base(flags.path)
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    for name, text in (*_model_rows(base), *_training_rows(base.metadata), *_origin_rows(base.metadata)):
        print(textwrap.fill(f"{name:<{_WIDTH}}{visible(text)}", columns, subsequent_indent=" " * _WIDTH))
    return DONE


def _convert(path: Path, new: Path, *, in_parts: bool) -> int:
    """Save a copy of a checkpoint in the other form."""
    if new.exists():
        raise FileExistsError(f"{new} exists already; pass another name")
    content = read_checkpoint(path)
    if in_parts:
        content, tensors = take_tensors(content)
        folder = new_folder(new, content.get("step", 0), content.get("run_id", "model"))
        write(folder, tensors)
        content[PARTS] = {"folder": folder.name, "files": digests_of_process(folder, rank=0)}
    save_checkpoint(new, content)
    print(f"{path}: saved as {new}" + (f", with its tensors in {folder}" if in_parts else ""))
    return DONE


def _model_rows(base: LoadedModel) -> Iterator[tuple[str, str]]:
    config, encoding = base.model.config, base.encoding
    files = [file for file in base.path.iterdir() if file.is_file()] if base.path.is_dir() else [base.path]
    saved = datetime.fromtimestamp(max(file.stat().st_mtime for file in files)).strftime("%Y-%m-%d %H:%M")
    size = format_bytes(sum(file.stat().st_size for file in files))
    yield "model", f"{base.path}, {base.reason}: {size}, saved {saved}"
    total, body = config.parameter_count()
    shape = f"{config.n_layers} layers, {config.d_model} wide, {config.n_heads} heads, context {config.context_length}"
    yield "size", f"{shape}: {total:,} parameters, {body:,} without the embeddings"
    yield "weights", f"SHA-256 {base.parent['weights_sha256']}"
    yield "tokenizer", f"{encoding.name}, {encoding.n_vocab:,} tokens"
    yield "template", _text(base.metadata.get("template")) or "none: it was not tuned to answer"


def _training_rows(metadata: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    source = _text(metadata.get("source"))
    yield "stage", _training(metadata) + (f", converted from {source}" if source else "")
    settings = metadata.get("settings")
    settings = settings if isinstance(settings, Mapping) else {}
    summary = metadata.get("summary")
    rows = {str(name): str(text) for name, text in summary.items()} if isinstance(summary, Mapping) else {}
    data, described = _text(settings.get("data")), rows.get("data", "")
    known = [data if data not in described else "", described, f"content SHA-256 {_text(metadata.get('data_sha256'))}"]
    if data or described:
        yield "data", ", ".join(filter(None, known))
    yield from ((name, rows[name]) for name in ("validation", "steps") if name in rows)
    if settings:
        yield "settings", ", ".join(f"{name} {value}" for name, value in settings.items() if value is not None)
    versions = metadata.get("versions")
    if isinstance(versions, Mapping):
        yield "versions", ", ".join(f"{name} {version}" for name, version in versions.items())


def _origin_rows(metadata: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The chain of base models, each with its state and what is known of its training."""
    chain = list(ancestors(metadata))
    if not chain:
        yield "comes from", "no other model: its training started here, or its file does not say"
    for position, ancestor in enumerate(chain):
        recorded = ancestor.get("weights_sha256") or ancestor.get("sha256")
        facts = f"{ancestor['path']} ({_training(ancestor)}), SHA-256 {str(recorded)[:12]}..."
        yield ("comes from" if position == 0 else "  before"), f"{facts}: {state_of(ancestor)}"


def _training(metadata: Mapping[str, Any]) -> str:
    """The stage, steps and losses in one line."""
    parts = [_text(metadata.get("stage")) or "unknown stage"]
    if step := _text(metadata.get("step")):
        parts.append(f"step {step} (epoch {_text(metadata.get('epoch'))})")
    for key, name in (
        ("first_loss", "loss before"),
        ("best_loss", "best"),
        ("val_loss", "val"),
        ("train_loss", "train"),
    ):
        if isinstance(value := metadata.get(key), float):
            parts.append(f"{name} {value:.4f}")
    return ", ".join(parts)


def _text(value: object) -> str:
    """A value as text; empty for anything but a text or a number, which a damaged file may hold instead."""
    return str(value)[:500] if isinstance(value, str | int | float) else ""
