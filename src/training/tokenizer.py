"""The tokenizer of a training run from scratch: chosen by flags, and the same when the run is resumed."""

from dataclasses import dataclass
from pathlib import Path

from src.checkpoint import LATEST, read_checkpoint
from src.cli import flag
from src.data.learned_tokenizer import Tokenizer, choose_encoding
from src.distributed.processes import Processes
from src.tokenizer import Encoding, load_encoding
from src.tokenizer.learning import SMALLEST_VOCAB
from src.training.flags import TextTrainingFlags


@dataclass(frozen=True, kw_only=True)
class VocabularyFlags(TextTrainingFlags):
    """The flags of a stage that chooses its tokenizer."""

    tokenizer: Tokenizer = flag(
        "gpt2", "gpt2: GPT-2's byte pairs; bpe: byte pairs learned from the text; word: the whole words of the text"
    )
    vocab_size: int = flag(4096, "tokens that --tokenizer bpe learns")

    def problems(self) -> list[str]:
        problems = super().problems()
        if self.vocab_size < SMALLEST_VOCAB:
            problems.append(
                f"--vocab-size must be at least {SMALLEST_VOCAB}, all bytes and end-of-text, got {self.vocab_size}"
            )
        return problems


def load_or_learn_encoding(flags: VocabularyFlags, processes: Processes) -> Encoding:
    """The tokenizer of a run: GPT-2's, one learned from its text, or the one that the run in --out learned from it.

    Raises ValueError for --vocab-size with a tokenizer that has a size of its own. A recipe may have chosen the
    tokenizer, so the flags alone cannot tell.
    """
    if flags.tokenizer != "bpe" and flags.vocab_size != VocabularyFlags.vocab_size:
        raise ValueError(f"--vocab-size is for --tokenizer bpe; leave it out with --tokenizer {flags.tokenizer}")
    saved = None if flags.resume is False or flags.tokenizer != "bpe" else _saved_encoding(flags.out / LATEST)
    return choose_encoding(
        flags.tokenizer,
        flags.data,
        flags.documents,
        vocab_size=flags.vocab_size,
        val_fraction=0.0 if flags.val_data else flags.val_fraction,
        skip_bad=flags.skip_bad,
        saved=saved,
        processes=processes,
    )


def _saved_encoding(latest: Path) -> Encoding | None:
    """The tokenizer in a saved run. None if it cannot be read; the resume reports why."""
    try:
        return load_encoding(read_checkpoint(latest, mapped=True, without=("model", "optimizer")).get("tokenizer"))
    except (OSError, ValueError):
        return None
