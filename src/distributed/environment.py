"""What torchrun tells a process in environment variables. Without torchrun there is one process, of rank 0."""

import os
from typing import Literal


def rank() -> int:
    """The number of this process among all processes of the run."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """The number of processes of the run."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_rank() -> int:
    """The number of this process among those of its machine: its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_world_size() -> int:
    """The number of processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def machines() -> int:
    """The number of machines: torchrun calls the processes of one a group."""
    return int(os.environ.get("GROUP_WORLD_SIZE", "1"))


def local_ranks() -> range:
    """The ranks of the processes on this machine."""
    first = rank() - local_rank()
    return range(first, first + local_world_size())


def is_first() -> bool:
    """Whether this process prints, and writes the files that all processes share."""
    return rank() == 0


def restarts() -> int:
    """How often torchrun has started this process again, because one of the processes had failed."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def restarts_left() -> int:
    """How often torchrun will still start the processes again if one of them fails."""
    return int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) - restarts()


def timeout_s() -> float:
    """How long a process waits for the others, in seconds: saving a large model takes minutes."""
    return float(os.environ.get("GPT2_TIMEOUT_S", "600"))


def torchrun_holds_store() -> bool:
    """Whether the store, through which the processes find each other, is in torchrun. Else it is in rank 0."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def store_holder() -> str:
    """Who holds the store, and on which machine."""
    return f"{'torchrun' if torchrun_holds_store() else 'rank 0'} on {os.environ.get('MASTER_ADDR', 'this machine')}"


def has_own_file(stream: Literal["stdout", "stderr"]) -> bool:
    """Whether `torchrun --redirects` writes this stream of this process to a file of its own."""
    error_file = os.environ.get("TORCHELASTIC_ERROR_FILE", "")  # in the folder of the process's logs
    log = os.path.join(os.path.dirname(error_file), f"{stream}.log")
    try:
        return bool(error_file) and os.path.samestat(os.fstat({"stdout": 1, "stderr": 2}[stream]), os.stat(log))
    except OSError:  # there is no such file: not redirected
        return False


def launcher() -> list[str]:
    """The words in front of the script in a command that starts this run again. On several machines, each needs it."""
    if world_size() == 1:
        return ["python"]
    words = ["torchrun"]
    if machines() > 1:  # any free port will do, and any of the machines
        endpoint = f"{os.environ['MASTER_ADDR']}:29500"
        words += [f"--nnodes={machines()}", "--rdzv-backend=c10d", f"--rdzv-endpoint={endpoint}"]
    words.append(f"--nproc-per-node={local_world_size()}")
    if most := int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")):
        words.append(f"--max-restarts={most}")
    return words
