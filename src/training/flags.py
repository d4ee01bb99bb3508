"""The flags that all training scripts share."""

import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_type_hints

from src.cli import flag, flag_name
from src.data.shakespeare import SHAKESPEARE_PATH
from src.data.text import DOCUMENTS_HELP, TEXT_HELP, Documents
from src.model.lora import Targets
from src.training.step_flags import StepFlags
from src.training.tensorboard import TENSORBOARD_MISSING


@dataclass(frozen=True, kw_only=True)
class TrainingFlags(StepFlags):
    """The flags that every training script has. Each script sets the defaults of its stage.

    Raises ValueError naming every bad value at once.
    """

    data: Path | tuple[Path, ...]
    epochs: int
    batch_size: int
    context_length: int
    max_lr: float
    min_lr: float
    warmup_steps: int
    out: Path
    max_steps: int | None = flag(None, "length of the run in optimizer steps, instead of --epochs")
    grad_accum: int = flag(1, "micro-batches per optimizer step; the effective batch is batch-size times this")
    optimizer: Literal["adamw", "muon"] = flag("adamw", "muon: Muon for the matrices in the blocks, AdamW for the rest")
    lr_decay: Literal["cosine", "linear"] = flag("cosine", "how the learning rate falls to --min-lr after the warm-up")
    beta2: float = flag(0.95, "AdamW's second beta; 0.999 suits steps of a few thousand tokens")
    weight_decay: float = flag(0.1, "weight decay, on matrices only")
    grad_clip: float | None = flag(1.0, "largest gradient norm; none disables clipping")
    eval_every: int | None = flag(None, "steps between evaluations (default: a tenth of the run)")
    patience: int | None = flag(None, "stop after this many evaluations without improvement (default: off)")
    val_fraction: float = flag(
        0.1, "fraction of the data held out for validation; 0: training loss decides the best model"
    )
    seed: int = flag(1337, "seed of initialisation, shuffling and dropout")
    device: Literal["auto", "cpu", "cuda", "mps"] = flag("auto", "device to train on")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = flag(
        "auto", "number format of the forward pass; auto picks the fastest safe one"
    )
    strategy: Literal["auto", "ddp", "fsdp"] = flag(
        "auto", "under torchrun. ddp: the whole model in every process; fsdp: a shard of it; auto: ddp if it fits"
    )
    activation_checkpointing: bool = flag(
        False, "recompute each layer's activations in backward instead of storing them: less memory, more time"
    )
    resume: bool | None = flag(
        None, "continue the run in latest_model.pt, or start over (default: continue it if the settings are the same)"
    )
    save_every: str = flag(
        "5m", "save latest_model.pt after every N steps (500) or minutes (10m); evaluations always save it"
    )
    keep: int = flag(
        0, "how many recent saves to keep as step-STEP-RUN.pt; to go back to one, copy it over latest_model.pt"
    )
    memory_check: bool = flag(True, "refuse a run that clearly does not fit in memory, by the estimate of src.plan")
    log_dir: Path = flag(Path("logs"), "folder for the JSON lines log and the picture of the curves")
    tensorboard: bool = flag(False, "write the curves to --log-dir for TensorBoard, too (pip install tensorboard)")

    def __post_init__(self) -> None:
        if problems := self.problems():
            raise ValueError("; ".join(problems))

    def problems(self) -> list[str]:
        """One message per bad value. A script adds the checks of its own flags."""
        problems = [*self._count_problems(), *self._optimizer_problems(), *self._output_problems()]
        for name in ("dropout", "val_fraction"):
            if not 0 <= getattr(self, name, 0.0) < 1:  # dpo_train.py has no --dropout
                problems.append(f"{flag_name(name)} must be at least 0 and below 1, got {getattr(self, name)}")
        return problems

    def _count_problems(self) -> Iterator[str]:
        for name in ("epochs", "batch_size", "context_length", "grad_accum", "max_steps", "eval_every", "patience"):
            value = getattr(self, name)
            if value is not None and value < 1:
                yield f"{flag_name(name)} must be at least 1, got {value}"
        for name in ("warmup_steps", "weight_decay", "min_lr", "seed", "keep"):
            if not 0 <= getattr(self, name) < 2**63:
                yield f"{flag_name(name)} must be at least 0 and below 2**63, got {getattr(self, name)}"

    def _optimizer_problems(self) -> Iterator[str]:
        if not 0 < self.max_lr < 10:
            yield f"--max-lr must be above 0 and below 10, got {self.max_lr}"
        if self.min_lr > self.max_lr and self._is_set("min_lr") and self._is_set("max_lr"):
            yield f"--min-lr must not be above --max-lr, got {self.min_lr} and {self.max_lr}"
        if not 0 <= self.beta2 < 1:
            yield f"--beta2 must be at least 0 and below 1, got {self.beta2}"
        if self.grad_clip is not None and not 0 < self.grad_clip < math.inf:
            yield f"--grad-clip must be above 0, or none, got {self.grad_clip}"

    def _is_set(self, name: str) -> bool:
        """Whether a value differs from the script's default, which a recipe may still replace."""
        return getattr(self, name) != getattr(type(self), name, None)

    def _output_problems(self) -> Iterator[str]:
        try:
            parse_save_every(self.save_every)
        except ValueError as error:
            yield str(error)
        if self.tensorboard and find_spec("tensorboard") is None:
            yield TENSORBOARD_MISSING
        if os.path.exists(self.out) and not os.path.isdir(self.out):  # False for a name that is too long
            yield f"--out must be a folder, {self.out} is a file"


F = TypeVar("F", bound=TrainingFlags)


def flags_from(kind: type[F], config: Mapping[str, Any]) -> F:
    """The flags of a script, some of them given by name. A path may be a string.

    Raises ValueError for an unknown name or a bad value.
    """
    known = [field.name for field in fields(kind)]
    for name in config:
        if name not in known:
            near = get_close_matches(str(name), known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"expected {', '.join(known)}"
            raise ValueError(f"config has no setting {name!r}; {hint}")
    types = get_type_hints(kind)
    return kind(**{name: _as_path(value, types[name]) for name, value in config.items()})


def _as_path(value: Any, expected: Any) -> Any:
    """A string or a list of strings as paths, if a path is expected."""
    if expected is not Path and Path not in get_args(expected):
        return value
    if isinstance(value, list | tuple):
        return tuple(map(Path, value))
    return Path(value) if isinstance(value, str) else value


def plain_settings(flags: TrainingFlags) -> dict[str, Any]:
    """The flags as values that JSON and a checkpoint can hold: paths as strings."""
    settings = asdict(flags)
    for name, value in settings.items():
        if isinstance(value, Path):
            settings[name] = str(value)
        elif isinstance(value, tuple):
            settings[name] = [str(path) for path in value]
    return settings


def parse_save_every(text: str) -> tuple[int | None, float]:
    """(steps, seconds) of --save-every: "500" is (500, inf), "10m" is (None, 600.0).

    Raises ValueError if the text is neither steps nor minutes.
    """
    if re.fullmatch(r"[0-9]{1,12}", str(text)) and int(text):
        return int(text), math.inf
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]+)?m", str(text)) and float(text[:-1]):
        return None, 60 * float(text[:-1])
    raise ValueError(f"--save-every must be steps, such as 500, or minutes, such as 10m, got {text:.100}")


@dataclass(frozen=True, kw_only=True)
class LoRAFlags(TrainingFlags):
    """The flags of the stages that start from a model, and so can train an adapter instead of all weights."""

    lora: int | None = flag(
        None, "train a LoRA adapter of this rank instead of all weights, in less memory; 8 is a common rank"
    )
    lora_alpha: float | None = flag(
        None, "the adapter's output is multiplied by alpha / rank (default: twice the rank, so by 2 at any rank)"
    )
    lora_targets: Targets = flag(
        "attention", "layers with an adapter. attention: queries, keys and values; all-linear: also those after them"
    )

    @property
    def takes_lora(self) -> bool:
        return True

    def problems(self) -> list[str]:
        problems = super().problems()
        if self.lora is not None and self.lora < 1:
            problems.append(f"--lora must be a rank of at least 1, got {self.lora}")
        if self.lora is None:
            used = {"--lora-alpha": self.lora_alpha is not None, "--lora-targets": self.lora_targets != "attention"}
            problems += [f"{name} needs --lora RANK" for name, is_set in used.items() if is_set]
        if self.lora_alpha is not None and not 0 < self.lora_alpha < math.inf:
            problems.append(f"--lora-alpha must be above 0, got {self.lora_alpha}")
        if self.lora is not None and self.optimizer == "muon":
            problems.append("--lora trains with AdamW; leave --optimizer muon out")
        return problems


@dataclass(frozen=True, kw_only=True)
class RecordTrainingFlags(LoRAFlags):
    """The flags of the stages that train on records, from a base model."""

    data: Path
    base: str
    skip_bad: bool = flag(False, "leave bad records out, if at most a tenth of them are bad")
    show_data: bool = flag(False, "print what is read from --data, with samples, and exit")


@dataclass(frozen=True, kw_only=True)
class TextTrainingFlags(TrainingFlags):
    """The flags of the stages that train on a text, in windows of one length."""

    data: Path | tuple[Path, ...] = flag(SHAKESPEARE_PATH, TEXT_HELP)
    documents: Documents = flag(None, DOCUMENTS_HELP)
    val_data: Path | tuple[Path, ...] | None = flag(
        None, "another text to validate on; then all of --data is for training"
    )
    skip_bad: bool = flag(False, "leave bad records of .jsonl files out, if at most a tenth of a file's are bad")
    compile: bool = flag(False, "compile the forward pass (slow start, faster steps; needs a C++ compiler)")

    def problems(self) -> list[str]:
        problems = super().problems()
        if self.val_data and self.val_fraction != TrainingFlags.val_fraction:
            problems.append("--val-data is the whole validation set; leave --val-fraction out")
        return problems
