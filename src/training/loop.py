"""The training loop of all stages: set the rate, accumulate, clip, step, log, evaluate, save."""

import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch

from src.runtime import Runtime, seed_step
from src.training.evaluate import add_metrics
from src.training.optim import lr_at

SAVE_EVERY_S = 300.0  # a run is saved at every evaluation, and between two of them after this long


@dataclass(frozen=True)
class Plan:
    """The resolved numbers of a run. Steps are optimizer steps."""

    steps: int
    steps_per_epoch: int
    max_lr: float
    min_lr: float
    warmup_steps: int
    grad_clip: float | None
    eval_every: int
    patience: int | None
    seed: int


@dataclass
class State:
    """How far a run is: saved with it, so that a resumed run decides as the uninterrupted one would."""

    step: int = 0  # steps done
    first_loss: float | None = None  # of the evaluation before the first step
    best_loss: float = math.inf
    best_step: int = 0
    stale_evaluations: int = 0  # since the best
    loss_sum: float = 0.0  # of the steps since the last evaluation
    loss_count: int = 0
    train_loss: float | None = None  # mean of the steps between the last two evaluations
    eval_loss: float | None = None


class Hooks(Protocol):
    """What the loop asks of its stage and tells it."""

    def evaluate(self) -> dict[str, float]: ...
    def on_step(self, state: State, loss: float, metrics: dict[str, float], **values: Any) -> None: ...
    def on_evaluation(self, state: State, values: dict[str, float], *, best: bool) -> None: ...
    def save_best(self, state: State) -> None: ...
    def save_latest(self, state: State, *, finished: bool) -> None: ...


@dataclass(frozen=True)
class Run:
    """All that a run works with. `batches_at(step)` gives the micro-batches of a step, `loss_fn(model, batch)` the sum
    of a batch's losses and sums of its metrics."""

    model: Any
    loss_fn: Callable
    batches_at: Callable[[int], Sequence[Any]]
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    plan: Plan
    runtime: Runtime
    hooks: Hooks


def train(run: Run, state: State) -> Literal["done", "early", "interrupted"]:
    """Train from `state` to the end of the plan. Ctrl-C or SIGTERM finishes the step in hand, saves, and returns.

    Raises ValueError where a loss or a gradient is not finite; what was saved last stays.
    """
    plan, hooks = run.plan, run.hooks
    run.model.train()
    if state.step == 0:
        _evaluate(run, state)
    saved_at = time.monotonic()
    with _stop_requests() as stop_requested:
        while state.step < plan.steps:
            if stop_requested():
                hooks.save_latest(state, finished=False)
                return "interrupted"
            _train_step(run, state)
            due = state.step % plan.eval_every == 0 or state.step == plan.steps
            if due:
                _evaluate(run, state)
            early = due and plan.patience is not None and state.stale_evaluations >= plan.patience
            if due or time.monotonic() - saved_at > SAVE_EVERY_S:
                hooks.save_latest(state, finished=early or state.step == plan.steps)
                saved_at = time.monotonic()
            if early and state.step < plan.steps:
                return "early"
    return "done"


def _train_step(run: Run, state: State) -> None:
    """One optimizer step, reported. The clock stands still while evaluating and saving."""
    start, plan = time.perf_counter(), run.plan
    seed_step(plan.seed, state.step)
    lr = lr_at(state.step, max_lr=plan.max_lr, min_lr=plan.min_lr, warmup_steps=plan.warmup_steps, steps=plan.steps)
    for group in run.optimizer.param_groups:
        group["lr"] = lr
    batches = run.batches_at(state.step)
    totals = _accumulate(run, batches)
    loss = totals.pop("loss")
    if not math.isfinite(loss):
        raise ValueError(_not_finite(run, state, f"the loss is {loss}"))
    norm = _update(run, state)
    run.runtime.synchronise()
    step_s = time.perf_counter() - start
    state.step, state.loss_sum, state.loss_count = state.step + 1, state.loss_sum + loss, state.loss_count + 1
    tokens = sum(batch.inputs.numel() for batch in batches)
    run.hooks.on_step(
        state, loss, totals, lr=lr, grad_norm=norm, tokens=tokens, tokens_per_s=tokens / step_s, step_s=step_s
    )


def _accumulate(run: Run, batches: Sequence[Any]) -> dict[str, float]:
    """Gradients of the mean over all that the micro-batches count together; returns loss and metrics as such means."""
    count = sum(batch.count for batch in batches)
    totals: dict[str, float] = {}
    run.optimizer.zero_grad(set_to_none=True)
    for batch in batches:
        with run.runtime.autocast():
            loss_sum, metrics = run.loss_fn(run.model, batch.to(run.runtime.device))
        run.scaler.scale(loss_sum / count).backward()
        add_metrics(totals, {"loss": loss_sum.detach(), **metrics})
    return {name: total / count for name, total in totals.items()}


def _update(run: Run, state: State) -> float:
    """Clip and step; returns the gradient norm before clipping. In fp16 the scaler skips a step that overflowed."""
    run.scaler.unscale_(run.optimizer)
    norm = float(torch.nn.utils.clip_grad_norm_(run.model.parameters(), run.plan.grad_clip or math.inf))
    if not math.isfinite(norm) and not run.scaler.is_enabled():
        raise ValueError(_not_finite(run, state, f"the gradient norm is {norm}"))
    run.scaler.step(run.optimizer)
    run.scaler.update()
    return norm


def _evaluate(run: Run, state: State) -> None:
    values = run.hooks.evaluate()
    if not math.isfinite(values["loss"]):
        raise ValueError(_not_finite(run, state, f"the evaluation loss is {values['loss']}"))
    state.eval_loss = values["loss"]
    if state.loss_count:
        state.train_loss = state.loss_sum / state.loss_count
        state.loss_sum, state.loss_count = 0.0, 0
    if state.step == 0:
        state.first_loss = state.eval_loss
        run.hooks.on_evaluation(state, values, best=False)
        return
    best = state.eval_loss < state.best_loss
    if best:
        state.best_loss, state.best_step, state.stale_evaluations = state.eval_loss, state.step, 0
    else:
        state.stale_evaluations += 1
    run.hooks.on_evaluation(state, values, best=best)
    if best:
        run.hooks.save_best(state)


def _not_finite(run: Run, state: State, what: str) -> str:
    cure = (
        "--max-lr below "
        + f"{run.plan.max_lr:g}"
        + ("" if run.runtime.precision == "fp32" else ", or --precision fp32")
    )
    return f"step {state.step + 1}: {what}; the checkpoints saved before are kept; try {cure}, and --no-resume"


@contextmanager
def _stop_requests() -> Iterator[Callable[[], bool]]:
    """Inside, the first Ctrl-C or SIGTERM only makes the yielded function true; a second Ctrl-C stops at once."""
    requested = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield requested.is_set
        return

    def request(*_: object) -> None:
        requested.set()
        print("\nfinishing this step, then saving; Ctrl-C again stops at once", file=sys.stderr)
        signal.signal(signal.SIGINT, before[signal.SIGINT])

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield requested.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
