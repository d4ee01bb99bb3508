"""An event loop in a thread of its own, so that a program that is not asynchronous can use Semantic Kernel.

The program's own thread stays free for the terminal and for Ctrl-C, and the loop is never kept waiting by either.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator, Coroutine, Generator
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")
_LOOK_UP_S = 0.1  # on Windows a thread that waits without end does not see Ctrl-C


class LoopThread:
    """To be closed; what still runs in the loop then is cancelled."""

    def __init__(self) -> None:
        started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(started)), name="loop", daemon=True)
        self._thread.start()
        started.wait()

    async def _serve(self, started: threading.Event) -> None:
        self._loop, self._closed = asyncio.get_running_loop(), asyncio.Event()
        started.set()
        await self._closed.wait()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What the coroutine returns or raises."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def stream(self, parts: AsyncGenerator[T, None]) -> Generator[T, None, None]:
        """The parts as they come; raises what they raise. Closed, it cancels them and waits for their end."""
        # One task reads them all: tracing keeps values in the task's context that must be taken back in the same one.
        came: SimpleQueue[tuple[T] | asyncio.Task[None] | None] = SimpleQueue()
        tasks: list[asyncio.Task[None]] = []

        async def read() -> None:
            async for part in parts:
                came.put((part,))

        def start() -> None:
            tasks.append(self._loop.create_task(read()))
            tasks[0].add_done_callback(came.put)  # the task itself marks the end, however it came

        def cancel() -> None:
            if not tasks:
                came.put(None)
            for task in tasks:
                task.cancel()

        item: tuple[T] | tuple[()] | asyncio.Task[None] | None = ()
        try:
            self._loop.call_soon_threadsafe(start)  # Ctrl-C may come before this returns, and the answer with it
            while isinstance(item := _next(came), tuple):
                yield item[0]
            assert item is not None
            item.result()
        finally:
            if isinstance(item, tuple):
                self._loop.call_soon_threadsafe(cancel)
                while isinstance(_next(came), tuple):
                    pass

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._closed.set)
        self._thread.join()


def _next(queue: "SimpleQueue[T]") -> T:
    while True:
        try:
            return queue.get(timeout=_LOOK_UP_S)
        except Empty:
            continue
