"""A model that FSDP shards among two processes: its start, its shards, its precision."""

from typing import Any

import pytest

from tests.distributed.launch import run_in_processes
from tests.distributed.sharded import run_checks

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """The results of all checks in sharded.py, from the first of two processes."""
    results: dict[str, Any] = run_in_processes(run_checks)[0]
    return results


def test_initial_weights_under_fsdp_are_those_of_one_process(found: dict[str, Any]) -> None:
    assert found["initial_weights"] == {"equal": True, "halves": True}


def test_a_sharded_model_generates_the_text_of_the_whole_one(found: dict[str, Any]) -> None:
    assert found["samples"] == {"equal": True, "sharded": True}


def test_gradients_under_fsdp_equal_those_of_ddp(found: dict[str, Any]) -> None:
    assert found["gradients"]["fp32"] < 1e-6
    assert found["gradients"]["bf16"] < 2**-7  # bf16 has 8 significant bits


def test_activation_checkpointing_changes_nothing_under_fsdp(found: dict[str, Any]) -> None:
    assert found["recomputed"] is True
