"""python -m src.checkpoint PATH: print what a model is and where it comes from.

PATH is a checkpoint, a Hugging Face folder, a weights file, or the name of a stage such as sft. Shown are the model's
size, training, data, settings and tokenizer, and the chain of the models that it was trained from. Each of their files
is compared with the recorded hash of its weights. --one-file and --in-parts convert a checkpoint between the two forms.
"""

if __name__ == "__main__":  # before the slow imports: Ctrl-C during them is one line
    from src.entry import run_module

    run_module("src.checkpoint.__main__")

import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from src.checkpoint.description import describe_ancestor, model_rows, training_rows
from src.checkpoint.files import read_checkpoint, save_checkpoint
from src.checkpoint.lineage import ancestors, state_of
from src.checkpoint.models import load_base
from src.checkpoint.parts import PARTS, digests_of_process, new_folder, take_tensors, write_tensors
from src.cli import Parser
from src.common.messages import visible
from src.program import DONE
from src.stages import MODEL_HELP, find_model

_WIDTH = 12


def main(argv: Sequence[str] | None = None) -> int:
    """Describe a checkpoint, or convert it between one file and parts; returns the exit code."""
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
    for name, text in (*model_rows(base), *training_rows(base.metadata), *_origin_rows(base.metadata)):
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
        write_tensors(folder, tensors)
        content[PARTS] = {"folder": folder.name, "files": digests_of_process(folder, rank=0)}
    save_checkpoint(new, content)
    print(f"{path}: saved as {new}" + (f", with its tensors in {folder}" if in_parts else ""))
    return DONE


def _origin_rows(metadata: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The chain of base models, each with its state and what is known of its training."""
    chain = list(ancestors(metadata))
    if not chain:
        yield "comes from", "no other model: it was trained from scratch, or its file does not say"
    for position, ancestor in enumerate(chain):
        name = "comes from" if position == 0 else "  before"
        yield name, f"{describe_ancestor(ancestor)}: {state_of(ancestor)}"
