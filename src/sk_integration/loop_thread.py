"""An asyncio event loop in its own thread, which lets synchronous code call Semantic Kernel.

The main thread stays free for the terminal and Ctrl-C, and neither can block the loop.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator, Coroutine, Generator
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")
_POLL_S = 0.1  # on Windows, a thread that waits without a timeout does not see Ctrl-C


class LoopThread:
    """Runs coroutines and async generators for other threads. Closing it cancels what is still running."""

    def __init__(self) -> None:
        started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(started)), name="loop", daemon=True)
        self._thread.start()
        started.wait()

    async def _serve(self, started: threading.Event) -> None:
        self._loop, self._closed = asyncio.get_running_loop(), asyncio.Event()
        started.set()
        await self._closed.wait()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Wait for the coroutine, and return its result or raise its exception."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def stream(self, items: AsyncGenerator[T, None]) -> Generator[T, None, None]:
        """Yields the items as they arrive, and raises the exception of the async generator.

        Closing the stream cancels the async generator and waits until it has ended.
        """
        # One task reads all items: tracing sets context variables, which must be reset in the same task.
        # The queue gets (item,) for each item, then the finished task; or None if the task never started.
        received: SimpleQueue[tuple[T] | asyncio.Task[None] | None] = SimpleQueue()
        tasks: list[asyncio.Task[None]] = []

        async def read() -> None:
            async for item in items:
                received.put((item,))

        def start() -> None:
            tasks.append(self._loop.create_task(read()))
            tasks[0].add_done_callback(received.put)  # the finished task marks the end of the stream

        def cancel() -> None:
            if not tasks:
                received.put(None)
            for task in tasks:
                task.cancel()

        item: tuple[T] | tuple[()] | asyncio.Task[None] | None = ()
        try:
            self._loop.call_soon_threadsafe(start)  # inside the try: Ctrl-C can interrupt even this call
            while isinstance(item := _next(received), tuple):
                yield item[0]
            assert item is not None
            item.result()
        finally:
            if isinstance(item, tuple):  # the caller stopped before the end
                self._loop.call_soon_threadsafe(cancel)
                while isinstance(_next(received), tuple):
                    pass

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._closed.set)
        self._thread.join()


def _next(queue: "SimpleQueue[T]") -> T:
    while True:
        try:
            return queue.get(timeout=_POLL_S)
        except Empty:
            continue
