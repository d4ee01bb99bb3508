"""Turn conversations and preferences into token ids with a supervision mask, and show that mask."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from src.data.batching import Example, truncate
from src.data.instructions import INSTRUCTIONS, Conversation, load_conversations
from src.data.preferences import PREFERENCES, Preference, load_preferences
from src.data.prompts import Message, headings, render_conversation
from src.tokenizer.protocols.interfaces import Encoding, WordEncoding

E = TypeVar("E")

UNKNOWN_WORDS_SHOWN = 8

_GREEN, _DIM, _RESET = "\033[0;1;32m", "\033[2m", "\033[0m"  # green resets first, or it would stay dim


def instruction_examples(
    conversations: Sequence[Conversation], encoding: Encoding, context_length: int
) -> tuple[list[Example], int]:
    """Return the example of each conversation, and the number of examples that were truncated to the context."""
    complete = [render_conversation(conversation.messages, encoding) for conversation in conversations]
    examples = [truncate(example, context_length) for example in complete]
    n_truncated = sum(len(before[0]) > len(after[0]) for before, after in zip(complete, examples, strict=True))
    return examples, n_truncated


def preference_examples(
    preferences: Sequence[Preference], encoding: Encoding, context_length: int
) -> tuple[list[tuple[Example, Example]], int]:
    """Return the (chosen, rejected) examples of each preference, and the number of pairs that were truncated.

    Only the last response is supervised; earlier ones are part of the prompt. If the prompt and the longer answer do
    not fit the context, the start of the prompt is cut off, the same part for both answers.
    """
    pairs, n_truncated = [], 0
    for preference in preferences:
        prompt, _ = render_conversation(preference.messages, encoding)
        answers = [
            render_conversation([Message("assistant", text)], encoding)[0]
            for text in (preference.chosen, preference.rejected)
        ]
        excess = max(0, len(prompt) + max(map(len, answers)) - (context_length + 1))
        prompt = prompt[min(excess, len(prompt) - 1) :]  # keep one token, to predict the first token of the answer
        chosen, rejected = (
            truncate((prompt + answer, [False] * len(prompt) + [True] * len(answer)), context_length)
            for answer in answers
        )
        pairs.append((chosen, rejected))
        n_truncated += excess > 0
    return pairs, n_truncated


def tuning_texts(instructions: Path = INSTRUCTIONS, preferences: Path = PREFERENCES) -> list[str]:
    """The texts whose words SFT, DPO and chat need: the template's headings, and all texts of the files that exist.

    Raises ValueError if a file has no valid records.
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
    """Report the words that a word tokenizer does not know. They all get the same id."""
    if not isinstance(encoding, WordEncoding):
        return
    unknown = encoding.unknown("\n".join(texts))
    if unknown:
        shown = ", ".join(unknown[:UNKNOWN_WORDS_SHOWN]) + (", ..." if len(unknown) > UNKNOWN_WORDS_SHOWN else "")
        notify(f"{len(unknown)} words are not in the model's vocabulary: {shown}")


def split_examples(examples: Sequence[E], val_fraction: float) -> tuple[list[E], list[E]]:
    """Split into (train, val). Val is the last `val_fraction` of the examples, at least one unless it is 0.

    Raises ValueError if no example is left for training.
    """
    n_val = max(1, round(len(examples) * val_fraction)) if val_fraction else 0
    if n_val >= len(examples):
        raise ValueError(
            f"--val-fraction {val_fraction:g} leaves none of {len(examples)} examples for training; pass 0"
        )
    return list(examples[: len(examples) - n_val]), list(examples[len(examples) - n_val :])


def show_mask(example: Example, encoding: Encoding, *, colour: bool) -> str:
    """The text of an example with its supervised part in green, or between [[ and ]] without colours."""
    opening, closing = (_GREEN, _RESET + _DIM) if colour else ("[[", "]]")
    parts, inside = [], False
    previous: list[int] = []
    for id_, supervised in zip(*example, strict=True):
        if supervised != inside:
            parts.append((opening if supervised else closing).encode())
            inside = supervised
        # Decode together with the previous id: the spaces of a word tokenizer depend on it.
        parts.append(encoding.decode_bytes([*previous, id_])[len(encoding.decode_bytes(previous)) :])
        previous = [id_]
    text = b"".join(parts).decode("utf-8", errors="replace") + (closing if inside else "")
    return f"{_DIM}{text}{_RESET}" if colour else text
