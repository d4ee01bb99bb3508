"""Turn conversations and preferences into token ids with a supervision mask, and hold some out for validation."""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from statistics import mean
from typing import TypeVar

from src.common.messages import Notify
from src.data.batching import Pair, truncate
from src.data.datasets import shuffled
from src.data.input_file import find_shipped
from src.data.instructions import INSTRUCTIONS, Conversation, load_conversations
from src.data.openings import opening_words
from src.data.preferences import PREFERENCES, Preference, load_preferences
from src.data.prompts import TEMPLATE, Example, Message, headings, render_conversation, with_input
from src.tokenizer.protocols.interfaces import Encoding, WordEncoding

T = TypeVar("T")

UNKNOWN_WORDS_SHOWN = 8


def instruction_examples(
    conversations: Sequence[Conversation], encoding: Encoding, context_length: int
) -> tuple[list[Example], int]:
    """Return the example of each conversation, and the number of examples that were truncated to the context."""
    complete = [render_conversation(conversation.messages, encoding) for conversation in conversations]
    examples = [truncate(example, context_length) for example in complete]
    n_truncated = sum(len(before.ids) > len(after.ids) for before, after in zip(complete, examples, strict=True))
    return examples, n_truncated


def preference_examples(
    preferences: Sequence[Preference], encoding: Encoding, context_length: int, template: str = TEMPLATE
) -> tuple[list[tuple[Example, Example]], int]:
    """Return the (chosen, rejected) examples of each preference, and the number of pairs that were truncated.

    Only the last response is supervised; earlier ones are part of the prompt. If the prompt and the longer answer do
    not fit the context, the start of the prompt is cut off, the same part for both answers.
    """
    pairs, n_truncated = [], 0
    for preference in preferences:
        prompt = render_conversation(preference.messages, encoding, template).ids
        answers = [
            render_conversation([Message("assistant", text)], encoding, template).ids
            for text in (preference.chosen, preference.rejected)
        ]
        excess = max(0, len(prompt) + max(map(len, answers)) - (context_length + 1))
        prompt = prompt[min(excess, len(prompt) - 1) :]  # keep one token, to predict the first token of the answer
        chosen, rejected = (
            truncate(Example(prompt + answer, [False] * len(prompt) + [True] * len(answer)), context_length)
            for answer in answers
        )
        pairs.append((chosen, rejected))
        n_truncated += excess > 0
    return pairs, n_truncated


def mean_answer_lengths(pairs: Sequence[Pair]) -> tuple[float, float]:
    """The average numbers of tokens in the chosen and in the rejected answers."""
    chosen = mean(sum(chosen.mask) for _, (chosen, _) in pairs)
    return chosen, mean(sum(rejected.mask) for _, (_, rejected) in pairs)


def questions_and_answers(conversations: Iterable[Conversation]) -> Iterator[tuple[str, str]]:
    """Yield the question and the answer of each supervised answer. The question includes its material."""
    for conversation in conversations:
        for question, answer in zip(conversation.messages, conversation.messages[1:], strict=False):
            if question.role == "user" and answer.role == "assistant" and answer.supervised:
                asked = with_input(question.text, question.input) if question.input else question.text
                yield asked, answer.text


def tuning_texts(instructions: Path = INSTRUCTIONS, preferences: Path = PREFERENCES) -> list[str]:
    """The texts whose words SFT, DPO and chat need: the template's headings, made-up openings, and the files' texts.

    Raises ValueError if a file has no valid records.
    """
    messages: list[Message] = []
    answers: list[str] = []
    if find_shipped(instructions).is_file():
        for conversation in load_conversations(instructions, skip_bad=True):
            messages += conversation.messages
    if find_shipped(preferences).is_file():
        for preference in load_preferences(preferences, skip_bad=True):
            messages += preference.messages
            answers += [preference.chosen, preference.rejected]
    return [
        *headings(),
        *opening_words(),
        *(text for message in messages for text in (message.text, message.input)),
        *answers,
    ]


def warn_unknown_words(texts: Iterable[str], encoding: Encoding, notify: Notify = print) -> None:
    """Report the words that a word tokenizer does not know. They all get the same id."""
    if not isinstance(encoding, WordEncoding):
        return
    unknown = encoding.unknown("\n".join(texts))
    if unknown:
        shown = ", ".join(unknown[:UNKNOWN_WORDS_SHOWN]) + (", ..." if len(unknown) > UNKNOWN_WORDS_SHOWN else "")
        notify(f"{len(unknown)} words are not in the model's vocabulary: {shown}")


def split_examples(
    examples: Sequence[T], prompts: Sequence[Hashable], val_fraction: float, seed: int, notify: Notify = print
) -> tuple[list[T], list[T]]:
    """Split into (train, val), both in their given order. Val is a random `val_fraction` that depends only on the seed.

    prompts: the prompt of each example. Examples with equal prompts go to the same side, if they fit; if not, `notify`
    gets a line. Val has at least one example, unless val_fraction is 0.
    Raises ValueError if no example is left for training.
    """
    n_val = max(1, round(len(examples) * val_fraction)) if val_fraction else 0
    if n_val >= len(examples):
        raise ValueError(
            f"--val-fraction {val_fraction:g} leaves none of {len(examples)} examples for training; pass 0"
        )
    groups: dict[Hashable, list[int]] = {}
    for index in shuffled(len(examples), seed, epoch=-1):  # training shuffles with epochs from 0 on
        groups.setdefault(prompts[index], []).append(index)
    val: set[int] = set()
    for group in groups.values():
        if len(val) + len(group) <= n_val:
            val.update(group)
    if len(val) < n_val:  # the groups that are left are too large, so one of them is divided
        others = [index for group in groups.values() for index in group if index not in val]
        val.update(others[: n_val - len(val)])
        notify("note: one prompt is in both training and validation: it has too many answers for the validation part")
    train = [example for index, example in enumerate(examples) if index not in val]
    return train, [examples[index] for index in sorted(val)]
