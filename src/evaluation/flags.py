"""The flags of `python -m src.evaluate`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from src.cli import flag
from src.data.shakespeare import SHAKESPEARE_PATH
from src.data.text import DOCUMENTS_HELP, TEXT_HELP, Documents, as_paths
from src.evaluation.comparison import NAMES
from src.stages import MODEL_HELP

TaskName = Literal["lambada", "hellaswag"]


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Raises ValueError naming every bad value at once."""

    model: str = flag("auto", MODEL_HELP, path=True)
    compare: str | tuple[str, ...] | None = flag(None, "two or more models, as for --model: a table, and samples")
    memorised: bool = flag(False, "what samples of the model copy word for word from its training text")
    task: TaskName | None = flag(None, "score the records of --data: lambada (the last word) or hellaswag (the ending)")
    data: Path | tuple[Path, ...] = flag(SHAKESPEARE_PATH, f"{TEXT_HELP}; with --task, a file of records")
    documents: Documents = flag(None, DOCUMENTS_HELP)
    skip_bad: bool = flag(False, "leave bad records out, if at most a tenth of them are bad")
    val_fraction: float = flag(0.1, "share of the text to evaluate, counted from its end; 1 is all of it")
    context_length: int | None = flag(None, "tokens in a window (default: the model's context)")
    stride: int | None = flag(None, "tokens that the window moves by (default: half the window)")
    quantize: Literal["none", "int8"] = flag("none", "int8: quantize the weights to 8 bits, on the CPU")
    device: Literal["auto", "cpu", "cuda", "mps"] = flag("auto", "where to compute")
    seed: int = flag(1, "seed of the samples of --compare and --memorised")
    json: bool = flag(False, "print one JSON object and nothing else on stdout")

    @property
    def models(self) -> tuple[str, ...]:
        """The models to evaluate: those of --compare, or the one of --model."""
        return self.compare if isinstance(self.compare, tuple) else (self.model,)

    @property
    def paths(self) -> list[str]:
        """The paths of --data, as strings."""
        return [str(path) for path in as_paths(self.data)]

    def __post_init__(self) -> None:
        problems = []
        if not 0 < self.val_fraction <= 1:
            problems.append(f"--val-fraction must be above 0 and at most 1, got {self.val_fraction:g}")
        if self.context_length is not None and self.context_length < 2:
            problems.append(f"--context-length must be at least 2, got {self.context_length}")
        if self.stride is not None and self.stride < 1:
            problems.append(f"--stride must be at least 1, got {self.stride}")
        if self.quantize == "int8" and self.device not in ("auto", "cpu"):
            problems.append(f"--quantize int8 is for the CPU; leave --device {self.device} out")
        if problems := [*problems, *self._conflicts()]:
            raise ValueError("; ".join(problems))

    def _conflicts(self) -> list[str]:
        """One message per flag that does not fit the others."""
        problems = []
        if isinstance(self.compare, str):
            problems.append("--compare needs two models or more; for one, pass --model")
        if len(self.models) > len(NAMES):
            problems.append(f"--compare takes up to {len(NAMES)} models, got {len(self.models)}")
        if self.compare is not None and self.model != "auto":
            problems.append("pass --model or --compare, not both")
        if self.memorised and (self.task or self.compare is not None):
            problems.append("--memorised takes one model and no task; leave --task and --compare out")
        if self.memorised and self.val_fraction == 1:
            problems.append("--memorised needs a training text; --val-fraction 1 leaves none")
        if self.task and (isinstance(self.data, tuple) or self.data == SHAKESPEARE_PATH):
            problems.append(f"--task {self.task} needs --data FILE, one file of its records")
        return problems
