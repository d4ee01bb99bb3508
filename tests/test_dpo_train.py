"""dpo_train.py and its cached reference: reused, recomputed, and never changed by training."""

import json
import os
import shutil
import signal
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

import dpo_train
import instruction_tune
from src.checkpoint import file_sha256, load_model, save_checkpoint
from src.model.gpt import GPTModel
from src.tokenizer import describe, learn_byte_pairs
from src.training.losses import preference_loss

BASE = Path("checkpoints/instruction_tuned/best_model.pt")
OUT = Path("checkpoints/dpo_aligned")
SHORT = "--max-steps 4 --eval-every 2 --max-lr 1e-2 --warmup-steps 1 --device cpu --precision fp32".split()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone with a tiny tuned model and the shipped preferences."""
    data = Path(__file__).parent.parent / "Data/preference_data.json"
    (tmp_path / "Data").mkdir()
    shutil.copy(data, tmp_path / "Data")
    monkeypatch.chdir(tmp_path)
    make_base(seed=0)
    return tmp_path


def make_base(seed: int) -> None:
    """Save a model with the byte pairs of the preferences: with GPT-2's 50,257 a step takes longer."""
    torch.manual_seed(seed)
    encoding = learn_byte_pairs([Path("Data/preference_data.json").read_text(encoding="utf-8")], 1000)
    size = {"context_length": 128, "d_model": 16, "n_heads": 2, "n_layers": 2, "dropout": 0.0}
    size["vocab_size"] = encoding.n_vocab
    model = GPTModel(size)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    content = {"stage": "sft", "config": asdict(model.config), "model": model.state_dict()}
    save_checkpoint(BASE, {**content, "tokenizer": describe(encoding)})


def train(capsys: pytest.CaptureFixture, *argv: str) -> tuple[str, dict[str, torch.Tensor]]:
    """The output of the script, and the weights of its best model."""
    assert dpo_train.main([*SHORT, *argv]) == 0
    return capsys.readouterr().out, load_model(OUT / "best_model.pt")[0].state_dict()


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, b[name]) for name, tensor in a.items())


def test_a_second_run_reuses_the_cached_reference(capsys) -> None:
    before = file_sha256(BASE)
    output, weights = train(capsys)
    assert "20 pairs computed in" in output and "(not cached yet)" in output
    first = next(line for line in output.splitlines() if line.startswith("step      1/4"))
    assert "loss   0.6931" in first and "margin   +0.000" in first
    kls = [float(line.rpartition("kl")[2]) for line in output.splitlines() if line.startswith("eval")]
    assert kls[0] == 0 and kls[-1] > 1e-3  # the reference did not train along
    assert file_sha256(BASE) == before
    output, again = train(capsys, "--no-resume")
    assert "checked against the model" in output and "computed in" not in output
    assert same(weights, again)


def test_with_lora_policy_and_reference_share_their_weights(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    train(capsys, "--max-steps", "1")  # caches the log-probabilities of a reference from the file
    monkeypatch.setattr("src.training.reference.load_model", None)
    output, _ = train(capsys, "--lora", "4", "--no-resume", "--max-lr", "0.3")
    assert "checked against the model" in output  # the reference is the same
    assert "step      1/4 | loss   0.6931" in output
    kls = [float(line.rpartition("kl")[2]) for line in output.splitlines() if line.startswith("eval")]
    assert kls[0] == 0 and kls[-1] > 1e-3  # and it did not train along


def change_base() -> list[str]:
    make_base(seed=1)
    return []


def change_data() -> list[str]:
    data = json.loads(Path("Data/preference_data.json").read_text(encoding="utf-8"))
    data[-1]["rejected"] += " Really."
    Path("mine.json").write_text(json.dumps(data), encoding="utf-8")
    return ["--data", "mine.json"]


@pytest.mark.parametrize("change", [change_base, change_data, lambda: ["--precision", "bf16"]])
def test_another_base_data_or_precision_recomputes_the_reference(change, capsys) -> None:
    train(capsys)
    output, _ = train(capsys, *change())
    assert "20 pairs computed in" in output and "another base, tokenizer or precision" in output


@pytest.mark.parametrize("cached", [True, False])
def test_dpo_resumes_exactly_with_and_without_the_cache(cached: bool, capsys, monkeypatch) -> None:
    _, expected = train(capsys)
    shutil.rmtree(OUT)
    steps = []

    def interrupting(model, batch, **settings):
        if model.training:
            steps.append(1)
            if len(steps) == 3:
                os.kill(os.getpid(), signal.SIGINT)
        return preference_loss(model, batch, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(dpo_train, "preference_loss", interrupting)
        assert dpo_train.main(SHORT) == 130
    if not cached:
        (OUT / "reference_logprobs.pt").unlink()
    output, resumed = train(capsys, "--resume")
    assert "at step 3 of 4" in output
    assert same(expected, resumed)


@pytest.mark.parametrize("script", [instruction_tune, dpo_train])
def test_tuning_scripts_have_no_compile_flag(script, capsys) -> None:
    with pytest.raises(SystemExit) as exited:
        script.main(["--compile"])
    assert exited.value.code == 2
    assert "there is no --compile" in capsys.readouterr().err
