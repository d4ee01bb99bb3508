"""OpenAI's GPT-2 as the base of fine-tuning: downloaded or read from a file, and converted to a checkpoint once."""

from dataclasses import replace
from pathlib import Path

from src.checkpoint import STAGE_OUTPUTS, LoadedModel, load_base, save_checkpoint
from src.distributed.environment import is_first
from src.distributed.processes import Processes
from src.model.load_gpt2 import find_weights
from src.tokenizer import describe

CONVERTED, _ = STAGE_OUTPUTS["pretrained"]


def load_pretrained(model: str, weights: Path | None, processes: Processes) -> LoadedModel:
    """GPT-2 and its tokenizer, from `weights` or, if that is None, from the hub under the name `model`.

    Of several processes, the first converts the weights and the others map its file.
    Raises ValueError or OSError if the weights cannot be downloaded or read.
    """
    if processes.count == 1:
        return _load(model, weights)
    path = Path()
    if is_first():
        path = save_conversion(_load(model, weights), str(weights or model)).path
    return load_base(str(processes.from_first(path)))


def _load(model: str, weights: Path | None) -> LoadedModel:
    """GPT-2 and its tokenizer. An earlier conversion of the same download is reused."""
    if weights is None and CONVERTED.is_file():
        try:
            base = load_base(str(CONVERTED))
        except ValueError as error:
            print(f"weights: {error}; converting them again")
        else:
            if base.metadata.get("source") == model:
                print(f"weights: {model} from {CONVERTED}")
                return base
    return load_base(str(find_weights(weights or model)))


def save_conversion(base: LoadedModel, source: str) -> LoadedModel:
    """Save converted weights as a checkpoint that later stages start from. A checkpoint is returned unchanged."""
    if "format" in base.metadata:
        return base
    metadata = {**base.metadata, "source": source, "parent": base.parent, "tokenizer": describe(base.encoding)}
    if is_first():
        save_checkpoint(CONVERTED, {**metadata, "model": base.model.state_dict()})
    print(f"weights: {source}, saved as {CONVERTED}")
    return replace(base, path=CONVERTED, metadata=metadata)
