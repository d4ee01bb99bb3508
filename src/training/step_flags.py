"""The flags that decide how much memory a training step needs. It imports no PyTorch, so `src.plan` starts fast."""

from typing import Literal


class StepFlags:
    """What the flags of every training script and those of `src.plan` have in common.

    batch_size: sequences per micro-batch over all processes. Stages without --lora have no adapter.
    """

    batch_size: int
    context_length: int
    grad_accum: int
    optimizer: Literal["adamw", "muon"]
    activation_checkpointing: bool
    strategy: Literal["auto", "ddp", "fsdp"]
    lora: int | None = None
    lora_targets: Literal["attention", "all-linear"] = "attention"

    @property
    def takes_lora(self) -> bool:
        """Whether the stage has --lora."""
        return False
