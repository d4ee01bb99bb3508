"""The plan of a run and the check of its script start from the same figures."""

from dataclasses import replace
from typing import Any

import pytest

import dpo_train
import instruction_tune
import main
from src.distributed.processes import Processes
from src.planning.flags import Flags
from src.planning.report import _workload
from src.runtime import choose_runtime
from src.training.flags import TrainingFlags
from src.training.parallel import resolve_strategy, workload

SAME: dict[str, Any] = {"batch_size": 4, "context_length": 64, "grad_accum": 3, "activation_checkpointing": True}
LORA: dict[str, Any] = {"lora": 4, "lora_targets": "all-linear"}
CPU = choose_runtime("cpu", "fp32")


@pytest.mark.parametrize(
    ("stage", "script", "processes"),
    [
        ("pretrain", main.Flags(**SAME, optimizer="muon"), 2),
        ("sft", instruction_tune.Flags(**SAME, **LORA), 1),
        ("dpo", dpo_train.Flags(**SAME, strategy="fsdp"), 2),
    ],
)
@pytest.mark.parametrize("room", [1e12, 1e6])
def test_a_run_is_planned_and_checked_by_one_workload(
    stage: Any, script: TrainingFlags, processes: int, room: float
) -> None:
    names = (*SAME, *LORA, "optimizer", "strategy")
    plan = Flags(model="micro", stage=stage, processes=processes, **{name: getattr(script, name) for name in names})
    run = workload(script, plan.config(), replace(CPU, processes=Processes(count=processes)), dpo=stage == "dpo")
    assert _workload(plan, CPU, room) == replace(run, strategy=resolve_strategy(script.strategy, run, room))
    assert (run.lora, run.takes_lora) == (script.lora, stage != "pretrain")
