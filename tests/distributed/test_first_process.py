"""What the first process does before the others may take longer than the time after which a process is given up."""

import time
from datetime import timedelta

import pytest
import torch.distributed as dist

from src.distributed.processes import Processes, first_process_first
from tests.distributed.launch import run_in_processes


def when_each_works() -> tuple[float, float]:
    """(when this process works, when the first one has worked). It works longer than a process waits for another."""
    dist.init_process_group("gloo", timeout=timedelta(seconds=2))
    with first_process_first():
        if dist.get_rank() == 0:
            time.sleep(3)
        works = time.time()
    ended = Processes(dist.get_rank(), dist.get_world_size()).from_first(works)
    dist.destroy_process_group()
    return works, ended


@pytest.mark.slow
def test_the_others_wait_for_the_first_process_however_long_it_works() -> None:
    for works, first_ended in run_in_processes(when_each_works).values():
        assert works >= first_ended
