"""One of two processes. The first one works longer than a process waits for another one elsewhere."""

import time
from datetime import timedelta

import torch.distributed as dist

from src.distributed.processes import Processes, first_process_first


def main() -> None:
    dist.init_process_group("gloo", timeout=timedelta(seconds=5))
    order = []
    with first_process_first():
        if dist.get_rank() == 0:
            time.sleep(7)
        order.append(time.time())
    ended = Processes(dist.get_rank(), dist.get_world_size()).from_first(order[0])
    assert order[0] >= ended, "the other process did not wait"
    dist.destroy_process_group()


main()
