"""The training loop on a small model: exact accumulation, evaluation, logging, saving, stopping."""

import inspect
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch._dynamo.exc import BackendCompilerFailed

from src.checkpoint import as_argument, read_checkpoint
from src.common.messages import shown_command
from src.data.batching import StepLoader, epoch_loader, pack_examples, stack_windows
from src.data.datasets import ExampleDataset
from src.model.gpt import GPTModel
from src.training import loop
from src.training.losses import language_model_loss
from src.training.stage import make_schedule
from tests.training.small_run import CONFIG, examples, flags, log_lines, run, weights


@pytest.mark.parametrize(("batch_size", "grad_accum"), [(1, 8), (2, 4), (4, 2), (3, 3)])
def test_micro_batches_accumulate_to_one_large_batch(tmp_path: Path, batch_size: int, grad_accum: int) -> None:
    whole_size = batch_size * grad_accum
    _, whole = run(flags(tmp_path / "a", batch_size=whole_size, grad_accum=1, max_steps=4))
    _, split = run(flags(tmp_path / "b", batch_size=batch_size, grad_accum=grad_accum, max_steps=4))
    for (name, a), b in zip(whole.state_dict().items(), split.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4, msg=name)
    steps = [[line for line in log_lines(tmp_path / side) if line["event"] == "step"] for side in "ab"]
    for one, other in zip(*steps, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3)


def test_logged_loss_is_the_mean_over_the_whole_step(tmp_path: Path) -> None:
    _, _ = run(flags(tmp_path, batch_size=2, grad_accum=3, max_steps=1))
    torch.manual_seed(0)
    model = GPTModel({**CONFIG, "dropout": 0.0})
    batches = StepLoader(epoch_loader(ExampleDataset(examples(), 1337), pack_examples, 2), 3).step_batches(0)
    total = sum(language_model_loss(model, batch)[0].item() for batch in batches)
    [step] = [line for line in log_lines(tmp_path) if line["event"] == "step"]
    assert step["loss"] == pytest.approx(total / sum(batch.loss_denominator for batch in batches), rel=1e-5)


def test_every_step_draws_other_random_numbers(tmp_path: Path) -> None:
    draws = []

    def loss(model, batch):
        if model.training:
            draws.append(float(torch.rand(())))
        return language_model_loss(model, batch)

    run(flags(tmp_path, max_steps=4), loss_fn=loss)
    assert len(set(draws)) == len(draws) == 4


def test_gradients_are_clipped_to_the_limit_before_the_step() -> None:
    layer = torch.nn.Linear(2, 1, bias=False)
    before = layer.weight.detach().clone()
    layer.weight.grad = torch.tensor([[0.6, 0.8]])
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    norm = loop.optimizer_step(layer, torch.optim.SGD(layer.parameters(), lr=1.0), scaler, grad_clip=0.7)
    assert norm == pytest.approx(1.0)
    torch.testing.assert_close(before - layer.weight.detach(), torch.tensor([[0.42, 0.56]]))


def test_dropout_depends_on_the_seed(tmp_path: Path) -> None:
    _, a = run(flags(tmp_path / "a"), dropout=0.2)
    _, b = run(flags(tmp_path / "b", seed=1), dropout=0.2)
    _, c = run(flags(tmp_path / "c"), dropout=0.2)
    assert torch.equal(a.wte.weight, c.wte.weight)
    assert not torch.equal(a.wte.weight, b.wte.weight)


def test_best_only_improves_and_latest_is_the_last_step(tmp_path: Path) -> None:
    losses = iter([5.0, 3.0, 4.0, 2.0, 2.0])  # an equal loss is no improvement

    def loss(model, batch):
        if model.training:
            return language_model_loss(model, batch)
        return torch.tensor(next(losses)) * batch.loss_denominator, {}

    one_batch = StepLoader(epoch_loader(ExampleDataset(examples(), 0), pack_examples, 16)).first_batches(1)
    run(flags(tmp_path, max_steps=8, eval_every=2), loss_fn=loss, evaluation=one_batch)
    best, latest = (read_checkpoint(tmp_path / f"out/{name}_model.pt") for name in ("best", "latest"))
    assert (best["step"], latest["step"]) == (6, 8)
    assert latest["resume"]["progress"]["best_loss"] == pytest.approx(2.0)
    assert "optimizer" not in best
    evaluations = [line for line in log_lines(tmp_path) if line["event"] == "eval"]
    assert [line["step"] for line in evaluations] == [0, 2, 4, 6, 8]  # before the first step, and on schedule
    assert [line["best"] for line in evaluations] == [False, True, False, True, False]


def test_patience_stops_a_run_that_no_longer_improves(tmp_path: Path, capsys) -> None:
    rising = iter(range(1, 100))

    def loss(model, batch):
        return language_model_loss(model, batch) if model.training else (torch.tensor(float(next(rising))), {})

    one_batch = StepLoader(epoch_loader(ExampleDataset(examples(), 0), pack_examples, 16)).first_batches(1)
    code, _ = run(flags(tmp_path, max_steps=50, eval_every=2, patience=3), loss_fn=loss, evaluation=one_batch)
    assert code == 0
    assert read_checkpoint(tmp_path / "out/latest_model.pt")["step"] == 8
    output = capsys.readouterr().out
    assert "stopped early at step 8: no improvement in 3 evaluations" in output
    assert "training did not improve on the model it started from" in output


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_non_finite_loss_keeps_the_last_good_checkpoint(tmp_path: Path, value: float) -> None:
    calls = iter(range(100))

    def loss(model, batch):
        total, metrics = language_model_loss(model, batch)
        return (total * value if model.training and next(calls) == 7 else total), metrics

    message = f"step 8: the loss is {value}; the checkpoints saved before are intact; try --max-lr below 0.01, with"
    with pytest.raises(ValueError, match=message):
        run(flags(tmp_path, eval_every=3), loss_fn=loss)
    latest = read_checkpoint(tmp_path / "out/latest_model.pt")
    assert latest["step"] == 6
    assert all(tensor.isfinite().all() for tensor in latest["model"].values())
    assert log_lines(tmp_path)[-1]["ended"] == "failed"


@pytest.mark.parametrize("failing", [0, 4])
def test_a_non_finite_evaluation_loss_names_its_step(tmp_path: Path, failing: int) -> None:
    losses = iter([math.nan if step == failing else 1.0 for step in (0, 2, 4)])

    def loss(model, batch):
        total, metrics = language_model_loss(model, batch)
        return (total if model.training else total * next(losses)), metrics

    one_batch = StepLoader(epoch_loader(ExampleDataset(examples(), 0), pack_examples, 16)).first_batches(1)
    with pytest.raises(ValueError, match=f"^step {failing}: the evaluation loss is nan; .* try --max-lr below 0.01"):
        run(flags(tmp_path, eval_every=2), loss_fn=loss, evaluation=one_batch)


def test_a_non_finite_gradient_never_reaches_the_weights(tmp_path: Path) -> None:
    class Poison(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * math.nan

    def loss(model, batch):
        total, metrics = language_model_loss(model, batch)
        return Poison.apply(total), metrics

    with pytest.raises(ValueError, match="step 1: the gradient norm is nan"):
        run(flags(tmp_path), loss_fn=loss)


def test_gradients_are_clipped_to_the_given_norm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    norms = []
    step = torch.optim.AdamW.step

    def spy(self, *args, **kwargs):
        gradients = [p.grad for group in self.param_groups for p in group["params"]]
        norms.append(torch.nn.utils.get_total_norm(gradients).item())
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    run(flags(tmp_path / "a", max_steps=3, grad_clip=0.01))
    assert norms == pytest.approx([0.01] * 3, rel=1e-3)
    norms.clear()
    run(flags(tmp_path / "b", max_steps=3, grad_clip=None))
    logged = [line["grad_norm"] for line in log_lines(tmp_path / "b") if line["event"] == "step"]
    assert norms == pytest.approx(logged, rel=1e-5)
    assert min(norms) > 0.01


@pytest.mark.parametrize(
    ("save_every", "expected"), [("1", [None, 1, 2, 3]), ("2", [None, None, 2, 2]), ("0.0000001m", [None, 1, 2, 3])]
)
def test_a_run_is_saved_between_evaluations(tmp_path: Path, save_every: str, expected: list[int | None]) -> None:
    seen = []

    def loss(model, batch):
        latest = tmp_path / "out/latest_model.pt"
        if model.training:
            seen.append(read_checkpoint(latest)["step"] if latest.exists() else None)
        return language_model_loss(model, batch)

    run(flags(tmp_path, max_steps=4, eval_every=4, save_every=save_every), loss_fn=loss)
    assert seen == expected


def test_every_step_is_logged_and_the_curves_are_drawn(tmp_path: Path, drawn_curves: None) -> None:
    run(flags(tmp_path))
    lines = log_lines(tmp_path)
    assert [line["event"] for line in lines].count("step") == 10
    assert (lines[0]["event"], lines[-1]["event"], lines[-1]["ended"]) == ("start", "end", "done")
    for line in lines:
        assert line["stage"] == "test"
        if line["event"] == "step":
            names = {"step", "epoch", "loss", "lr", "grad_norm", "tokens", "tokens_per_s", "step_s", "elapsed_s"}
            assert names <= set(line)
            assert line["tokens_per_s"] == pytest.approx(line["tokens"] / line["step_s"], rel=1e-6)
    [picture] = (tmp_path / "logs").glob("*.png")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_steps_epochs_and_mean_losses_are_logged_and_saved(tmp_path: Path) -> None:
    run(flags(tmp_path, max_steps=10, eval_every=5))  # four steps per epoch
    steps, evaluations = ([line for line in log_lines(tmp_path) if line["event"] == kind] for kind in ("step", "eval"))
    assert [(line["step"], line["epoch"]) for line in steps] == [(step, (step - 1) // 4) for step in range(1, 11)]
    assert [(line["step"], line["epoch"]) for line in evaluations] == [(0, 0), (5, 1), (10, 2)]
    latest = read_checkpoint(tmp_path / "out/latest_model.pt")
    assert latest["train_loss"] == pytest.approx(sum(line["loss"] for line in steps[5:]) / 5)


def test_only_training_steps_run_in_training_mode(tmp_path: Path) -> None:
    modes = []

    def loss(model, batch):
        modes.append((model.training, torch.is_grad_enabled()))
        return language_model_loss(model, batch)

    run(flags(tmp_path, max_steps=2, eval_every=1), loss_fn=loss)
    evaluation, step = [(False, False)] * 4, [(True, True)]
    assert modes == evaluation + step + evaluation + step + evaluation


def test_max_steps_replaces_epochs_in_the_schedule(tmp_path: Path) -> None:
    settings = flags(tmp_path, max_steps=None, eval_every=None)
    schedule = make_schedule(settings, steps_per_epoch=40)
    assert (schedule.steps, schedule.eval_every) == (120, 12)
    assert make_schedule(replace(settings, max_steps=7), steps_per_epoch=40).steps == 7


def test_a_compiled_run_trains_like_an_eager_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = torch.randint(61, (16, 13))
    windows = {"data": [(row[:-1], row[1:]) for row in ids], "collate": stack_windows}
    _, eager = run(flags(tmp_path / "a", max_steps=4), **windows)
    calls = []

    def counting(function):
        graph = compile_(function, backend="eager")
        return lambda *args, **kwargs: calls.append(len(args)) or graph(*args, **kwargs)

    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", counting)
    _, model = run(flags(tmp_path / "b", max_steps=4), compiled=True, **windows)
    for name, tensor in weights(eager).items():
        torch.testing.assert_close(model.state_dict()[name], tensor, atol=1e-6, rtol=1e-5, msg=name)
    assert not [name for name in read_checkpoint(tmp_path / "b/out/best_model.pt")["model"] if "_orig_mod" in name]
    trained = len(calls)
    assert trained == 4 + 2 * 4  # four steps, and four batches in each of two evaluations
    with torch.no_grad():
        model(torch.zeros(1, 3, dtype=torch.int64), model.new_cache())
        model(torch.zeros(1, 3, dtype=torch.int64))
    assert len(calls) == trained


def test_compile_failure_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_, **__):
        raise BackendCompilerFailed(fail, RuntimeError("no compiler"), inspect.currentframe())

    monkeypatch.setattr(torch, "compile", lambda function: fail)
    with pytest.raises(ValueError, match=r"^--compile does not work on this machine \(.*\); leave it out$"):
        run(flags(tmp_path), compiled=True)


def test_the_folder_of_the_base_is_refused_as_out(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--out .*out holds the model to start from"):
        run(flags(tmp_path), parent={"path": str(tmp_path / "out/best_model.pt"), "weights_sha256": "0"})


def test_the_next_command_names_a_non_default_folder(tmp_path: Path, capsys) -> None:
    run(flags(tmp_path))
    assert f"next: python next.py --base {tmp_path / 'out'}" in capsys.readouterr().out


def test_the_log_of_an_interrupted_first_evaluation_says_so(tmp_path: Path) -> None:
    def interrupted(model: GPTModel, batch: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(flags(tmp_path), loss_fn=interrupted)
    assert log_lines(tmp_path)[-1]["ended"] == "interrupted"


@pytest.mark.parametrize(
    ("out", "argument"),
    [("scratch", "./scratch"), ("auto", "./auto"), ("-x", "./-x"), ("runs/dpo", "runs/dpo"), ("my run", "'my run'")],
)
def test_the_next_command_names_the_folder_not_a_stage(out: str, argument: str) -> None:
    assert shown_command([as_argument(Path(out))]).replace("\\", "/") == argument


def test_evaluation_computes_no_gradients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    products = []
    monkeypatch.setattr("src.training.tied_head._add_product", lambda *_, **__: products.append(1))
    model = GPTModel(CONFIG)
    batch = pack_examples(examples())
    with model.evaluating():
        language_model_loss(model, batch)
    assert not products
    language_model_loss(model, batch)
    assert products


def test_activation_checkpointing_changes_no_bit_of_the_weights(tmp_path: Path) -> None:
    trained = [
        weights(run(flags(tmp_path / str(on), activation_checkpointing=on, grad_accum=2), dropout=0.2)[1])
        for on in (False, True)
    ]
    assert all(torch.equal(trained[0][name], trained[1][name]) for name in trained[0])


def test_activation_checkpointing_stores_only_the_inputs_of_the_layers() -> None:
    stored = []
    for on in (False, True):
        model, tensors = GPTModel(CONFIG), []
        model.activation_checkpointing = on
        ids = torch.randint(61, (2, 16))
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor, kept=tensors: kept.append(tensor), lambda _: None):
            model.hidden_states(ids)
        stored.append(sum(tensor.numel() for tensor in tensors if not isinstance(tensor, torch.nn.Parameter)))
    assert stored[1] < stored[0] / 5
