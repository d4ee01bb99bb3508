"""The line that a run of several processes prints when it fails, and which of its processes prints it.

If one process is lost, the connections of all others break, and each of them gets an error that names no rank. The
heartbeats tell which process is to blame. One process of each machine prints that.
"""

import os
import sys
import time
from collections.abc import Sequence
from typing import NoReturn

from src.distributed import heartbeat
from src.distributed.environment import local_ranks, restarts_left, store_holder, torchrun_holds_store
from src.distributed.heartbeat import FAILED, LEFT, RUNNING, WAITING, Heartbeat

_MISSED_AFTER_ERROR = 4  # after a broken connection, a process that misses this many heartbeats is gone
_SEARCH = 8  # heartbeats that a process waits for the cause of a broken connection
_HEAD_START_S = 1.0  # for the process that prints the line, before the others of its machine end


def is_broken_connection(error: BaseException) -> bool:
    """Whether the error comes from Gloo, NCCL or the store, so that another process may have caused it."""
    return type(error).__name__.startswith("Dist") or "gloo" in str(error)


def tell_others(error: str) -> None:
    """Tell the other processes that this one fails with an error of its own."""
    if own := heartbeat.own():
        own.tell(FAILED, error)


def blame(error: str) -> str | None:
    """The line to print about a broken connection: which process broke it. Finding out takes a few seconds.

    For example "connection lost to rank 2 on b: Connection closed by peer; to continue, run the same command again".
    Returns None if another process of this machine prints it, and the error itself if no process is to blame.
    """
    own = heartbeat.own()
    if own is None:
        return error
    own.tell(WAITING)
    line = _search(own, error)
    own.tell(LEFT)
    return line


def _search(own: Heartbeat, error: str) -> str | None:
    end = own.number + _SEARCH
    while own.number < end:
        if failed := own.with_status(FAILED):
            first, message = failed[0], own.beats[failed[0]].message
            return None if first in local_ranks() else _line(own, f"{_names(own, [first])} failed", message, [])
        if lost := own.lost(_MISSED_AFTER_ERROR):
            return _line(own, f"connection lost to {_names(own, lost)}", error, lost)
        if own.unanswered >= _MISSED_AFTER_ERROR:
            return _line(own, f"connection lost to {store_holder()}", error, _lost_with_store())
        time.sleep(own.interval_s)
    stuck = _stuck(own)
    return _line(own, f"no progress of {_names(own, stuck)}", error, stuck) if stuck else error


def _stuck(own: Heartbeat) -> list[int]:
    """Of the processes that still run, those that have begun the fewest exchanges."""
    running = own.with_status(RUNNING)
    fewest = min((own.beats[rank].exchanges for rank in running), default=0)
    return [rank for rank in running if own.beats[rank].exchanges == fewest]


def end_process(own: Heartbeat) -> NoReturn:
    """End this process at once, because heartbeats are missing. One process of each machine prints which ones.

    The main thread waits for the lost process, and nothing else can interrupt that.
    """
    if line := silence_line(own):
        print(f"\nerror: {line}" if sys.stderr.isatty() else f"error: {line}", file=sys.__stderr__, flush=True)
    else:
        time.sleep(_HEAD_START_S)
    os._exit(1)


def silence_line(own: Heartbeat) -> str | None:
    """The line about missing heartbeats, such as "no heartbeat from rank 2 on b for 60 s; ...".

    None if another process of this machine prints it.
    """
    lost = own.lost(own.limit)
    silence = f"no heartbeat from {_names(own, lost)}" if lost else f"no answer from {store_holder()}"
    return _line(own, f"{silence} for {own.limit * own.interval_s:g} s", "", lost or _lost_with_store())


def _lost_with_store() -> list[int]:
    """The rank that is lost if the store is."""
    return [] if torchrun_holds_store() else [0]


def _names(own: Heartbeat, ranks: Sequence[int]) -> str:
    """For example "rank 2 on b, rank 3 on c"."""
    return ", ".join(f"rank {rank} on {own.beats[rank].host}" for rank in ranks)


def _line(own: Heartbeat, problem: str, error: str, lost: Sequence[int]) -> str | None:
    """The line, for the process of each machine that prints it: the first that is not lost. Else None."""
    if own.rank != min(rank for rank in local_ranks() if rank not in lost):
        return None
    again = "run the same command again" + (", without --no-resume" if "--no-resume" in sys.argv else "")
    advice = "torchrun starts all processes again" if restarts_left() else f"to continue, {again}"
    return f"{problem}: {error}; {advice}" if error else f"{problem}; {advice}"
