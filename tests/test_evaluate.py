"""python -m src.evaluate: the loss equals transformers' and a closed form, and the output is right."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from src.evaluate import main
from src.evaluation.perplexity import BATCH_TOKENS, text_loss, windows
from src.model.gpt import GPTModel
from src.model.load_gpt2 import load_gpt2
from src.tokenizer import load_gpt2_encoding

CONFIG = {"vocab_size": 61, "context_length": 16, "d_model": 16, "n_heads": 2, "n_layers": 2}
VERSE = "Shall I compare thee to a summer's day?\nThou art more lovely and more temperate.\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random GPT-2 in Hugging Face's format, and a text file."""
    folder = tmp_path_factory.mktemp("evaluate")
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(n_positions=32, n_embd=64, n_head=1, n_layer=2))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder / "gpt2")
    (folder / "verse.txt").write_text(VERSE * 30, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def both(folder: Path) -> tuple[GPT2LMHeadModel, GPTModel]:
    """The random GPT-2 as transformers loads it, and as we do."""
    return GPT2LMHeadModel.from_pretrained(folder / "gpt2").eval(), load_gpt2(folder / "gpt2")


def hugging_face_loss(model: GPT2LMHeadModel, ids: torch.Tensor, context_length: int, stride: int) -> float:
    """Mean loss per token, computed by the loop of Hugging Face's perplexity guide."""
    total, count, previous_end = 0.0, 0, 0
    for begin in range(0, len(ids), stride):
        end = min(begin + context_length, len(ids))
        targets = ids[begin:end].clone()[None]
        targets[:, : max(previous_end - begin, 0)] = -100
        n_targets = int((targets[:, 1:] != -100).sum())
        if n_targets == 0:  # a last window of one token
            break
        with torch.no_grad():
            total += model(ids[begin:end][None], labels=targets).loss.item() * n_targets
        count += n_targets
        previous_end = end
        if end == len(ids):
            break
    assert stride == context_length or count == len(ids) - 1
    return total / count


@pytest.mark.parametrize(("context_length", "stride"), [(32, 16), (32, 31), (32, 1), (20, 7), (32, 32)])
@pytest.mark.parametrize("tokens", [2, 31, 32, 33, 80])
def test_loss_equals_hugging_faces_perplexity_loop(
    both: tuple[GPT2LMHeadModel, GPTModel], context_length: int, stride: int, tokens: int
) -> None:
    theirs, ours = both
    ids = torch.randint(50257, (tokens,), generator=torch.Generator().manual_seed(tokens))
    expected = hugging_face_loss(theirs, ids, context_length, stride)
    found = text_loss(ours, ids.numpy().astype("uint16"), context_length, stride)
    assert found == pytest.approx(expected, rel=1e-5)


def test_every_token_but_the_first_is_predicted_once() -> None:
    for tokens in range(2, 40):
        for context_length in range(2, 12):
            for stride in range(1, context_length):
                predicted = [i for _, first, end in windows(tokens, context_length, stride) for i in range(first, end)]
                assert predicted == list(range(1, tokens))
                assert all(start < first for start, first, _ in windows(tokens, context_length, stride))


@pytest.mark.parametrize("tokens", [10, 3 * BATCH_TOKENS])
def test_uniform_model_has_perplexity_of_vocabulary_size(tokens: int) -> None:
    model = GPTModel({**CONFIG, "dropout": 0.5}).train()
    torch.nn.init.zeros_(model.wte.weight)
    ids = np.random.default_rng(0).integers(61, size=tokens, dtype=np.uint16)
    assert math.exp(text_loss(model, ids, 16, 8)) == pytest.approx(61, rel=1e-5)
    assert model.training


@pytest.mark.parametrize(
    ("context_length", "stride", "message"),
    [
        (17, 8, "--context-length must be from 2 to the model's 16, got 17"),
        (16, 17, "--stride must be from 1 to the window's 16 tokens, got 17"),
        (16, 0, "--stride must be from 1 to the window's 16 tokens, got 0"),
    ],
)
def test_bad_window_lengths_are_refused(context_length: int, stride: int, message: str) -> None:
    with pytest.raises(ValueError) as refused:
        text_loss(GPTModel(CONFIG), np.arange(40, dtype=np.uint16), context_length, stride)
    assert str(refused.value) == message


def test_text_of_one_token_is_refused() -> None:
    with pytest.raises(
        ValueError, match="the text needs at least 2 tokens, got 1; raise --val-fraction or use a longer text"
    ):
        text_loss(GPTModel(CONFIG), np.arange(1, dtype=np.uint16), 16, 8)


def test_val_fraction_evaluates_the_end_of_the_text(folder: Path, capsys: pytest.CaptureFixture, monkeypatch) -> None:
    evaluated: list[list[int]] = []
    monkeypatch.setattr(
        "src.evaluation.perplexity.text_loss", lambda model, ids, *_: evaluated.append(ids.tolist()) or 1000.0
    )
    asked = ["--model", str(folder / "gpt2"), "--data", str(folder / "verse.txt")]
    ids = load_gpt2_encoding().encode_ordinary(VERSE * 30)
    for fraction, part in (("1", "all of it"), ("0.1", "the last 10%"), ("0.004", "the last 0.4%")):
        assert main([*asked, "--val-fraction", fraction]) == 0
        assert evaluated[-1] == ids[-len(evaluated[-1]) :]
        n_bytes = len(load_gpt2_encoding().decode(evaluated[-1]))
        assert n_bytes == pytest.approx(float(fraction) * len(VERSE * 30), abs=9)
        assert (
            f"text     {folder / 'verse.txt'} {part}: {len(evaluated[-1])} tokens\n"
            in capsys.readouterr().out.replace(",", "")
        )


def test_shakespeare_is_downloaded_if_no_text_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Asked(Exception):
        pass

    def ensure_shakespeare(path: Path) -> None:
        raise Asked(path)

    monkeypatch.setattr("src.data.text.ensure_shakespeare", ensure_shakespeare)
    with pytest.raises(Asked, match="Shakespeare"):
        main(["--model", str(folder / "gpt2"), "--device", "cpu"])


def test_int8_changes_the_loss_by_less_than_one_percent(folder: Path, capsys: pytest.CaptureFixture) -> None:
    asked = ["--model", str(folder / "gpt2"), "--data", str(folder / "verse.txt"), "--device", "cpu"]
    losses = []
    for more in ([], ["--quantize", "int8"]):
        assert main([*asked, *more]) == 0
        losses.append(float(capsys.readouterr().out.split("loss ")[-1].split()[0]))
    assert losses[0] != losses[1] == pytest.approx(losses[0], rel=0.01)


def test_perplexity_that_overflows_is_printed_as_inf(folder: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr("src.evaluation.perplexity.text_loss", lambda *_: 1000.0)
    assert main(["--model", str(folder / "gpt2"), "--data", str(folder / "verse.txt")]) == 0
    assert "loss     1000.0000 nats per token | perplexity inf | " in capsys.readouterr().out


def test_model_with_fewer_ids_than_the_tokenizer_is_refused(tmp_path: Path, folder: Path) -> None:
    GPT2LMHeadModel(GPT2Config(vocab_size=100, n_positions=32, n_embd=64, n_head=1, n_layer=1)).save_pretrained(
        tmp_path
    )
    with pytest.raises(ValueError, match="the tokenizer has 50257 ids, the model has 100"):
        main(["--model", str(tmp_path), "--data", str(folder / "verse.txt")])


def test_output_has_loss_perplexity_and_bits_per_byte(folder: Path, capsys: pytest.CaptureFixture) -> None:
    asked = ["--model", str(folder / "gpt2"), "--data", str(folder / "verse.txt")]
    assert main([*asked, "--val-fraction", "1", "--device", "cpu"]) == 0
    out = capsys.readouterr().out.replace(",", "").splitlines()
    assert out[-2] == "windows  32 tokens stride 16"
    loss, perplexity, bits = (float(part.split()[i]) for part, i in zip(out[-1].split(" | "), (1, 1, 0), strict=False))
    assert perplexity == pytest.approx(math.exp(loss), rel=1e-3)
    ids = load_gpt2_encoding().encode_ordinary(VERSE * 30)
    size = len(VERSE * 30) - len("Sh")  # the first token is never predicted
    assert bits == pytest.approx(loss * (len(ids) - 1) / math.log(2) / size, rel=1e-3)


def test_wrong_flags_are_reported_in_one_line_with_the_help_command() -> None:
    command = [sys.executable, "-m", "src.evaluate", "--strid", "1", "--val-fraction", "0"]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == (
        "src.evaluate: there is no --strid (did you mean --stride?); --val-fraction must be above 0 and at most 1, "
        "got 0; see python -m src.evaluate --help\n"
    )


def test_json_is_the_only_output_and_has_the_printed_figures(folder: Path, capsys: pytest.CaptureFixture) -> None:
    asked = ["--model", str(folder / "gpt2"), "--data", str(folder / "verse.txt"), "--val-fraction", "1"]
    assert main(asked) == 0
    printed = capsys.readouterr().out
    assert main([*asked, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert f"loss     {found['loss']:.4f} nats" in printed and f"{found['bits_per_byte']:.4f} bits" in printed
    assert found["predicted_tokens"] == found["tokens"] - 1
    assert found["data"] == [str(folder / "verse.txt")]


def test_bits_per_byte_count_only_predicted_tokens(folder: Path, capsys: pytest.CaptureFixture) -> None:
    asked = ["--model", str(folder / "gpt2"), "--data", str(folder / "verse.txt"), "--val-fraction", "1"]
    assert main([*asked, "--stride", "32", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    ids = load_gpt2_encoding().encode_ordinary(VERSE * 30)
    predicted = [i for position, i in enumerate(ids) if position % 32]
    n_bytes = len(load_gpt2_encoding().decode_bytes(predicted))
    assert found["predicted_tokens"] == len(predicted)
    assert found["bits_per_byte"] == pytest.approx(found["loss"] * len(predicted) / math.log(2) / n_bytes)


def test_compare_measures_as_model_does_and_samples_with_one_seed(folder: Path, capsys: pytest.CaptureFixture) -> None:
    text, gpt2 = ["--data", str(folder / "verse.txt"), "--json"], str(folder / "gpt2")
    assert main([*text, "--model", gpt2]) == 0
    alone = json.loads(capsys.readouterr().out)
    assert main([*text, "--compare", gpt2, gpt2]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["loss"] for each in found["models"]] == [alone["loss"]] * 2
    assert len(found["samples"]) == 3
    assert all(a == b and a for a, b in (each["outputs"] for each in found["samples"]))
    assert all(each["prompt"] in VERSE * 30 for each in found["samples"])


def test_compare_prints_a_table_and_the_samples_in_columns(folder: Path, capsys: pytest.CaptureFixture) -> None:
    gpt2 = str(folder / "gpt2")
    assert main(["--data", str(folder / "verse.txt"), "--compare", gpt2, gpt2]) == 0
    table = capsys.readouterr().out.split("\n\n")[1:]
    header, first, second = table[0].splitlines()
    assert header.split() == ["loss", "perplexity", "bits", "per", "byte", "against", "A", "model"]
    assert first.startswith("A ") and first.endswith(gpt2) and "+0.00 %" in second
    assert all("A: " in block and "B: " in block for block in table[1:]) and len(table) == 4


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--compare", "sft"], "--compare needs two models or more; for one, pass --model"),
        (["--compare", "sft", "dpo", "--model", "sft"], "pass --model or --compare, not both"),
        (["--compare", *["sft"] * 27], "--compare takes up to 26 models, got 27"),
        (
            ["--memorised", "--compare", "sft", "dpo"],
            "--memorised takes one model and no task; leave --task and --compare out",
        ),
        (["--memorised", "--val-fraction", "1"], "--memorised needs a training text; --val-fraction 1 leaves none"),
        (["--task", "lambada"], "--task lambada needs --data FILE, one file of its records"),
    ],
)
def test_flags_that_do_not_fit_together_are_refused(
    flags: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit):
        main(flags)
    assert message in capsys.readouterr().err
