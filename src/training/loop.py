"""The training loop of all stages: set the learning rate, accumulate, clip, step, log, evaluate, save."""

import math
import time
from collections.abc import Sequence
from typing import Literal

import torch

from src.data.batching import Batch
from src.model.gpt import GPTModel
from src.program import stop_requests
from src.runtime import Runtime, seed_step
from src.training.checkpoints import RunCheckpoints
from src.training.divergence import has_diverged, is_worse_than_untrained
from src.training.metrics import add_metrics, mean_metrics, means
from src.training.optim import Optimizer, clip_gradients, set_lr
from src.training.reporter import Reporter
from src.training.samples import sample
from src.training.shared_model import SharedModel
from src.training.stage import Progress, Schedule, TrainingRun

_INTACT = "the checkpoints saved before are intact"
Ending = Literal["done", "early", "diverged", "interrupted"]


def train(run: TrainingRun, progress: Progress, checkpoints: RunCheckpoints, reporter: Reporter) -> Ending:
    """Train from `progress` to the end of the schedule. Ctrl-C, SIGTERM and a closed terminal save the run and end it.

    Returns how the run ended: "interrupted", or the result of `ending`.
    Raises ValueError if a loss or a gradient is not finite. Checkpoints saved before that stay intact.
    """
    try:
        return _train(run, progress, checkpoints, reporter)
    except FloatingPointError as error:
        raise ValueError(
            f"step {progress.step + 1}: {error}; {_INTACT}; {divergence_advice(run)}, with --no-resume"
        ) from error


def ending(progress: Progress, schedule: Schedule) -> Ending:
    """How a run ended that was not interrupted: "done", "early" (out of patience) or "diverged"."""
    if has_diverged(progress):
        return "diverged"
    return "done" if progress.step >= schedule.steps else "early"


def _train(run: TrainingRun, progress: Progress, checkpoints: RunCheckpoints, reporter: Reporter) -> Ending:
    """`train`, but a loss or a gradient that is not finite raises FloatingPointError."""
    schedule = run.schedule
    run.model.train()
    if progress.first_loss is None:
        _evaluate(run, progress, checkpoints, reporter)
    saved_at = time.monotonic()
    with stop_requests() as stop_requested:
        while not progress.is_complete(schedule):
            if progress.evaluation_due(schedule):
                if not checkpoints.owns_latest:  # so that a restart knows whose best_model.pt it finds
                    checkpoints.save_latest(progress)
                _evaluate(run, progress, checkpoints, reporter)
                save_now = True
            elif run.runtime.processes.any(stop_requested()):
                checkpoints.save_interrupted(progress)
                checkpoints.wait()
                return "interrupted"
            else:
                _train_step(run, progress, reporter)
                save_now = _save_due(run, progress, seconds=time.monotonic() - saved_at)
            if save_now:
                checkpoints.save_latest(progress)
                saved_at = time.monotonic()
    checkpoints.wait()
    return ending(progress, schedule)


def _save_due(run: TrainingRun, progress: Progress, seconds: float) -> bool:
    """Whether --save-every asks for a save, `seconds` after the last one. If an evaluation is next, it saves anyway."""
    schedule = run.schedule
    due = seconds > schedule.save_s or (schedule.save_steps is not None and progress.step % schedule.save_steps == 0)
    return run.runtime.processes.from_first(due) and not progress.evaluation_due(schedule)


def _train_step(run: TrainingRun, progress: Progress, reporter: Reporter) -> None:
    """One optimizer step and its log line. Its time includes neither evaluating nor saving."""
    start = time.perf_counter()
    schedule, processes, step = run.schedule, run.runtime.processes, progress.step
    seed_step(run.flags.seed, step, processes.rank)
    lr = schedule.learning_rate(step)
    set_lr(run.optimizer, lr)
    batches = run.stage.loader.step_batches(step)
    metrics = accumulate(run.shared, batches, run.runtime, run.scaler)
    norm = optimizer_step(run.model, run.optimizer, run.scaler, run.flags.grad_clip)
    run.runtime.synchronise()
    step_s = time.perf_counter() - start
    loss = metrics.pop("loss")
    progress.add_step(loss)
    tokens = int(processes.sum(sum(batch.inputs.numel() for batch in batches)))
    reporter.step(
        step + 1,
        loss,
        metrics,
        epoch=step // schedule.steps_per_epoch,
        lr=lr,
        grad_norm=norm,
        tokens=tokens,
        tokens_per_s=tokens / step_s,
        step_s=step_s,
    )


def accumulate(
    shared: SharedModel, batches: Sequence[Batch], runtime: Runtime, scaler: torch.amp.GradScaler
) -> dict[str, float]:
    """Accumulate the gradients of the mean loss over a whole step. Returns {"loss": ..., metrics}, also as means.

    The loss of each micro-batch is a sum. It is divided by the number of supervised positions, or of pairs,
    of the whole step. So 8 micro-batches of 1 equal one batch of 8, and 8 processes equal one.
    Raises FloatingPointError if the loss is not finite.
    """
    processes = runtime.processes
    denominator = processes.sum(sum(batch.loss_denominator for batch in batches))
    totals: dict[str, float] = {"denominator": 0}
    shared.model.zero_grad(set_to_none=True)
    for number, batch in enumerate(batches, start=1):
        with shared.gradient_sync(number == len(batches)):  # once per step, in the last micro-batch
            with runtime.autocast():
                loss_sum, metrics = shared.loss(batch.to(runtime.device))
            # The processes average their gradients, so the loss is multiplied by their number.
            factor = 0 if batch.is_dummy else processes.count
            scaler.scale(loss_sum * factor / denominator).backward()
        add_metrics(totals, batch.loss_denominator, {"loss": loss_sum.detach(), **metrics})
    step_means = means(totals, processes)
    if not math.isfinite(step_means["loss"]):
        raise FloatingPointError(f"the loss is {step_means['loss']}")
    return step_means


def optimizer_step(
    model: GPTModel, optimizer: Optimizer, scaler: torch.amp.GradScaler, grad_clip: float | None
) -> float:
    """Clip the gradients and update the weights; returns the gradient norm before clipping.

    In fp16 the scaler skips a step whose gradients overflowed. In other precisions, gradients that are not finite
    raise FloatingPointError before they reach the weights.
    """
    scaler.unscale_(optimizer)
    norm = clip_gradients(model.parameters(), grad_clip or math.inf)
    if not math.isfinite(norm) and not scaler.is_enabled():
        raise FloatingPointError(f"the gradient norm is {norm}")
    scaler.step(optimizer)
    scaler.update()
    return norm


def _evaluate(run: TrainingRun, progress: Progress, checkpoints: RunCheckpoints, reporter: Reporter) -> None:
    """Evaluate, report with a sample, and save the model if its loss is the lowest since training began."""
    stage = run.stage
    metrics = mean_metrics(run.shared, stage.evaluation, run.runtime)
    loss = metrics["loss"]
    if not math.isfinite(loss):
        advice = f"{_INTACT}; {divergence_advice(run)}, with --no-resume"
        raise ValueError(f"step {progress.step}: the evaluation loss is {loss}; {advice}")
    worse = is_worse_than_untrained(loss, progress.first_loss)
    best = progress.add_evaluation(loss, may_be_best=not worse)
    epoch = progress.step // run.schedule.steps_per_epoch
    reporter.evaluation(progress.step, stage.evaluated_on, metrics, best=best, epoch=epoch)
    if worse:
        reporter.say(f"far above the loss before training, {progress.first_loss:.4f}: not saved as the best model")
    reporter.sample(sample(run.model, stage.sample))
    if best:
        checkpoints.save_best(progress)


def divergence_advice(run: TrainingRun) -> str:
    """The flags to try after a run that diverged."""
    precision = "" if run.runtime.precision == "fp32" else ", or --precision fp32"
    return f"try --max-lr below {run.schedule.max_lr:g}{precision}"
