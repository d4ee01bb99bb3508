"""Heartbeats of the processes of a run, exchanged through PyTorch's store, so that each knows which others are lost.

Gloo and NCCL report a closed connection by its address, or a timeout, but never the rank. `failure.py` turns the
heartbeats into the line that names it.
This module does not import PyTorch, because src/program.py, which reports errors, has to start fast.
"""

import atexit
import json
import platform
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple, Protocol

from src.distributed.environment import timeout_s

INTERVAL_S = 0.5
_SHORTEST_LIMIT = 10  # missed heartbeats; fewer may be a busy machine

RUNNING = "running"
WAITING = "waiting"  # its connections are broken, and it looks for the cause
FAILED = "failed"  # with an error of its own, which is the message of its heartbeat
LEFT = "left"  # it ends without an error of its own
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
        self.rank, self.interval_s = rank, interval_s
        self.number = 0  # of this process's heartbeat, and how often the store has answered
        self.exchanges = 0
        self.beats: Sequence[Beat] = []  # the last one received of each rank
        self.unanswered = 0  # counts since the store's last answer
        self._store, self._keys = store, [f"heartbeat/{other}" for other in range(count)]
        self._status, self._message = RUNNING, ""
        self._sent, self._wake = threading.Event(), threading.Event()
        self._missed = [0] * count  # heartbeats of each rank
        self._last_counted: tuple[int, Sequence[Beat]] = (0, [])  # the values of number and beats
        self._exchanger = threading.Thread(target=self._exchange, daemon=True)
        self._send()

    def start(self, on_loss: Callable[["Heartbeat"], None]) -> None:
        """Start the threads. Every process of the run must have made its Heartbeat before.

        on_loss is called once, with this object, if a process or the store has been silent for `limit` heartbeats.
        """
        threading.Thread(target=self._watch, args=[on_loss], daemon=True).start()
        self._exchanger.start()

    @property
    def limit(self) -> int:
        """The number of missed heartbeats after which a process ends: a tenth of GPT2_TIMEOUT_S, but at least 10."""
        return max(_SHORTEST_LIMIT, round(timeout_s() / 10 / self.interval_s))

    def lost(self, limit: int) -> list[int]:
        """The processes that have missed `limit` heartbeats. Processes lost together may differ by one heartbeat."""
        if max(self._missed) < limit:
            return []
        return [rank for rank, missed in enumerate(self._missed) if missed >= limit - 1]

    def with_status(self, status: str) -> list[int]:
        """The ranks whose last heartbeat has this status."""
        return [rank for rank, beat in enumerate(self.beats) if beat.status == status]

    def tell(self, status: str, message: str = "") -> None:
        """Tell the other processes a new status: wait until it is sent, but not for long."""
        self._sent.clear()
        self._status, self._message = status, message
        self._wake.set()
        self._sent.wait(2 * self.interval_s)

    def leave(self) -> None:
        """Tell the other processes that this one ends, so that it does not count as lost.

        Python must not end while a thread is inside the store: PyTorch would abort.
        """
        if self._status != FAILED:
            self.tell(LEFT)
        if self._exchanger.is_alive():
            self._exchanger.join(timeout=2 * self.interval_s)

    def _send(self) -> None:
        beat = Beat(self.number, self.exchanges, self._status, platform.node(), self._message)
        self._store.set(self._keys[self.rank], json.dumps(beat))
        if beat.status == self._status:
            self._sent.set()

    def _exchange(self) -> None:
        """Send and receive heartbeats until the process or its connection to the store ends."""
        with suppress(RuntimeError):  # `_watch` counts the answers that are missing from now on
            while not (self._is_ending() and self._sent.is_set()):
                self.beats = [Beat(*json.loads(text)) for text in self._store.multi_get(self._keys)]
                self.number += 1
                self._wake.wait(self.interval_s)
                self._wake.clear()
                self._send()

    def _watch(self, on_loss: Callable[["Heartbeat"], None]) -> None:
        while not self._is_ending():
            time.sleep(self.interval_s)
            self._count()
            if self.lost(self.limit) or self.unanswered >= self.limit:
                return on_loss(self)

    def _is_ending(self) -> bool:
        return self._status in (FAILED, LEFT)

    def _count(self) -> None:
        """Count the heartbeats missing since the last call, or the store's missing answer to this process."""
        (last_number, last_beats), (number, beats) = self._last_counted, (self.number, self.beats)
        if number == last_number:
            self.unanswered += 1
            return
        self.unanswered, self._last_counted = 0, (number, beats)
        for rank, beat in enumerate(beats):
            silent = bool(last_beats) and beat == last_beats[rank] and beat.status not in (FAILED, LEFT)
            self._missed[rank] = self._missed[rank] + 1 if silent else 0


def announce(store: Store, rank: int, count: int) -> Heartbeat:
    """The heartbeat of this process, which ends with it."""
    global _own
    _own = Heartbeat(store, rank, count)
    atexit.register(_own.leave)
    return _own


def own() -> Heartbeat | None:
    """The heartbeat of this process; None before it has joined a run of several."""
    return _own


def count_exchange() -> None:
    """Note that this process begins to exchange values with the others."""
    if _own is not None:
        _own.exchanges += 1
