"""--tensorboard: the metrics of a run for TensorBoard, next to its log."""

import math
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TENSORBOARD_MISSING = "--tensorboard needs the package tensorboard: pip install tensorboard"
_PREFIXES = {"step": "train", "eval": "evaluation"}
_NOT_METRICS = ("step", "epoch", "best")


class TensorBoardLog:
    """Writes the numbers of a run's events to a folder that `tensorboard --logdir` reads."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes seconds to import, and only needed here

        self._writer = SummaryWriter(str(folder))
        self._excepthook, threading.excepthook = threading.excepthook, _without_traceback

    def event(self, event: str, values: Mapping[str, Any]) -> None:
        """Add the finite numbers of a training step or an evaluation, under train/ or evaluation/. Raises OSError."""
        if prefix := _PREFIXES.get(event):
            for name, value in values.items():
                if name not in _NOT_METRICS and isinstance(value, int | float) and math.isfinite(value):
                    self._writer.add_scalar(f"{prefix}/{name}", value, values["step"])

    def close(self) -> None:
        """Write what is pending. Raises OSError."""
        try:
            self._writer.close()
        finally:
            threading.excepthook = self._excepthook


def _without_traceback(error: threading.ExceptHookArgs) -> None:
    """Print no traceback for TensorBoard's thread: its error is raised again by the next call of the writer."""
    if not type(error.thread).__module__.startswith("tensorboard."):
        threading.__excepthook__(error)
