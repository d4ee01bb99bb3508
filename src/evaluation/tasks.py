"""LAMBADA and HellaSwag: the log-probabilities of endings, scored as in lm-evaluation-harness."""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean as mean

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from src.data.fields import Fields
from src.data.record_files import read_records
from src.data.records import parse_records
from src.evaluation.flags import TaskName
from src.evaluation.perplexity import BATCH_TOKENS, target_logits
from src.model.gpt import GPTModel
from src.tokenizer.protocols.interfaces import Encoding

EndingScore = tuple[float, bool]  # its log-probability, and whether greedy decoding gives it
Figures = tuple[float, float | None, float | None]  # accuracy, perplexity and normalised accuracy of a Score

# Percent and perplexity by model size. The paper: Radford et al. 2019, table 3; its accuracy is with a filter that
# excludes stop words as answers. The harness: lambada_openai and hellaswag, without examples in the prompt.
PUBLISHED = {
    "lambada": (
        "lm-evaluation-harness: 124M accuracy 32.56 %, perplexity 40.06",
        "the paper, stop words filtered: 124M 45.99 %, 35.13 | 355M 55.48 %, 15.60 | 774M 60.12 %, 10.87 | "
        "1558M 63.24 %, 8.63",
    ),
    "hellaswag": (
        "lm-evaluation-harness: 124M accuracy 28.92 %, normalised by length 31.14 % | 1558M 40.04 %, 50.89 %",
    ),
}


@dataclass(frozen=True)
class Question:
    """A context, and the endings to score: the right one alone in LAMBADA, four to choose from in HellaSwag."""

    where: str
    context: str
    endings: tuple[str, ...]
    right: int = 0


@dataclass(frozen=True)
class Score:
    """The result of a task. accuracy and normalised_accuracy are shares from 0 to 1.

    LAMBADA: the share of last words that greedy decoding gives, and the perplexity of the last word as a whole.
    HellaSwag: the share of questions whose right ending has the highest log-probability, and the highest
    log-probability per character (acc and acc_norm of lm-evaluation-harness).
    truncated: contexts that were cut at their start, because they are longer than the model's context.
    """

    task: str
    model: str
    questions: int
    accuracy: float
    perplexity: float | None
    normalised_accuracy: float | None
    truncated: int
    seconds: float


def read_questions(path: Path, task: TaskName, *, skip_bad: bool = False) -> list[Question]:
    """The questions in a file of records. skip_bad: leave bad ones out, if at most a tenth are.

    Raises ValueError naming the bad records, FileNotFoundError if there is no file.
    """
    read = {"lambada": _lambada, "hellaswag": _hellaswag}[task]
    return parse_records(lambda where, record: read(Fields(where, record)), read_records(path), skip_bad=skip_bad)


def _lambada(fields: Fields) -> Question:
    """The last word of "text", and all before it. Words are separated by single spaces."""
    context, space, word = fields.text("text").rpartition(" ")
    if not space:
        raise fields.error("'text' has one word; expected a passage and its last word")
    return Question(fields.where, context, (f" {word}",))


def _hellaswag(fields: Fields) -> Question:
    """A record as HellaSwag is published: activity_label, ctx_a, ctx_b, endings and label."""
    endings, label = fields.value("endings"), fields.value("label")
    if not isinstance(endings, list) or len(endings) < 2 or not all(isinstance(each, str) for each in endings):
        raise fields.error("'endings' must be a list of two texts or more")
    endings = [_without_marks(each) for each in endings]
    if not all(endings):
        raise fields.error("'endings' has one without text")
    if str(label) not in map(str, range(len(endings))):
        raise fields.error(
            f"'label' must be the number of the right ending, 0 to {len(endings) - 1}, got {label!r:.50}"
        )
    context = f"{fields.text('ctx_a')} {fields.text('ctx_b', may_be_empty=True).capitalize()}"
    context = _without_marks(f"{fields.text('activity_label')}: {context}")
    return Question(fields.where, context, tuple(f" {each}" for each in endings), int(label))


def _without_marks(text: str) -> str:
    """The text without WikiHow's marks in brackets, as lm-evaluation-harness removes them."""
    return re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")


def score_task(name: str, model: GPTModel, encoding: Encoding, questions: Sequence[Question], task: TaskName) -> Score:
    """Score a model on questions. name: the model's, for the result.

    Raises ValueError if an ending is longer than the context.
    """
    start = time.perf_counter()
    encoded = [_encode(each, ending, encoding, model) for each in questions for ending in each.endings]
    results = iter(ending_logprobs(model, encoded))
    scored = [[next(results) for _ in each.endings] for each in questions]
    figures = _lambada_figures(scored) if task == "lambada" else _hellaswag_figures(questions, scored)
    accuracy, perplexity, normalised_accuracy = figures
    return Score(
        task=task,
        model=name,
        questions=len(questions),
        accuracy=accuracy,
        perplexity=perplexity,
        normalised_accuracy=normalised_accuracy,
        truncated=sum(len(ids) > model.config.context_length + 1 for ids, _ in encoded),
        seconds=time.perf_counter() - start,
    )


def _lambada_figures(scored: Sequence[Sequence[EndingScore]]) -> Figures:
    accuracy = mean(is_greedy for [(_, is_greedy)] in scored)
    perplexity = float(torch.tensor(-mean(logprob for [(logprob, _)] in scored), dtype=torch.float64).exp())
    return accuracy, perplexity, None


def _hellaswag_figures(questions: Sequence[Question], scored: Sequence[Sequence[EndingScore]]) -> Figures:
    by_sum, by_length = [], []
    for question, results in zip(questions, scored, strict=True):
        logprobs = [logprob for logprob, _ in results]
        lengths = [len(ending) - 1 for ending in question.endings]  # without the space before it
        per_character = [logprob / length for logprob, length in zip(logprobs, lengths, strict=True)]
        by_sum.append(_best(logprobs) == question.right)
        by_length.append(_best(per_character) == question.right)
    return mean(by_sum), None, mean(by_length)


def _best(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)


def _encode(question: Question, ending: str, encoding: Encoding, model: GPTModel) -> tuple[list[int], int]:
    """(token ids of a context and its ending, how many of them are the ending's). The ending begins with a space."""
    context = question.context.rstrip()
    before = encoding.encode_ordinary(context) or [encoding.eot_token]
    ids = (
        encoding.encode_ordinary(question.context + ending) if context else [*before, *encoding.encode_ordinary(ending)]
    )
    if not 0 < (count := len(ids) - len(before)) <= model.config.context_length:
        raise ValueError(
            f"{question.where}: an ending has {count} tokens, and the model's context is {model.config.context_length}"
        )
    return ids, count


@torch.no_grad()
def ending_logprobs(model: GPTModel, sequences: Sequence[tuple[Sequence[int], int]]) -> list[EndingScore]:
    """The summed log-probability of each ending, and whether greedy decoding gives it.

    sequences: token ids, and how many at the end are the ending. A context that is too long is cut at its start.
    """
    sequences = [(ids[-model.config.context_length - 1 :], count) for ids, count in sequences]
    waiting = sorted(range(len(sequences)), key=lambda i: len(sequences[i][0]))  # a batch has similar lengths
    results = [(0.0, False)] * len(sequences)
    with model.evaluating(), tqdm(total=len(sequences), unit="ending", leave=False, disable=None) as bar:
        while waiting:
            longest = len(sequences[waiting[-1]][0])
            batch = [waiting.pop() for _ in range(min(len(waiting), max(1, BATCH_TOKENS // longest)))]
            for i, result in zip(batch, _batch_logprobs(model, [sequences[i] for i in batch]), strict=True):
                results[i] = result
            bar.update(len(batch))
    return results


def _batch_logprobs(model: GPTModel, sequences: Sequence[tuple[Sequence[int], int]]) -> list[EndingScore]:
    """`ending_logprobs` of one batch, in one forward pass. No sequence is longer than the context and one token."""
    counts = [count for _, count in sequences]
    chunks = target_logits(model, [(np.asarray(ids), len(ids) - count) for ids, count in sequences])
    scored = [(-F.cross_entropy(logits, ids, reduction="none"), logits.argmax(dim=1) == ids) for logits, ids in chunks]
    logprobs, greedy = (torch.cat(parts).split(counts) for parts in zip(*scored, strict=True))
    return [(float(each.double().sum()), bool(match.all())) for each, match in zip(logprobs, greedy, strict=True)]


def print_score(score: Score) -> None:
    """Print a score in one line, and a note if contexts were cut."""
    parts = [f"{score.questions:,} questions", f"accuracy {100 * score.accuracy:.2f} %"]
    if score.perplexity is not None:
        parts.append(f"perplexity of the last word {score.perplexity:,.2f}")
    if score.normalised_accuracy is not None:
        parts.append(f"normalised by length {100 * score.normalised_accuracy:.2f} %")
    print(f"{score.task:<10}" + " | ".join([*parts, f"{score.seconds:.1f} s"]))
    if score.truncated:
        print(f"note: {score.truncated:,} contexts were cut at their start to fit the model")


def print_published(task: TaskName) -> None:
    """Print the published figures of GPT-2, to compare with."""
    for line in PUBLISHED[task]:
        print(f"GPT-2     {line}")
