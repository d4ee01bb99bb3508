"""Tell a run that diverged from one that overfits, or that just fails to improve.

A diverging run makes the model worse than it was before: its loss explodes, or jumps to a plateau and stays there.
"""

from src.training.stage import Progress


def is_far_above(loss: float, reference: float, first_loss: float) -> bool:
    """Whether a loss is more above a reference than noise explains: by 1 nat, or by a tenth of `first_loss`.

    The larger of the two counts, because IPO's loss starts at 25, where 1 is little.
    """
    return loss > reference + max(1.0, 0.1 * first_loss)


def is_worse_than_untrained(progress: Progress) -> bool:
    """Whether the last evaluation is far above the one before training. Such a model never becomes the best one."""
    first, last = progress.first_loss, progress.eval_loss
    return first is not None and last is not None and is_far_above(last, first, first)


def has_diverged(progress: Progress) -> bool:
    """Whether the run, at its end, has no model that is worth saving, or has lost what it had learned.

    The training loss must have risen, too: if only the evaluation loss rises, the run overfits, and its best model is
    as good as ever.
    """
    if progress.best_step == 0:
        return is_worse_than_untrained(progress)
    first, train, last = progress.first_loss, progress.train_loss, progress.eval_loss
    if first is None or train is None or last is None:
        return False
    return is_far_above(min(train, last), progress.best_loss, first)
