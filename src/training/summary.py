"""What a run prints before its first step, and after its last."""

import shutil
import sys
import textwrap
from pathlib import Path

from src.checkpoint import BEST, LATEST, as_argument
from src.common.messages import shown_command
from src.distributed.environment import launcher, machines
from src.model.gpt import GPTModel
from src.model.lora import adapter_of
from src.program import DONE, INTERRUPTED
from src.training.flags import plain_settings
from src.training.loop import Ending, divergence_advice
from src.training.recipes import LORA_LR_SCALE
from src.training.reporter import Reporter
from src.training.stage import Progress, TrainingRun


def print_summary(run: TrainingRun, progress: Progress, reporter: Reporter) -> None:
    """Print and log all settings, and the numbers that follow from them, before the first step."""
    rows = _summary_rows(run, reporter.path)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    lines = [textwrap.fill(f"  {name:<15}{text}", width, subsequent_indent=" " * 17) for name, text in rows.items()]
    reporter.say("\n".join([run.stage.title, *lines]))
    reporter.event(
        "start",
        step=progress.step,
        steps=run.schedule.steps,
        title=run.stage.title,
        run=run.run_id,
        settings=plain_settings(run.flags),
        summary=rows,
    )


def _summary_rows(run: TrainingRun, log: Path) -> dict[str, str]:
    """The rows of the summary: {name: text}."""
    stage, flags, runtime, schedule = run.stage, run.flags, run.runtime, run.schedule
    c = run.model.config
    total, body = c.parameter_count()
    epochs = schedule.steps / schedule.steps_per_epoch
    patience = f", stops after {schedule.patience} evaluations without improvement" if schedule.patience else ""
    optimizer = "Muon in the blocks, AdamW elsewhere" if flags.optimizer == "muon" else "AdamW"
    clipping = f"at most {flags.grad_clip}" if flags.grad_clip else "not clipped"
    count = runtime.processes.count
    return {
        "model": f"{c.n_layers} layers, {c.d_model} wide, {c.n_heads} heads, context {c.context_length}: "
        f"{total:,} parameters, {body:,} without the embeddings",
        **adapter_row(run.model),
        **stage.summary_rows,
        "batch": f"{flags.batch_size} x {flags.grad_accum} accumulated, {schedule.steps_per_epoch} steps per epoch",
        "steps": f"{schedule.steps} ({epochs:.1f} epochs), evaluated every {schedule.eval_every}{patience}",
        "learning rate": f"{schedule.max_lr:g} to {schedule.min_lr:g}, {schedule.lr_decay} decay, "
        f"warm-up {schedule.warmup_steps} steps",
        "optimizer": f"{optimizer}, beta2 {flags.beta2:g}",
        "regularisation": f"weight decay {flags.weight_decay:g}, dropout {c.dropout:g}, gradient norm {clipping}",
        "device": f"{runtime.device}, {runtime.precision} ({runtime.reason})",
        **({"processes": f"{count}, {runtime.strategy}"} if count > 1 else {}),
        "seed": str(flags.seed),
        "saves to": f"{flags.out}, log {log}",
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


def report_result(run: TrainingRun, progress: Progress, ended: Ending, curves: Path | None = None) -> int:
    """Print how the run ended and the next command; returns the exit code.

    Raises ValueError if the run diverged.
    """
    stage, flags = run.stage, run.flags
    if ended == "interrupted":
        _report_interruption(run, progress)
        return INTERRUPTED
    if ended == "early":
        print(f"stopped early at step {progress.step}: no improvement in {progress.stale_evaluations} evaluations")
    if progress.best_step:
        before = f"{stage.evaluated_on} loss {progress.first_loss:.4f} before training"
        print(f"{before}, best {progress.best_loss:.4f} after step {progress.best_step}; saved {flags.out / BEST}")
    if curves:
        print(f"curves: {curves}")
    if ended == "diverged":
        raise ValueError(_divergence_message(run, progress))
    if progress.best_loss > (progress.first_loss or 0):
        print("training did not improve on the model it started from; try a lower --max-lr or fewer steps")
    default_out = getattr(type(flags), "out", None)
    folder = [] if flags.out == default_out else [stage.next_option, as_argument(flags.out)]
    print(f"next: {shown_command([*stage.next_command.split(), *folder])}")
    return DONE


def _report_interruption(run: TrainingRun, progress: Progress) -> None:
    """Print where the run was saved, and the command that resumes it."""
    print(f"interrupted after step {progress.step} of {run.schedule.steps}; saved {run.flags.out / LATEST}")
    command = [word for word in sys.argv if word != "--no-resume"]
    each = " (on each machine)" if machines() > 1 else ""
    print(f"resume with{each}: {shown_command([*launcher(), *command])}")


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
