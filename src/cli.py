"""Flags from dataclasses: one list of fields gives the parser, its help, the defaults and the record in checkpoints."""

import argparse
import dataclasses
import math
import os
import signal
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

OUT_OF_MEMORY = (
    "out of memory; halve --batch-size and double --grad-accum, which trains the same (with --no-resume if a run is "
    "unfinished), then lower --context-length or take a smaller model"
)
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
    max_steps: int | None = flag(None, "length of the run in optimizer steps, in place of --epochs")
    grad_accum: int = flag(1, "micro-batches per optimizer step; the effective batch is batch-size times this")
    optimizer: Literal["adamw", "muon"] = flag("adamw", "muon: Muon for the matrices in the blocks, AdamW for the rest")
    weight_decay: float = flag(0.1, "weight decay, on matrices only")
    grad_clip: float | None = flag(1.0, "largest gradient norm; none is off")
    eval_every: int | None = flag(None, "steps between evaluations (default: ten evaluations in a run)")
    patience: int | None = flag(None, "stop after this many evaluations without improvement (default: off)")
    val_fraction: float = flag(0.1, "share of the data kept for validation; 0 follows the training loss")
    seed: int = flag(1337, "seed of initialisation, shuffling and dropout")
    device: Literal["auto", "cpu", "cuda", "mps"] = flag("auto", "where to compute")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = flag(
        "auto", "arithmetic of the forward pass; auto takes the fastest that is safe"
    )
    compile: bool = flag(False, "compile the model first (slow start, faster steps; needs a C++ compiler)")
    resume: bool | None = flag(None, "go on from latest_model.pt (default: if it is an unfinished run), or start over")
    log_dir: Path = flag(Path("logs"), "folder for the JSON lines and the picture of the curves")

    def __post_init__(self) -> None:
        if problems := self.problems():
            raise ValueError("; ".join(problems))

    def problems(self) -> list[str]:
        """What is wrong with the values, a sentence for each; a script adds what its own flags can get wrong."""
        counts = ("epochs", "batch_size", "context_length", "grad_accum", "max_steps", "eval_every", "patience")
        problems = [
            f"{flag_name(name)} must be at least 1, got {value}"
            for name in counts
            if (value := getattr(self, name)) is not None and value < 1
        ]
        for name in ("warmup_steps", "weight_decay", "min_lr", "seed"):
            if not 0 <= getattr(self, name) < 2**63:
                problems.append(f"{flag_name(name)} must be at least 0 and below 2**63, got {getattr(self, name)}")
        if not 0 < self.max_lr < 10:
            problems.append(f"--max-lr must be above 0 and below 10, got {self.max_lr}")
        defaults = type(self)  # a recipe may still put others in their place, so make_plan looks again
        chosen = self.min_lr != getattr(defaults, "min_lr", None) and self.max_lr != getattr(defaults, "max_lr", None)
        if chosen and self.min_lr > self.max_lr:
            problems.append(f"--min-lr must not be above --max-lr, got {self.min_lr} and {self.max_lr}")
        if self.grad_clip is not None and not 0 < self.grad_clip < math.inf:
            problems.append(f"--grad-clip must be above 0, or none, got {self.grad_clip}")
        out = getattr(self, "out", None)
        if out is not None and out.exists() and not out.is_dir():
            problems.append(f"--out must be a folder, {out} is a file")
        for name in ("dropout", "val_fraction"):
            if not 0 <= getattr(self, name, 0.0) < 1:  # DPO has no dropout: it would put noise into the log-ratios
                problems.append(f"{flag_name(name)} must be at least 0 and below 1, got {getattr(self, name)}")
        return problems


def flag_name(field: str) -> str:
    return "--" + field.replace("_", "-")


def parse(config: type[C], argv: Sequence[str] | None, description: str) -> tuple[C, set[str]]:
    """The config that the command line gives, and the names of the fields that were given in it.

    Leaves with exit code 2 and one line on stderr, naming all that is wrong, where the line does not fit the config.
    """
    layout = argparse.RawDescriptionHelpFormatter
    parser = _Parser(_module(), description=description, allow_abbrev=False, formatter_class=layout)
    hints = get_type_hints(config)
    for field in dataclasses.fields(config):  # type: ignore[arg-type]
        _add_flag(parser, field, hints[field.name])
    texts, unknown = parser.parse_known_args(argv)
    given, bad = _values(vars(texts), hints)
    problems = [*map(parser.unknown, _flags_among(unknown)), *bad.values()]
    try:
        settings = config(**given)
    except ValueError as error:  # a bad flag has its default here: what is said about that one is not the person's
        problems += [part for part in str(error).split("; ") if not any(name in part for name in bad)]
    if problems:
        parser.error("; ".join(problems))
    return settings, set(given)


def run(main: Callable[[], int]) -> NoReturn:
    """Run a script's `main` and leave with its exit code; what a person can cause becomes one line on stderr."""
    signal.signal(signal.SIGTERM, _interrupt)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="replace")
    try:
        code = main()
    except KeyboardInterrupt:
        print("\ninterrupted; what was saved before is kept", file=sys.stderr)
        code = INTERRUPTED
    except (ValueError, OSError, ImportError, MemoryError, RuntimeError) as error:
        code = _failed(MemoryError(OUT_OF_MEMORY) if _is_out_of_memory(error) else error)
    try:
        print(end="", flush=True)
    except OSError as error:  # its reader has left or its disk is full, so that flushing it at exit would fail again
        code = code or _failed(error)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def _is_out_of_memory(error: BaseException) -> bool:
    """Python, CUDA and the CPU allocator each have their own way to say so."""
    return isinstance(error, MemoryError) or "out of memory" in str(error) or "can't allocate memory" in str(error)


def one_line(error: BaseException) -> str:
    """What went wrong, without line breaks; an error without words is named by its type."""
    return " ".join(str(error).split()) or type(error).__name__


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _failed(error: BaseException) -> int:
    print(f"error: {one_line(error)}", file=sys.stderr)
    return FAILED


class _Parser(argparse.ArgumentParser):
    """argparse that answers a bad line with one line, and a misspelt flag with the nearest that exists."""

    def unknown(self, name: str) -> str:
        hint = get_close_matches(name, self._option_string_actions, 1)
        return f"there is no {name}" + (f" (did you mean {hint[0]}?)" if hint else "")

    def error(self, message: str) -> NoReturn:
        command = f"-m {self.prog}" if self.prog == _module() else self.prog
        self.exit(BAD_USAGE, f"{self.prog}: {' '.join(message.split())}; see python {command} --help\n")


def _module() -> str | None:
    """The name of the module that runs as `python -m NAME`; None for a script, which argparse names itself."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.name if spec and spec.origin == sys.argv[0] else None


def _add_flag(parser: argparse.ArgumentParser, field: dataclasses.Field, hint: Any) -> None:
    """One argument; absent flags stay out of the namespace, so that the dataclass gives the default."""
    options: dict[str, Any] = {"default": argparse.SUPPRESS, "help": _help(field)}
    kind, _ = _kind(hint)
    if kind is bool:
        options["action"] = argparse.BooleanOptionalAction
    else:
        choices = get_args(kind)
        options["metavar"] = "{" + ",".join(choices) + "}" if choices else _KINDS[kind][1]
    parser.add_argument(flag_name(field.name), **options)


def _flags_among(arguments: Sequence[str]) -> list[str]:
    """The flags that were not understood, without their values; where there are only values, those."""
    flags = [text.split("=")[0] for text in arguments if text.startswith("-") and not text[1:2].isdigit()]
    return flags or list(arguments)


def _values(texts: Mapping[str, Any], hints: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """({field: value}, {flag: what is wrong with its text})."""
    values: dict[str, Any] = {}
    bad: dict[str, str] = {}
    for name, text in texts.items():
        try:
            values[name] = text if isinstance(text, bool) else _value(text, hints[name])
        except ValueError as error:
            bad[flag_name(name)] = f"{flag_name(name)} must be {error}, got {text!r}"
    return values, bad


def _value(text: str, hint: Any) -> Any:
    """What the text of a flag stands for. Raises ValueError saying what was expected."""
    kind, optional = _kind(hint)
    if optional and text.lower() in ("none", "off"):
        return None
    choices = get_args(kind)
    expected = f"one of {', '.join(choices)}" if choices else _KINDS[kind][0]
    try:
        return choices[choices.index(text)] if choices else _KINDS[kind][2](text)
    except ValueError:
        raise ValueError(expected + (" or none" if optional else "")) from None


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError
    return value


def _path(text: str) -> Path:
    if not text:  # Path would take it for the current folder; more likely a variable in a shell script is not set
        raise ValueError
    return Path(text)


# What a flag's type is called in messages and in the help, and how its text is read.
_KINDS: dict[type, tuple[str, str, Callable[[str], Any]]] = {
    int: ("a whole number", "N", int),
    float: ("a finite number", "X", _finite),
    Path: ("a path", "PATH", _path),
    str: ("text", "TEXT", str),
}


def _kind(hint: Any) -> tuple[Any, bool]:
    """(the type of a flag's value, whether it can also be none)."""
    if get_origin(hint) not in (Union, types.UnionType):
        return hint, False
    return next(kind for kind in get_args(hint) if kind is not type(None)), True


def _help(field: dataclasses.Field) -> str:
    text = str(field.metadata.get("help", ""))
    if field.default in (None, dataclasses.MISSING) or "default" in text:
        return text.replace("%", "%%")
    return f"{text} (default: {field.default})".replace("%", "%%")
