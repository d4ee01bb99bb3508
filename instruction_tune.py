"""python instruction_tune.py: supervised fine-tuning (SFT) of a model on instruction and response pairs.

The loss is on the response tokens and the end-of-text after them; the rest of a conversation is context.
micro and tiny have their own defaults: src/training/recipes.py.
"""

if __name__ == "__main__":  # before the slow imports: Ctrl-C during them is one line
    from src.entry import run_module

    run_module("instruction_tune", outlives_output=True)

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from src.checkpoint import CHECKPOINTS, TRAINED_WITH, LoadedModel, find_model, load_base, sft_bases
from src.checkpoint.training_examples import record_examples
from src.cli import flag, parse
from src.data.batching import StepLoader, epoch_loader, in_batches, pack_examples
from src.data.datasets import JoinedChats
from src.data.examples import instruction_examples, questions_and_answers, split_examples, warn_unknown_words
from src.data.instructions import INSTRUCTIONS, Conversation, load_conversations
from src.data.openings import FEW_CONVERSATIONS, SHARE, choose_openings, kinds_of_system_message
from src.data.prompts import TEMPLATE
from src.data.show_data import describe_conversations, show_masks
from src.model.generate import TextGenerator
from src.tokenizer import describe
from src.training.flags import RecordTrainingFlags
from src.training.losses import language_model_loss
from src.training.out_folder import locked_folder
from src.training.parallel import choose_strategy, tuning_runtime
from src.training.preview import preview
from src.training.recipes import apply_recipe, size_name
from src.training.run import run_stage
from src.training.samples import sample_answers
from src.training.stage import Stage

# The defaults of the flags, for GPT-2's sizes. micro and tiny have recipes (src/training/recipes.py).
DATA = INSTRUCTIONS
BATCH_SIZE = 4
CONTEXT_LENGTH = 256
NUM_EPOCHS = 5
MAX_LR = 2e-5
MIN_LR = 2e-6
WARMUP_STEPS = 20
SHOWN = 2  # conversations answered after each evaluation
SAMPLE_TOKENS = 60
EVAL_BATCHES = 16  # maximum per evaluation, the same ones every time


@dataclass(frozen=True, kw_only=True)
class Flags(RecordTrainingFlags):
    base: str = flag(
        "auto",
        "model to start from: auto (finetuned or scratch, whichever was trained last, or else pretrained), one of "
        "these, or a path",
        path=True,
    )
    turns: int = flag(1, "conversations joined into one chat, so the model learns to answer after earlier turns")
    system_share: float | None = flag(
        None,
        "share of the chats that begin with a made-up system message or facts "
        f"(default: {SHARE} for up to {FEW_CONVERSATIONS} conversations without a system message, otherwise 0)",
    )
    show_mask: bool = flag(False, "print samples with the supervised tokens marked, and exit")
    data: Path = flag(DATA, "questions with answers, or chats: src/data/README.md shows the formats")
    epochs: int = flag(NUM_EPOCHS, "passes over the data")
    batch_size: int = flag(BATCH_SIZE, "conversations per micro-batch")
    context_length: int = flag(CONTEXT_LENGTH, "maximum tokens per conversation; longer ones are truncated")
    max_lr: float = flag(MAX_LR, "peak learning rate, reached after the warm-up")
    min_lr: float = flag(MIN_LR, "learning rate of the last step")
    warmup_steps: int = flag(WARMUP_STEPS, "steps of linear learning-rate warm-up")
    dropout: float = flag(0.0, "fraction of activations dropped in training")
    out: Path = flag(CHECKPOINTS / "instruction_tuned", "folder for best_model.pt and latest_model.pt")

    def problems(self) -> list[str]:
        problems = super().problems()
        if self.turns < 1:
            problems.append(f"--turns must be at least 1, got {self.turns}")
        if not 0 <= (self.system_share or 0) <= 1:
            problems.append(f"--system-share must be from 0 to 1, got {self.system_share}")
        return problems


def main(argv: Sequence[str] | None = None) -> int:
    """Teach a model to answer, or show the data that would; returns the exit code."""
    flags, given = parse(Flags, argv, __doc__)
    bases = sft_bases()
    if flags.show_data or flags.show_mask:
        describe_data = partial(describe_conversations, seed=flags.seed, system_share=flags.system_share)
        return preview(flags, bases, load_conversations, describe_data if flags.show_data else show_masks)
    with locked_folder(flags.out, "sft"):
        conversations = load_conversations(flags.data, skip_bad=flags.skip_bad)
        runtime = tuning_runtime(find_model(flags.base, bases)[0], flags)  # before everything slow
        base = load_base(flags.base, bases)
        warn_unknown_words((message.text for chat in conversations for message in chat.messages), base.encoding)
        flags = apply_recipe(flags, "sft", size_name(base.metadata["config"]), given, len(conversations))
        base.model.set_dropout(flags.dropout)
        runtime = choose_strategy(flags, base.model.config, runtime)
        generator = TextGenerator(base.model, base.encoding, runtime.model_device)  # moves the model to the device
        return run_stage(make_stage(flags, base, conversations, generator), base.model, flags, runtime)


def make_stage(
    flags: Flags, base: LoadedModel, conversations: Sequence[Conversation], generator: TextGenerator
) -> Stage:
    """Language modelling on packed conversations, with only the responses supervised."""
    context_length = min(flags.context_length, base.model.config.context_length)
    examples, n_truncated = instruction_examples(conversations, base.encoding, context_length)
    prompts = [conversation.messages[:-1] for conversation in conversations]
    train, val = split_examples(examples, prompts, flags.val_fraction, flags.seed)
    openings = choose_openings(conversations, flags.seed, flags.system_share)
    chats = JoinedChats(train, flags.seed, turns=flags.turns, context_length=context_length)
    chats.add_openings(openings.ids(base.encoding), openings.share)
    loader = epoch_loader(chats, pack_examples, flags.batch_size)
    n_supervised = sum(sum(example.mask) for example in train)
    return Stage(
        name="sft",
        title="Instruction tuning (SFT)",
        loss_fn=language_model_loss,
        loader=StepLoader(loader, flags.grad_accum),
        evaluation=in_batches(val or train, pack_examples, flags.batch_size)[:EVAL_BATCHES],
        validation=f"{len(val)} conversations" if val else None,
        sample=partial(sample_answers, generator, prompts[:SHOWN], SAMPLE_TOKENS),
        metadata={
            "template": TEMPLATE,
            "tokenizer": describe(base.encoding),
            "parent": base.parent,
            **record_examples(questions_and_answers(conversations), str(flags.data)),
            TRAINED_WITH: kinds_of_system_message(conversations, openings),
        },
        details={
            "base": f"{base.path}, {base.reason}",
            "data": f"{flags.data}: {len(train)} conversations, {n_supervised:,} supervised tokens; "
            f"{n_truncated} truncated to {context_length} tokens; {flags.turns} per chat",
            "openings": openings.describe(),
        },
        next_command="python dpo_train.py",
        next_option="--base",
    )
