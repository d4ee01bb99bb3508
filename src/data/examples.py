"""From conversations and preferences to token ids with the learned ones marked, and a picture of the marking."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from src.data.batching import Example, truncate
from src.data.instructions import INSTRUCTIONS, Conversation, load_conversations
from src.data.preferences import PREFERENCES, Preference, load_preferences
from src.data.prompts import Message, headings, render_conversation
from src.tokenizer.protocols.interfaces import Encoding, WordEncoding

E = TypeVar("E")

UNKNOWN_NAMED = 8

_LEARNED, _READ, _PLAIN = "\033[0;1;32m", "\033[2m", "\033[0m"  # 0 first: bold alone would stay dim


def instruction_examples(
    conversations: Sequence[Conversation], encoding: Encoding, context_length: int
) -> tuple[list[Example], int]:
    """The example of each conversation, and how many had to be shortened to the context."""
    whole = [render_conversation(conversation.messages, encoding) for conversation in conversations]
    examples = [truncate(example, context_length) for example in whole]
    shortened = sum(len(before[0]) > len(after[0]) for before, after in zip(whole, examples, strict=True))
    return examples, shortened


def preference_examples(
    preferences: Sequence[Preference], encoding: Encoding, context_length: int
) -> tuple[list[tuple[Example, Example]], int]:
    """(chosen, rejected) examples of each preference, and how many preferences had to be shortened to the context.

    Only the last response is learned: earlier ones are part of the prompt, which is the same for both. Where it is too
    long beside the longer answer, both lose the same part of its beginning.
    """
    pairs, shortened = [], 0
    for preference in preferences:
        prompt, _ = render_conversation(preference.messages, encoding)
        answers = [
            render_conversation([Message("assistant", text)], encoding)[0]
            for text in (preference.chosen, preference.rejected)
        ]
        excess = max(0, len(prompt) + max(map(len, answers)) - (context_length + 1))
        prompt = prompt[min(excess, len(prompt) - 1) :]  # one token stays to predict the first one learned
        chosen, rejected = (
            truncate((prompt + answer, [False] * len(prompt) + [True] * len(answer)), context_length)
            for answer in answers
        )
        pairs.append((chosen, rejected))
        shortened += excess > 0
    return pairs, shortened


def tuning_texts(instructions: Path = INSTRUCTIONS, preferences: Path = PREFERENCES) -> list[str]:
    """All that a model reads and writes in tuning and chat: the template's headings, and the texts of the two files.

    A file that is not there has none. Raises ValueError for a file that cannot be read as records.
    """
    messages: list[Message] = []
    if instructions.is_file():
        for conversation in load_conversations(instructions):
            messages += conversation.messages
    answers = []
    for preference in load_preferences(preferences) if preferences.is_file() else ():
        messages += preference.messages
        answers += [preference.chosen, preference.rejected]
    return [*headings(), *(text for message in messages for text in (message.text, message.input)), *answers]


def warn_unknown_words(texts: Iterable[str], encoding: Encoding, notify: Callable[[str], None] = print) -> None:
    """Say which words of the texts a tokenizer of whole words does not know: the model reads all of them as one."""
    if not isinstance(encoding, WordEncoding):
        return
    unknown = encoding.unknown("\n".join(texts))
    if unknown:
        named = ", ".join(unknown[:UNKNOWN_NAMED]) + (", ..." if len(unknown) > UNKNOWN_NAMED else "")
        notify(f"{len(unknown)} words are not in the model's vocabulary: {named}")


def split_examples(examples: Sequence[E], val_fraction: float) -> tuple[list[E], list[E]]:
    """(train, val): the last share of the examples is val, at least one where the share is above 0.

    Raises ValueError where nothing would be left to train on.
    """
    n_val = max(1, round(len(examples) * val_fraction)) if val_fraction else 0
    if n_val >= len(examples):
        raise ValueError(f"--val-fraction {val_fraction:g} leaves none of {len(examples)} examples to train on; pass 0")
    return list(examples[: len(examples) - n_val]), list(examples[len(examples) - n_val :])


def show_mask(example: Example, encoding: Encoding, *, colour: bool) -> str:
    """The text of an example with what is learned in green, or between [[ and ]] where there are no colours."""
    before, after = (_LEARNED, _PLAIN + _READ) if colour else ("[[", "]]")
    parts, inside = [], False
    previous: list[int] = []
    for id_, learned in zip(*example, strict=True):
        if learned != inside:
            parts.append(before.encode() if learned else after.encode())
            inside = learned
        # A word tokenizer's spaces depend on the word before.
        parts.append(encoding.decode_bytes([*previous, id_])[len(encoding.decode_bytes(previous)) :])
        previous = [id_]
    text = b"".join(parts).decode("utf-8", errors="replace") + (after if inside else "")
    return f"{_READ}{text}{_PLAIN}" if colour else text
