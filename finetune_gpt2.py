"""python finetune_gpt2.py: fine-tune OpenAI's GPT-2 on a text, Shakespeare's works by default.

Prints what the model generates before and after. The weights come from the Hugging Face hub, or from --weights.
"""

if __name__ == "__main__":  # at the top: see run_module
    from src.program import run_module

    run_module("finetune_gpt2", outlives_output=True)

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from main import EVAL_BATCHES, create_dataloader, prepare_data
from src.checkpoint import CHECKPOINTS, STAGE_OUTPUTS, load_model, save_checkpoint, weights_sha256
from src.cli import flag, parse
from src.data.batching import StepLoader
from src.model.generate import TextGenerator
from src.model.gpt import GPTModel
from src.model.load_gpt2 import load_gpt2
from src.runtime import choose_runtime
from src.tokenizer import describe, load_gpt2_encoding
from src.training.compiled import compiled_language_model_loss
from src.training.flags import TextTrainingFlags
from src.training.losses import language_model_loss
from src.training.out_folder import claimed
from src.training.recipes import size_name
from src.training.run import NO_VALIDATION, run_stage
from src.training.stage import Stage

# The defaults of the flags.
MODEL = "gpt2-124M"
BATCH_SIZE = 4
CONTEXT_LENGTH = 256
NUM_EPOCHS = 2
MAX_LR = 5e-5
MIN_LR = 5e-6
WARMUP_STEPS = 20
GPT2_VOCAB_SIZES = range(50257, 50305)  # GPT-2's 50257 ids, or up to 47 more: padding, or tokens added by a fine-tune
PROMPT, SAMPLE_TOKENS = "Once upon a time", 60  # of the sample before, during and after training


@dataclass(frozen=True, kw_only=True)
class Flags(TextTrainingFlags):
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
        return str(self.weights or self.model)


def main(argv: Sequence[str] | None = None) -> int:
    flags, given = parse(Flags, argv, __doc__)
    if {"model", "weights"} <= given:
        raise ValueError("--model names a download and --weights a file to use instead; pass only one of them")
    with claimed(flags.out, "finetune"):
        return finetune(flags)


def finetune(flags: Flags) -> int:
    runtime = choose_runtime(flags.device, flags.precision)
    encoding = load_gpt2_encoding()
    train_ids, val_ids = prepare_data(flags.data, encoding, flags.val_fraction, flags.documents, flags.val_data)
    model, weights_file = load_pretrained(flags)
    if flags.context_length > model.config.context_length:
        raise ValueError(f"--context-length {flags.context_length}: the model's is {model.config.context_length}")
    model.set_dropout(flags.dropout)
    shape = (flags.batch_size, flags.context_length)
    train_loader = StepLoader(create_dataloader(train_ids, *shape, seed=flags.seed), flags.grad_accum)
    val_loader = StepLoader(create_dataloader(val_ids, *shape, seed=flags.seed)) if len(val_ids) else None
    generator = TextGenerator(model, encoding, runtime.device)  # moves the model to the device
    stage = make_stage(flags, generator, weights_file, train_loader, val_loader)
    print(f"before fine-tuning:\n{stage.sample()}\n")
    exit_code = run_stage(stage, model, flags, runtime)
    print(f"\nafter fine-tuning:\n{stage.sample()}")
    return exit_code


def make_stage(
    flags: Flags,
    generator: TextGenerator,
    weights_file: Path,
    train_loader: StepLoader,
    val_loader: StepLoader | None,
) -> Stage:
    """Language modelling from GPT-2's weights, on windows of a text."""
    size = size_name(asdict(generator.model.config)) or "custom size"
    return Stage(
        name="finetune",
        title="Fine-tuning GPT-2",
        loss_fn=compiled_language_model_loss(generator.model) if flags.compile else language_model_loss,
        loader=train_loader,
        evaluation=(val_loader or train_loader).first_batches(EVAL_BATCHES),
        evaluated_on="val" if val_loader else "train",
        sample=partial(generator.sample, PROMPT, SAMPLE_TOKENS, flags.seed),
        metadata={
            "template": None,
            "tokenizer": describe(generator.encoding),
            "parent": {"path": str(weights_file), "weights_sha256": weights_sha256(generator.model.state_dict())},
        },
        summary_rows={
            "weights": f"{flags.source} ({size})",
            "data": f"{len(train_loader.dataset):,} windows of {flags.context_length} tokens",
            "validation": f"{len(val_loader.dataset):,} windows" if val_loader else NO_VALIDATION,
        },
        next_command="python instruction_tune.py",
        next_option="--base",
    )


def load_pretrained(flags: Flags) -> tuple[GPTModel, Path]:
    """(GPT-2, the checkpoint of its converted weights). An earlier conversion of the same model is reused."""
    path, _ = STAGE_OUTPUTS["pretrained"]
    if flags.weights is None and path.is_file():
        try:
            model, metadata = load_model(path)
        except ValueError as error:
            print(f"weights: {error}; converting them again")
        else:
            if metadata.get("source") == flags.model:
                print(f"weights: {flags.model} from {path}")
                return model, path
    model = load_gpt2(flags.weights or flags.model)
    if model.config.vocab_size not in GPT2_VOCAB_SIZES:
        raise ValueError(
            f"{flags.source} has {model.config.vocab_size} token ids and GPT-2's tokenizer has 50257: "
            "it was trained with another tokenizer, so its output would be nonsense"
        )
    description = {"stage": "pretrained", "source": flags.source, "template": None, "config": asdict(model.config)}
    tokenizer = describe(load_gpt2_encoding())
    save_checkpoint(path, {**description, "tokenizer": tokenizer, "model": model.state_dict()})
    print(f"weights: {flags.source}, saved as {path}")
    return model, path
