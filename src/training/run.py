"""One run of a training stage: resume or start, print the summary, train, and report the result."""

import math
import secrets
import shutil
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from src.checkpoint import BEST, LATEST, as_argument
from src.common.disk import require_free_space
from src.common.messages import shown_command
from src.distributed.environment import is_first, launcher, machines, restarts
from src.model.gpt import GPTModel
from src.model.lora import DEFAULT_SCALE, adapter_of, add_lora, trained_weights
from src.program import DONE, INTERRUPTED
from src.runtime import Runtime, keep_freed_memory
from src.training.checkpoints import RunCheckpoints, loss_of_best, plain_settings, refuse_folder_of_base, run_identity
from src.training.flags import LoRAFlags, TrainingFlags
from src.training.loop import Ending, divergence_advice, ending, train
from src.training.optim import make_optimizer
from src.training.parallel import divide_batches, require_first_step_fits
from src.training.recipes import LORA_LR_SCALE
from src.training.reporter import Reporter, draw_curves
from src.training.resume import find_saved_run
from src.training.saved_run import SavedRun
from src.training.shared_model import share_model
from src.training.stage import Progress, Stage, TrainingRun, make_schedule

NO_VALIDATION = "none: training loss decides the best model (--val-fraction holds out data)"


def run_stage(stage: Stage, model: GPTModel, flags: TrainingFlags, runtime: Runtime) -> int:
    """Run a stage to its end; returns the script's exit code: 0 done, 130 interrupted after saving.

    Raises ValueError if latest_model.pt is an unfinished run with other settings, if it is past the end that is asked
    for, or if training diverges; OSError if the disk is too small for the checkpoints.
    """
    keep_freed_memory()
    model.activation_checkpointing = flags.activation_checkpointing
    _add_adapter(model, flags)
    divide_batches(stage, runtime.processes)
    run, progress, resume_note = start_or_resume(stage, model, flags, runtime)
    checkpoints = _run_checkpoints(run, progress)
    if progress.is_complete(run.schedule):
        print(resume_note)
        return _report_result(run, progress, ending(progress, run.schedule))
    length = {"first_step": progress.step, "steps": run.schedule.steps}
    reporter = Reporter(stage.name, flags.log_dir, tensorboard=flags.tensorboard, **length)
    _print_summary(run, progress, reporter)
    if resume_note:
        reporter.say(resume_note)
    ended = _train_and_log_end(run, progress, checkpoints, reporter)
    curves = draw_curves(reporter.path) if is_first() else None
    return _report_result(run, progress, ended, curves)


def _add_adapter(model: GPTModel, flags: TrainingFlags) -> None:
    """Freeze the model and add an adapter to it, if --lora asks for one."""
    if isinstance(flags, LoRAFlags) and flags.lora:
        alpha = flags.lora_alpha or DEFAULT_SCALE * flags.lora
        add_lora(model, flags.lora, alpha, flags.seed, flags.lora_targets)


def _train_and_log_end(run: TrainingRun, progress: Progress, checkpoints: RunCheckpoints, reporter: Reporter) -> Ending:
    """Train, log how the run ended, and close its files, even if an error ends it."""
    ended = "failed"
    try:
        ended = train(run, progress, checkpoints, reporter)
    except KeyboardInterrupt:  # in the first evaluation, or a second Ctrl-C
        ended = "interrupted"
        raise
    finally:
        best = {"best_loss": progress.best_loss, "best_step": progress.best_step}
        reporter.event("end", ended=ended, step=progress.step, **best)
        reporter.close()
        checkpoints.close()
    return ended


def start_or_resume(
    stage: Stage, model: GPTModel, flags: TrainingFlags, runtime: Runtime
) -> tuple[TrainingRun, Progress, str]:
    """Returns the run at its first step, or as it was saved in --out; its progress; and a note on the saved run.

    The settings are compared before anything is restored.
    """
    refuse_folder_of_base(stage.metadata, flags.out)
    if restarts() and flags.resume is False:  # torchrun started this command again: --no-resume is done
        flags = replace(flags, resume=None)
    schedule = make_schedule(flags, stage.loader.steps_per_epoch)
    identity = run_identity(stage, model.config, flags, runtime.precision)
    saved, resume_note = find_saved_run(stage, flags, identity, schedule, runtime)
    if saved:
        identity, runtime = _with_precision_of(saved, identity, runtime)
    else:
        _require_disk_space(model, flags)
    if flags.memory_check:
        require_first_step_fits(stage, model.config, flags, runtime)
    shared = share_model(model, stage.loss_fn, runtime, seed=flags.seed, initialised=saved is None)
    rates = {"max_lr": schedule.max_lr, "weight_decay": flags.weight_decay, "beta2": flags.beta2}
    optimizer = make_optimizer(flags.optimizer, model, **rates)
    scaler = torch.amp.GradScaler(runtime.device.type, enabled=runtime.precision == "fp16")
    if saved:
        saved.restore(model, optimizer, scaler)
    run = TrainingRun(
        stage,
        model,
        flags,
        runtime,
        schedule,
        optimizer,
        scaler,
        identity,
        shared=shared,
        run_id=runtime.processes.from_first(saved.run_id if saved else secrets.token_hex(3)),
        resumed=saved is not None,
    )
    return run, saved.progress if saved else Progress(), resume_note


def _with_precision_of(saved: SavedRun, identity: dict[str, Any], runtime: Runtime) -> tuple[dict[str, Any], Runtime]:
    """The identity and the runtime of a resumed run: it continues in the precision that it began with."""
    precision = saved.identity["precision"]
    if precision != runtime.precision:
        runtime = replace(runtime, precision=precision, reason="as in the run being resumed")
    return {**identity, "precision": precision}, runtime


def _require_disk_space(model: GPTModel, flags: TrainingFlags) -> None:
    """Raise OSError if the disk lacks the room for all checkpoints of the run: better now than after an hour.

    best_model.pt is as large as the weights. latest_model.pt, the temporary file that replaces it, and each save of
    --keep are three times as large as the trained weights, because of the optimizer state.
    """
    n_bytes = sum(tensor.nbytes for tensor in model.state_dict().values())
    trained = sum(tensor.nbytes for tensor in trained_weights(model).values())
    lower_keep = ", or lower --keep" if flags.keep else ""
    saved = "a run saves its weights and its optimizer state"
    advice = f"{saved}; free some space, or pass --out on another disk{lower_keep}"
    require_free_space(flags.out, n_bytes + 3 * (2 + flags.keep) * trained, advice)


def _run_checkpoints(run: TrainingRun, progress: Progress) -> RunCheckpoints:
    """The checkpoints of the run. If the best model of a resumed run is gone, the next evaluation saves one."""
    best = run.flags.out / BEST
    best_loss = loss_of_best(best, run.run_id, progress.best_step) if run.resumed else None
    if progress.best_step and best_loss is None:
        problem = f"{best}: missing, damaged, or from another run"
        if progress.is_complete(run.schedule):
            raise ValueError(f"{problem}, and this run is finished; --no-resume starts over")
        print(f"{problem}; the next evaluation saves a new one")
        progress.best_loss, progress.best_step = math.inf, 0
    return RunCheckpoints(run, owns_latest=run.resumed, best_loss=best_loss)


def _print_summary(run: TrainingRun, progress: Progress, reporter: Reporter) -> None:
    """Print and log all settings, and the numbers that follow from them, before the first step."""
    rows = _summary_rows(run, reporter)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    lines = [textwrap.fill(f"  {name:<15}{text}", width, subsequent_indent=" " * 17) for name, text in rows.items()]
    reporter.say("\n".join([run.stage.title, *lines]))
    start = {"step": progress.step, "steps": run.schedule.steps, "title": run.stage.title, "run": run.run_id}
    reporter.event("start", **start, settings=plain_settings(run.flags), summary=rows)


def _summary_rows(run: TrainingRun, reporter: Reporter) -> dict[str, str]:
    """The rows of the summary: {name: text}."""
    stage, flags, runtime, schedule = run.stage, run.flags, run.runtime, run.schedule
    c = run.model.config
    total, body = c.parameter_count()
    epochs = schedule.steps / schedule.steps_per_epoch
    return {
        "model": f"{c.n_layers} layers, {c.d_model} wide, {c.n_heads} heads, context {c.context_length}: "
        f"{total:,} parameters, {body:,} without the embeddings",
        **adapter_row(run.model),
        **stage.summary_rows,
        "batch": f"{flags.batch_size} x {flags.grad_accum} accumulated, {schedule.steps_per_epoch} steps per epoch",
        "steps": f"{schedule.steps} ({epochs:.1f} epochs), evaluated every {schedule.eval_every}"
        + (f", stops after {schedule.patience} evaluations without improvement" if schedule.patience else ""),
        "learning rate": f"{schedule.max_lr:g} to {schedule.min_lr:g}, {schedule.lr_decay} decay, "
        f"warm-up {schedule.warmup_steps} steps",
        "optimizer": ("Muon in the blocks, AdamW elsewhere" if flags.optimizer == "muon" else "AdamW")
        + f", beta2 {flags.beta2:g}",
        "regularisation": f"weight decay {flags.weight_decay:g}, dropout {c.dropout:g}, "
        f"gradient norm {f'at most {schedule.grad_clip}' if schedule.grad_clip else 'not clipped'}",
        "device": f"{runtime.device}, {runtime.precision} ({runtime.reason})",
        **({"processes": f"{runtime.processes.count}, {run.shared.name}"} if runtime.processes.count > 1 else {}),
        "seed": str(schedule.seed),
        "saves to": f"{flags.out}, log {reporter.path}",
    }


def adapter_row(model: GPTModel) -> dict[str, str]:
    """What --lora trains; no row if all weights are trained."""
    adapter = adapter_of(model)
    if adapter is None:
        return {}
    trained, total = sum(tensor.numel() for tensor in adapter.tensors.values()), model.config.parameter_count()[0]
    return {
        "adapter": f"LoRA rank {adapter.rank}: {trained:,} of {total:,} parameters are trained; "
        f"alpha {adapter.alpha:g}, in {', '.join(adapter.targets)} of every layer; "
        f"default learning rates are {LORA_LR_SCALE:g} times those of training all weights"
    }


def _report_result(run: TrainingRun, progress: Progress, ended: Ending, curves: Path | None = None) -> int:
    """Print how the run ended and the next command; returns the exit code.

    Raises ValueError if the run diverged.
    """
    stage, flags = run.stage, run.flags
    if ended == "interrupted":
        print(f"interrupted after step {progress.step} of {run.schedule.steps}; saved {flags.out / LATEST}")
        command = [word for word in sys.argv if word != "--no-resume"]
        each = " (on each machine)" if machines() > 1 else ""
        print(f"resume with{each}: {shown_command([*launcher(), *command])}")
        return INTERRUPTED
    if ended == "early":
        print(f"stopped early at step {progress.step}: no improvement in {progress.stale_evaluations} evaluations")
    before = f"{stage.evaluated_on} loss {progress.first_loss:.4f} before training"
    if progress.best_step:
        print(f"{before}, best {progress.best_loss:.4f} after step {progress.best_step}; saved {flags.out / BEST}")
    if curves:
        print(f"curves: {curves}")
    if ended == "diverged":
        raise ValueError(_divergence_message(run, progress))
    if progress.best_loss > (progress.first_loss or 0):
        print("training did not improve on the model it started from; try a lower --max-lr or fewer steps")
    other_folder = [stage.next_option, as_argument(flags.out)] if flags.out != getattr(type(flags), "out", None) else []
    print(f"next: {shown_command([*stage.next_command.split(), *other_folder])}")
    return DONE


def _divergence_message(run: TrainingRun, progress: Progress) -> str:
    """The error message of a run that diverged."""
    best, name, advice = run.flags.out / BEST, run.stage.evaluated_on, divergence_advice(run)
    now = f"{name} loss {progress.eval_loss:.4f} after step {progress.step}"
    if progress.best_step:
        return f"training diverged: {now}; {best} is the model of step {progress.best_step}, before that; {advice}"
    earlier = "the earlier one is unchanged" if best.is_file() else "there is none"
    return (
        f"training diverged: {now}, {progress.first_loss:.4f} before training; not saved as {best}, {earlier}; {advice}"
    )
