"""The tokenizer of a training run: made from a text, and found again in a checkpoint."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from src.tokenizer.core.exceptions import TokenizerError, VocabularyError
from src.tokenizer.gpt2 import load_gpt2_encoding
from src.tokenizer.processing.file_reader import read_pieces
from src.tokenizer.protocols.interfaces import Encoding, encoding_fingerprint
from src.tokenizer.tokenizers.factory import create_tokenizer
from src.tokenizer.tokenizers.with_unknown import TokenizerWithUnknown
from src.tokenizer.vocabulary.builder import VocabularyBuilder
from src.tokenizer.vocabulary.storage import vocabulary_of_state

_TRAIN_AGAIN = "use an undamaged checkpoint, or train again with python main.py"


def build_word_encoding(path: Path, always: Iterable[str] = ()) -> TokenizerWithUnknown:
    """A word tokenizer with all words of a text file, the most frequent ones first.

    always: texts whose tokens are in the vocabulary although the file lacks them, such as the headings of a prompt.
    The file may be larger than the memory. Raises what `read_pieces` raises.
    """
    builder = VocabularyBuilder(always=always)
    for piece in read_pieces(Path(path)):
        builder.add(piece)
    return TokenizerWithUnknown(builder.build())


def load_encoding(description: Mapping[str, Any] | None) -> Encoding:
    """The tokenizer that `describe` described; None, as for weights that were not trained here, is GPT-2's.

    Nothing of the description is taken on trust. Raises ValueError of one line where it is damaged or unknown.
    """
    if description is None:
        return load_gpt2_encoding()
    if not isinstance(description, Mapping):
        raise VocabularyError(
            f"no tokenizer can be found by a description of type {type(description).__name__}; {_TRAIN_AGAIN}"
        )
    name, expected = description.get("name"), description.get("fingerprint")
    try:
        encoding = _encoding(name, description.get("state"))
    except TokenizerError as error:
        problem = " ".join(str(error).split())  # of a tensor in place of a name, for one, Python shows several lines
        raise VocabularyError(f"the tokenizer in this checkpoint is damaged: {problem}; {_TRAIN_AGAIN}") from None
    found = encoding_fingerprint(encoding)
    if expected != found and not (name == "gpt2" and expected is None):
        raise VocabularyError(
            f"the tokenizer in this checkpoint is damaged: its fingerprint is {found[:12]}..., another than it states; "
            f"{_TRAIN_AGAIN}"
        )
    return encoding


def _encoding(name: object, state: object) -> Encoding:
    if name == "gpt2":
        return load_gpt2_encoding()
    if name != "word":
        raise VocabularyError(f"there is no tokenizer {name!r:.60}, only 'gpt2' and 'word'")
    if not isinstance(state, Mapping):
        raise VocabularyError("its vocabulary is missing")
    return create_tokenizer(state.get("kind", ""), vocabulary_of_state(state))
