"""Show the data of a stage without training: what was read, and which tokens are supervised."""

from collections.abc import Callable, Sequence
from typing import Any

from src.checkpoint import load_base
from src.program import DONE
from src.tokenizer import Encoding, load_encoding
from src.training.flags import RecordTrainingFlags


def preview(
    flags: RecordTrainingFlags,
    bases: Sequence[str],
    load: Callable[..., Sequence[Any]],
    describe: Callable[[Sequence[Any], Encoding, int], str],
) -> int:
    """Print a description of the loaded data, in the tokens of the model to start from; returns the exit code."""
    notes: list[str] = []

    def notify(note: str) -> None:
        notes.append(note)
        print(note)

    loaded = load(flags.data, skip_bad=flags.skip_bad, notify=notify)
    if not notes:
        print(f"{flags.data}: every record is used, and every key is read or bookkeeping")
    encoding, context_length = _encoding_and_length(flags, bases)
    print(describe(loaded, encoding, context_length))
    return DONE


def _encoding_and_length(flags: RecordTrainingFlags, bases: Sequence[str]) -> tuple[Encoding, int]:
    """The tokenizer and the context length that training would use; GPT-2's tokenizer if there is no base yet."""
    try:
        base = load_base(flags.base, bases)
    except FileNotFoundError:
        if flags.base != "auto":
            raise
        return load_encoding(None), flags.context_length
    return base.encoding, min(flags.context_length, base.model.config.context_length)
