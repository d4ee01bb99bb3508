"""Why the model answered as it did: the probability of each token, and the training example that is most like it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import torch

from src.chat.screen import Styled
from src.checkpoint.training_examples import TrainingExamples
from src.common.messages import count
from src.model.generate import TextGenerator

LIKELY, UNLIKELY = 0.5, 0.1  # probabilities: a token below UNLIKELY is a surprise
_RUNNERS_UP = 2
_MANY_WORDS = 0.6  # share of an answer in one passage of an example: then it was learned by heart
_FEW_WORDS = 4  # a shorter passage proves nothing: any two texts share some words
_SHOWN_WORDS = 30  # of a passage
_WORD = re.compile(r"\w+")
_BEFORE_SAMPLING = "These are the model's own chances, before temperature, top-k and top-p change them."


@dataclass(frozen=True)
class TokenChoice:
    """A token of an answer, its probability, and the most likely other tokens with theirs."""

    token: str
    probability: float
    others: tuple[tuple[str, float], ...]


@torch.inference_mode()
def token_choices(generator: TextGenerator, prompt: Sequence[int], answer: Sequence[int]) -> list[TokenChoice]:
    """The probability of each token of an answer and of its runners-up, before temperature and filters.

    If prompt and answer together exceed the context, only their end is explained.
    """
    model, decode = generator.model, generator.encoding.decode
    ids = [*prompt, *answer][-model.config.context_length :]
    n_explained = min(len(answer), len(ids) - 1)
    if not n_explained:
        return []
    logits = model(torch.tensor([ids], device=model.wpe.weight.device))[0, -n_explained - 1 : -1]  # (n, V)
    probabilities = torch.softmax(logits[:, : generator.encoding.n_vocab].float(), dim=-1)
    top = probabilities.topk(min(_RUNNERS_UP + 1, probabilities.shape[1]))
    choices = []
    for i, id in enumerate(ids[-n_explained:]):
        ranked = zip(top.indices[i].tolist(), top.values[i].tolist(), strict=True)
        others = [(decode([other]), p) for other, p in ranked if other != id][:_RUNNERS_UP]
        choices.append(TokenChoice(decode([id]), float(probabilities[i, id]), tuple(others)))
    return choices


def explain(choices: Sequence[TokenChoice], answer_tokens: int, origin_line: str, columns: int = 80) -> Styled:
    """A table of the tokens, and then `origin_line`, which says where the answer comes from.

    A narrow window shows fewer runners-up. answer_tokens: how many tokens the answer has. If there are fewer choices, a
    line says so.
    """
    width = max(len(repr(choice.token)) for choice in choices)
    parts: list[tuple[str, str]] = [("", f"{'':2}{'token':<{width}}   chance  others\n")]
    for choice in choices:
        mark, style = _surprise(choice.probability)
        row = f"{mark} {choice.token!r:<{width}}  {_percent(choice.probability):>7}"
        others = [f"{token!r} {_percent(p)}" for token, p in choice.others]
        while others and len(row) + 2 + len(", ".join(others)) > columns:
            others.pop()
        parts += [(style, row), ("", f"  {', '.join(others)}\n")]
    if len(choices) < answer_tokens:
        parts.append(("", f"These are the last {len(choices)} of {answer_tokens} tokens: the context holds no more.\n"))
    n, n_unlikely = len(choices), sum(choice.probability < UNLIKELY for choice in choices)
    n_likely = sum(choice.probability >= LIKELY for choice in choices)
    ranges = f"{n - n_likely - n_unlikely} (?) from 10% to 50%, {n_unlikely} (!) below 10%"
    parts.append(("", f"{n_likely} of {n} tokens had a chance of at least 50%, {ranges}. {_BEFORE_SAMPLING}\n"))
    return Styled((*parts, ("", origin_line)))


def origin(answer: str, examples: TrainingExamples) -> str:
    """Whether the answer is in the training examples: the longest passage that one of them shares with it."""
    words = _WORD.findall(answer.lower())
    found = [(_common_passage(words, example), question, example) for question, example in examples.pairs]
    (start, length), question, example = max(found, key=lambda each: each[0][1])
    source = f" in {examples.source}" if examples.source else ""
    if length == len(words) == len(_WORD.findall(example.lower())):
        return f"Learned by heart: word for word the answer to {_quoted(question)}{source}."
    passage = " ".join(words[start : start + min(length, _SHOWN_WORDS)])
    if length >= _MANY_WORDS * len(words) and length >= _FEW_WORDS:
        return f"Mostly learned by heart: the answer to {_quoted(question)}{source} contains ... {passage} ..."
    if length >= _FEW_WORDS:
        return f"Partly learned by heart: the answer to {_quoted(question)}{source} contains ... {passage} ..."
    shared = f"more than {count(length, 'word')} in a row" if length else "any word"
    return f"Made up: no training answer shares {shared} with it."


def _common_passage(words: Sequence[str], example: str) -> tuple[int, int]:
    """(start, length) of the longest run of words that is also in the example."""
    other = _WORD.findall(example.lower())
    match = SequenceMatcher(None, words, other, autojunk=False).find_longest_match()
    return match.a, match.size


def _surprise(probability: float) -> tuple[str, str]:
    """(mark, style): readable without colours, too, on a dark and on a light background."""
    if probability < UNLIKELY:
        return "!", "bold ansired"
    return ("?", "ansimagenta") if probability < LIKELY else (" ", "ansigreen")


def _percent(probability: float) -> str:
    return f"{100 * probability:.1f}%" if probability >= 0.001 else "<0.1%"


def _quoted(text: str) -> str:
    line = " ".join(text.split())
    return f'"{line}"' if len(line) <= 60 else f'"{line[:57]}..."'
