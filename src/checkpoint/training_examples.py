"""The questions and answers that a model was tuned on, recorded in its checkpoint.

So a chat can suggest what to ask, and show which passages of an answer were learned by heart, even if the data is gone.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

EXAMPLES = "examples"  # the entry of the metadata
MAX_CHARACTERS = 100_000  # of all examples together; of larger data sets only the number is recorded


@dataclass(frozen=True)
class TrainingExamples:
    """`pairs` are (question, answer); empty if nothing is recorded. source: the file they came from."""

    pairs: tuple[tuple[str, str], ...] = ()
    source: str = ""

    @property
    def questions(self) -> list[str]:
        """The different questions, in the order of the data."""
        return list(dict.fromkeys(question for question, _ in self.pairs))

    @property
    def count(self) -> int:
        """The number of different questions."""
        return len(self.questions)


def record_examples(pairs: Iterable[tuple[str, str]], source: str) -> dict[str, Any]:
    """The entry of a checkpoint's metadata that records these examples; empty if they are too long."""
    listed = [list(pair) for pair in pairs]
    is_short = sum(len(text) for pair in listed for text in pair) <= MAX_CHARACTERS
    return {EXAMPLES: {"source": source, "pairs": listed}} if is_short else {}


def examples_entry(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The entry of the model or, if it has none, of the model that it was trained from."""
    own, parent = metadata.get(EXAMPLES), metadata.get("parent")
    if not isinstance(own, dict) and isinstance(parent, dict):
        own = parent.get(EXAMPLES)
    return own if isinstance(own, dict) else {}


def examples_of(metadata: Mapping[str, Any]) -> TrainingExamples:
    """The recorded examples. Damaged ones are left out."""
    entry = examples_entry(metadata)
    pairs = entry.get("pairs")
    texts = [pair for pair in pairs if _is_pair(pair)] if isinstance(pairs, list) else []
    return TrainingExamples(tuple((question, answer) for question, answer in texts), str(entry.get("source", "")))


def _is_pair(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(text, str) for text in value)
