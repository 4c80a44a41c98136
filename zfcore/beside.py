"""Floor 0: work that is done beside the caller's, piece after piece, while that goes on."""
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any


class Thread:
    """A thread of its own, which takes piece after piece: on a CPU."""

    def __init__(self) -> None:
        self.pool: ThreadPoolExecutor | None = None                  # until there is work
        self.under_way: list[Future[Any]] = []

    def run(self, work: Callable[[], Any]) -> None:
        """Let `work()` be done when all that was given before is done."""
        self.pool = self.pool or ThreadPoolExecutor(1, thread_name_prefix="beside")
        self.under_way.append(self.pool.submit(work))

    def join(self) -> None:
        """Wait for all of it. Raises what the first of it that failed has raised."""
        under_way, self.under_way = self.under_way, []
        wait(under_way)
        for one in under_way:
            one.result()


class Stream:
    """A second stream of a GPU. What `run` is given it launches at once; there it comes after all that the current stream had
    by then. `join` lets the current stream wait for it, not the host. Both can be recorded.

    CuPy lends memory that Python has dropped to the stream that it was made on: so arrays that both streams know must be held
    until `join`."""

    def __init__(self, cupy: Any) -> None:
        self.cupy, self.stream = cupy, cupy.cuda.Stream(non_blocking=True)

    def run(self, work: Callable[[], Any]) -> None:
        """Let `work()` launch on the second stream."""
        self.stream.wait_event(self.cupy.cuda.get_current_stream().record())
        with self.stream:
            work()

    def join(self) -> None:
        """Let the current stream wait for the second one."""
        self.cupy.cuda.get_current_stream().wait_event(self.stream.record())
