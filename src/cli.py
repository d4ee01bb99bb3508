"""Flags from dataclasses: one list of fields gives the parser, its help, the defaults and the record in checkpoints."""

import argparse
import dataclasses
import signal
import sys
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

DONE, FAILED, BAD_USAGE, INTERRUPTED = 0, 1, 2, 130

C = TypeVar("C")


def flag(default: Any, help: str) -> Any:
    """A dataclass field that is a command-line flag; `help` says what it is, with its unit."""
    return dataclasses.field(default=default, metadata={"help": help})


@dataclass(frozen=True, kw_only=True)
class TrainingFlags:
    """The flags that every training script reads. Each script gives the defaults of its stage.

    Raises ValueError naming every bad value at once.
    """

    data: Path
    epochs: int
    batch_size: int
    context_length: int
    max_lr: float
    min_lr: float
    warmup_steps: int
    out: Path
    max_steps: int | None = flag(None, "stop after this many optimizer steps (default: what the epochs give)")
    grad_accum: int = flag(1, "micro-batches per optimizer step; the effective batch is batch-size times this")
    weight_decay: float = flag(0.1, "AdamW weight decay, on matrices only")
    grad_clip: float | None = flag(1.0, "largest gradient norm; none is off")
    dropout: float = flag(0.0, "share of activations dropped in training, 0 to 1")
    eval_every: int | None = flag(None, "steps between evaluations (default: ten evaluations in a run)")
    patience: int | None = flag(None, "stop after this many evaluations without improvement (default: off)")
    val_fraction: float = flag(0.1, "share of the data kept for validation; 0 follows the training loss")
    seed: int = flag(1337, "seed of initialisation, shuffling and dropout")
    device: Literal["auto", "cpu", "cuda", "mps"] = flag("auto", "where to compute")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = flag(
        "auto", "arithmetic of the forward pass; auto tries it out"
    )
    compile: bool = flag(False, "compile the model first (slow start, faster steps; needs a C++ compiler)")
    resume: bool | None = flag(None, "go on from latest_model.pt (default: if it is an unfinished run), or start over")
    log_dir: Path = flag(Path("logs"), "folder for the JSON lines and the picture of the curves")

    def __post_init__(self) -> None:
        counts = ("epochs", "batch_size", "context_length", "grad_accum", "max_steps", "eval_every", "patience")
        problems = [
            f"{flag_name(name)} must be at least 1, got {value}"
            for name in counts
            if (value := getattr(self, name)) is not None and value < 1
        ]
        for name in ("warmup_steps", "weight_decay", "min_lr", "seed"):
            if not 0 <= getattr(self, name) < 2**63:
                problems.append(f"{flag_name(name)} must be at least 0, got {getattr(self, name)}")
        if not 0 < self.max_lr < 10:
            problems.append(f"--max-lr must be above 0 and below 10, got {self.max_lr}")
        if self.min_lr > self.max_lr:
            problems.append(f"--min-lr must not be above --max-lr, got {self.min_lr} and {self.max_lr}")
        if self.grad_clip is not None and not self.grad_clip > 0:
            problems.append(f"--grad-clip must be above 0, or none, got {self.grad_clip}")
        for name in ("dropout", "val_fraction"):
            if not 0 <= getattr(self, name) < 1:
                problems.append(f"{flag_name(name)} must be at least 0 and below 1, got {getattr(self, name)}")
        if problems:
            raise ValueError("; ".join(problems))


def flag_name(field: str) -> str:
    return "--" + field.replace("_", "-")


def parse(config: type[C], argv: Sequence[str] | None, description: str) -> tuple[C, set[str]]:
    """The config that the command line gives, and the names of the fields that were given in it.

    Leaves with exit code 2 and one line on stderr where the line does not fit the config.
    """
    parser = _Parser(description=description, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter)
    hints = get_type_hints(config)
    for field in dataclasses.fields(config):  # type: ignore[arg-type]
        _add_flag(parser, field, hints[field.name])
    given = vars(parser.parse_args(argv))
    try:
        return config(**given), set(given)
    except ValueError as error:
        parser.error(str(error))


def run(main: Callable[[], int]) -> NoReturn:
    """Run a script's `main` and leave with its exit code; what a person can cause becomes one line on stderr."""
    if hasattr(signal, "SIGTERM"):
        signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    try:
        code = main()
    except KeyboardInterrupt:
        print("\ninterrupted before anything was trained or answered", file=sys.stderr)
        code = INTERRUPTED
    except (ValueError, OSError, ImportError, MemoryError, RuntimeError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        code = FAILED
    sys.exit(code)


def one_line(error: BaseException) -> str:
    """What went wrong, without line breaks; an error without words is named by its type."""
    return " ".join(str(error).split()) or type(error).__name__


class _Parser(argparse.ArgumentParser):
    """argparse that answers a bad line with one line, and a misspelt flag with the nearest that exists."""

    def error(self, message: str) -> NoReturn:
        unknown = message.removeprefix("unrecognized arguments: ").split()
        if message.startswith("unrecognized") and (
            hint := get_close_matches(unknown[0], self._option_string_actions, 1)
        ):
            message += f" (did you mean {hint[0]}?)"
        self.exit(BAD_USAGE, f"{self.prog}: {message}; see python {self.prog} --help\n")


def _add_flag(parser: argparse.ArgumentParser, field: dataclasses.Field, hint: Any) -> None:
    """One argument; absent flags stay out of the namespace, so that the dataclass gives the default."""
    options: dict[str, Any] = {"default": argparse.SUPPRESS, "help": _help(field)}
    kinds = [kind for kind in get_args(hint) if kind is not type(None)] if _is_union(hint) else [hint]
    kind = kinds[0]
    if kind is bool:
        options["action"] = argparse.BooleanOptionalAction
    elif get_origin(kind) is Literal:
        options["choices"] = get_args(kind)
    else:
        options["type"] = _optional(kind) if _is_union(hint) else kind
        options["metavar"] = {int: "N", float: "X", Path: "PATH"}.get(kind, "TEXT")
    parser.add_argument(flag_name(field.name), **options)


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType)


def _optional(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    def convert(text: str) -> Any:
        return None if text.lower() in ("none", "off") else kind(text)

    convert.__name__ = getattr(kind, "__name__", "value")  # argparse names the type in its message
    return convert


def _help(field: dataclasses.Field) -> str:
    text = str(field.metadata.get("help", ""))
    if field.default in (None, dataclasses.MISSING) or "default" in text:
        return text.replace("%", "%%")
    return f"{text} (default: {field.default})".replace("%", "%%")
