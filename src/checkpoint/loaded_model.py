"""A model with its metadata and tokenizer, and what the checkpoints of later stages record about it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from src.checkpoint.digest import weights_sha256
from src.checkpoint.training_examples import EXAMPLES, examples_entry
from src.model.gpt import GPTModel
from src.tokenizer import Encoding

TRAINED_WITH = "trained_with"  # kinds of system message in the training data: {"facts": bool, "system": bool}
# The entries of a model's metadata that its descendants record, too.
_HISTORY = ("stage", "source", "step", "epoch", "first_loss", "best_loss", "val_loss", "train_loss", "data_sha256")


@dataclass(frozen=True)
class LoadedModel:
    """A model with its metadata and its tokenizer, the file it came from, and the reason why that file was chosen."""

    model: GPTModel
    metadata: dict[str, Any]
    encoding: Encoding
    path: Path
    reason: str

    def trained_with(self, kind: Literal["facts", "system"]) -> bool:
        """Whether its checkpoint records training with this kind of system message. Files of other programs do not."""
        recorded = self.metadata.get(TRAINED_WITH)
        return isinstance(recorded, dict) and recorded.get(kind) is True

    @property
    def inherited_metadata(self) -> dict[str, Any]:
        """Entries that DPO's checkpoint copies from this one, if they are there: TRAINED_WITH, the prompt template."""
        return {key: self.metadata[key] for key in (TRAINED_WITH, "template") if self.metadata.get(key) is not None}

    @property
    def parent(self) -> dict[str, Any]:
        """How a checkpoint of the next stage records this model: its path, the hash of its weights, and its history.

        "ancestors" are the models that it was trained from, the last one first. "examples": see training_examples.py.
        """
        history = {key: value for key in _HISTORY if isinstance(value := self.metadata.get(key), str | int | float)}
        examples = examples_entry(self.metadata)
        return {
            "path": str(self.path),
            "weights_sha256": weights_sha256(self.model.state_dict()),
            **history,
            **({EXAMPLES: examples} if examples else {}),
            "ancestors": self._ancestors(),
        }

    def _ancestors(self) -> list[Any]:
        """The models that this one was trained from, as its own metadata records them."""
        parent = self.metadata.get("parent")
        if not isinstance(parent, dict) or not parent:
            return []
        earlier = parent.get("ancestors")
        last = {key: value for key, value in parent.items() if key not in ("ancestors", EXAMPLES)}
        return [last, *(earlier if isinstance(earlier, list) else [])]
