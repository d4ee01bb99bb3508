"""python finetune_gpt2.py: go on training OpenAI's GPT-2 on a text, Shakespeare's by default.

Shows what the model writes before and after. The weights come from the Hugging Face hub, or from --weights.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from main import EVAL_BATCHES, prepare_data
from src.checkpoint import CHECKPOINTS, STAGE_OUTPUTS, file_sha256, load_model, save_checkpoint
from src.cli import flag, parse
from src.data.shakespeare import SHAKESPEARE_PATH
from src.data.text import create_loaders
from src.model.generate import TextGenerator
from src.model.gpt import GPT_CONFIGS, GPTModel
from src.model.load_gpt2 import load_gpt2
from src.program import run_script
from src.runtime import choose_runtime
from src.tokenizer import describe, load_gpt2_encoding
from src.training.flags import OUT_OF_MEMORY, TrainingFlags
from src.training.losses import language_model_loss
from src.training.recipes import size_name
from src.training.run import Stage
from src.training.stage import run_stage

MODEL = "gpt2-124M"
BATCH_SIZE = 4
CONTEXT_LENGTH = 256
NUM_EPOCHS = 2
MAX_LR = 5e-5
MIN_LR = 5e-6
WARMUP_STEPS = 20
GPT2_VOCABULARY = range(50257, 50305)  # up to 47 more ids: padding, or tokens that a fine-tune added
PROMPT, SAMPLE_TOKENS = "Once upon a time", 60  # what is written before, between and after


@dataclass(frozen=True, kw_only=True)
class Config(TrainingFlags):
    model: str = flag(MODEL, "gpt2-124M, gpt2-355M, gpt2-774M, gpt2-1558M, or the name of a GPT-2 on the hub")
    weights: Path | None = flag(None, "Hugging Face directory or weights file to use instead of a download")
    data: Path = flag(SHAKESPEARE_PATH, "text file in UTF-8; Shakespeare's works are fetched if they are not there")
    epochs: int = flag(NUM_EPOCHS, "passes over the text")
    batch_size: int = flag(BATCH_SIZE, "windows per micro-batch")
    context_length: int = flag(CONTEXT_LENGTH, "tokens in a window")
    max_lr: float = flag(MAX_LR, "highest learning rate, after the warm-up")
    min_lr: float = flag(MIN_LR, "learning rate of the last step")
    warmup_steps: int = flag(WARMUP_STEPS, "steps in which the learning rate rises")
    dropout: float = flag(0.0, "share of activations dropped in training")
    out: Path = flag(CHECKPOINTS / "gpt2_shakespeare", "folder for best_model.pt and latest_model.pt")


def pretrained_model(flags: Config) -> tuple[GPTModel, Path]:
    """GPT-2 as converted, and the file that keeps it; a conversion of the same model is used again."""
    kept, _ = STAGE_OUTPUTS["pretrained"]
    if flags.weights is None and kept.is_file():
        try:
            model, metadata = load_model(kept)
        except ValueError as error:
            print(f"weights: {error}; they are converted anew")
        else:
            if metadata.get("source") == flags.model:
                print(f"weights: {flags.model} from {kept}")
                return model, kept
    model = load_gpt2(flags.weights or flags.model)
    if model.config.vocab_size not in GPT2_VOCABULARY:
        raise ValueError(
            f"{flags.weights or flags.model} has {model.config.vocab_size} ids, GPT-2's tokenizer 50257: "
            "it was trained with another one, and would read and write nonsense with this"
        )
    save_checkpoint(
        kept,
        {
            "stage": "pretrained",
            "source": str(flags.weights or flags.model),
            "template": None,
            "tokenizer": describe(load_gpt2_encoding()),
            "config": asdict(model.config),
            "model": model.state_dict(),
        },
    )
    print(f"weights: {flags.weights or flags.model}, kept as {kept}")
    return model, kept


def main(argv: Sequence[str] | None = None) -> int:
    flags, given = parse(Config, argv, __doc__)
    if {"model", "weights"} <= given:
        raise ValueError("--model names a download and --weights a file instead of one; pass one of them")
    runtime = choose_runtime(flags.device, flags.precision)
    encoding = load_gpt2_encoding()
    train_ids, val_ids = prepare_data(flags.data, encoding, flags.val_fraction)  # fails before a download would
    model, kept = pretrained_model(flags)
    if flags.context_length > model.config.context_length:
        raise ValueError(f"--context-length {flags.context_length}: the model's is {model.config.context_length}")
    model.set_dropout(flags.dropout)
    train_loader, val_loader = create_loaders(train_ids, val_ids, flags)
    generator = TextGenerator(model, encoding, runtime.device)
    sample = partial(generator.sample, PROMPT, SAMPLE_TOKENS, flags.seed)

    stage = Stage(
        name="finetune",
        title="Fine-tuning GPT-2",
        loss_fn=language_model_loss,
        loader=train_loader,
        evaluation=(val_loader or train_loader).first_steps(EVAL_BATCHES),
        evaluated_on="val" if val_loader else "train",
        sample=sample,
        metadata={
            "template": None,
            "tokenizer": describe(encoding),
            "parent": {"path": str(kept), "sha256": file_sha256(kept)},
        },
        facts={
            "weights": f"{flags.weights or flags.model} ({size_name(asdict(model.config), GPT_CONFIGS) or 'own size'})",
            "data": f"{flags.data}: {len(train_ids):,} tokens to train on, {len(val_ids):,} to validate on",
        },
        next_command="python instruction_tune.py",
        next_option="--base",
    )
    print(f"before fine-tuning:\n{sample()}\n")
    code = run_stage(stage, model, flags, runtime)
    print(f"\nafter fine-tuning:\n{sample()}")
    return code


if __name__ == "__main__":
    run_script(main, out_of_memory=OUT_OF_MEMORY)
