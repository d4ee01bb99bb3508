"""The flags of `python -m src.plan`, checked without PyTorch, so that a wrong one is refused at once."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from src.cli import flag, flag_name
from src.model.config import GPT_CONFIGS, GPTConfig
from src.training.step_flags import StepFlags

LIMITS = {
    "batch_size": 10**6,
    "grad_accum": 10**6,
    "context_length": 2**20,
    "vocab_size": 10**7,
    "processes": 10**5,
    "tokens": 10**15,
}


@dataclass(frozen=True, kw_only=True)
class Flags(StepFlags):
    """Raises ValueError naming every bad value at once."""

    model: str = flag("gpt2-124M", f"one of {', '.join(GPT_CONFIGS)}")
    stage: Literal["pretrain", "finetune", "sft", "dpo"] = flag(
        "pretrain", "for sft and dpo, sequences as long as the context are assumed, in dpo half prompt and half answer"
    )
    batch_size: int = flag(4, "sequences per micro-batch, over all processes")
    grad_accum: int = flag(1, "micro-batches per step")
    context_length: int = flag(256, "tokens in a sequence")
    vocab_size: int | None = flag(None, "tokens of the vocabulary (default: as main.py, 4096 for micro and tiny)")
    optimizer: Literal["adamw", "muon"] = flag("adamw", "optimizer of the matrices in the blocks")
    lora: int | None = flag(None, "train a LoRA adapter of this rank instead of all weights")
    lora_targets: Literal["attention", "all-linear"] = flag("attention", "layers with an adapter")
    activation_checkpointing: bool = flag(False, "recompute each layer's activations in backward")
    processes: int = flag(1, "processes that torchrun starts, on as many machines like this one as they need")
    strategy: Literal["auto", "ddp", "fsdp"] = flag("auto", "how the processes share the model; auto: ddp if it fits")
    tokens: int | None = flag(None, "tokens to train on (default: as many as are compute-optimal)")
    device: Literal["auto", "cpu", "cuda", "mps"] = flag("auto", "device to train on")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = flag("auto", "number format of the forward pass")
    memory: float | None = flag(None, "GB of a GPU for each process, instead of this machine's memory")
    speed: float | None = flag(None, "teraFLOP/s of each process, instead of a measured step")
    json: bool = flag(False, "print one JSON object, with bytes, seconds and FLOPs")

    def __post_init__(self) -> None:
        problems = [*self._number_problems(), *self._model_problems()]
        if not problems and self.batch_size % self.processes:
            problems.append(
                f"--batch-size {self.batch_size} does not divide evenly among {self.processes} processes; "
                f"pass --batch-size {-(-self.batch_size // self.processes) * self.processes}"
            )
        if problems:
            raise ValueError("; ".join(problems))

    def _number_problems(self) -> Iterator[str]:
        for name, limit in LIMITS.items():
            value = getattr(self, name)
            if value is not None and not 1 <= value <= limit:
                yield f"{flag_name(name)} must be a whole number from 1 to {limit:,}, got {str(value)[:20]}"
        for name in ("memory", "speed"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1e6:
                yield f"{flag_name(name)} must be above 0 and below a million, got {value}"

    def _model_problems(self) -> Iterator[str]:
        if self.model not in GPT_CONFIGS:
            yield f"--model must be one of {', '.join(GPT_CONFIGS)}, got {self.model!r:.100}"
        elif self.lora is not None:
            width = GPT_CONFIGS[self.model]["d_model"]
            if not 1 <= self.lora <= width:
                yield f"--lora must be a rank from 1 to {width}, the model's width, got {str(self.lora)[:20]}"
        if self.lora is None and self.lora_targets != "attention":
            yield "--lora-targets needs --lora RANK"
        if self.lora is not None and (self.processes > 1 or self.optimizer == "muon"):
            yield "--lora trains in one process with AdamW; leave --processes and --optimizer out"

    @property
    def takes_lora(self) -> bool:
        return self.stage != "pretrain"

    @property
    def packed_width(self) -> int | None:
        """The width of a model that trains on packed sequences; None for the stages that train on windows."""
        return self.config().d_model if self.stage in ("sft", "dpo") else None

    def config(self, n_layers: int | None = None) -> GPTConfig:
        """The config of --model, or the same with fewer layers."""
        size = GPT_CONFIGS[self.model]
        changes = {
            "context_length": self.context_length,
            "vocab_size": self.vocab_size or size["vocab_size"],
            "n_layers": n_layers or size["n_layers"],
            "dropout": 0.0,
        }
        return GPTConfig.of({**size, **changes})
