"""python finetune_gpt2.py: fine-tune OpenAI's GPT-2 on a text, Shakespeare's works by default.

Prints what the model generates before and after. The weights come from the Hugging Face hub, or from --weights.
"""

if __name__ == "__main__":  # before the slow imports: Ctrl-C during them is one line
    from src.entry import run_module

    run_module("finetune_gpt2", outlives_output=True)

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from main import EVAL_BATCHES, step_loaders
from src.checkpoint import CHECKPOINTS
from src.cli import flag, parse
from src.data.batching import StepLoader
from src.model.generate import TextGenerator
from src.runtime import choose_runtime
from src.tokenizer import describe, load_gpt2_encoding
from src.training.compiled import compiled_language_model_loss
from src.training.flags import LoRAFlags, TextTrainingFlags
from src.training.losses import language_model_loss
from src.training.out_folder import locked_folder
from src.training.parallel import choose_strategy, require_size_fits
from src.training.pretrained import load_pretrained, save_conversion
from src.training.recipes import apply_lora_rates, size_name
from src.training.run import run_stage
from src.training.samples import sample
from src.training.stage import Stage

# The defaults of the flags.
MODEL = "gpt2-124M"
BATCH_SIZE = 4
CONTEXT_LENGTH = 256
NUM_EPOCHS = 2
MAX_LR = 5e-5
MIN_LR = 5e-6
WARMUP_STEPS = 20
PROMPT, SAMPLE_TOKENS = "Once upon a time", 60  # of the sample before, during and after training


@dataclass(frozen=True, kw_only=True)
class Flags(TextTrainingFlags, LoRAFlags):
    model: str = flag(
        MODEL, "gpt2-124M, gpt2-355M, gpt2-774M, gpt2-1558M, or the name of a GPT-2 on the hub", path=True
    )
    weights: Path | None = flag(None, "Hugging Face directory or weights file to use instead of a download")
    epochs: int = flag(NUM_EPOCHS, "passes over the text")
    batch_size: int = flag(BATCH_SIZE, "windows per micro-batch")
    context_length: int = flag(CONTEXT_LENGTH, "tokens per window")
    max_lr: float = flag(MAX_LR, "peak learning rate, reached after the warm-up")
    min_lr: float = flag(MIN_LR, "learning rate of the last step")
    warmup_steps: int = flag(WARMUP_STEPS, "steps of linear learning-rate warm-up")
    dropout: float = flag(0.0, "fraction of activations dropped in training")
    out: Path = flag(CHECKPOINTS / "gpt2_shakespeare", "folder for best_model.pt and latest_model.pt")

    @property
    def source(self) -> str:
        """What the weights are called in messages: the path or the name of the model."""
        return str(self.weights or self.model)


def main(argv: Sequence[str] | None = None) -> int:
    """Fine-tune with the flags `argv`, by default those of the command line; returns the exit code."""
    flags, given = parse(Flags, argv, __doc__)
    if {"model", "weights"} <= given:
        raise ValueError("--model names a download and --weights a file to use instead; pass only one of them")
    with locked_folder(flags.out, "finetune"):
        return finetune(apply_lora_rates(flags, given))


def finetune(flags: Flags) -> int:
    """Load GPT-2 and train it, with a sample of its text before and after; returns the exit code.

    Raises ValueError if --context-length is above the model's, and what `run_stage` raises.
    """
    runtime = choose_runtime(flags.device, flags.precision)
    require_size_fits(flags.source, flags, runtime)  # before everything slow
    train_steps, val_steps = step_loaders(flags, load_gpt2_encoding())  # before the download, to fail early
    base = load_pretrained(flags.model, flags.weights, runtime.processes)
    if base.encoding is not load_gpt2_encoding():  # --weights is a checkpoint with another tokenizer
        train_steps, val_steps = step_loaders(flags, base.encoding)
    if flags.context_length > base.model.config.context_length:
        raise ValueError(f"--context-length {flags.context_length}: the model's is {base.model.config.context_length}")
    runtime = choose_strategy(flags, base.model.config, runtime)
    generator = TextGenerator(base.model, base.encoding, runtime.model_device)  # moves the model to the device
    parent = save_conversion(base, flags.source).parent  # last, so that a failure above leaves no file
    base.model.set_dropout(flags.dropout)
    stage = make_stage(flags, generator, parent, train_steps, val_steps)
    print(f"before fine-tuning:\n{sample(base.model, stage.sample)}\n")
    exit_code = run_stage(stage, base.model, flags, runtime)
    print(f"\nafter fine-tuning:\n{sample(base.model, stage.sample)}")
    return exit_code


def make_stage(
    flags: Flags, generator: TextGenerator, parent: Mapping[str, Any], train: StepLoader, val: StepLoader | None
) -> Stage:
    """Language modelling from GPT-2's weights, on windows of a text."""
    return Stage(
        name="finetune",
        title="Fine-tuning GPT-2",
        loss_fn=compiled_language_model_loss(generator.model) if flags.compile else language_model_loss,
        loader=train,
        evaluation=(val or train).first_batches(EVAL_BATCHES),
        validation=f"{len(val.dataset):,} windows" if val else None,
        sample=partial(generator.sample, PROMPT, SAMPLE_TOKENS, flags.seed),
        metadata={"template": None, "tokenizer": describe(generator.encoding), "parent": parent},
        details={
            "weights": f"{flags.source} ({size_name(asdict(generator.model.config)) or 'custom size'})",
            "data": f"{len(train.dataset):,} windows of {flags.context_length} tokens",
        },
        next_command="python instruction_tune.py",
        next_option="--base",
    )
