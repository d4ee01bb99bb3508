"""python dpo_train.py: direct preference optimisation (DPO) of a tuned model on chosen and rejected responses.

Rafailov et al. 2023: make the chosen response more likely than the rejected one, relative to a frozen copy of the model
that training starts from. micro and tiny have their own defaults: src/training/recipes.py.
"""

if __name__ == "__main__":  # before the slow imports: Ctrl-C during them is one line
    from src.entry import run_module

    run_module("dpo_train", outlives_output=True)

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from src.checkpoint import CHECKPOINTS, LoadedModel, find_model, load_base
from src.cli import flag, parse
from src.data.batching import Pair, StepLoader, epoch_loader, in_batches, pack_pairs
from src.data.datasets import ExampleDataset, content_hash
from src.data.examples import mean_answer_lengths, preference_examples, split_examples, warn_unknown_words
from src.data.preferences import PREFERENCES, Preference, load_preferences
from src.data.prompts import TEMPLATE
from src.data.show_data import describe_preferences
from src.model.generate import TextGenerator
from src.runtime import Runtime
from src.tokenizer import describe
from src.training.flags import RecordTrainingFlags
from src.training.losses import PreferenceLoss, preference_loss
from src.training.out_folder import locked_folder
from src.training.parallel import choose_strategy, tuning_runtime
from src.training.preview import preview
from src.training.recipes import apply_recipe, size_name
from src.training.reference import REFERENCE, Reference, frozen_model
from src.training.run import run_stage
from src.training.samples import sample_answers
from src.training.shared_model import share_frozen
from src.training.stage import Stage

# The defaults of the flags, for GPT-2's sizes. micro and tiny have recipes (src/training/recipes.py).
DATA = PREFERENCES
BATCH_SIZE = 4
CONTEXT_LENGTH = 256
NUM_EPOCHS = 5
MAX_LR = 5e-6
MIN_LR = 5e-7
WARMUP_STEPS = 5
BETA = 0.1
BASES = ("sft",)  # --base auto takes this one
SHOWN = 2  # prompts answered after each evaluation
SAMPLE_TOKENS = 60
EVAL_BATCHES = 16  # maximum per evaluation, the same ones every time


@dataclass(frozen=True, kw_only=True)
class Flags(RecordTrainingFlags):
    base: str = flag("auto", "model to start from: auto or sft (checkpoints/instruction_tuned), or a path", path=True)
    beta: float = flag(BETA, "how close the policy stays to the reference; larger is closer")
    loss: PreferenceLoss = flag("sigmoid", "preference loss")
    label_smoothing: float = flag(0.0, "expected fraction of pairs with swapped labels, for --loss robust")
    data: Path = flag(DATA, "prompts with a chosen and a rejected answer: src/data/README.md shows the formats")
    epochs: int = flag(NUM_EPOCHS, "passes over the data")
    batch_size: int = flag(BATCH_SIZE, "pairs per micro-batch")
    context_length: int = flag(CONTEXT_LENGTH, "maximum tokens per conversation; longer ones are truncated")
    max_lr: float = flag(MAX_LR, "peak learning rate, reached after the warm-up")
    min_lr: float = flag(MIN_LR, "learning rate of the last step")
    warmup_steps: int = flag(WARMUP_STEPS, "steps of linear learning-rate warm-up")
    out: Path = flag(CHECKPOINTS / "dpo_aligned", "folder for best_model.pt and latest_model.pt")

    def problems(self) -> list[str]:
        problems = super().problems()
        if not self.beta > 0:
            problems.append(f"--beta must be above 0, got {self.beta}")
        if not 0 <= self.label_smoothing < 0.5:
            problems.append(f"--label-smoothing must be at least 0 and below 0.5, got {self.label_smoothing}")
        if self.label_smoothing and self.loss != "robust":
            problems.append(f"--label-smoothing works only with --loss robust, not with {self.loss}")
        return problems


def main(argv: Sequence[str] | None = None) -> int:
    """Align a model by the flags; returns the exit code."""
    flags, given = parse(Flags, argv, __doc__)
    if flags.show_data:
        return preview(flags, BASES, load_preferences, describe_preferences)
    with locked_folder(flags.out, "dpo"):
        preferences = load_preferences(flags.data, skip_bad=flags.skip_bad)
        runtime = tuning_runtime(find_model(flags.base, BASES)[0], flags, dpo=True)  # before everything slow
        base = load_base(flags.base, BASES)
        warn_unknown_words((text for pair in preferences for text in (pair.chosen, pair.rejected)), base.encoding)
        flags = apply_recipe(flags, "dpo", size_name(base.metadata["config"]), given, len(preferences))
        base.model.set_dropout(0.0)  # it would add noise to the log-ratios
        runtime = choose_strategy(flags, base.model.config, runtime, dpo=True)
        return run_stage(make_stage(flags, base, preferences, runtime), base.model, flags, runtime)


def make_stage(flags: Flags, base: LoadedModel, preferences: Sequence[Preference], runtime: Runtime) -> Stage:
    """A preference loss on packed pairs, against a frozen copy of the base."""
    generator = TextGenerator(base.model, base.encoding, runtime.model_device)  # moves the model to the device
    context_length = min(flags.context_length, base.model.config.context_length)
    metadata: dict[str, Any] = {"template": TEMPLATE, "tokenizer": describe(base.encoding), "parent": base.parent}
    metadata |= base.inherited_metadata  # the base may have another template
    examples, n_truncated = preference_examples(preferences, base.encoding, context_length, metadata["template"])
    pairs = list(enumerate(examples))  # the number of a pair is its key: the reference caches by it
    prompts = [preference.messages for preference in preferences]
    train, val = split_examples(pairs, prompts, flags.val_fraction, flags.seed)
    loss_fn = partial(
        preference_loss,
        reference=make_reference(flags, base, pairs, metadata, runtime),
        beta=flags.beta,
        loss=flags.loss,
        label_smoothing=flags.label_smoothing,
    )
    loader = epoch_loader(ExampleDataset(train, flags.seed), pack_pairs, flags.batch_size)
    chosen, rejected = mean_answer_lengths(train)
    return Stage(
        name="dpo",
        title="Preference alignment (DPO)",
        loss_fn=loss_fn,
        loader=StepLoader(loader, flags.grad_accum),
        evaluation=in_batches(val or train, pack_pairs, flags.batch_size)[:EVAL_BATCHES],
        validation=f"{len(val)} pairs" if val else None,
        sample=partial(sample_answers, generator, prompts[:SHOWN], SAMPLE_TOKENS, metadata["template"]),
        metadata=metadata,
        details={
            "base": f"{base.path}, {base.reason}; also the reference",
            "data": f"{flags.data}: {len(train)} pairs, {n_truncated} truncated to {context_length} tokens; "
            f"average answer length {chosen:.1f} tokens (chosen) and {rejected:.1f} (rejected)",
            "loss": f"{flags.loss}, beta {flags.beta:g}, label smoothing {flags.label_smoothing:g}",
        },
        next_command="python chat.py",
        next_option="--model",
    )


def make_reference(
    flags: Flags, base: LoadedModel, pairs: Sequence[Pair], metadata: Mapping[str, Any], runtime: Runtime
) -> Reference:
    """The frozen reference. Training an adapter leaves the base as it is, so it is the reference, too."""
    frozen = frozen_model(base, shared=flags.lora is not None)
    identity = {
        "pairs": content_hash(pairs),
        "base": metadata["parent"]["weights_sha256"],
        "tokenizer": metadata["tokenizer"]["fingerprint"],
    }
    batches: DataLoader = DataLoader(ExampleDataset(pairs, flags.seed), flags.batch_size, collate_fn=pack_pairs)
    return Reference(frozen, batches, flags.out / REFERENCE, identity, runtime.processes, share_frozen(frozen, runtime))
