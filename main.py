"""python main.py: train a GPT from scratch. micro and tiny have their own defaults: src/training/recipes.py."""

if __name__ == "__main__":  # before the slow imports: Ctrl-C during them is one line
    from src.entry import run_module

    run_module("main", outlives_output=True)

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from src.checkpoint import CHECKPOINTS, load_checkpoint
from src.cli import flag, parse
from src.data.batching import StepLoader, epoch_loader, stack_windows
from src.data.datasets import TextWindows
from src.data.text import TokenArray, prepare_data
from src.model.generate import TextGenerator
from src.model.gpt import GPT_CONFIGS, GPTConfig, GPTModel
from src.runtime import Runtime, choose_runtime
from src.tokenizer import Encoding, describe, load_gpt2_encoding
from src.training.compiled import compiled_language_model_loss
from src.training.flags import TextTrainingFlags, flags_from
from src.training.losses import language_model_loss
from src.training.out_folder import locked_folder
from src.training.parallel import choose_strategy
from src.training.recipes import apply_recipe, size_name
from src.training.run import run_stage
from src.training.shared_model import initial_model
from src.training.stage import Stage
from src.training.tokenizer import VocabularyFlags, load_or_learn_encoding

__all__ = ["create_dataloader", "load_checkpoint", "prepare_data", "train"]

# The defaults of the flags. A value edited here, or given as a flag, takes precedence over the recipe of micro or tiny.
GPT_CONFIG = {**GPT_CONFIGS["micro"], "vocab_size": 50257}
BATCH_SIZE = 8
CONTEXT_LENGTH = 128
NUM_EPOCHS = 3
MAX_LR = 3e-4
MIN_LR = 3e-5
WARMUP_STEPS = 20
EVAL_BATCHES, SAMPLE_TOKENS = 16, 80  # batches per evaluation, tokens of the sample printed after it


@dataclass(frozen=True, kw_only=True)
class Flags(VocabularyFlags):
    model: str | None = flag(None, f"size: {', '.join(GPT_CONFIGS)} (default: GPT_CONFIG in main.py)")
    epochs: int = flag(NUM_EPOCHS, "passes over the text")
    batch_size: int = flag(BATCH_SIZE, "windows per micro-batch")
    context_length: int = flag(CONTEXT_LENGTH, "tokens per window, and the context length of the model")
    max_lr: float = flag(MAX_LR, "peak learning rate, reached after the warm-up")
    min_lr: float = flag(MIN_LR, "learning rate of the last step")
    warmup_steps: int = flag(WARMUP_STEPS, "steps of linear learning-rate warm-up")
    dropout: float = flag(GPT_CONFIG["dropout"], "fraction of activations dropped in training")
    out: Path = flag(CHECKPOINTS / "scratch", "folder for best_model.pt and latest_model.pt")

    def problems(self) -> list[str]:
        problems = super().problems()
        if self.model is not None and self.model not in GPT_CONFIGS:
            problems.append(f"--model {self.model}: no such size; choose from {', '.join(GPT_CONFIGS)}")
        return problems


def main(argv: Sequence[str] | None = None) -> int:
    """Train from scratch with the flags `argv`, by default those of the command line; returns the exit code."""
    flags, given = parse(Flags, argv, __doc__)
    size = GPT_CONFIGS[flags.model] if flags.model else GPT_CONFIG
    flags = apply_recipe(flags, "pretrain", size_name(size), given)
    with locked_folder(flags.out, "pretrain"):
        runtime = choose_runtime(flags.device, flags.precision)
        encoding = load_or_learn_encoding(flags, runtime.processes)
        vocab_size = GPT_CONFIG["vocab_size"] if flags.tokenizer == "gpt2" else encoding.n_vocab
        changes = {"vocab_size": vocab_size, "context_length": flags.context_length, "dropout": flags.dropout}
        config = GPTConfig.of({**size, **changes})
        runtime = choose_strategy(flags, config, runtime)  # refuses a model that cannot fit, before the slow work
        train_steps, val_steps = step_loaders(flags, encoding)
        model = initial_model(config, flags.seed, runtime)
        generator = TextGenerator(model, encoding, runtime.model_device)  # moves the model to the device
        return run_stage(make_stage(flags, generator, train_steps, val_steps), model, flags, runtime)


def make_stage(flags: Flags, generator: TextGenerator, train_steps: StepLoader, val_steps: StepLoader | None) -> Stage:
    """Language modelling from random weights, on windows of a text."""
    window, _ = train_steps.dataset[0]
    return Stage(
        name="pretrain",
        title="Training from scratch",
        loss_fn=compiled_language_model_loss(generator.model) if flags.compile else language_model_loss,
        loader=train_steps,
        evaluation=(val_steps or train_steps).first_batches(EVAL_BATCHES),
        validation=f"{len(val_steps.dataset):,} windows" if val_steps else None,
        sample=partial(generator.sample, window[:8].tolist(), SAMPLE_TOKENS, flags.seed),
        metadata={"template": None, "parent": None, "tokenizer": describe(generator.encoding)},
        details={"data": f"{len(train_steps.dataset):,} windows of {len(window)} tokens"},
        next_command="python instruction_tune.py",
        next_option="--base",
    )


def step_loaders(flags: TextTrainingFlags, encoding: Encoding) -> tuple[StepLoader, StepLoader | None]:
    """The micro-batches of the text --data for training and for validation, which is None if nothing is held out."""
    train, val = prepare_data(flags.data, encoding, flags.val_fraction, flags.documents, flags.val_data, flags.skip_bad)
    shape = (flags.batch_size, flags.context_length)
    train_steps = StepLoader(create_dataloader(train, *shape, seed=flags.seed), flags.grad_accum)
    if not len(val):
        return train_steps, None
    return train_steps, StepLoader(create_dataloader(val, *shape, seed=flags.seed))


def create_dataloader(
    ids: TokenArray, batch_size: int = BATCH_SIZE, context_length: int = CONTEXT_LENGTH, *, seed: int = 1337
) -> DataLoader:
    """A DataLoader of (inputs, targets), both int64 (batch_size, context_length). Each epoch has a new order."""
    return epoch_loader(TextWindows(ids, context_length, seed), stack_windows, batch_size)


def train(
    model: GPTModel,
    train_loader: DataLoader,
    val_loader: DataLoader | None,
    device: Runtime | torch.device | str = "auto",
    config: Flags | Mapping[str, Any] | None = None,
    *,
    encoding: Encoding | None = None,
) -> int:
    """Train a model on loaders from `create_dataloader`; returns the exit code: 0 done, 130 interrupted after saving.

    config: Flags, or a mapping of their names to values; paths may be strings. `train_loader` decides the batch size
    and the context length, and `data` only describes it. encoding: the tokenizer of the ids; None means GPT-2's.
    Raises ValueError for an unknown name, for a loader that create_dataloader did not make, if training diverges, or if
    latest_model.pt is an unfinished run with other settings. Raises OSError if another run uses the folder `out`.
    """
    flags = config if isinstance(config, Flags) else flags_from(Flags, config or {})
    train_steps = StepLoader(train_loader, flags.grad_accum)
    length, n_windows = len(train_steps.dataset[0][0]), len(train_steps.dataset)
    flags = replace(flags, batch_size=train_steps.batch_size, context_length=length)
    if flags.data == Flags.data:
        flags = replace(flags, data=Path(f"a DataLoader of {n_windows:,} windows"))
    runtime = device if isinstance(device, Runtime) else choose_runtime(str(device), flags.precision)
    runtime = choose_strategy(flags, model.config, runtime)
    generator = TextGenerator(model, encoding or load_gpt2_encoding(), runtime.model_device)
    stage = make_stage(flags, generator, train_steps, StepLoader(val_loader) if val_loader else None)
    with locked_folder(flags.out, stage.name):
        return run_stage(stage, model, flags, runtime)
