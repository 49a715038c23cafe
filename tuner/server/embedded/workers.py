"""Threads that wait for batches so that the I/O thread need not."""

import threading
from collections.abc import Callable
from queue import SimpleQueue


class Workers:
    """Threads made on demand, at most `limit`; a finished one waits for the next call.

    TensorFlow Serving's gRPC server has one thread per call in flight and refuses calls beyond
    its limit at once; `submit` does the same.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._queue: SimpleQueue[Callable[[], Callable[[], None]]] = SimpleQueue()
        self._lock = threading.Lock()
        self._busy = 0
        self._threads = 0

    def submit(self, work: Callable[[], Callable[[], None]]) -> bool:
        """Run `work` on a thread, then the function it returned; False where all are busy.

        The second function runs when the thread counts as free again, so that a client who is
        answered by it can call at once and is not refused. Called from one thread only.
        """
        with self._lock:
            if self._busy >= self._limit:
                return False
            self._busy += 1
            fresh = self._busy > self._threads
            self._threads += fresh
        self._queue.put(work)
        if fresh:
            threading.Thread(target=self._run, name="worker", daemon=True).start()
        return True

    def _run(self) -> None:
        while True:
            respond = self._queue.get()()
            with self._lock:
                self._busy -= 1
            respond()
