"""The same loss as in training, over batches that nothing is learned from."""

from collections.abc import Callable, Iterable
from typing import Any

import torch

from src.runtime import Runtime


def evaluate(model: Any, loss_fn: Callable, batches: Iterable[Any], runtime: Runtime) -> dict[str, float]:
    """{"loss": ..., and the loss's metrics}, each a mean over all that the batches count, without dropout."""
    totals: dict[str, float] = {}
    count = 0
    with model.evaluating():
        for batch in batches:
            count += batch.count
            with runtime.autocast():
                loss_sum, metrics = loss_fn(model, batch.to(runtime.device))
            add_metrics(totals, {"loss": loss_sum, **metrics})
    return {name: total / count for name, total in totals.items()}


def add_metrics(totals: dict[str, float], metrics: dict[str, torch.Tensor]) -> None:
    """Add the sums of a batch to running totals."""
    for name, value in metrics.items():
        totals[name] = totals.get(name, 0.0) + float(value)
