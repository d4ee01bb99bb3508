"""The LoRA adapter of a model, without its base, as a folder that PEFT reads."""

from pathlib import Path

from src.checkpoint import PROMPT_TEMPLATE, LoadedModel
from src.model.load_gpt2 import HUB_IDS
from src.model.lora import ADAPTER, Adapter
from src.model.peft_adapter import BASE_SHA256, write_adapter


def adapter_in(base: LoadedModel) -> Adapter:
    """The adapter that was merged into a model. Raises ValueError if there is none."""
    entry = base.metadata.get(ADAPTER)
    if not isinstance(entry, dict):
        raise ValueError(f"{base.path} was not trained with --lora, so it has no adapter; leave --adapter out")
    return Adapter(**entry)


def adapter_base(base: LoadedModel) -> str:
    """The base of an adapter: its name on the hub if it has one, else its path."""
    parent = base.metadata["parent"]
    return HUB_IDS.get(parent.get("source", ""), parent["path"])


def write_adapter_folder(base: LoadedModel, folder: Path) -> None:
    """Write the files into an existing folder.

    The header of the weights file also has the prompt template, and the hash of the base's weights.
    """
    facts = {PROMPT_TEMPLATE: base.metadata.get("template"), BASE_SHA256: base.metadata["parent"].get("weights_sha256")}
    metadata = {name: value for name, value in facts.items() if value}
    write_adapter(folder, adapter_in(base), adapter_base(base), metadata)
