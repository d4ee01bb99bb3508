"""Describe what a data file becomes: its numbers, and samples in which the supervised tokens are marked."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from src.common.messages import visible
from src.common.terminal import has_colours
from src.data.examples import instruction_examples, preference_examples
from src.data.instructions import Conversation
from src.data.openings import choose_openings
from src.data.preferences import Preference
from src.data.prompts import Example, Message
from src.tokenizer.protocols.interfaces import Encoding

SAMPLES = 3

_GREEN, _DIM, _RESET = "\033[0;1;32m", "\033[2m", "\033[0m"  # green resets first, or it would stay dim


def describe_conversations(
    conversations: Sequence[Conversation],
    encoding: Encoding,
    context_length: int,
    *,
    seed: int = 0,
    system_share: float | None = None,
) -> str:
    """The numbers of conversations and their tokens, the made-up openings, and a few samples."""
    examples, n_truncated = instruction_examples(conversations, encoding, context_length)
    turns = [_n_turns(conversation.messages) for conversation in conversations]
    rows = {
        "records": f"{len({conversation.where for conversation in conversations}):,}",
        "conversations": f"{len(conversations):,}",
        "turns": f"{sum(turns):,}, at most {max(turns):,} per conversation",
        "tokens": _token_counts(examples),
        "truncated": f"{n_truncated:,}, to {context_length} tokens",
        "openings": choose_openings(conversations, seed, system_share).describe(),
    }
    return _page(rows, examples[:SAMPLES], encoding)


def describe_preferences(preferences: Sequence[Preference], encoding: Encoding, context_length: int) -> str:
    """The numbers of preferences and their tokens, and a few samples: each prompt with both answers."""
    pairs, n_truncated = preference_examples(preferences, encoding, context_length)
    turns = [_n_turns(preference.messages) for preference in preferences]
    rows = {
        "pairs": f"{len(pairs):,}",
        "turns": f"{sum(turns):,}, at most {max(turns):,} per pair",
        "chosen": _token_counts([chosen for chosen, _ in pairs]),
        "rejected": _token_counts([rejected for _, rejected in pairs]),
        "truncated": f"{n_truncated:,}, to {context_length} tokens",
    }
    return _page(rows, [example for pair in pairs[:SAMPLES] for example in pair], encoding)


def show_masks(conversations: Sequence[Conversation], encoding: Encoding, context_length: int) -> str:
    """The first conversations, with the supervised tokens marked."""
    examples, _ = instruction_examples(conversations[:SAMPLES], encoding, context_length)
    return "\n".join(show_mask(example, encoding, colour=has_colours()) + "\n" for example in examples)


def _n_turns(messages: Sequence[Message]) -> int:
    """The number of user messages."""
    return sum(message.role == "user" for message in messages)


def _token_counts(examples: Sequence[Example]) -> str:
    lengths = [len(example.ids) for example in examples]
    supervised = sum(sum(example.mask) for example in examples)
    return f"{sum(lengths):,}, {supervised:,} of them supervised; the longest has {max(lengths):,}"


def _page(rows: dict[str, str], samples: Sequence[Example], encoding: Encoding) -> str:
    lines = [f"  {name:<15}{text}" for name, text in rows.items()]
    return "\n".join([*lines, "", *(show_mask(sample, encoding, colour=has_colours()) + "\n" for sample in samples)])


def show_mask(example: Example, encoding: Encoding, *, colour: bool) -> str:
    """The text of an example with its supervised part in green, or between [[ and ]] without colours."""
    opening, closing = (_GREEN, _RESET + _DIM) if colour else ("[[", "]]")
    texts = []
    tokens = zip(example.mask, _pieces(example.ids, encoding), strict=True)
    for supervised, run in groupby(tokens, key=lambda token: token[0]):
        text = visible(b"".join(piece for _, piece in run).decode("utf-8", errors="replace"))
        texts.append(f"{opening}{text}{closing}" if supervised else text)
    return f"{_DIM}{''.join(texts)}{_RESET}" if colour else "".join(texts)


def _pieces(ids: Sequence[int], encoding: Encoding) -> Iterator[bytes]:
    """The bytes of each token, after the one before it: the spaces of a word tokenizer depend on that."""
    for start, id_ in enumerate(ids, start=-1):
        previous = ids[max(start, 0) : start + 1]
        yield encoding.decode_bytes([*previous, id_])[len(encoding.decode_bytes(previous)) :]
