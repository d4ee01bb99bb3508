"""Evaluation: mean loss and metrics over batches."""

from collections.abc import Iterable

from src.data.batching import Batch
from src.model.gpt import GPTModel
from src.runtime import Runtime
from src.training.losses import LossFunction, Metrics


def mean_metrics(
    model: GPTModel, loss_fn: LossFunction, batches: Iterable[Batch], runtime: Runtime
) -> dict[str, float]:
    """{"loss": ..., and the loss's metrics}: sums over all batches divided by their total count.

    Runs without dropout or gradients.
    """
    totals: dict[str, float] = {}
    count = 0
    with model.evaluating():
        for batch in batches:
            count += batch.count
            with runtime.autocast():
                loss_sum, metrics = loss_fn(model, batch.to(runtime.device))
            add_metrics(totals, {"loss": loss_sum, **metrics})
    return {name: total / count for name, total in totals.items()}


def add_metrics(totals: dict[str, float], metrics: Metrics) -> None:
    """Add the sums of one batch to the running totals."""
    for name, value in metrics.items():
        totals[name] = totals.get(name, 0.0) + float(value)
