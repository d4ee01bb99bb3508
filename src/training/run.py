"""One run of a training stage: resume or start, print the summary, train, and report the result."""

import os
import shlex
import shutil
import subprocess
import sys
import textwrap
from dataclasses import replace

import torch

from src.checkpoint import BEST, LATEST
from src.model.gpt import GPTModel
from src.program import DONE, INTERRUPTED
from src.runtime import Runtime, keep_freed_memory
from src.training.checkpoints import RunCheckpoints, find_resume_point, plain_settings, run_identity
from src.training.flags import TrainingFlags
from src.training.loop import train
from src.training.optim import make_optimizer
from src.training.reporter import Reporter, draw_curves
from src.training.stage import Progress, Stage, TrainingRun, make_schedule

NO_VALIDATION = "none: training loss decides the best model (--val-fraction holds out data)"


def run_stage(stage: Stage, model: GPTModel, flags: TrainingFlags, runtime: Runtime) -> int:
    """Run a stage to its end; returns the script's exit code: 0 done, 130 interrupted after saving.

    Raises ValueError if latest_model.pt is an unfinished run with other settings, or if training diverges.
    """
    keep_freed_memory()
    run, progress = start_or_resume(stage, model, flags, runtime)
    checkpoints = RunCheckpoints(run, owns_best=progress.best_step > 0)
    reporter = Reporter(stage.name, flags.log_dir, first_step=progress.step, steps=run.schedule.steps)
    _print_summary(run, progress, reporter)
    ended = "failed"
    try:
        ended = train(run, progress, checkpoints, reporter)
    finally:
        reporter.event(
            "end", ended=ended, step=progress.step, best_loss=progress.best_loss, best_step=progress.best_step
        )
        reporter.close()
    return _report_result(run, progress, reporter, ended)


def start_or_resume(
    stage: Stage, model: GPTModel, flags: TrainingFlags, runtime: Runtime
) -> tuple[TrainingRun, Progress]:
    """A run at its first step, or the unfinished run in --out exactly as it was saved.

    The saved settings are compared with those of this run before any weights or optimizer state are restored.
    """
    schedule = make_schedule(flags, stage.loader.steps_per_epoch)
    resume = find_resume_point(stage, flags)
    if resume and flags.precision == "auto" and resume.device == runtime.device.type:
        runtime = replace(runtime, precision=resume.identity["precision"], reason="as in the run being resumed")
    identity = run_identity(stage, model.config, flags, runtime.precision)
    if resume:
        resume.refuse_other_run(identity)
        model.load_state_dict(resume.model)
    optimizer = make_optimizer(flags.optimizer, model, max_lr=schedule.max_lr, weight_decay=flags.weight_decay)
    scaler = torch.amp.GradScaler(runtime.device.type, enabled=runtime.precision == "fp16")
    if resume:
        optimizer.load_state_dict(resume.optimizer)
        scaler.load_state_dict(resume.scaler)
    run = TrainingRun(stage, model, flags, runtime, schedule, optimizer, scaler, identity)
    return run, resume.progress if resume else Progress()


def _print_summary(run: TrainingRun, progress: Progress, reporter: Reporter) -> None:
    """Print all settings and the numbers that follow from them, once, before the first step."""
    stage, flags, runtime, schedule = run.stage, run.flags, run.runtime, run.schedule
    c = run.model.config
    total, body = c.parameter_count()
    epochs = schedule.steps / schedule.steps_per_epoch
    rows = {
        "model": f"{c.n_layers} layers, {c.d_model} wide, {c.n_heads} heads, context {c.context_length}: "
        f"{total:,} parameters, {body:,} without the embeddings",
        **stage.summary_rows,
        "batch": f"{flags.batch_size} x {flags.grad_accum} accumulated, {schedule.steps_per_epoch} steps per epoch",
        "steps": f"{schedule.steps} ({epochs:.1f} epochs), evaluated every {schedule.eval_every}"
        + (f", stops after {schedule.patience} evaluations without improvement" if schedule.patience else ""),
        "learning rate": f"{schedule.max_lr:g} to {schedule.min_lr:g}, warm-up {schedule.warmup_steps} steps",
        "optimizer": "Muon in the blocks, AdamW elsewhere" if flags.optimizer == "muon" else "AdamW",
        "regularisation": f"weight decay {flags.weight_decay:g}, dropout {c.dropout:g}, "
        f"gradient norm {f'at most {schedule.grad_clip}' if schedule.grad_clip else 'not clipped'}",
        "device": f"{runtime.device}, {runtime.precision} ({runtime.reason})",
        "seed": str(schedule.seed),
        "saves to": f"{flags.out}, log {reporter.path}",
    }
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    lines = [textwrap.fill(f"  {name:<15}{text}", width, subsequent_indent=" " * 17) for name, text in rows.items()]
    reporter.say("\n".join([stage.title, *lines]))
    if progress.step:
        unfinished = f"resuming the unfinished run at step {progress.step} of {schedule.steps}"
        reporter.say(f"{unfinished} (--no-resume starts over)")
    reporter.event("start", step=progress.step, steps=schedule.steps, settings=plain_settings(flags), summary=rows)


def _report_result(run: TrainingRun, progress: Progress, reporter: Reporter, ended: str) -> int:
    """Print how the run ended and the next command; returns the exit code."""
    stage, flags = run.stage, run.flags
    curves = draw_curves(reporter.path)
    if ended == "interrupted":
        print(f"interrupted after step {progress.step} of {run.schedule.steps}; saved {flags.out / LATEST}")
        command = [word for word in sys.argv if word != "--no-resume"]
        print(f"resume with: python {subprocess.list2cmdline(command) if os.name == 'nt' else shlex.join(command)}")
        return INTERRUPTED
    if ended == "early":
        print(f"stopped early at step {progress.step}: no improvement in {progress.stale_evaluations} evaluations")
    if progress.first_loss is not None:
        print(
            f"{stage.evaluated_on} loss {progress.first_loss:.4f} before training, "
            f"best {progress.best_loss:.4f} after step {progress.best_step}; saved {flags.out / BEST}"
        )
        if progress.best_loss > progress.first_loss:
            print("training did not improve on the model it started from; try a lower --max-lr or fewer steps")
    if curves:
        print(f"curves: {curves}")
    other_folder = f" {stage.next_option} {flags.out}" if flags.out != getattr(type(flags), "out", None) else ""
    print(f"next: {stage.next_command}{other_folder}")
    return DONE
