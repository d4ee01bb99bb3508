"""What torchrun tells a process in environment variables. Without torchrun there is one process, of rank 0."""

import os


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


def is_first() -> bool:
    """Whether this process prints, and writes the files that all processes share."""
    return rank() == 0


def restarts() -> int:
    """How often torchrun has started this process again, because one of the processes had failed."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def timeout_s() -> float:
    """How long a process waits for the others, in seconds: saving a large model takes minutes."""
    return float(os.environ.get("GPT2_TIMEOUT_S", "600"))
