"""The training loop of all stages: set the rate, accumulate, clip, step, log, evaluate, save."""

import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from src.runtime import seed_step
from src.training.checkpoints import RunCheckpoints
from src.training.metrics import add_metrics, evaluate
from src.training.optim import clip_gradients, lr_at
from src.training.progress import Reporter
from src.training.run import Run, State

SAVE_EVERY_S = 300.0  # a run is saved at every evaluation, and between two of them after this long


def train(
    run: Run, state: State, keeper: RunCheckpoints, reporter: Reporter
) -> Literal["done", "early", "interrupted"]:
    """Train from `state` to the end of the plan. Ctrl-C or SIGTERM finishes the step in hand, saves, and returns.

    Raises ValueError where a loss or a gradient is not finite; what was saved last stays.
    """
    plan = run.plan
    run.model.train()
    if state.step == 0:
        _evaluate(run, state, keeper, reporter)
    saved_at = time.monotonic()
    with _stop_requests() as stop_requested:
        while state.step < plan.steps:
            if stop_requested():
                keeper.save_latest(state, finished=False)
                return "interrupted"
            _train_step(run, state, reporter)
            due = state.step % plan.eval_every == 0 or state.step == plan.steps
            if due:
                _evaluate(run, state, keeper, reporter)
            early = due and plan.patience is not None and state.stale_evaluations >= plan.patience
            if due or time.monotonic() - saved_at > SAVE_EVERY_S:
                keeper.save_latest(state, finished=early or state.step == plan.steps)
                saved_at = time.monotonic()
            if early and state.step < plan.steps:
                return "early"
    return "done"


def _train_step(run: Run, state: State, reporter: Reporter) -> None:
    """One optimizer step, reported. The clock stands still while evaluating and saving."""
    start, plan = time.perf_counter(), run.plan
    seed_step(plan.seed, state.step)
    lr = lr_at(state.step, max_lr=plan.max_lr, min_lr=plan.min_lr, warmup_steps=plan.warmup_steps, steps=plan.steps)
    for group in run.optimizer.param_groups:
        group["lr"] = lr
    batches = run.stage.loader.step_batches(state.step)
    totals = _accumulate(run, batches)
    loss = totals.pop("loss")
    if not math.isfinite(loss):
        raise ValueError(_not_finite(run, state, f"the loss is {loss}"))
    norm = _update(run, state)
    run.runtime.synchronise()
    step_s = time.perf_counter() - start
    tokens = sum(batch.inputs.numel() for batch in batches)
    epoch = state.step // plan.steps_per_epoch
    state.step, state.loss_sum, state.loss_count = state.step + 1, state.loss_sum + loss, state.loss_count + 1
    speed = {"tokens": tokens, "tokens_per_s": tokens / step_s, "step_s": step_s}
    reporter.step(state.step, loss, totals, epoch=epoch, lr=lr, grad_norm=norm, **speed)


def _accumulate(run: Run, batches: Sequence[Any]) -> dict[str, float]:
    """Gradients of the mean over all that the micro-batches count together; returns loss and metrics as such means."""
    count = sum(batch.count for batch in batches)
    totals: dict[str, float] = {}
    run.optimizer.zero_grad(set_to_none=True)
    for batch in batches:
        with run.runtime.autocast():
            loss_sum, metrics = run.stage.loss_fn(run.model, batch.to(run.runtime.device))
        run.scaler.scale(loss_sum / count).backward()
        add_metrics(totals, {"loss": loss_sum.detach(), **metrics})
    return {name: total / count for name, total in totals.items()}


def _update(run: Run, state: State) -> float:
    """Clip and step; returns the gradient norm before clipping. In fp16 the scaler skips a step that overflowed."""
    run.scaler.unscale_(run.optimizer)
    norm = clip_gradients(run.model.parameters(), run.plan.grad_clip or math.inf)
    if not math.isfinite(norm) and not run.scaler.is_enabled():
        raise ValueError(_not_finite(run, state, f"the gradient norm is {norm}"))
    run.scaler.step(run.optimizer)
    run.scaler.update()
    return norm


def _evaluate(run: Run, state: State, keeper: RunCheckpoints, reporter: Reporter) -> None:
    """Evaluate, report with a sample, and save the model if it is the best since training began."""
    stage = run.stage
    values = evaluate(run.model, stage.loss_fn, stage.evaluation, run.runtime)
    loss = values["loss"]
    if not math.isfinite(loss):
        raise ValueError(_not_finite(run, state, f"the evaluation loss is {loss}"))
    state.eval_loss = loss
    if state.loss_count:
        state.train_loss = state.loss_sum / state.loss_count
        state.loss_sum, state.loss_count = 0.0, 0
    best = state.step > 0 and loss < state.best_loss
    if state.step == 0:
        state.first_loss = loss
    elif best:
        state.best_loss, state.best_step, state.stale_evaluations = loss, state.step, 0
    else:
        state.stale_evaluations += 1
    epoch = state.step // run.plan.steps_per_epoch
    reporter.evaluation(state.step, stage.evaluated_on, values, best=best, epoch=epoch)
    reporter.sample(stage.sample())
    if best:
        keeper.save_best(state)


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
