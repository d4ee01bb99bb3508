"""A run of a few steps on a model of a few thousand parameters, for the tests of the loop and its checkpoints."""

import json
import os
import signal
from pathlib import Path

import torch

from src.data.batching import StepLoader, epoch_loader, pack_examples
from src.data.datasets import ExampleDataset
from src.data.prompts import Example
from src.model.gpt import GPTModel
from src.runtime import Runtime
from src.training.compiled import compiled_language_model_loss
from src.training.flags import TrainingFlags
from src.training.losses import language_model_loss
from src.training.run import run_stage
from src.training.stage import Stage

CONFIG = {"vocab_size": 61, "context_length": 16, "d_model": 16, "n_heads": 2, "n_layers": 2, "dropout": 0.2}
CPU = Runtime(torch.device("cpu"), "fp32", "for tests")


def examples() -> list[Example]:
    """Examples with different numbers of supervised tokens, so a mean of means would be wrong."""
    generator = torch.Generator().manual_seed(7)
    lengths = torch.randint(3, 15, (16,), generator=generator).tolist()
    return [
        Example(torch.randint(61, (n,), generator=generator).tolist(), [i > n // 2 or i == n - 1 for i in range(n)])
        for n in lengths
    ]


def flags(folder: Path, **changes) -> TrainingFlags:
    settings = {
        "data": folder / "data",
        "epochs": 3,
        "batch_size": 4,
        "context_length": 16,
        "max_lr": 1e-2,
        "min_lr": 1e-3,
        "warmup_steps": 2,
        "max_steps": 10,
        "eval_every": 5,
        "out": folder / "out",
        "log_dir": folder / "logs",
        **changes,
    }
    return TrainingFlags(**settings)


def run(
    settings: TrainingFlags,
    *,
    loss_fn=language_model_loss,
    evaluation=None,
    dropout=0.0,
    runtime=CPU,
    parent=None,
    data=None,
    collate=pack_examples,
    compiled=False,
) -> tuple[int, GPTModel]:
    """Run a stage on the examples; returns its exit code and the trained model."""
    torch.manual_seed(0)
    model = GPTModel({**CONFIG, "dropout": dropout})
    data = ExampleDataset(examples() if data is None else data, settings.seed)
    loader = StepLoader(epoch_loader(data, collate, settings.batch_size), settings.grad_accum)
    if compiled:
        loss_fn = compiled_language_model_loss(model)
    return run_stage(make_stage(loader, loss_fn, evaluation, parent), model, settings, runtime), model


def make_stage(loader: StepLoader, loss_fn=language_model_loss, evaluation=None, parent=None) -> Stage:
    return Stage(
        name="test",
        title="Test",
        loss_fn=loss_fn,
        loader=loader,
        evaluation=loader.first_batches(4) if evaluation is None else evaluation,
        validation=None,
        sample=lambda: "a sample",
        metadata={"template": None, "parent": parent, "tokenizer": {"name": "none", "fingerprint": "0"}},
        details={},
        next_command="python next.py",
        next_option="--base",
    )


def weights(model: GPTModel) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def log_lines(folder: Path) -> list[dict]:
    files = sorted((folder / "logs").glob("*.jsonl"), key=os.path.getmtime)
    return [json.loads(line) for line in files[-1].read_text(encoding="utf-8").splitlines()]


class Interrupt:
    """A loss that sends this process a signal during step `at`, as Ctrl-C or a job scheduler would."""

    def __init__(self, at: int, number: int = signal.SIGINT) -> None:
        self.at, self.number, self.calls = at, number, 0

    def __call__(self, model, batch):
        if model.training:
            self.calls += 1
            if self.calls == self.at:
                os.kill(os.getpid(), self.number)
        return language_model_loss(model, batch)
