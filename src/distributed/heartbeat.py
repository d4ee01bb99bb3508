"""Heartbeats of the processes of a run, through PyTorch's store. They show which rank is lost.

Gloo and NCCL report a closed connection by its address, or a timeout, but never the rank. This module does not import
PyTorch, because src/program.py, which reports errors, has to start fast.
"""

import atexit
import json
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple, NoReturn, Protocol

from src.distributed.environment import local_ranks, restarts_left, store_holder, timeout_s, torchrun_holds_store

INTERVAL_S = 0.5
_MISSED_AFTER_ERROR = 4  # after a broken connection, a process that misses this many heartbeats is gone
_SEARCH = 8  # heartbeats that a process waits for the cause of a broken connection
_SHORTEST_LIMIT = 10  # missed heartbeats; fewer may be a busy machine
_HEAD_START_S = 1.0  # for the process that prints the line, before the others of its machine end

RUNNING, WAITING, FAILED, LEFT = "running", "waiting", "failed", "left"
_own: "Heartbeat | None" = None  # of this process, in a run of several


class Store(Protocol):
    """The part of torch.distributed.Store that heartbeats use."""

    def set(self, key: str, value: str, /) -> None: ...

    def multi_get(self, keys: list[str], /) -> list[bytes]: ...


class Beat(NamedTuple):
    """One heartbeat. Its number makes it different from the one before."""

    number: int
    exchanges: int  # how many sums and broadcasts the process has begun
    status: str
    host: str
    message: str


class Heartbeat:
    """Sends the heartbeats of one process, and counts the missing heartbeats of each other process.

    One thread exchanges heartbeats with the store. A second one counts, because the store's calls block if the network
    is cut. Time is measured in counts: if all processes pause, none has missed a heartbeat.
    """

    def __init__(self, store: Store, rank: int, count: int, *, interval_s: float = INTERVAL_S) -> None:
        self.rank, self._store, self._interval_s = rank, store, interval_s
        self._keys = [f"heartbeat/{other}" for other in range(count)]
        self._status, self._message, self.exchanges = RUNNING, "", 0
        self._sent, self._wake = threading.Event(), threading.Event()
        self._number = self._counted_number = 0
        self._received: Sequence[Beat] = []
        self._counted: Sequence[Beat] = []
        self._missed, self._missed_answers = [0] * count, 0
        self._exchanger = threading.Thread(target=self._exchange, daemon=True)
        self._lost_with_store = [] if torchrun_holds_store() else [0]
        self._send()

    def start(self, on_loss: Callable[[str | None], None]) -> None:
        """Start the threads. Every process of the run must have made its Heartbeat before.

        on_loss is called if heartbeats are missing for a tenth of GPT2_TIMEOUT_S, and at least 5 s. It gets the line
        to print, or None if another process of this machine prints it.
        """
        threading.Thread(target=self._watch, args=[on_loss], daemon=True).start()
        self._exchanger.start()

    def leave(self) -> None:
        """Tell the other processes that this one ends, so that it does not count as lost.

        Python must not end while a thread is inside the store: PyTorch would abort.
        """
        if self._status != FAILED:
            self._tell(LEFT)
        if self._exchanger.is_alive():
            self._exchanger.join(timeout=2 * self._interval_s)

    def fail(self, message: str) -> None:
        """Tell the other processes that this one ends with an error of its own."""
        self._tell(FAILED, message)

    def cause(self, error: str) -> str | None:
        """The line to print about a broken connection: which process broke it. Finding out takes a few seconds.

        Returns None if another process of this machine prints it, and the error itself if no process is to blame.
        """
        self._tell(WAITING)
        line = self._search(error)
        self._tell(LEFT)
        return line

    def _search(self, error: str) -> str | None:
        end = self._number + _SEARCH
        while self._number < end:
            if failed := self._with_status(FAILED):
                first, message = failed[0], self._received[failed[0]].message
                return None if first in local_ranks() else self._line(f"{self._name([first])} failed", message, [])
            if lost := self._lost(_MISSED_AFTER_ERROR):
                return self._line(f"connection lost to {self._name(lost)}", error, lost)
            if self._missed_answers >= _MISSED_AFTER_ERROR:
                return self._line(f"connection lost to {store_holder()}", error, self._lost_with_store)
            time.sleep(self._interval_s)
        stuck = self._stuck()
        return self._line(f"no progress of {self._name(stuck)}", error, stuck) if stuck else error

    def _tell(self, status: str, message: str = "") -> None:
        """Change the status, and wait until it is sent, but not for long."""
        self._sent.clear()
        self._status, self._message = status, message
        self._wake.set()
        self._sent.wait(2 * self._interval_s)

    def _send(self) -> None:
        beat = Beat(self._number, self.exchanges, self._status, platform.node(), self._message)
        self._store.set(self._keys[self.rank], json.dumps(beat))
        if beat.status == self._status:
            self._sent.set()

    def _exchange(self) -> None:
        """Send and receive heartbeats until the process or its connection to the store ends."""
        with suppress(RuntimeError):  # `_watch` counts the answers that are missing from now on
            while not (self._ends() and self._sent.is_set()):
                self._received = [Beat(*json.loads(text)) for text in self._store.multi_get(self._keys)]
                self._number += 1
                self._wake.wait(self._interval_s)
                self._wake.clear()
                self._send()

    def _watch(self, on_loss: Callable[[str | None], None]) -> None:
        limit = max(_SHORTEST_LIMIT, round(timeout_s() / 10 / self._interval_s))
        while not self._ends():
            time.sleep(self._interval_s)
            self._count()
            lost = self._lost(limit)
            if lost or self._missed_answers >= limit:
                silence = f"no heartbeat from {self._name(lost)}" if lost else f"no answer from {store_holder()}"
                problem = f"{silence} for {limit * self._interval_s:g} s"
                return on_loss(self._line(problem, "", lost or self._lost_with_store))

    def _ends(self) -> bool:
        return self._status in (FAILED, LEFT)

    def _count(self) -> None:
        """Count the heartbeats missing since the last call, or the store's missing answer to this process."""
        if self._number == self._counted_number:
            self._missed_answers += 1
            return
        self._missed_answers, self._counted_number = 0, self._number
        received, counted = self._received, self._counted
        for rank, beat in enumerate(received):
            silent = bool(counted) and beat == counted[rank] and beat.status not in (FAILED, LEFT)
            self._missed[rank] = self._missed[rank] + 1 if silent else 0
        self._counted = received

    def _lost(self, limit: int) -> list[int]:
        """The processes that have missed `limit` heartbeats. Processes lost together may differ by one heartbeat."""
        if max(self._missed) < limit:
            return []
        return [rank for rank, missed in enumerate(self._missed) if missed >= limit - 1]

    def _stuck(self) -> list[int]:
        """Of the processes that still run, those that have begun the fewest exchanges."""
        running = self._with_status(RUNNING)
        fewest = min((self._received[rank].exchanges for rank in running), default=0)
        return [rank for rank in running if self._received[rank].exchanges == fewest]

    def _with_status(self, status: str) -> list[int]:
        return [rank for rank, beat in enumerate(self._received) if beat.status == status]

    def _name(self, ranks: Sequence[int]) -> str:
        """For example "rank 2 on host b, rank 3 on host c"."""
        return ", ".join(f"rank {rank} on {self._received[rank].host}" for rank in ranks)

    def _line(self, problem: str, error: str, lost: Sequence[int]) -> str | None:
        """The line, for the process of each machine that prints it: the first that is not lost. Else None."""
        if self.rank != min(rank for rank in local_ranks() if rank not in lost):
            return None
        advice = "torchrun starts all processes again" if restarts_left() else f"to continue, {_again()}"
        return "; ".join([": ".join(filter(None, [problem, error])), advice])


def _again() -> str:
    return "run the same command again" + (", without --no-resume" if "--no-resume" in sys.argv else "")


def announce(store: Store, rank: int, count: int) -> Heartbeat:
    """The heartbeat of this process, which ends with it."""
    global _own
    _own = Heartbeat(store, rank, count)
    atexit.register(_own.leave)
    return _own


def count_exchange() -> None:
    """Note that this process begins to exchange values with the others."""
    if _own is not None:
        _own.exchanges += 1


def is_broken_connection(error: BaseException) -> bool:
    """Whether the error comes from Gloo, NCCL or the store, so that another process may have caused it."""
    return type(error).__name__.startswith("Dist") or "gloo" in str(error)


def error_line(message: str, *, broken_connection: bool) -> str | None:
    """The line to print if this process fails, or None if another process prints it.

    If the connection to another process is broken, the line blames that process. Otherwise, the others are notified of
    this error.
    """
    if _own is None:
        return message
    if broken_connection:
        return _own.cause(message)
    _own.fail(message)
    return message


def end_process(line: str | None) -> NoReturn:
    """End this process at once. Its main thread waits for a lost process, and nothing else can interrupt that."""
    if line:
        print(f"\nerror: {line}" if sys.stderr.isatty() else f"error: {line}", file=sys.__stderr__, flush=True)
    else:
        time.sleep(_HEAD_START_S)
    os._exit(1)
