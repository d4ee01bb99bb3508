"""Evaluation: mean loss and metrics over batches."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from src.data.batching import Batch
from src.distributed.processes import Processes
from src.runtime import Runtime
from src.training.losses import Metrics
from src.training.shared_model import SharedModel


def mean_metrics(shared: SharedModel, batches: Sequence[Batch], runtime: Runtime) -> dict[str, float]:
    """{"loss": ..., and the loss's metrics}: sums over all batches divided by their loss_denominator.

    Runs without dropout or gradients. Each process computes its share of the batches.
    """
    totals: dict[str, float] = {"denominator": 0}
    with shared.model.evaluating():
        for batch in _share(batches, runtime.processes):
            with runtime.autocast():
                loss_sum, metrics = shared.loss(batch.to(runtime.device))
            add_metrics(totals, batch.loss_denominator, {"loss": loss_sum, **metrics})
    return means(totals, runtime.processes)


def add_metrics(totals: dict[str, float], denominator: int, metrics: Metrics) -> None:
    """Add the denominator and the sums of one batch to the running totals. A batch with denominator 0 adds nothing."""
    totals["denominator"] += denominator
    for name, value in metrics.items():
        totals[name] = totals.get(name, 0.0) + (float(value) if denominator else 0.0)


def means(totals: Mapping[str, float], processes: Processes) -> dict[str, float]:
    """The sums of all processes divided by their denominator."""
    summed = processes.total(totals)
    denominator = summed.pop("denominator")
    return {name: total / denominator for name, total in summed.items()}


def _share(batches: Sequence[Batch], processes: Processes) -> Sequence[Batch]:
    """This process's batches, padded with dummies: FSDP2 needs all processes for each forward pass."""
    most = -(-len(batches) // processes.count)
    own = list(batches[processes.rank :: processes.count])
    return own + [replace(batches[0], is_dummy=True)] * (most - len(own))
