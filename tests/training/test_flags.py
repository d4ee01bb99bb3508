"""The flags that all training scripts share."""

import math
from pathlib import Path

import pytest

from src.training.flags import parse_save_every
from tests.training.small_run import flags


@pytest.mark.parametrize(
    ("text", "expected"),
    [("500", (500, math.inf)), ("1", (1, math.inf)), ("10m", (None, 600.0)), ("0.5m", (None, 30.0))],
)
def test_saves_are_due_by_steps_or_minutes(text: str, expected: tuple) -> None:
    assert parse_save_every(text) == expected


@pytest.mark.parametrize("text", ["0", "-1", "0m", "m", "5s", "1.5", "1e3", "5 m", "nanm", "9" * 400, "5m5m", "\u0665"])
def test_another_interval_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--save-every must be steps, such as 500, or minutes, such as 10m, got"):
        flags(tmp_path, save_every=text)
