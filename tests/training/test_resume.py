"""What a command does with the run that it finds in --out, and how it trusts the file that holds it."""

import math
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from src.checkpoint import file_sha256, read_checkpoint, save_checkpoint, weights_sha256
from src.data.batching import Batch, StepLoader, epoch_loader, pack_examples
from src.data.datasets import ExampleDataset
from src.model.gpt import GPTModel
from src.training.divergence import has_diverged
from src.training.losses import language_model_loss
from src.training.stage import Progress
from tests.training.small_run import CONFIG, CPU, Interrupt, examples, flags, log_lines, run


def steps_logged(folder: Path) -> list[int]:
    return [line["step"] for line in log_lines(folder) if line["event"] == "step"]


# --- longer, finished, past its end, other settings


def test_more_steps_continue_a_finished_run(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run(flags(tmp_path, max_steps=4))
    assert run(flags(tmp_path, max_steps=6))[0] == 0
    assert steps_logged(tmp_path) == [5, 6]
    output = capsys.readouterr().out
    assert "continuing the finished run at step 4 of 6 (--no-resume starts over)\n" in output
    note = "the learning rate follows the schedule of 6 steps instead of 4: 3.3e-03 now, after 1.0e-03, and 1.0e-03 at"
    assert note in output
    assert output.index(note) < output.index("step      5/6")


def test_more_epochs_continue_a_finished_run(tmp_path: Path) -> None:
    run(flags(tmp_path, max_steps=None, epochs=1))
    run(flags(tmp_path, max_steps=None, epochs=2))
    assert steps_logged(tmp_path) == [5, 6, 7, 8]


def test_a_finished_run_is_not_trained_again(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run(flags(tmp_path, max_steps=2))
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    logs = [*(tmp_path / "logs").iterdir()]
    capsys.readouterr()
    code, model = run(flags(tmp_path, max_steps=2))
    lines = capsys.readouterr().out.splitlines()
    assert code == 0
    assert "this run is finished, after step 2 of 2; nothing is left to train. More --max-steps or --epochs" in lines[0]
    assert lines[1].startswith("train loss 4.1174 before training, best ")
    assert lines[2].startswith("next: python next.py --base ")
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert [*(tmp_path / "logs").iterdir()] == logs
    assert torch.equal(model.wte.weight, read_checkpoint(tmp_path / "out/latest_model.pt")["model"]["wte.weight"])


def test_a_run_past_its_end_claims_nothing(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run(flags(tmp_path), loss_fn=Interrupt(3))  # before its first evaluation
    capsys.readouterr()
    with pytest.raises(ValueError, match="this run is at step 3 already, past the 2 steps asked for; more --max-steps"):
        run(flags(tmp_path, max_steps=2))
    assert capsys.readouterr().out == ""
    assert run(flags(tmp_path, max_steps=3))[0] == 0  # no step is left, but the evaluation of the last one
    assert read_checkpoint(tmp_path / "out/best_model.pt")["step"] == 3


def test_other_settings_start_over_and_say_so_first(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run(flags(tmp_path, max_steps=2))
    capsys.readouterr()
    assert run(flags(tmp_path, max_steps=4, max_lr=2e-2, weight_decay=0.0, data=tmp_path / "elsewhere"))[0] == 0
    output = capsys.readouterr().out
    notice = (
        "a finished run with other settings (max_lr 0.01 in the file, 0.02 now, weight_decay 0.1 in the file, 0.0 now),"
        " so training starts over. Its best model will be kept, under another name."
    )
    assert output.index(notice) < output.index("eval      0/4")


def test_long_lists_of_other_settings_are_cut(tmp_path: Path) -> None:
    run(flags(tmp_path, max_steps=2))
    changes = {"max_lr": 2e-2, "weight_decay": 0.0, "grad_accum": 2, "batch_size": 2, "warmup_steps": 1, "seed": 5}
    with pytest.raises(ValueError, match=r"batch_size 4 in the file, 2 now, .* grad_accum .*, and 3 more\); pass its"):
        run(flags(tmp_path, resume=True, **changes))


def test_a_run_without_a_step_does_not_block_a_new_one(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run(flags(tmp_path), loss_fn=Interrupt(1))
    latest = tmp_path / "out/latest_model.pt"
    content = read_checkpoint(latest)
    content["resume"]["progress"] |= {"step": 0, "loss_count": 0}
    save_checkpoint(latest, {**content, "step": 0})
    capsys.readouterr()
    assert run(flags(tmp_path, max_lr=2e-2))[0] == 0
    assert "other settings" not in capsys.readouterr().out


def rising(start: float, by: float) -> Callable[..., tuple[torch.Tensor, dict]]:
    """A loss whose evaluations rise, one batch each."""
    losses = iter([start + by * number for number in range(100)])

    def loss(model, batch):
        if model.training:
            return language_model_loss(model, batch)
        return torch.tensor(next(losses)) * batch.loss_denominator, {}

    return loss


@pytest.mark.parametrize("changes", [{"max_steps": 12}, {"patience": 5}])
def test_a_run_that_stopped_early_continues_if_asked(tmp_path: Path, changes: dict, one_batch) -> None:
    settings = flags(tmp_path, max_steps=10, eval_every=1, patience=2)
    run(settings, loss_fn=rising(4.0, 0.01), evaluation=one_batch)
    assert steps_logged(tmp_path) == [1, 2, 3]
    run(settings, loss_fn=rising(4.0, 0.01), evaluation=one_batch)
    assert steps_logged(tmp_path) == [1, 2, 3]  # finished
    run(replace(settings, **changes), loss_fn=rising(5.0, 0.01), evaluation=one_batch)
    assert steps_logged(tmp_path)[:2] == [4, 5]


@pytest.fixture
def one_batch() -> list[Batch]:
    """All examples, so that an evaluation calls the loss once."""
    return StepLoader(epoch_loader(ExampleDataset(examples(), 0), pack_examples, 16)).first_batches(1)


# --- the same base, an earlier version


def test_the_base_is_known_by_its_weights(tmp_path: Path) -> None:
    base = {"path": str(tmp_path / "base.pt"), "weights_sha256": "a"}
    run(flags(tmp_path), loss_fn=Interrupt(3), parent=base)
    assert run(flags(tmp_path), loss_fn=Interrupt(1), parent={**base, "path": str(tmp_path / "moved.pt")})[0] == 130
    with pytest.raises(ValueError, match=r"an unfinished run with other settings \(base differs\)"):
        run(flags(tmp_path), parent={**base, "weights_sha256": "b"})


def test_a_run_that_knew_its_base_by_the_file_resumes(tmp_path: Path) -> None:
    """Earlier versions saved the hash of the base's file, no run id, and none of the newer flags."""
    base = tmp_path / "base.pt"
    save_checkpoint(base, {"model": GPTModel(CONFIG).state_dict()})
    parent = {"path": str(base), "weights_sha256": weights_sha256(GPTModel(CONFIG).state_dict())}
    _, expected = run(flags(tmp_path / "a"), parent=parent)
    run(flags(tmp_path), loss_fn=Interrupt(7), parent=parent)
    for name in ("latest_model.pt", "best_model.pt"):
        content = read_checkpoint(tmp_path / "out" / name)
        del content["run_id"]
        if "resume" in content:
            identity = content["resume"]["identity"]
            identity["base"] = file_sha256(base)
            del identity["stage"], identity["val_fraction"]
        save_checkpoint(tmp_path / "out" / name, content)
    code, resumed = run(flags(tmp_path), parent=parent)
    assert code == 0
    assert torch.equal(resumed.wte.weight, expected.wte.weight)
    assert not [*(tmp_path / "out").glob("*.previous*")]


# --- a file that lies


def nested(*path: str) -> Callable[[dict[str, Any], object], None]:
    def change(content: dict[str, Any], value: object) -> None:
        for name in path[:-1]:
            content = content[name]
        if value is None:
            del content[path[-1]]
        else:
            content[path[-1]] = value

    return change


PROGRESS, RESUME = ("resume", "progress"), ("resume",)


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 10 steps, interrupted after 7. Its best model is of step 5."""
    folder = tmp_path_factory.mktemp("interrupted")
    run(flags(folder), loss_fn=Interrupt(7))
    return folder


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        ((*PROGRESS, "step"), 10**9, "'step' is 7, expected 1000000000, as in 'progress'"),
        ((*PROGRESS, "step"), -1, "'step' is -1, expected a count"),
        ((*PROGRESS, "step"), "7", "'step' is 7, expected a count"),
        ((*PROGRESS, "step"), None, "'progress' has missing or unknown entries: step"),
        ((*PROGRESS, "speed"), 1, "'progress' has missing or unknown entries: speed"),
        ((*PROGRESS, "best_step"), 8, "'best_step' is 8, expected 0 to 7, the step"),
        ((*PROGRESS, "best_step"), 0, "'best_loss' is .*, expected the loss of step 0"),
        ((*PROGRESS, "best_loss"), math.nan, "'best_loss' is nan, expected the loss of step 5"),
        ((*PROGRESS, "best_loss"), torch.ones(2), "'best_loss' is of type Tensor"),
        ((*PROGRESS, "loss_sum"), math.inf, "'loss_sum' is inf, expected a finite number"),
        ((*PROGRESS, "loss_count"), 1.5, "'loss_count' is 1.5, expected 0 to 7"),
        ((*PROGRESS, "stale_evaluations"), True, "'stale_evaluations' is True, expected 0 to 7"),
        ((*PROGRESS, "eval_loss"), "low", "'eval_loss' is low, expected a finite number or None"),
        ((*PROGRESS, "first_loss"), [], "'first_loss' is of type list, expected a finite number"),
        ((*RESUME, "progress"), [7], "'progress' has missing or unknown entries"),
        ((*RESUME, "identity"), "abc", "'identity' is abc, expected dict"),
        ((*RESUME, "identity"), {"seed": torch.ones(3)}, "'identity' is of type dict, expected plain"),
        ((*RESUME, "identity", "precision"), "fp8", "'precision' is fp8, expected fp32, bf16 or fp16"),
        ((*RESUME, "device"), 0, "'device' is 0, expected str"),
        ((*RESUME, "finished"), "no", "'finished' is no, expected bool"),
        ((*RESUME, "scaler"), {"scale": 0.0}, "'scaler' must have no entries"),
        ((*RESUME, "scaler"), None, "'scaler' is None, expected dict"),
        (("resume",), 3, "holds no run"),
        (("step",), 6, "'step' is 6, expected 7, as in 'progress'"),
        (("run_id",), 6, "'run_id' is 6, expected str"),
        (("settings",), None, "'settings' is None, expected dict"),
        (("settings", "epochs"), -3, "'epochs' is -3, expected a count"),
        (("settings", "max_steps"), 3, "'step' is 7, in a run of 3 steps"),
        (("model", "wte.weight"), None, "missing tensor wte.weight"),
        (("model", "wte.weight"), torch.zeros(2, 2), r"wte.weight is torch.float32 \(2, 2\)"),
        (("optimizer",), None, "'optimizer' is None, expected dict"),
        (("optimizer", "state"), {}, "'optimizer' does not have the state of 28 parameters"),
        (("optimizer", "state", 3), None, "'optimizer' does not have the state of 28 parameters"),
        (("optimizer", "state", 3), {}, "'optimizer' must have step, exp_avg, exp_avg_sq of parameter 3, and no more"),
        (("optimizer", "state", 0, "exp_avg"), torch.zeros(3), "exp_avg of parameter 0 must be a float32 tensor of"),
        (("optimizer", "state", 0, "exp_avg"), torch.zeros(61, 16).half(), "must be a float32 tensor of shape"),
        (("optimizer", "state", 0, "exp_avg"), torch.full((61, 16), math.nan), "exp_avg of parameter 0 has impossible"),
        (("optimizer", "state", 0, "exp_avg_sq"), torch.full((61, 16), -1.0), "impossible values, from -1 to -1"),
        (("optimizer", "state", 0, "step"), torch.tensor(1e9), "'optimizer' has taken 1e.09 steps, the run 7"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named_in_one_line(interrupted: Path, tmp_path: Path, where, value, message: str) -> None:
    content = read_checkpoint(interrupted / "out/latest_model.pt")
    nested(*where)(content, value)
    save_checkpoint(tmp_path / "out/latest_model.pt", content)
    with pytest.raises(ValueError, match=f"latest_model.pt cannot be resumed; pass --no-resume .*{message}") as raised:
        run(flags(tmp_path))
    assert "\n" not in str(raised.value)


def test_the_learning_rate_in_a_file_is_not_used(interrupted: Path, tmp_path: Path) -> None:
    content = read_checkpoint(interrupted / "out/latest_model.pt")
    for group in content["optimizer"]["param_groups"]:
        group |= {"lr": 1e9, "betas": (0.0, 0.0), "weight_decay": 100.0}
    save_checkpoint(tmp_path / "out/latest_model.pt", content)
    _, resumed = run(flags(tmp_path))
    _, expected = run(flags(tmp_path / "a"))
    assert torch.equal(resumed.wte.weight, expected.wte.weight)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("scale", 0.0, "'scale' is 0.0, expected a number above 0"),
        ("scale", math.nan, "'scale' is nan, expected"),
        ("growth_interval", None, "'scaler' must have scale, growth_factor"),
    ],
)
def test_an_unusable_loss_scale_is_refused(tmp_path: Path, name: str, value: object, message: str) -> None:
    fp16 = replace(CPU, precision="fp16")
    assert run(flags(tmp_path), runtime=fp16, loss_fn=Interrupt(1))[0] == 130  # its gradients may have overflowed
    assert run(flags(tmp_path), runtime=fp16, loss_fn=Interrupt(1))[0] == 130
    latest = tmp_path / "out/latest_model.pt"
    content = read_checkpoint(latest)
    nested("resume", "scaler", name)(content, value)
    save_checkpoint(latest, content)
    with pytest.raises(ValueError, match=message):
        run(flags(tmp_path), runtime=fp16)


# --- divergence


def evaluations(*losses: float) -> Callable[..., tuple[torch.Tensor, dict]]:
    """A loss with given evaluations; training losses are as high as the last evaluation."""
    current = [0.0]
    remaining = iter(losses)

    def loss(model, batch):
        total, _ = language_model_loss(model, batch)
        if not model.training:
            current[0] = next(remaining)
        return total * 0 + current[0] * batch.loss_denominator, {}

    return loss


def test_a_diverged_run_leaves_the_earlier_best_model(tmp_path: Path, one_batch, capsys) -> None:
    run(flags(tmp_path, max_steps=1))
    best = tmp_path / "out/best_model.pt"
    before = best.read_bytes()
    settings = flags(tmp_path, seed=2, max_steps=2, eval_every=1)
    message = (
        "training diverged: train loss 438.0000 after step 2, 3.6700 before training; not saved as .*best_model.pt, "
        "the earlier one is unchanged; try --max-lr below 0.01$"
    )
    capsys.readouterr()
    with pytest.raises(ValueError, match=message):
        run(settings, loss_fn=evaluations(3.67, 500.0, 438.0), evaluation=one_batch)
    output = capsys.readouterr().out
    assert "far above the loss before training, 3.6700: not saved as the best model" in output
    assert "next:" not in output
    assert "saved" not in output.replace("not saved", "")
    assert best.read_bytes() == before
    assert log_lines(tmp_path)[-1]["ended"] == "diverged"
    with pytest.raises(ValueError, match="training diverged"):  # it is not a success the second time, either
        run(settings, evaluation=one_batch)


def test_a_run_whose_loss_stays_high_has_diverged(tmp_path: Path, one_batch, capsys) -> None:
    settings = flags(tmp_path, max_steps=3, eval_every=1)
    with pytest.raises(ValueError, match=r"diverged: .* loss 9.0000 .*best_model.pt is the model of step 1, before"):
        run(settings, loss_fn=evaluations(10.8, 3.0, 9.0, 9.0), evaluation=one_batch)
    assert read_checkpoint(tmp_path / "out/best_model.pt")["step"] == 1
    assert "next:" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("first", "best", "train", "last", "diverged"),
    [
        (10.8, 5.0, 5.1, 5.0, False),
        (10.8, 3.0, 7.5, 7.5, True),  # the plateau after a spike
        (3.67, 3.5, 0.2, 6.0, False),  # overfits: the training loss is low
        (3.67, 3.5, 9.0, 3.5, False),  # one bad batch at the end
        (3.67, 3.7, 3.7, 3.9, False),  # just fails to improve
        (0.693, 0.5, 3.0, 2.0, True),  # DPO
        (25.0, 2.0, 4.0, 4.0, False),  # IPO: within a tenth of the first loss
        (25.0, 2.0, 5.0, 5.0, True),
        (0.01, 0.02, 0.5, 0.9, False),  # answers that were already known by heart
    ],
)
def test_divergence_is_not_noise_or_overfitting(first, best, train, last, diverged: bool) -> None:
    progress = Progress(step=9, first_loss=first, best_loss=best, best_step=5, train_loss=train, eval_loss=last)
    assert has_diverged(progress) == diverged


# --- signals, commands


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no SIGHUP on Windows")
def test_a_closed_terminal_saves_the_run(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        assert run(flags(tmp_path), loss_fn=Interrupt(3, signal.SIGHUP))[0] == 130
        assert read_checkpoint(tmp_path / "out/latest_model.pt")["step"] == 3
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
        assert run(flags(tmp_path), loss_fn=Interrupt(1, signal.SIGHUP))[0] == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_printed_commands_quote_paths_with_blanks(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.argv", ["my script.py", "--no-resume", "--out", "my run"])
    run(flags(tmp_path, out=tmp_path / "my run", max_steps=2), loss_fn=Interrupt(1))
    quote = '"' if os.name == "nt" else "'"
    assert f"resume with: python {quote}my script.py{quote} --out {quote}my run{quote}\n" in capsys.readouterr().out
    run(flags(tmp_path, out=tmp_path / "my run", max_steps=2))
    assert f"next: python next.py --base {quote}{tmp_path / 'my run'}{quote}\n" in capsys.readouterr().out
