"""Exchange values with other processes, until one has a fault. Tests call it, or run python exchanges.py FAULT RANK."""

import os
import signal
import sys
import time

from src.distributed.environment import rank
from src.program import run_script

EXCHANGES, FAULT_AT = 40, 20


def exchange(fault: str, its_rank: int) -> int:
    import torch  # inside run_script, as in the scripts

    from src.distributed.processes import join

    processes = join(torch.device("cpu"))
    for number in range(EXCHANGES):
        if number == FAULT_AT and rank() == its_rank and fault != "none":
            have(fault)
        processes.total({"number": number})
        print("exchange", number, flush=True)
        time.sleep(0.05)
    for _ in range(1000):  # Python ends while Gloo works on these
        torch.distributed.all_reduce(torch.ones(20_000), async_op=True)
    return 0


def have(fault: str) -> None:
    """Have a fault: the name of a signal, "stuck", or "error"."""
    if fault == "stuck":
        time.sleep(3600)
    elif fault == "error":
        raise ValueError("record 7: no text")
    else:
        os.kill(os.getpid(), getattr(signal, fault))


if __name__ == "__main__":
    run_script(lambda: exchange(sys.argv[1], int(sys.argv[2])))
