"""python main.py: train a GPT from scratch on a text, Shakespeare's by default; micro and tiny have recipes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from src.checkpoint import CHECKPOINTS, load_checkpoint
from src.cli import flag, parse
from src.data.batching import StepLoader, stack_windows
from src.data.examples import tuning_texts
from src.data.shakespeare import SHAKESPEARE_PATH, ensure_shakespeare
from src.data.text import TextWindows, TokenArray, create_loaders, load_tokens, split_tokens
from src.model.generate import TextGenerator
from src.model.gpt import GPT_CONFIGS, GPTModel
from src.program import run_script
from src.runtime import Runtime, choose_runtime, seed_step
from src.tokenizer import Encoding, build_word_encoding, describe, load_gpt2_encoding
from src.training.flags import OUT_OF_MEMORY, TrainingFlags
from src.training.losses import language_model_loss
from src.training.recipes import apply_recipe, size_name
from src.training.run import Stage
from src.training.stage import run_stage

__all__ = ["create_dataloader", "load_checkpoint", "prepare_data", "train"]

# The defaults of the flags; a recipe for micro or tiny gives way to a value that is changed here or given as a flag.
GPT_CONFIG = {**GPT_CONFIGS["micro"], "vocab_size": 50257}
BATCH_SIZE = 8
CONTEXT_LENGTH = 128
NUM_EPOCHS = 3
MAX_LR = 3e-4
MIN_LR = 3e-5
WARMUP_STEPS = 20
EVAL_BATCHES = 16  # validation batches in an evaluation, the same ones every time
SAMPLE_TOKENS = 80  # in the text shown after an evaluation


@dataclass(frozen=True, kw_only=True)
class Config(TrainingFlags):
    model: str | None = flag(None, f"size: {', '.join(GPT_CONFIGS)} (default: GPT_CONFIG in main.py)")
    tokenizer: Literal["gpt2", "word"] = flag("gpt2", "GPT-2's pieces of words, or the whole words of the text")
    data: Path = flag(SHAKESPEARE_PATH, "text file in UTF-8; Shakespeare's works are fetched if they are not there")
    epochs: int = flag(NUM_EPOCHS, "passes over the text")
    batch_size: int = flag(BATCH_SIZE, "windows per micro-batch")
    context_length: int = flag(CONTEXT_LENGTH, "tokens in a window, and the most that the model can look back")
    max_lr: float = flag(MAX_LR, "highest learning rate, after the warm-up")
    min_lr: float = flag(MIN_LR, "learning rate of the last step")
    warmup_steps: int = flag(WARMUP_STEPS, "steps in which the learning rate rises")
    dropout: float = flag(GPT_CONFIG["dropout"], "share of activations dropped in training")
    out: Path = flag(CHECKPOINTS / "scratch", "folder for best_model.pt and latest_model.pt")

    def problems(self) -> list[str]:
        problems = super().problems()
        if self.model is not None and self.model not in GPT_CONFIGS:
            problems.append(f"--model {self.model}: no such size; there are {', '.join(GPT_CONFIGS)}")
        return problems


def prepare_data(
    path: str | Path = SHAKESPEARE_PATH, encoding: Encoding | None = None, val_fraction: float = 0.1
) -> tuple[TokenArray, TokenArray]:
    """(train, val) token arrays of a text: obtained if it is Shakespeare's, cleaned, tokenised, the end kept for val.

    Raises FileNotFoundError or ValueError for a text that cannot be had or used.
    """
    encoding = encoding or load_gpt2_encoding()
    if Path(path) == SHAKESPEARE_PATH:
        ensure_shakespeare(Path(path))
    tokens = load_tokens(Path(path), encoding)
    return split_tokens(tokens, val_fraction) if val_fraction else (tokens, tokens[:0])


def create_dataloader(
    ids: TokenArray,
    batch_size: int = BATCH_SIZE,
    context_length: int = CONTEXT_LENGTH,
    *,
    grad_accum: int = 1,
    seed: int = 1337,
) -> StepLoader:
    """A PyTorch DataLoader of (inputs, targets), int64 (batch_size, context_length), shuffled anew each epoch."""
    return StepLoader(TextWindows(ids, context_length, seed), stack_windows, batch_size, grad_accum)


def choose_encoding(flags: Config) -> Encoding:
    """GPT-2's tokenizer; or the words of the text, and those of the examples that the model will be tuned with."""
    if flags.tokenizer == "gpt2":
        return load_gpt2_encoding()
    if flags.data == SHAKESPEARE_PATH and not flags.data.is_file():
        ensure_shakespeare(flags.data)
    return build_word_encoding(flags.data, always=tuning_texts())


def train(
    model: GPTModel,
    train_loader: StepLoader,
    val_loader: StepLoader | None,
    device: Runtime | torch.device | str = "auto",
    config: Config | Mapping[str, Any] | None = None,
    *,
    encoding: Encoding | None = None,
    facts: Mapping[str, str] | None = None,
) -> int:
    """Train a model on loaders of `create_dataloader` and return the exit code: 0 done, 130 interrupted after saving.

    config: a Config, or its fields by name. Without a val_loader the best model is that of the lowest training loss.
    encoding: what made the ids, GPT-2's by default; the checkpoint keeps it.
    Raises ValueError where training breaks down, or where latest_model.pt is an unfinished run with other settings.
    """
    config = config if isinstance(config, Config) else Config(**(config or {}))
    config = replace(config, batch_size=train_loader.batch_size or 1, grad_accum=train_loader.grad_accum)
    runtime = device if isinstance(device, Runtime) else choose_runtime(str(device), config.precision)
    encoding = encoding or load_gpt2_encoding()
    generator = TextGenerator(model, encoding, runtime.device)
    stage = Stage(
        name="pretrain",
        title="Training from scratch",
        loss_fn=language_model_loss,
        loader=train_loader,
        evaluation=(val_loader or train_loader).first_steps(EVAL_BATCHES),
        evaluated_on="val" if val_loader else "train",
        sample=partial(generator.sample, train_loader.dataset[0][0][:8].tolist(), SAMPLE_TOKENS, config.seed),
        metadata={"template": None, "parent": None, "tokenizer": describe(encoding)},
        facts=facts or {},
        next_command="python instruction_tune.py",
        next_option="--base",
    )
    return run_stage(stage, model, config, runtime)


def main(argv: Sequence[str] | None = None) -> int:
    flags, given = parse(Config, argv, __doc__)
    size = GPT_CONFIGS[flags.model] if flags.model else GPT_CONFIG
    flags = apply_recipe(flags, "pretrain", size_name(size, GPT_CONFIGS), given)
    runtime, encoding = choose_runtime(flags.device, flags.precision), choose_encoding(flags)
    train_ids, val_ids = prepare_data(flags.data, encoding, flags.val_fraction)
    train_loader, val_loader = create_loaders(train_ids, val_ids, flags)
    seed_step(flags.seed, 0)
    ids = GPT_CONFIG["vocab_size"] if flags.tokenizer == "gpt2" else encoding.n_vocab
    model = GPTModel({**size, "vocab_size": ids, "context_length": flags.context_length, "dropout": flags.dropout})
    facts = {"data": f"{flags.data}: {len(train_ids):,} tokens to train on, {len(val_ids):,} to validate on"}
    return train(model, train_loader, val_loader, runtime, flags, encoding=encoding, facts=facts)


if __name__ == "__main__":
    run_script(main, out_of_memory=OUT_OF_MEMORY)
