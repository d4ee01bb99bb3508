"""One run of a training stage: settle its numbers, resume or start, train, and say what came of it."""

import os
import shlex
import shutil
import subprocess
import sys
import textwrap
from typing import Any

import torch

from src.checkpoint import BEST, LATEST
from src.model.attention import KeyValueCache, Packing
from src.runtime import Runtime, keep_freed_memory
from src.training.checkpoints import RunCheckpoints, plain_settings
from src.training.loop import train
from src.training.optim import MuonAndAdamW, make_adamw
from src.training.progress import Reporter, draw_curves
from src.training.run import Run, Stage, State, make_plan

NO_VALIDATION = "none: best follows the training loss (--val-fraction keeps some back)"
NO_COMPILING = "--compile is for windows of one length; here each batch has lengths of its own, to be compiled anew"


def run_stage(stage: Stage, model: Any, flags: Any, runtime: Runtime) -> int:
    """Run a stage to its end and return the exit code of its script: 0 done, 130 interrupted after saving.

    Raises ValueError where latest_model.pt is of a run with other settings, or where training breaks down.
    """
    keep_freed_memory()
    plan = make_plan(flags, stage.loader.steps_per_epoch)
    make_optimizer = MuonAndAdamW if flags.optimizer == "muon" else make_adamw
    optimizer = make_optimizer(model, max_lr=plan.max_lr, weight_decay=flags.weight_decay)
    scaler = torch.amp.GradScaler(runtime.device.type, enabled=runtime.precision == "fp16")
    run = Run(stage, model, flags, runtime, plan, optimizer, scaler)
    keeper = RunCheckpoints(run)
    state = keeper.restore()
    reporter = Reporter(stage.name, flags.log_dir, first_step=state.step, steps=plan.steps)
    _announce(run, state, reporter)
    if flags.compile:
        _compile(model)
    ended = "failed"
    try:
        ended = train(run, state, keeper, reporter)
    finally:
        reporter.event("end", ended=ended, step=state.step, best_loss=state.best_loss, best_step=state.best_step)
        reporter.close()
    return _conclude(run, state, reporter, ended)


def _compile(model: Any) -> None:
    """Compile what training runs. Generation stays as it is: its cache grows by a token, each time a new shape.

    Raises ValueError, at the first batch, where this machine cannot compile, or where texts are packed into rows.
    """
    from torch._dynamo.exc import TorchDynamoException  # both are slow to import, and needed only here
    from torch._inductor.exc import InductorError

    eager, compiled = model.hidden_states, torch.compile(model.hidden_states)

    def hidden_states(
        ids: torch.Tensor, context: KeyValueCache | Packing | None = None, *, embedded: torch.Tensor | None = None
    ) -> torch.Tensor:
        if isinstance(context, KeyValueCache):
            return eager(ids, context)
        if context is not None:
            raise ValueError(f"{NO_COMPILING}; leave it out")
        try:
            return compiled(ids, embedded=embedded)
        except (TorchDynamoException, InductorError) as error:
            raise ValueError(f"--compile does not work here ({str(error).splitlines()[0]}); leave it out") from error

    model.hidden_states = hidden_states


def _announce(run: Run, state: State, reporter: Reporter) -> None:
    """All settings and what follows from them, once, before the first step."""
    stage, flags, runtime, plan = run.stage, run.flags, run.runtime, run.plan
    c = run.model.config
    total, body = c.parameter_count()
    epochs = plan.steps / plan.steps_per_epoch
    rows = {
        "model": f"{c.n_layers} layers, {c.d_model} wide, {c.n_heads} heads, context {c.context_length}: "
        f"{total:,} parameters, {body:,} without the embeddings",
        **stage.facts,
        "batch": f"{flags.batch_size} x {flags.grad_accum} accumulated, {plan.steps_per_epoch} steps an epoch",
        "steps": f"{plan.steps} ({epochs:.1f} epochs), evaluated every {plan.eval_every}"
        + (f", stopped after {plan.patience} without gain" if plan.patience else ""),
        "learning rate": f"{plan.max_lr:g} to {plan.min_lr:g}, warm-up {plan.warmup_steps} steps",
        "optimizer": "Muon in the blocks, AdamW elsewhere" if flags.optimizer == "muon" else "AdamW",
        "regularised by": f"weight decay {flags.weight_decay:g}, dropout {c.dropout:g}, "
        f"gradient norm at most {plan.grad_clip or 'unlimited'}",
        "device": f"{runtime.device}, {runtime.precision} ({runtime.reason})" + (", compiled" if flags.compile else ""),
        "seed": str(plan.seed),
        "saves to": f"{flags.out}, log {reporter.path}",
    }
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    lines = [textwrap.fill(f"  {name:<15}{text}", width, subsequent_indent=" " * 17) for name, text in rows.items()]
    reporter.say("\n".join([stage.title, *lines]))
    if state.step:
        reporter.say(f"going on with the unfinished run at step {state.step} of {plan.steps} (--no-resume starts over)")
    reporter.event("start", step=state.step, steps=plan.steps, settings=plain_settings(flags), facts=dict(rows))


def _conclude(run: Run, state: State, reporter: Reporter, ended: str) -> int:
    """Say how the run ended and what comes next; returns the exit code."""
    stage, flags, plan = run.stage, run.flags, run.plan
    picture = draw_curves(reporter.path)
    if ended == "interrupted":
        print(f"interrupted after step {state.step} of {plan.steps}; saved {flags.out / LATEST}")
        again = [word for word in sys.argv if word != "--no-resume"]
        print(f"go on with: python {subprocess.list2cmdline(again) if os.name == 'nt' else shlex.join(again)}")
        return 130
    if ended == "early":
        print(f"stopped early at step {state.step}: no gain in {state.stale_evaluations} evaluations")
    if state.first_loss is not None:
        print(
            f"{stage.evaluated_on} loss {state.first_loss:.4f} before training, "
            f"best {state.best_loss:.4f} after step {state.best_step}; saved {flags.out / BEST}"
        )
        if state.best_loss > state.first_loss:
            print("training did not improve on the model it started from; try a lower --max-lr or fewer steps")
    if picture:
        print(f"curves: {picture}")
    elsewhere = f" {stage.next_option} {flags.out}" if flags.out != getattr(type(flags), "out", None) else ""
    print(f"next: {stage.next_command}{elsewhere}")
    return 0
