"""Exercises 50 to 56: solutions pass, stubs fail, common mistakes are named, and examples hold."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from exercises import check, training
from exercises.checks import runs
from exercises.checks.judging import CallFailedError
from exercises.checks.reference_run import rate_of
from exercises.checks.training import CHECKS
from exercises.solutions import gpt
from exercises.solutions import training as solutions
from exercises.solutions.training import adam_update, clip_gradients, learning_rate, load_run, pretrain, save_run
from tests.exercises.proof import PYTHON, ROOT, prove_mistake, prove_solution_and_stub, prove_texts, sections

NAMES = {name: getattr(solutions, name) for name, _ in CHECKS.values()}
Run = dict[str, Any]


@pytest.mark.parametrize("number", [number for number in CHECKS if number != 56])
def test_solution_passes_and_stub_fails(number: int) -> None:
    prove_solution_and_stub(number, CHECKS, training, solutions)


@pytest.mark.slow
def test_the_last_solution_trains_a_model_and_its_stub_fails() -> None:
    prove_solution_and_stub(56, CHECKS, training, solutions)


def test_tasks_and_answers_are_complete_and_right() -> None:
    names = {**NAMES, "initial_weights": gpt.initial_weights, "Path": Path}
    prove_texts("training", CHECKS, training, names)


def test_the_program_that_asks_the_model_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    section = sections((ROOT / "exercises/training_exercises.md").read_text(encoding="utf-8"))[56]
    program = PYTHON.findall(section)[-1].replace("exercises.answers", "exercises.solutions")
    (tmp_path / "exercises/answers").mkdir(parents=True)
    (tmp_path / "Data").mkdir()
    shutil.copy(ROOT / "Data/instruction_data.json", tmp_path / "Data")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(program.replace(", 300)", ", 2)"), names)
    assert capsys.readouterr().out.startswith("What is the capital of France?\n")
    assert names["settings"] == runs.CHAT_SETTINGS
    assert names["config"] == {**runs.CHAT_CONFIG, "vocab_size": len(names["words"])}
    ids, words = runs.chat_text()
    assert names["words"] == words and torch.equal(names["ids"], ids)


def test_the_last_exercise_has_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    exercises = check.all_exercises()
    assert [check.limit_of(exercises[number], 10) for number in (1, 56)] == [10, 120]
    assert check.limit_of(exercises[56], None) is None


def adam(
    g: Tensor, mean: Tensor, square: Tensor, step: int,
    *, corrections: tuple[bool, bool] = (True, True), first: int = 0, inside: float = 0.0, outside: float = 1e-8,
    power: float = 0.5,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Adam's update with one thing changed."""
    mean, square = 0.9 * mean + 0.1 * g, 0.95 * square + 0.05 * g**2
    m = mean / torch.tensor(1 - 0.9 ** (step - first)) if corrections[0] else mean
    s = square / torch.tensor(1 - 0.95 ** (step - first)) if corrections[1] else square
    return m / ((s + inside) ** power + outside), mean, square


def averages(of: Callable[..., tuple[Tensor, Tensor]]) -> Callable[..., Any]:
    """Adam that returns another mean or square."""

    def answer(g: Tensor, m: Tensor, s: Tensor, step: int) -> Any:
        update, mean, square = adam_update(g, m, s, step)
        return update, *of(g, m, s, mean, square, step)

    return answer


def rate(warm: Callable[..., float], decay: Callable[[float], float] | None = None) -> Callable[..., float]:
    """Another warm-up, or another share of max_lr - min_lr at some progress."""

    def answer(step: int, high: float, low: float, warmup: int, steps: int) -> float:
        if step < warmup:
            return warm(step, high, low, warmup)
        if decay is None:
            return learning_rate(step, high, low, warmup, steps)
        return low + (high - low) * decay((step - warmup) / (steps - 1 - warmup))

    return answer


def cosine(progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * progress))


def progress(of: Callable[[int, int, int], float]) -> Callable[..., float]:
    """The schedule with another progress."""
    return lambda step, high, low, warmup, steps: (
        learning_rate(step, high, low, warmup, steps)
        if step < warmup
        else low + (high - low) * cosine(of(step, warmup, steps))
    )


def scaled(of: Callable[[list[Tensor], float, float], list[Tensor]]) -> Callable[..., Any]:
    """Other clipped gradients, from the gradients, their norm and max_norm."""
    return lambda gradients, most: (of(gradients, norm := clip_gradients(gradients, most)[1], most), norm)


def normed(of: Callable[[list[Tensor], list[Tensor], float], Any]) -> Callable[..., Any]:
    """Another norm, from the gradients, the clipped ones and the norm."""
    return lambda gradients, most: ((clipped := clip_gradients(gradients, most))[0], of(gradients, *clipped))


def step_with(change: Callable[[pytest.MonkeyPatch], None]) -> Callable[..., float]:
    """train_step with a part of the solution replaced."""

    def answer(run: Run, ids: Tensor, config: Any, settings: Any) -> float:
        with pytest.MonkeyPatch.context() as patch:
            change(patch)
            return solutions.train_step(run, ids, config, settings)

    return answer


def replaced(name: str, of: Callable[..., Any]) -> Callable[..., float]:
    return step_with(lambda patch: patch.setattr(solutions, name, of))


def then(of: Callable[[Run, float], Any]) -> Callable[..., Any]:
    """train_step, and something after it."""
    return lambda run, ids, config, settings: of(run, solutions.train_step(run, ids, config, settings))


def undo(name: str) -> Callable[..., Any]:
    """train_step that forgets to store a part of the run."""

    def answer(run: Run, ids: Tensor, config: Any, settings: Any) -> float:
        old = run[name] if name in ("step", "generator") else dict(run[name])
        loss = solutions.train_step(run, ids, config, settings)
        run[name] = old
        return loss

    return answer


def l2_penalty(run: Run, ids: Tensor, config: Any, settings: Any) -> float:
    """train_step that adds the weight decay to the gradients."""
    matrices = [weight if weight.dim() == 2 else 0 * weight for weight in run["weights"].values()]

    def clip(gradients: list[Tensor], max_norm: float) -> tuple[list[Tensor], float]:
        clipped, norm = clip_gradients(gradients, max_norm)
        return [g + settings["weight_decay"] * w for g, w in zip(clipped, matrices, strict=True)], norm

    return replaced("clip_gradients", clip)(run, ids, config, {**settings, "weight_decay": 0.0})


def decaying(of: Callable[[Tensor, float, float], Tensor]) -> Callable[..., float]:
    """train_step with another weight decay: what to subtract, from a weight, the learning rate and its decay."""

    def answer(run: Run, ids: Tensor, config: Any, settings: Any) -> float:
        old, lr = dict(run["weights"]), rate_of(settings, run["step"])
        loss = solutions.train_step(run, ids, config, {**settings, "weight_decay": 0.0})
        for name, weight in old.items():
            run["weights"][name] = run["weights"][name] - of(weight, lr, settings["weight_decay"])
        return loss

    return answer


def from_the_global_generator(run: Run, ids: Tensor, config: Any, settings: Any) -> float:
    loss = solutions.train_step(run, ids, config, settings)
    torch.randint(9, (1,))
    return loss


def other_batch(run: Run, ids: Tensor, config: Any, settings: Any) -> float:
    torch.randint(9, (1,), generator=run["generator"])
    return solutions.train_step(run, ids, config, settings)


def saved(of: Callable[[Run], Any]) -> Callable[..., None]:
    return lambda run, path: torch.save(of(run), path)


def state(run: Run) -> Run:
    return {**run, "generator": run["generator"].get_state()}


def save_and_replace(run: Run, path: Path) -> None:
    run["generator"] = run["generator"].get_state()
    torch.save(run, path)


def loaded(of: Callable[[Run], Any]) -> Callable[[Path], Any]:
    return lambda path: of(load_run(path))


def load_globally(path: Path) -> Run:
    run = load_run(path)
    torch.randn(1)
    return run


def forgetful(forget: Callable[[Run], Any], at: int = 3) -> Callable[..., Any]:
    """pretrain that loses something when it resumes at step 3."""

    def answer(ids: Tensor, config: Any, settings: Any, path: Path, until: int) -> Any:
        if path.exists() and (run := load_run(path))["step"] == at:
            forget(run)
            save_run(run, path)
        return pretrain(ids, config, settings, path, until)

    return answer


def starting(change: Callable[[Run, int], Any]) -> Callable[..., Any]:
    """pretrain whose first run is changed before it is trained."""

    def answer(ids: Tensor, config: Any, settings: Any, path: Path, until: int) -> Any:
        if path.exists():
            return pretrain(ids, config, settings, path, until)
        run, _ = pretrain(ids, config, settings, path, 0)
        change(run, settings["seed"])
        return run, [solutions.train_step(run, ids, config, settings) for _ in range(until)], save_run(run, path)

    return lambda *arguments: answer(*arguments)[:2]


def start_again(ids: Tensor, config: Any, settings: Any, path: Path, until: int) -> Any:
    path.unlink(missing_ok=True)
    return pretrain(ids, config, settings, path, until)


def never_save(ids: Tensor, config: Any, settings: Any, path: Path, until: int) -> Any:
    result = pretrain(ids, config, settings, path, until)
    path.unlink()
    return result


def train_too_long(ids: Tensor, config: Any, settings: Any, path: Path, until: int) -> Any:
    done = load_run(path)["step"] if path.exists() else 0
    return pretrain(ids, config, settings, path, until + done)


def zero(values: dict[str, Tensor]) -> None:
    for value in values.values():
        value.zero_()


MISTAKES: list[tuple[int, Callable[..., Any], str]] = [
    (50, lambda *a: adam(*a, corrections=(False, False)), "bias correction is missing"),
    (50, lambda *a: adam(*a, corrections=(True, False)), "of the square is missing"),
    (50, lambda *a: adam(*a, corrections=(False, True)), "of the mean is missing"),
    (50, lambda *a: adam(*a, first=1), "counts from 0"),
    (50, lambda *a: adam(*a, inside=1e-8, outside=0.0), "here it is inside"),
    (50, lambda *a: adam(*a, outside=0.0), "epsilon is missing"),
    (50, lambda *a: adam(*a, power=1.0), "square root of the square is missing"),
    (50, averages(lambda g, m, s, mean, square, t: (mean / (1 - 0.9**t), square)), "only for the update"),
    (50, averages(lambda g, m, s, mean, square, t: (0.1 * m + 0.9 * g, square)), "keeps 0.9"),
    (50, averages(lambda g, m, s, mean, square, t: (mean, 0.95 * s + 0.05 * g)), "average the square"),
    (50, averages(lambda g, m, s, mean, square, t: (mean, 0.999 * s + 0.001 * g**2)), "here it is 0.999"),
    (50, lambda *a: adam_update(*a)[0], "expected a tuple of 3"),
    (50, lambda *a: None, "got None: the function needs a return"),
    (50, lambda *a: (-(answer := adam_update(*a))[0], *answer[1:]), "a training step subtracts it"),
    (50, lambda *a: tuple(adam_update(*a)[i] for i in (0, 2, 1)), "this is the square"),
    (51, rate(lambda step, high, low, n: high * step / n), "no effect"),
    (51, rate(lambda step, high, low, n: high * (step + 1) / n), "one step early"),
    (51, rate(lambda step, high, low, n: low + (high - low) * (step + 1) / (n + 1)), "not at min_lr"),
    (51, rate(lambda step, high, low, n: high), "warm-up is missing"),
    (51, progress(lambda step, warmup, steps: step / (steps - 1)), "counts from step 0"),
    (51, progress(lambda step, warmup, steps: (step - warmup) / (steps - warmup)), "divide by steps - 1"),
    (51, rate(lambda step, high, low, n: high * (step + 1) / (n + 1), lambda p: 1 - p), "use the cosine"),
    (51, rate(lambda step, high, low, n: high * (step + 1) / (n + 1), lambda p: 1 + math.cos(math.pi * p)), "0.5 is"),
    (51, rate(lambda step, high, low, n: high * (step + 1) / (n + 1), lambda p: 0.5 * (1 + math.cos(p))), "0 to pi"),
    (51, rate(lambda step, high, low, n: high * (step + 1) / (n + 1), lambda p: 1.0), "the decay is missing"),
    (52, scaled(lambda g, n, most: [x * min(1.0, most / (x.norm().item() or 1)) for x in g]), "on its own"),
    (52, scaled(lambda g, n, most: [x.clamp(-most, most) for x in g]), "each number was clipped"),
    (52, scaled(lambda g, n, most: [x * (most / (n or 1)) for x in g]), "below the limit"),
    (52, scaled(lambda g, n, most: g), "not clipped"),
    (52, scaled(lambda g, n, most: [x * (min(1.0, most / n) if n else math.nan) for x in g]), "norm is 0"),
    (52, scaled(lambda g, n, most: [x * min(1.0, most / (sum(y.norm().item() for y in g) or 1)) for x in g]), "one sq"),
    (52, normed(lambda g, clipped, n: clip_gradients(clipped, math.inf)[1]), "the one before"),
    (52, normed(lambda g, clipped, n: n**2), "root is missing"),
    (52, lambda g, most: ([x.mul_(0.5) for x in g], 1.0), "changed its argument gradients"),
    (53, replaced("clip_gradients", lambda g, most: (g, 0.0)), "not clipped"),
    (53, l2_penalty, "Adam with L2"),
    (53, decaying(lambda w, lr, decay: lr * decay * w), "biases and LayerNorms have it"),
    (53, decaying(lambda w, lr, decay: 0 * w), "weight decay is missing"),
    (53, decaying(lambda w, lr, decay: -lr * decay * w if w.dim() == 2 else 0 * w), "here it grows"),
    (53, decaying(lambda w, lr, decay: decay * w if w.dim() == 2 else 0 * w), "by the learning rate, too"),
    (53, replaced("learning_rate", lambda step, **a: -learning_rate(step, **a)), "go against the gradient"),
    (53, replaced("adam_update", lambda g, m, s, step: adam_update(g, m, s, step + 1)), "one too large"),
    (53, replaced("learning_rate", lambda step, **a: learning_rate(step + 1, **a)), "the one of the next step"),
    (53, undo("step"), "count the step"),
    (53, undo("weights"), "run['weights'] is as before"),
    (53, undo("squares"), "run['squares'] is as before"),
    (53, then(lambda run, loss: None), "return the loss"),
    (53, then(lambda run, loss: torch.tensor(loss)), "expected a float"),
    (53, then(lambda run, loss: [w.requires_grad_() for w in run["weights"].values()] and loss), "detached copies"),
    (53, from_the_global_generator, "global random state"),
    (53, other_batch, "draw the starts with"),
    (54, saved(lambda run: run), "save tensors and numbers only"),
    (54, saved(lambda run: run["weights"]), "the file lacks weights, means"),
    (54, saved(lambda run: {n: v for n, v in state(run).items() if n != "generator"}), "the file lacks generator"),
    (54, saved(lambda run: {**run, "generator": run["generator"].initial_seed()}), "expected the tensor"),
    (54, saved(lambda run: {**run, "generator": torch.get_rng_state()}), "the global generator's"),
    (54, saved(lambda run: {**state(run), "step": 0}), "saved step is 0"),
    (54, save_and_replace, "make a new dict"),
    (54, lambda run, path: None, "wrote no file"),
    (55, lambda path: torch.load(path, weights_only=True), "call its set_state"),
    (55, loaded(lambda run: {**run, "generator": torch.Generator().manual_seed(5)}), "would draw other batches"),
    (55, loaded(lambda run: {**run, "step": 0}), "the loaded step is 0"),
    (55, loaded(lambda run: None), "needs a return"),
    (55, load_globally, "global random state"),
    (56, start_again, "load the file if it exists"),
    (56, never_save, "no file was saved"),
    (56, train_too_long, "train only the missing steps"),
    (56, forgetful(lambda run: run["generator"].manual_seed(1)), "the weights or the generator"),
    (56, forgetful(lambda run: zero(run["means"])), "the means, the squares or the step"),
    (56, lambda *a: pretrain(*a)[0], "expected a tuple of 2"),
    (56, starting(lambda run, seed: run["generator"].manual_seed(seed)), "do not seed it again"),
    (56, starting(lambda run, seed: run["generator"].manual_seed(0)), "must have the seed 1"),
    (56, starting(lambda run, seed: run.update(means=run["squares"])), "are the same dict"),
    (56, lambda ids, c, s, path, n: pretrain(ids, c, s, path, s["steps"]), "only for the learning rate"),
    (56, lambda ids, c, s, path, n: pretrain(ids, c, {**s, "max_lr": 0.0, "min_lr": 0.0}, path, n), "the project's mo"),
]  # fmt: skip


@pytest.mark.parametrize(("number", "wrong", "named"), MISTAKES, ids=[f"{n}: {named}" for n, _, named in MISTAKES])
def test_common_mistakes_are_named(number: int, wrong: Callable[..., Any], named: str) -> None:
    prove_mistake(CHECKS[number][1], wrong, named)


def test_an_error_inside_a_training_step_names_the_step() -> None:
    with pytest.raises(CallFailedError, match="for step 0 of a run"):
        CHECKS[53][1](lambda run, ids, config, settings: run["nothing"])


def test_a_model_that_learns_nothing_misses_the_goal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "CHAT_SETTINGS", {**runs.CHAT_SETTINGS, "steps": 20})
    with pytest.raises(AssertionError, match="expected less than 0.2"):
        runs._check_goal(pretrain, tmp_path / "chat.pt")
