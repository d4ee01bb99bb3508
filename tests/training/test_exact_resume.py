"""A resumed run is the uninterrupted one, bit for bit; which runs are resumed, and what replaces an earlier one."""

import math
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from src.checkpoint import read_checkpoint, save_checkpoint
from src.data.batching import StepLoader, epoch_loader, pack_examples
from src.data.datasets import ExampleDataset
from src.model.gpt import GPTModel
from src.training.losses import language_model_loss
from src.training.run import start_or_resume
from tests.training.small_run import CONFIG, CPU, Interrupt, examples, flags, log_lines, make_stage, run, weights

LATEST = "out/latest_model.pt"


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run with dropout."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert run(flags(folder), dropout=0.2)[0] == 0
    return folder


def test_a_run_with_muon_resumes_bit_for_bit(uninterrupted: Path, tmp_path: Path) -> None:
    muon = {"optimizer": "muon"}
    _, expected = run(flags(tmp_path / "a", **muon), dropout=0.2)
    assert run(flags(tmp_path / "b", **muon), dropout=0.2, loss_fn=Interrupt(5))[0] == 130
    with pytest.raises(ValueError, match="optimizer muon in the file, adamw now"):
        run(flags(tmp_path / "b", resume=True), dropout=0.2)
    code, resumed = run(flags(tmp_path / "b", resume=True, **muon), dropout=0.2)
    assert code == 0
    for name, tensor in weights(expected).items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    with_adamw = read_checkpoint(uninterrupted / LATEST)["model"]
    assert not torch.equal(with_adamw["h.0.mlp.c_fc.weight"], resumed.h[0].mlp.c_fc.weight)


def test_a_run_in_bf16_resumes_bit_for_bit(uninterrupted: Path, tmp_path: Path) -> None:
    bf16 = replace(CPU, precision="bf16")
    _, expected = run(flags(tmp_path / "a"), dropout=0.2, runtime=bf16)
    assert run(flags(tmp_path / "b"), dropout=0.2, runtime=bf16, loss_fn=Interrupt(5))[0] == 130
    assert run(flags(tmp_path / "b", resume=True), dropout=0.2, runtime=bf16)[0] == 0
    for name, tensor in weights(expected).items():
        assert torch.equal(tensor, read_checkpoint(tmp_path / "b" / LATEST)["model"][name]), name
    in_fp32 = read_checkpoint(uninterrupted / LATEST)["model"]
    assert not torch.equal(in_fp32["wte.weight"], expected.wte.weight)


@pytest.mark.parametrize("at", [1, 5, 7])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_resumed_equals_uninterrupted_bit_for_bit(
    uninterrupted: Path, tmp_path: Path, at: int, number: int, capsys: pytest.CaptureFixture
) -> None:
    code, _ = run(flags(tmp_path), dropout=0.2, loss_fn=Interrupt(at, number))
    assert code == 130
    assert f"interrupted after step {at} of 10" in capsys.readouterr().out
    assert read_checkpoint(tmp_path / LATEST)["step"] == at
    code, resumed = run(flags(tmp_path, resume=True), dropout=0.2)
    assert code == 0
    ours, theirs = (read_checkpoint(folder / LATEST) for folder in (tmp_path, uninterrupted))
    for name, tensor in theirs["model"].items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    for key in ("step", "epoch", "train_loss"):
        assert ours[key] == theirs[key]
    assert ours["resume"]["progress"] == theirs["resume"]["progress"]
    for a, b in zip(ours["optimizer"]["state"].values(), theirs["optimizer"]["state"].values(), strict=True):
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_an_unfinished_run_of_version_0_1_is_resumed_exactly(uninterrupted: Path, tmp_path: Path) -> None:
    run(flags(tmp_path), dropout=0.2, loss_fn=Interrupt(7))
    latest = tmp_path / LATEST
    content = read_checkpoint(latest)
    resume = content.pop("resume")
    content["settings"]["compile"] = False
    save_checkpoint(latest, {**content, "run": {"state": resume.pop("progress"), **resume}})
    code, resumed = run(flags(tmp_path), dropout=0.2)
    assert code == 0
    for name, tensor in read_checkpoint(uninterrupted / LATEST)["model"].items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_an_automatic_precision_stays_on_resume(tmp_path: Path, capsys) -> None:
    run(flags(tmp_path), loss_fn=Interrupt(3))
    assert run(flags(tmp_path), runtime=replace(CPU, precision="bf16"))[0] == 0
    assert "cpu, fp32 (as in the run being resumed)" in capsys.readouterr().out
    run(flags(tmp_path, precision="fp32", resume=False), loss_fn=Interrupt(3))
    with pytest.raises(ValueError, match="precision fp32 in the file, bf16 now"):
        run(flags(tmp_path, precision="bf16"), runtime=replace(CPU, precision="bf16"))


def test_by_default_only_an_unfinished_run_is_resumed(tmp_path: Path, capsys) -> None:
    run(flags(tmp_path), loss_fn=Interrupt(3))
    capsys.readouterr()
    run(flags(tmp_path))
    assert "resuming the unfinished run at step 3 of 10" in capsys.readouterr().out
    run(flags(tmp_path, seed=2))
    assert "resuming" not in capsys.readouterr().out
    assert log_lines(tmp_path)[0]["step"] == 0


def test_resuming_with_other_settings_is_refused_by_name(tmp_path: Path) -> None:
    run(flags(tmp_path), loss_fn=Interrupt(3))
    before = (tmp_path / LATEST).read_bytes()
    message = r"unfinished run with other settings \(max_lr 0.01 in the file, 0.02 now\); .*--no-resume"
    with pytest.raises(ValueError, match=message):
        run(flags(tmp_path, max_lr=2e-2))
    assert (tmp_path / LATEST).read_bytes() == before
    assert run(flags(tmp_path, max_lr=2e-2, resume=False))[0] == 0


def test_a_refused_resume_leaves_the_model_untouched(tmp_path: Path) -> None:
    run(flags(tmp_path), loss_fn=Interrupt(3))
    torch.manual_seed(1)
    model = GPTModel({**CONFIG, "dropout": 0.0})
    before = weights(model)
    loader = StepLoader(epoch_loader(ExampleDataset(examples(), 1337), pack_examples, 4))
    with pytest.raises(ValueError, match="an unfinished run with other settings"):
        start_or_resume(make_stage(loader), model, flags(tmp_path, max_lr=2e-2), CPU)
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in before.items())


def test_resume_extends_a_finished_run_if_asked(tmp_path: Path) -> None:
    run(flags(tmp_path, max_steps=4))
    assert run(flags(tmp_path, max_steps=6, resume=True))[0] == 0
    assert read_checkpoint(tmp_path / LATEST)["step"] == 6


def test_a_run_that_stopped_early_is_not_resumed(tmp_path: Path, capsys) -> None:
    rising = iter(range(1, 100))

    def loss(model, batch):
        return language_model_loss(model, batch) if model.training else (torch.tensor(float(next(rising))), {})

    one_batch = StepLoader(epoch_loader(ExampleDataset(examples(), 0), pack_examples, 16)).first_batches(1)
    settings = flags(tmp_path, max_steps=50, eval_every=1, patience=1)
    run(settings, loss_fn=loss, evaluation=one_batch)
    capsys.readouterr()
    run(settings, loss_fn=loss, evaluation=one_batch)
    assert "resuming" not in capsys.readouterr().out


def test_starting_over_renames_the_earlier_best_model(tmp_path: Path, capsys) -> None:
    run(flags(tmp_path))
    assert "best_model.previous.pt" not in capsys.readouterr().out
    before = (tmp_path / "out/best_model.pt").read_bytes()

    def broken(model, batch):
        return language_model_loss(model, batch)[0] * (math.nan if model.training else 1), {}

    with pytest.raises(ValueError, match="the loss is nan"):  # it never saves, so the earlier best stays
        run(flags(tmp_path, seed=2), loss_fn=broken)
    assert (tmp_path / "out/best_model.pt").read_bytes() == before
    run(flags(tmp_path, seed=2))
    assert capsys.readouterr().out.count(": the best model of an earlier run is now best_model.previous.pt\n") == 1
    assert (tmp_path / "out/best_model.previous.pt").read_bytes() == before
    assert (tmp_path / "out/best_model.pt").read_bytes() != before


def test_a_resumed_run_still_renames_the_earlier_best_model(tmp_path: Path) -> None:
    run(flags(tmp_path))
    before = (tmp_path / "out/best_model.pt").read_bytes()
    run(flags(tmp_path, seed=2), loss_fn=Interrupt(2))  # before its first evaluation
    run(flags(tmp_path, seed=2))
    assert (tmp_path / "out/best_model.previous.pt").read_bytes() == before


def test_a_damaged_latest_model_names_no_resume(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / LATEST).write_bytes(b"junk")
    with pytest.raises(ValueError, match="latest_model.pt cannot be resumed; pass --no-resume to start over"):
        run(flags(tmp_path))
    assert run(flags(tmp_path, resume=False))[0] == 0
