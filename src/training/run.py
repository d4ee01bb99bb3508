"""One run of a training stage: start or resume it, train, and report the result."""

import math
import secrets
from dataclasses import replace

import torch

from src.checkpoint import BEST
from src.common.disk import require_free_space
from src.distributed.environment import is_first, restarts
from src.model.gpt import GPTModel
from src.model.lora import DEFAULT_SCALE, add_lora, trained_weights
from src.runtime import Runtime, keep_freed_memory
from src.training.checkpoints import RunCheckpoints, loss_of_best
from src.training.flags import LoRAFlags, TrainingFlags
from src.training.identity import run_identity
from src.training.loop import Ending, ending, train
from src.training.optim import make_optimizer
from src.training.out_folder import refuse_folder_of_base
from src.training.parallel import divide_batches, require_first_step_fits
from src.training.reporter import Reporter, draw_curves
from src.training.resume import find_saved_run
from src.training.shared_model import share_model
from src.training.stage import Progress, Stage, TrainingRun, make_schedule
from src.training.summary import print_summary, report_result


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
        return report_result(run, progress, ending(progress, run.schedule))
    reporter = Reporter(
        stage.name, flags.log_dir, first_step=progress.step, steps=run.schedule.steps, tensorboard=flags.tensorboard
    )
    print_summary(run, progress, reporter)
    if resume_note:
        reporter.say(resume_note)
    ended = _train_and_log_end(run, progress, checkpoints, reporter)
    curves = draw_curves(reporter.path) if is_first() else None
    return report_result(run, progress, ended, curves)


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
        reporter.event(
            "end", ended=ended, step=progress.step, best_loss=progress.best_loss, best_step=progress.best_step
        )
        reporter.close()
        checkpoints.close()
    return ended


def start_or_resume(
    stage: Stage, model: GPTModel, flags: TrainingFlags, runtime: Runtime
) -> tuple[TrainingRun, Progress, str]:
    """Set up a run, or restore the one in --out; returns it, its progress, and a note on the saved run."""
    refuse_folder_of_base(stage.metadata, flags.out)
    if restarts() and flags.resume is False:  # torchrun started this command again: --no-resume is done
        flags = replace(flags, resume=None)
    schedule = make_schedule(flags, stage.loader.steps_per_epoch)
    identity = run_identity(stage, model.config, flags, runtime.precision)
    saved, resume_note = find_saved_run(stage, flags, identity, schedule, runtime)  # compares the settings
    if saved:
        runtime = _in_precision(saved.identity["precision"], runtime)
        identity["precision"] = runtime.precision
    else:
        _require_disk_space(model, flags)
    if flags.memory_check:
        require_first_step_fits(stage, model.config, flags, runtime)
    shared = share_model(model, stage.loss_fn, runtime, seed=flags.seed, initialised=saved is None)
    optimizer = make_optimizer(
        flags.optimizer, model, max_lr=schedule.max_lr, weight_decay=flags.weight_decay, beta2=flags.beta2
    )
    scaler = torch.amp.GradScaler(runtime.device.type, enabled=runtime.precision == "fp16")
    if saved:
        saved.restore(model, optimizer, scaler)
    run = TrainingRun(
        stage=stage,
        model=model,
        flags=flags,
        runtime=runtime,
        schedule=schedule,
        optimizer=optimizer,
        scaler=scaler,
        identity=identity,
        shared=shared,
        run_id=runtime.processes.from_first(saved.run_id if saved else secrets.token_hex(3)),
        resumed=saved is not None,
    )
    return run, saved.progress if saved else Progress(), resume_note


def _in_precision(precision: str, runtime: Runtime) -> Runtime:
    """The runtime of a resumed run, which continues in the precision that it began with."""
    if precision == runtime.precision:
        return runtime
    return replace(runtime, precision=precision, reason="as in the run being resumed")


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
    """The checkpoints of the run. If the best model of a resumed run is gone, the next evaluation saves one.

    Raises ValueError if there is no next evaluation, because the run is finished.
    """
    best = run.flags.out / BEST
    best_loss = loss_of_best(best, run.run_id, progress.best_step) if run.resumed else None
    if progress.best_step and best_loss is None:
        problem = f"{best}: missing, damaged, or from another run"
        if progress.is_complete(run.schedule):
            raise ValueError(f"{problem}, and this run is finished; --no-resume starts over")
        print(f"{problem}; the next evaluation saves a new one")
        progress.best_loss, progress.best_step = math.inf, 0
    return RunCheckpoints(run, owns_latest=run.resumed, best_loss=best_loss)
