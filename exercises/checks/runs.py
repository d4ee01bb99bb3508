"""The checks of exercises 53 to 56: a training step, a checkpoint, an exact resume, and a whole training."""

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from exercises.checks.hard_tools import parts
from exercises.checks.judging import CallFailedError, compare, is_close, kind_of, require
from exercises.checks.reference_run import PARTS, copy_of, new_run, rate_of, reference_step
from exercises.checks.state_dicts import random_model, weights_of
from src.model.gpt import GPTModel

Answer = Callable[..., Any]
Run = dict[str, Any]

CONFIG = {"vocab_size": 9, "context_length": 5, "d_model": 8, "n_heads": 2, "n_layers": 1}
SETTINGS = {
    "batch_size": 3, "max_lr": 0.02, "min_lr": 0.002, "warmup_steps": 2, "steps": 6, "weight_decay": 0.3,
    "max_norm": 0.5, "seed": 1,
}  # fmt: skip
TEXT = (3, 1, 4, 1, 5, 8, 2, 6, 5, 3, 5, 8, 0, 7, 8, 3)  # ids

# The training of exercise 56: 300 steps take a few seconds on one core.
CHAT_CONFIG = {"context_length": 32, "d_model": 64, "n_heads": 4, "n_layers": 2}
CHAT_SETTINGS = {
    "batch_size": 8, "max_lr": 5e-3, "min_lr": 5e-4, "warmup_steps": 10, "steps": 300, "weight_decay": 0.1,
    "max_norm": 1.0, "seed": 1,
}  # fmt: skip
GOAL = 0.2  # nats per word


def started_run(steps: int) -> Run:
    """A run in float64 after some steps, with means and squares that are not 0."""
    run = new_run(weights_of(random_model(**CONFIG)), seed=5)
    for _ in range(steps):
        reference_step(run, torch.tensor(TEXT), CONFIG, SETTINGS)
    return run


def check_train_step(function: Answer) -> None:
    """Exercise 53: compare with a step of torch's AdamW and the project's model, from several states of a run."""
    for steps, max_norm in ((0, 0.5), (3, 0.5), (4, 1e6)):
        settings = {**SETTINGS, "max_norm": max_norm}
        before = started_run(steps)
        after, answered = copy_of(before), copy_of(before)
        loss = reference_step(after, torch.tensor(TEXT), CONFIG, settings)
        where = f"for step {steps} of a run"
        state = torch.random.get_rng_state()
        answer = _call(function, where, answered, torch.tensor(TEXT), dict(CONFIG), dict(settings))
        _require_valid_run(where, answered, before, state)
        require(answer is not None, f"{where}, got None: return the loss")
        require(isinstance(answer, float), f"{where}, got {kind_of(answer)}, expected a float: use .item()")
        hint = (
            "draw the starts with torch.randint(len(ids) - context_length, (batch_size,), generator=run['generator'])"
        )
        close = is_close(torch.tensor(answer), torch.tensor(loss))
        require(close, f"{where}, got the loss {answer:.6g}, expected {loss:.6g}: {hint}")
        _compare_runs(where, answered, before, after, settings)


def _call(function: Answer, where: str, *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except Exception as error:
        raise CallFailedError(where) from error


def _require_valid_run(where: str, run: Run, before: Run, global_state: Tensor) -> None:
    """Raise AssertionError if the answer forgot a part of the run, or drew from torch's global generator."""
    unused = torch.equal(global_state, torch.random.get_rng_state())
    require(unused, f"{where}, torch's global random state changed: draw the starts with generator=run['generator']")
    drew = not torch.equal(run["generator"].get_state(), before["generator"].get_state())
    require(drew, f"{where}, no batch was drawn from run['generator']")
    step, expected = run["step"], before["step"] + 1
    require(
        step == expected, f"{where}, run['step'] is {step}, expected {expected}: count the step when it is finished"
    )
    for part in PARTS:
        require(list(run[part]) == list(before[part]), f"{where}, run['{part}'] has other names than before")
        changed = any(not torch.equal(run[part][name], before[part][name]) for name in before[part])
        require(changed, f"{where}, run['{part}'] is as before: put the new values into the run")
    advice = "compute the loss from detached copies, and the new weight from the run's own"
    attached = any(value.requires_grad for part in PARTS for value in run[part].values())
    require(not attached, f"{where}, the run's tensors require gradients: {advice}")


def _after(before: Run, settings: dict[str, Any], **mistake: Any) -> Run:
    """The run after one step with a mistake."""
    run = copy_of(before)
    reference_step(run, torch.tensor(TEXT), CONFIG, settings, **mistake)
    return run


def _compare_runs(where: str, answer: Run, before: Run, after: Run, settings: dict[str, Any]) -> None:
    """Compare means, squares and weights with those of the reference, and with those of steps that make a mistake."""
    wrong: dict[str, dict[str, Any]] = {
        "the gradients are not clipped": {"clip": False},
        "weight decay was added to the gradient, as in Adam with L2; add it to the update instead": {"l2": True},
        "only matrices have weight decay; here biases and LayerNorms have it, too": {"decay_all": True},
        "the learning rate is the one of the next step: it counts finished steps, from 0": {"lr_step": 1},
        "Adam's step is one too large": {"adam_step": 2},
    }
    if before["step"] > 0:  # otherwise it is a division by zero
        wrong["Adam's step counts from 1: it is the number of finished steps plus 1"] = {"adam_step": 0}
    runs = {hint: _after(before, settings, **mistake) for hint, mistake in wrong.items()}
    decay, lr = settings["weight_decay"], rate_of(settings, before["step"])
    other_settings = {
        "weight decay is missing": {"weight_decay": 0.0},
        "weight decay makes the weight smaller; here it grows": {"weight_decay": -decay},
        "multiply the weight decay by the learning rate, too": {"weight_decay": decay / lr},
        "go against the gradient: subtract": {"max_lr": -settings["max_lr"], "min_lr": -settings["min_lr"]},
    }
    runs |= {hint: _after(before, {**settings, **other}) for hint, other in other_settings.items()}
    for part in ("means", "squares", "weights"):
        for name, expected in after[part].items():
            mistakes = {hint: run[part][name] for hint, run in runs.items()}
            compare(f"{where}, as new run['{part}']['{name}']", answer[part][name], expected, mistakes)


def check_save_run(function: Answer) -> None:
    """Exercise 54: read the file as `load_run` has to, and compare every entry."""
    run = started_run(2)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "run.pt"
        _save(function, run, path)
        saved = _read(path)
    require(isinstance(saved, dict), f"the file holds {kind_of(saved)}, expected a dict like the run")
    missing = [name for name in run if name not in saved]
    require(not missing, f"the file lacks {', '.join(missing)}: without it, training can't resume exactly")
    require(saved["step"] == run["step"], f"the saved step is {saved['step']}, expected {run['step']}")
    for part in PARTS:
        same = isinstance(saved[part], dict) and list(saved[part]) == list(run[part])
        require(same, f"the saved {part} must be a dict with the same names as in the run")
        for name, value in run[part].items():
            compare(f"in the file, {part}['{name}']", saved[part][name], value)
    state = saved["generator"]
    by_get_state = isinstance(state, Tensor) and state.dtype == torch.uint8
    require(by_get_state, f"the saved generator is {kind_of(state)}, expected the tensor of its get_state()")
    own = torch.equal(state, run["generator"].get_state())
    require(own, "the saved state is not that of run['generator']: torch.get_rng_state() is the global generator's")


def _save(function: Answer, run: Run, path: Path) -> None:
    """Call the answer; raises AssertionError if it writes no file or changes the run."""
    before = copy_of(run)
    _call(function, f"for the path {path.name}", run, path)
    require(path.exists(), "the function wrote no file at the path")
    generator = run["generator"]
    kept = isinstance(generator, torch.Generator)
    require(kept, "the call replaced run['generator']: make a new dict for the file, so that the run can continue")
    require(
        torch.equal(generator.get_state(), before["generator"].get_state()) and run["step"] == before["step"],
        "the call changed the run: leave it unchanged",
    )


def _read(path: Path) -> Any:
    try:
        return torch.load(path, weights_only=True)
    except Exception as error:
        advice = "save tensors and numbers only, and for the generator its get_state()"
        raise AssertionError(f"torch.load(path, weights_only=True) can't read the file: {advice}") from error


def check_load_run(function: Answer) -> None:
    """Exercise 55: load a file, compare every entry, and draw the next numbers."""
    run = started_run(3)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "run.pt"
        torch.save({**run, "generator": run["generator"].get_state()}, path)
        state = torch.random.get_rng_state()
        loaded = _call(function, "for the path run.pt", path)
    unused = torch.equal(state, torch.random.get_rng_state())
    torch.random.set_rng_state(state)
    require(unused, "torch's global random state changed: make a torch.Generator() and call its set_state")
    require(loaded is not None, "got None: the function needs a return")
    require(isinstance(loaded, dict), f"got {kind_of(loaded)}, expected a dict")
    missing = [name for name in run if name not in loaded]
    require(not missing, f"the loaded run lacks {', '.join(missing)}")
    require(loaded["step"] == run["step"], f"the loaded step is {loaded['step']}, expected {run['step']}")
    for part in PARTS:
        for name, value in run[part].items():
            require(name in loaded[part], f"the loaded {part} lack {name}")
            compare(f"in the loaded run, {part}['{name}']", loaded[part][name], value)
    generator = loaded["generator"]
    ready = isinstance(generator, torch.Generator)
    require(ready, f"the loaded generator is {kind_of(generator)}: make a torch.Generator() and call its set_state")
    same = torch.equal(generator.get_state(), run["generator"].get_state())
    require(same, "the loaded generator would draw other batches: give it the saved state with set_state")


def check_pretrain(function: Answer) -> None:
    """Exercise 56: resume exactly, agree with the project's model, and reach the goal on a text of the project."""
    config, settings = {**CONFIG, "d_model": 16}, dict(SETTINGS)
    with TemporaryDirectory() as folder:
        _check_resume(function, config, settings, Path(folder))
        _check_first_losses(function, config, settings, Path(folder) / "untrained.pt")
        _check_goal(function, Path(folder) / "chat.pt")


def _pretrain(
    function: Answer, ids: Tensor, config: dict[str, Any], settings: dict[str, Any], path: Path, until: int
) -> tuple[Run, list[float]]:
    answer = _call(function, f"for until {until}", ids.clone(), dict(config), dict(settings), path, until)
    run, losses = parts(f"for until {until}", answer, 2)
    right = isinstance(run, dict) and "step" in run and isinstance(losses, list)
    require(right, f"for until {until}, expected the run and a list of losses")
    return run, losses


def _check_resume(function: Answer, config: dict[str, Any], settings: dict[str, Any], folder: Path) -> None:
    """Six steps must equal three steps, a new start, and three more, bit for bit."""
    whole, losses = _pretrain(function, torch.tensor(TEXT), config, settings, folder / "whole.pt", 6)
    require(len(losses) == 6, f"for until 6, got {len(losses)} losses, expected one for each of the 6 steps")
    require((folder / "whole.pt").exists(), "no file was saved at the path")
    _, first = _pretrain(function, torch.tensor(TEXT), config, settings, folder / "parts.pt", 3)
    advice = "until is the number of finished steps; settings['steps'] is only for the learning rate"
    require(len(first) == 3, f"for until 3, got {len(first)} losses, expected 3: {advice}")
    require(
        first == losses[:3], "two runs with the same seed have different losses: draw everything from the generator"
    )
    resumed, rest = _pretrain(function, torch.tensor(TEXT), config, settings, folder / "parts.pt", 6)
    where = "after 3 steps and a new call for until 6"
    again = "the run started again: load the file if it exists" if rest[:3] == first else "train only the missing steps"
    require(len(rest) == 3, f"{where}, got {len(rest)} new losses, expected 3: {again}")
    require(
        rest[0] == losses[3], f"{where}, the first loss differs: the weights or the generator are not the saved ones"
    )
    require(
        rest == losses[3:], f"{where}, later losses differ: the means, the squares or the step are not the saved ones"
    )
    for name, weight in whole["weights"].items():
        same = torch.equal(weight, resumed["weights"][name])
        require(same, f"{where}, {name} differs from that of an uninterrupted run, bit for bit")
    saved = _read(folder / "parts.pt")
    require(saved["step"] == 6, f"{where}, the saved step is {saved['step']}, expected 6: save at the end")


def _check_first_losses(function: Answer, config: dict[str, Any], settings: dict[str, Any], path: Path) -> None:
    """The project's model, with the weights of the untrained run, must have the same losses."""
    untrained, losses = _pretrain(function, torch.tensor(TEXT), config, settings, path, 0)
    start = untrained["step"] == 0 and losses == []
    require(start, "for until 0, expected the untrained run and an empty list of losses")
    _require_one_generator(untrained, settings["seed"])
    apart = untrained["means"] is not untrained["squares"]
    require(apart, "the means and the squares are the same dict: make a dict of zeros for each")
    reference = copy_of(untrained)
    expected = [reference_step(reference, torch.tensor(TEXT), config, settings) for _ in range(6)]
    _, losses = _pretrain(function, torch.tensor(TEXT), config, settings, path, 6)
    close = torch.allclose(torch.tensor(losses), torch.tensor(expected), atol=1e-3)
    shown = [[round(loss, 3) for loss in values] for values in (losses, expected)]
    require(close, f"from the same weights and seed, got the losses {shown[0]}; the project's model has {shown[1]}")


def _require_one_generator(untrained: Run, seed: int) -> None:
    """Raise AssertionError unless the generator has the seed and has drawn the weights."""
    generator = untrained["generator"]
    drew = not torch.equal(generator.get_state(), torch.Generator().manual_seed(seed).get_state())
    advice = "draw the weights from it, and do not seed it again"
    require(generator.initial_seed() == seed and drew, f"the run's generator must have the seed {seed}: {advice}")


def _check_goal(function: Answer, path: Path) -> None:
    """Train on the project's answers; the loss of the project's model with the new weights must reach the goal."""
    ids, words = chat_text()
    config, steps = {**CHAT_CONFIG, "vocab_size": len(words)}, CHAT_SETTINGS["steps"]
    run, losses = _pretrain(function, ids, config, CHAT_SETTINGS, path, int(steps))
    last = sum(losses[-20:]) / 20
    require(last < GOAL, f"the mean of the last 20 of {steps} losses is {last:.3f}, expected less than {GOAL}")
    model = GPTModel(config)
    model.load_state_dict(run["weights"])
    with torch.no_grad():
        logits = model(ids[None, : CHAT_CONFIG["context_length"]])[0, :-1]
    guessed = (logits.argmax(-1) == ids[1 : len(logits) + 1]).double().mean().item()
    require(guessed > 0.5, f"the project's model, with the trained weights, guesses {guessed:.0%} of the next words")


def chat_text() -> tuple[Tensor, list[str]]:
    """The questions and answers of Data/instruction_data.json as ids, int64 (N,), and the word of each id."""
    file = Path(__file__).resolve().parents[2] / "Data" / "instruction_data.json"
    pairs = json.loads(file.read_text(encoding="utf-8"))
    text = " ".join(f"{pair['instruction']} {pair['response']} <end>" for pair in pairs).split()
    words = sorted(set(text))
    return torch.tensor([words.index(word) for word in text]), words
