"""A model that FSDP divides among two processes: its start, its parts, its precision."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.repository import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """The results of all checks in sharded.py, from the first of two processes."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    worker = str(ROOT / "tests/distributed/sharded.py")
    result = subprocess.run([*launcher, worker], env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr[-3000:]
    results: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return results


def test_initial_weights_under_fsdp_are_those_of_one_process(found: dict[str, Any]) -> None:
    assert found["initial_weights"] == {"equal": True, "halves": True}


def test_a_divided_model_generates_the_text_of_the_whole_one(found: dict[str, Any]) -> None:
    assert found["samples"] == {"equal": True, "divided": True}


def test_gradients_under_fsdp_equal_those_of_ddp(found: dict[str, Any]) -> None:
    assert found["gradients"]["fp32"] < 1e-6
    assert found["gradients"]["bf16"] < 2**-7  # bf16 has 8 significant bits


def test_activation_checkpointing_changes_nothing_under_fsdp(found: dict[str, Any]) -> None:
    assert found["recomputed"] is True
