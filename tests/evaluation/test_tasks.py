"""--task: LAMBADA and HellaSwag, compared with a direct computation by transformers."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from src.evaluate import main
from src.evaluation.tasks import read_questions
from src.tokenizer import load_gpt2_encoding

CONTEXT = 32
PASSAGES = [
    "Shall I compare thee to a summer's",
    "Thou art more lovely and more",
    "Rough winds do shake the darling buds of May, And summer's lease hath all too short a",
    "one two three four five six seven eight nine ten " * 6 + "and",  # longer than the context
    "Two  spaces and a café before the last ",
]


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, GPT2LMHeadModel]:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(n_positions=CONTEXT, n_embd=16, n_head=1, n_layer=1)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    folder = tmp_path_factory.mktemp("gpt2")
    model.save_pretrained(folder)
    return folder, model


def logits_of_ending(model: GPT2LMHeadModel, context: str, ending: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(log-probabilities, targets) of an ending. White space at the end of the context belongs to the ending."""
    ids = load_gpt2_encoding().encode_ordinary(context + ending)
    n_ending = len(ids) - len(load_gpt2_encoding().encode_ordinary(context.rstrip()))
    row = torch.tensor(ids[-CONTEXT - 1 :])
    with torch.no_grad():
        logprobs = model(row[None, :-1]).logits[0].log_softmax(dim=1)
    return logprobs[-n_ending:], row[-n_ending:]


def greedy_word(model: GPT2LMHeadModel, context: str) -> str:
    """A last word that greedy decoding gives: one token that starts with a space, or another word."""
    ids = torch.tensor([load_gpt2_encoding().encode_ordinary(context)[-CONTEXT:]])
    with torch.no_grad():
        word = load_gpt2_encoding().decode([int(model(ids).logits[0, -1].argmax())])
    return word if word[:1] == " " and word.strip() and " " not in word[1:] else " day"


def write(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def scores_of(capsys: pytest.CaptureFixture, *asked: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main([*asked, "--json", "--device", "cpu"]) == 0
    [score] = json.loads(capsys.readouterr().out)["scores"]
    return score


def test_lambada_equals_transformers(gpt2: tuple, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder, model = gpt2
    contexts = [f"{passage} {i}" for passage in PASSAGES for i in range(8)]
    texts = [context + greedy_word(model, context) for context in contexts] + [f"{each} day" for each in PASSAGES]
    found = scores_of(
        capsys, "--model", str(folder), "--task", "lambada", "--data",
        str(write(tmp_path / "lambada.jsonl", [{"text": text} for text in texts])),
    )  # fmt: skip
    pairs = [text.rpartition(" ") for text in texts]
    scored = [logits_of_ending(model, context, f" {word}") for context, _, word in pairs]
    sums = torch.stack([logprobs.gather(1, targets[:, None]).sum() for logprobs, targets in scored])
    right = [bool((logprobs.argmax(dim=1) == targets).all()) for logprobs, targets in scored]
    assert found["perplexity"] == pytest.approx(float((-sums.mean()).exp()), rel=1e-4)
    assert 0 < found["accuracy"] == sum(right) / len(right) < 1
    assert (found["questions"], found["normalised_accuracy"]) == (len(texts), None)
    assert (
        found["truncated"] == sum(len(load_gpt2_encoding().encode_ordinary(text)) > CONTEXT + 1 for text in texts) > 0
    )


def hellaswag_record(i: int) -> dict[str, Any]:
    words = " ".join(PASSAGES[:3]).split()
    endings = [" ".join(words[(i * 5 + k * 3) % 20 :][: 1 + 2 * k]) for k in range(4)]
    return {
        "activity_label": "Reading",
        "ctx_a": "[header] A poem [title] It begins.",
        "ctx_b": "the reader",
        "endings": [f" [step] {ending}" if k == i % 4 else ending for k, ending in enumerate(endings)],
        "label": str(i % 4) if i % 2 else i % 4,
    }


def test_hellaswag_equals_transformers(gpt2: tuple, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder, model = gpt2
    file = write(tmp_path / "hellaswag.jsonl", [hellaswag_record(i) for i in range(40)])
    found = scores_of(capsys, "--model", str(folder), "--task", "hellaswag", "--data", str(file))
    by_sum = by_length = 0
    for record, question in zip(map(hellaswag_record, range(40)), read_questions(file, "hellaswag"), strict=True):
        assert question.context == "Reading: A poem. It begins. The reader"
        endings = [ending.strip().replace("[step]", "") for ending in record["endings"]]  # with a space after a mark
        assert question.endings == tuple(f" {ending}" for ending in endings)
        sums = []
        for ending in question.endings:
            logprobs, targets = logits_of_ending(model, question.context, ending)
            sums.append(float(logprobs.gather(1, targets[:, None]).sum()))
        per_character = [total / len(ending) for total, ending in zip(sums, endings, strict=True)]
        by_sum += sums.index(max(sums)) == int(record["label"])
        by_length += per_character.index(max(per_character)) == int(record["label"])
    assert found["accuracy"] == by_sum / 40 and found["normalised_accuracy"] == by_length / 40
    assert by_sum != by_length


def test_result_is_printed_next_to_published_figures(
    gpt2: tuple, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    data = write(tmp_path / "lambada.jsonl", [{"text": "one two three"}])
    assert main(["--model", str(gpt2[0]), "--task", "lambada", "--data", str(data)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[1].startswith("lambada   1 questions | accuracy 0.00 % | perplexity of the last word ")
    assert out[-2] == "GPT-2     lm-evaluation-harness: 124M accuracy 32.56 %, perplexity 40.06"


HELLASWAG = hellaswag_record(0)


@pytest.mark.parametrize(
    ("task", "record", "problem"),
    [
        ("lambada", {"text": "word"}, "'text' has one word; expected a passage and its last word"),
        ("lambada", {"txt": "two words"}, "'text' is missing"),
        ("hellaswag", {**HELLASWAG, "label": ""}, "'label' must be the number of the right ending, 0 to 3, got ''"),
        ("hellaswag", {**HELLASWAG, "label": 4}, "'label' must be the number of the right ending, 0 to 3, got 4"),
        ("hellaswag", {**HELLASWAG, "endings": "a"}, "'endings' must be a list of two texts or more"),
        ("hellaswag", {**HELLASWAG, "endings": ["a", " [step] "]}, "'endings' has one without text"),
        ("hellaswag", {**HELLASWAG, "ctx_a": None}, "'ctx_a' is null"),
    ],
)
def test_bad_records_are_named(tmp_path: Path, task: Any, record: dict, problem: str) -> None:
    good = {"lambada": {"text": "two words"}, "hellaswag": HELLASWAG}[task]
    with pytest.raises(ValueError) as refused:
        read_questions(write(tmp_path / "x.jsonl", [good, record]), task)
    assert "x.jsonl" in str(refused.value) and "line 2" in str(refused.value) and problem in str(refused.value)


def test_ending_longer_than_the_context_is_refused(gpt2: tuple, tmp_path: Path) -> None:
    data = write(tmp_path / "x.jsonl", [{"text": f"word {'x7' * 60}"}])
    with pytest.raises(ValueError, match=r"x.jsonl line 1: an ending has \d+ tokens, and the model's context is 32"):
        main(["--model", str(gpt2[0]), "--task", "lambada", "--data", str(data)])
