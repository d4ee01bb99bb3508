"""Distinguish a run that diverged from one that overfits or just fails to improve.

In a diverging run the model gets worse than it was: the loss explodes, or jumps to a plateau and stays there.
"""

from src.training.stage import Progress


def is_far_above(loss: float, reference: float, first_loss: float) -> bool:
    """Whether a loss exceeds a reference by more than noise explains: by 1 nat or a tenth of `first_loss`.

    The larger of the two is used, because IPO's loss starts at 25, where 1 is little.
    """
    return loss > reference + max(1.0, 0.1 * first_loss)


def is_worse_than_untrained(loss: float | None, first_loss: float | None) -> bool:
    """Whether an evaluation is far above the one before training. Such a model never becomes the best one."""
    return loss is not None and first_loss is not None and is_far_above(loss, first_loss, first_loss)


def has_diverged(progress: Progress) -> bool:
    """Whether the run ended without a model worth saving, or lost what it had learned.

    The training loss must have risen, too: if only the evaluation loss rises, the run overfits, and its best model is
    still good.
    """
    first, train, last = progress.first_loss, progress.train_loss, progress.eval_loss
    if progress.best_step == 0:
        return is_worse_than_untrained(last, first)
    if first is None or train is None or last is None:
        return False
    return is_far_above(min(train, last), progress.best_loss, first)
