"""The stages' checkpoints: their paths, the commands that make them, and which of them a script should start from.

Imports no PyTorch, so that a script can report a missing model at once.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from src.model.foreign import ADAPTER_CONFIG, CONFIG_FILE, foreign_folder

CHECKPOINTS = Path("checkpoints")
BEST, LATEST = "best_model.pt", "latest_model.pt"

# The names that --model and --base accept: each stage's checkpoint, and the command that makes it.
STAGE_OUTPUTS = {
    "dpo": (CHECKPOINTS / "dpo_aligned" / BEST, "python dpo_train.py"),
    "sft": (CHECKPOINTS / "instruction_tuned" / BEST, "python instruction_tune.py"),
    "finetuned": (CHECKPOINTS / "gpt2_shakespeare" / BEST, "python finetune_gpt2.py"),
    "pretrained": (CHECKPOINTS / "gpt2_pretrained.pt", "python finetune_gpt2.py"),
    "scratch": (CHECKPOINTS / "scratch" / BEST, "python main.py"),
}
MODELS = (*STAGE_OUTPUTS,)  # --model auto takes the first that exists
MODEL_HELP = f"auto (the first of {', '.join(MODELS)} that exists), one of these, or a path"
_FORMER_SCRATCH = CHECKPOINTS / "pretrained" / BEST  # main.py saved there in earlier versions


def find_model(name: str, order: Sequence[str] = MODELS, *, beside_scripts: bool = False) -> tuple[Path, str]:
    """Return the path of a model, and the reason why it was chosen.

    name: "auto" (the first model of `order` that exists), a name in STAGE_OUTPUTS (upper or lower case), or a path.
    beside_scripts: if the current folder has none of these models, look next to the scripts, too.
    Raises FileNotFoundError naming the folder and the command that makes the model.
    """
    if name.lower() != "auto" and name.lower() not in STAGE_OUTPUTS:
        return _at_path(name, order, beside_scripts)
    names = order if name.lower() == "auto" else (name.lower(),)
    for folder in _folders(beside_scripts):
        found = [each for each in names if (folder / STAGE_OUTPUTS[each][0]).is_file()]
        if found:
            path = folder / STAGE_OUTPUTS[found[0]][0]
            return path, f"{names[0]}, as requested" if name.lower() != "auto" else _why(found, order)
    raise FileNotFoundError(_not_found(names[-1], beside_scripts) + (", or pass a path" if name == "auto" else ""))


def sft_bases() -> list[str]:
    """The models that SFT may start from, in the order of `find_model`.

    First finetuned and scratch, the one that was saved last before the other, then pretrained. Missing ones come last.
    """

    def saved_at(name: str) -> float:
        path, _ = STAGE_OUTPUTS[name]
        if not path.is_file():
            return -1.0
        return 0.0 if name == "pretrained" else path.stat().st_mtime

    return sorted(["pretrained", "finetuned", "scratch"], key=saved_at, reverse=True)


def existing_models(order: Sequence[str] = MODELS, *, beside_scripts: bool = True) -> dict[str, Path]:
    """The models of `order` that exist, by name: in the current folder or else, if asked, next to the scripts."""
    found = {}
    for name in order:
        paths = (folder / STAGE_OUTPUTS[name][0] for folder in _folders(beside_scripts))
        if path := next(filter(Path.is_file, paths), None):
            found[name] = path
    return found


def here_or_beside_scripts(path: Path) -> Path:
    """A path in the current folder or, if only that one exists, next to the scripts."""
    beside = _scripts_folder() / path
    return beside if beside.exists() and not path.exists() else path


def as_argument(path: Path) -> str:
    """The path as a value of --model or --base. A path such as "sft" or "-x" gets a "./" in front."""
    text = str(path)
    return os.path.join(".", text) if text in ("auto", *MODELS) or text.startswith("-") else text


def producing_command(path: Path) -> str:
    """The command that makes the checkpoint at `path`, inferred from the name of its folder."""
    for output, command in STAGE_OUTPUTS.values():
        if path.parent.name == output.parent.name and (output.name == BEST or path.name == output.name):
            return command
    return "one of the training scripts"


def _at_path(name: str, order: Sequence[str], beside_scripts: bool) -> tuple[Path, str]:
    if not name or not Path(name).exists():  # Path("") is the current folder
        where = f" in {Path.cwd()}" if name and not Path(name).is_absolute() else ""
        names = ", ".join(existing_models(order, beside_scripts=beside_scripts))
        advice = f"pass {names}, or" if names else f"make a model with {STAGE_OUTPUTS[order[-1]][1]}, or pass"
        paths = "the path of a checkpoint, a Hugging Face directory or a weights file"
        raise FileNotFoundError(f"{name or repr(name)}: no such file{where}; {advice} {paths}")
    return resolve(Path(name)), "as requested"


def _why(found: Sequence[str], order: Sequence[str]) -> str:
    missing = " or ".join(order[: order.index(found[0])])
    if missing:
        return f"best available, no {missing} model yet"
    return "best available" if list(found) == sorted(found, key=MODELS.index) else "trained last"


def _folders(beside_scripts: bool) -> tuple[Path, ...]:
    return (Path(), _scripts_folder()) if beside_scripts else (Path(),)


def _scripts_folder() -> Path:
    return Path(__file__).resolve().parents[1]


def _not_found(name: str, beside_scripts: bool) -> str:
    path, command = STAGE_OUTPUTS[name]
    if name == "scratch" and _FORMER_SCRATCH.is_file():
        return f"{path}: not found, but {_FORMER_SCRATCH} exists; rename {_FORMER_SCRATCH.parent} to {path.parent}"
    folders = [Path.cwd()]
    if beside_scripts and _scripts_folder() != Path.cwd():
        folders.append(_scripts_folder())
    return f"{path}: not found in {' or in '.join(map(str, folders))}; make it with {command}"


def resolve(path: Path) -> Path:
    """The best_model.pt in one of our folders. Any other path, such as a Hugging Face folder, is returned as it is."""
    best = path / BEST
    if path.is_dir() and not any((path / name).is_file() for name in (BEST, CONFIG_FILE, ADAPTER_CONFIG)):
        if foreign := foreign_folder(path):
            raise FileNotFoundError(f"{path} is {foreign}")
        raise FileNotFoundError(
            f"{path}: a folder without {BEST} or a Hugging Face model's {CONFIG_FILE}; "
            f"make one with {producing_command(best)}"
        )
    return best if best.is_file() else path
