"""python dpo_train.py: align a tuned model with preferences, from chosen and rejected responses (DPO).

Rafailov et al. 2023: raise the chosen response above the rejected one, measured against a frozen copy of the start.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean

from src.checkpoint import CHECKPOINTS, load_base
from src.cli import TrainingFlags, flag, parse, run
from src.data.batching import Shuffled, StepLoader, pad_pairs
from src.data.examples import preference_examples, split_examples
from src.data.preferences import load_preferences
from src.data.prompts import TEMPLATE, render_conversation
from src.model.generate import TextGenerator
from src.model.gpt import GPT_CONFIGS
from src.runtime import choose_runtime
from src.tokenizer import describe, fingerprint, load_gpt2_encoding
from src.training.losses import PreferenceLoss, preference_loss
from src.training.recipes import fit_to_size, size_name
from src.training.stage import NO_VALIDATION, Stage, run_stage

# The defaults of the flags for GPT-2's sizes; micro and tiny have recipes of their own (src/training/recipes.py).
DATA = Path("Data/preference_data.json")
BATCH_SIZE = 4
CONTEXT_LENGTH = 256
NUM_EPOCHS = 5
MAX_LR = 5e-6
MIN_LR = 5e-7
WARMUP_STEPS = 5
BETA = 0.1
BASES = ("sft",)  # what --base auto takes
SHOWN = 2  # samples printed after an evaluation
SAMPLE_TOKENS = 60


@dataclass(frozen=True, kw_only=True)
class Config(TrainingFlags):
    base: str = flag("auto", "model to start from: auto or sft (checkpoints/instruction_tuned), or a path")
    beta: float = flag(BETA, "how closely the policy is held to the reference; larger is closer")
    loss: PreferenceLoss = flag("sigmoid", "preference loss")
    label_smoothing: float = flag(0.0, "share of pairs expected to be labelled the wrong way round, for --loss robust")
    data: Path = flag(DATA, "JSON or JSONL: instruction/chosen/rejected, or TRL's prompt/chosen/rejected")
    epochs: int = flag(NUM_EPOCHS, "passes over the data")
    batch_size: int = flag(BATCH_SIZE, "pairs per micro-batch")
    context_length: int = flag(CONTEXT_LENGTH, "longest conversation in tokens; longer ones are shortened")
    max_lr: float = flag(MAX_LR, "highest learning rate, after the warm-up")
    min_lr: float = flag(MIN_LR, "learning rate of the last step")
    warmup_steps: int = flag(WARMUP_STEPS, "steps in which the learning rate rises")
    out: Path = flag(CHECKPOINTS / "dpo_aligned", "folder for best_model.pt and latest_model.pt")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.beta > 0:
            raise ValueError(f"--beta must be above 0, got {self.beta}")
        if not 0 <= self.label_smoothing < 0.5:
            raise ValueError(f"--label-smoothing must be at least 0 and below 0.5, got {self.label_smoothing}")
        if self.label_smoothing and self.loss != "robust":
            raise ValueError(f"--label-smoothing is read by --loss robust only, not by {self.loss}")
        if self.dropout:
            raise ValueError("--dropout must be 0 for DPO: it would put noise into the log-ratios")


def main(argv: Sequence[str] | None = None) -> int:
    flags, given = parse(Config, argv, __doc__)
    preferences = load_preferences(flags.data)
    encoding = load_gpt2_encoding()
    base = load_base(flags.base, BASES, fingerprint(encoding))
    model = base.model
    flags = fit_to_size(flags, "dpo", size_name(base.metadata["config"], GPT_CONFIGS), given)
    model.set_dropout(0.0)
    runtime = choose_runtime(flags.device, flags.precision)
    context_length = min(flags.context_length, model.config.context_length)
    pairs, shortened = preference_examples(preferences, encoding, context_length)
    train_pairs, val_pairs = split_examples(pairs, flags.val_fraction)
    loader = StepLoader(Shuffled(train_pairs, flags.seed), pad_pairs, flags.batch_size, flags.grad_accum)
    evaluation = StepLoader(Shuffled(val_pairs or train_pairs, flags.seed), pad_pairs, flags.batch_size)
    generator = TextGenerator(model, encoding, runtime.device)
    limit = min(SAMPLE_TOKENS, context_length // 2)
    reference = copy.deepcopy(model).requires_grad_(False).eval()

    def sample() -> str:
        prompts = [render_conversation(p.turns, encoding)[0] for p in preferences[:SHOWN]]
        answers = [generator.generate(prompt, limit, temperature=0) for prompt in prompts]
        shown = zip(preferences[:SHOWN], answers, strict=True)
        return "\n".join(f"{p.turns[-1].text}\n  -> {answer}" for p, answer in shown)

    chosen_tokens, rejected_tokens = (mean(sum(pair[side][1]) for pair in train_pairs) for side in (0, 1))
    stage = Stage(
        name="dpo",
        title="Preference alignment (DPO)",
        loss_fn=partial(
            preference_loss,
            reference=reference,
            beta=flags.beta,
            loss=flags.loss,
            label_smoothing=flags.label_smoothing,
        ),
        loader=loader,
        evaluation=evaluation.first(evaluation.steps_per_epoch),
        evaluated_on="val" if val_pairs else "train",
        sample=sample,
        metadata={"template": TEMPLATE, "tokenizer": describe(encoding), "parent": base.parent},
        facts={
            "base": f"{base.path} ({base.why}), and a frozen copy of it as the reference",
            "data": f"{flags.data}: {len(train_pairs)} pairs to train on, answers of {chosen_tokens:.1f} (chosen) and "
            f"{rejected_tokens:.1f} tokens (rejected) on average; {shortened} shortened to {context_length} tokens",
            "loss": f"{flags.loss}, beta {flags.beta:g}"
            + (f", label smoothing {flags.label_smoothing:g}" if flags.label_smoothing else ""),
            "validation": f"{len(val_pairs)} pairs" if val_pairs else NO_VALIDATION,
        },
        next_command="python chat.py",
    )
    return run_stage(stage, model, flags, runtime)


if __name__ == "__main__":
    run(main)
