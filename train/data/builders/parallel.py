"""Work spread over processes, with progress inside the tasks."""

import concurrent.futures
import concurrent.futures.process
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import cv2

from deeplab2_edge.errors import DeepLabEdgeError

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")

_POLL_SECONDS = 0.5


def run_tasks(
    work: Callable[[_Task, Callable[[], None]], _Result],
    tasks: Sequence[_Task],
    keep: Callable[[_Task, _Result], None],
    *,
    workers: int,
) -> Iterator[None]:
    """Does all tasks and yields once per item they count, whenever it is done.

    Args:
        work: Called with a task and a function that it calls after each item of the
            task. Sent to the workers once, so it may hold much.
        tasks: What to do, in the order of starting.
        keep: Called in this process with each task and its result, when it is done.
        workers: Processes; 1 works in this one.

    Raises:
        DeepLabEdgeError: If a worker dies; what `work` raises is passed on. Tasks
            that have not been started by then are dropped.
    """
    workers = min(workers, len(tasks))
    if workers <= 1:
        for task in tasks:
            items: list[None] = []
            keep(task, work(task, lambda: items.append(None)))  # noqa: B023
            yield from items
        return
    # Spawn: a forked process would inherit TensorFlow's threads half alive.
    context = multiprocessing.get_context("spawn")
    counter, stop = context.Value("q", 0), context.Event()
    reported = 0
    with concurrent.futures.ProcessPoolExecutor(
        workers, context, initializer=_start, initargs=(work, counter, stop)
    ) as executor:
        futures = {executor.submit(_run, task): task for task in tasks}
        pending = set(futures)
        try:
            while pending:
                done, pending = concurrent.futures.wait(
                    pending,
                    timeout=_POLL_SECONDS,
                    return_when=concurrent.futures.FIRST_COMPLETED,
                )
                for future in done:
                    keep(futures[future], future.result())
                while reported < counter.value:
                    reported += 1
                    yield None
        except concurrent.futures.process.BrokenProcessPool as error:
            raise DeepLabEdgeError(
                "a worker process died, perhaps for lack of memory; run the same "
                "command again with fewer workers, finished parts are kept (a script "
                "that starts workers needs `if __name__ == '__main__':`)"
            ) from error
        finally:
            stop.set()
            executor.shutdown(wait=True, cancel_futures=True)


class _Stopped(Exception):
    """Ends a task that nobody waits for; unwinding removes its unfinished file."""


# State of a worker process, set once by `_start`.
_work: Any = None
_counter: Any = None
_stop: Any = None


def _start(work: Any, counter: Any, stop: Any) -> None:
    global _work, _counter, _stop
    _work, _counter, _stop = work, counter, stop
    cv2.setNumThreads(1)  # the processes already use all cores
    # Ctrl-C reaches every process of a terminal; the parent tells us when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Ends this process if its parent is killed; it would wait for tasks for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _run(task: Any) -> Any:
    _raise_if_stopped()
    return _work(task, _count)


def _count() -> None:
    _raise_if_stopped()
    with _counter.get_lock():
        _counter.value += 1


def _raise_if_stopped() -> None:
    if _stop.is_set():
        raise _Stopped
