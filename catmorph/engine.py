"""Running many tasks: in process, on local worker processes, or on a Dask cluster."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from functools import cache
from multiprocessing import forkserver, resource_tracker
from typing import Any, TypeVar

from catmorph.cluster import on_cluster
from catmorph.errors import CatmorphError
from catmorph.lifetime import undisturbed

Task = TypeVar("Task")
Result = TypeVar("Result")

WORTH_A_POOL_SECONDS = 1.0
"""Estimated work below which worker processes do not pay: 0.1 s to start and end them, once their imports are done."""

_POOL_ATTEMPTS = 3
"""Pools in a row that may break before one more task is done."""

_ASLEEP_SECONDS = 0.5
"""How long the main thread waits at a time: it learns of a signal that another thread was given when it wakes."""


def run_tasks(
    worker: Callable[[Task], Result], tasks: Sequence[Task], *, workers: int, estimated_seconds: float,
    scheduler: str | None = None,
) -> Generator[Result, None, None]:
    """Yield ``worker(task)`` for every task, as they are done.

    Parameters
    ----------
    worker : callable
        Module-level function of one task; it writes its own product and may be called again for a task
        whose process was lost.
    tasks : sequence
        Small and picklable.
    workers : int
        Local worker processes.
    estimated_seconds : float
        Work in all, on one core; below 1 s it is done in this process.
    scheduler : str, optional
        Address of a Dask scheduler to use instead.

    Raises
    ------
    CatmorphError
        When worker processes keep dying.
    """
    if scheduler is not None and tasks:
        yield from on_cluster(worker, tasks, scheduler)
    elif workers <= 1 or len(tasks) <= 1 or estimated_seconds < WORTH_A_POOL_SECONDS:
        yield from map(worker, tasks)
    else:
        yield from _on_pool(worker, tasks, workers, in_order=False)


def run_in_order(
    worker: Callable[[Task], Result], tasks: Sequence[Task], *, workers: int, estimated_seconds: float,
) -> Generator[Result, None, None]:
    """Yield ``worker(task)`` of every task in their order, for results that are large: few wait in memory.

    The parameters and errors are those of `run_tasks`. In this process a task is not begun before its result is
    asked for; with worker processes, `workers` + 1 tasks are under way or wait to be taken.
    """
    if workers <= 1 or len(tasks) <= 1 or estimated_seconds < WORTH_A_POOL_SECONDS:
        yield from map(worker, tasks)
    else:
        yield from _on_pool(worker, tasks, workers, in_order=True)


def run_ahead(
    worker: Callable[[Task], Result], tasks: Iterable[Task], *, threads: int
) -> Generator[Result, None, None]:
    """Yield ``worker(task)`` of every task in their order, done by threads ahead of the one that takes them.

    For work that numpy does without Python's lock. Of the tasks, which are asked for one by one, `threads` + 1 are
    under way or wait to be taken; none is begun any more when the generator is closed.
    """
    with ThreadPoolExecutor(threads) as pool:
        try:
            for _, result in _results(pool, worker, enumerate(tasks), threads, in_order=True):
                yield result
        finally:
            pool.shutdown(cancel_futures=True)


def _results(
    pool: Executor, worker: Callable[[Task], Result], tasks: Iterable[tuple[int, Task]], ahead: int, *, in_order: bool
) -> Iterator[tuple[int, Result]]:
    """Yield the number and the result of every task, as they are done or in order; `ahead` + 1 are handed over."""
    under_way: dict[Future[Result], int] = {}
    for number, task in tasks:
        # An interrupt in it could leave a worker that nobody ends, or a lock that nobody opens.
        with undisturbed():
            under_way[pool.submit(worker, task)] = number
        if len(under_way) > ahead:
            yield _taken(under_way, in_order)
    while under_way:
        yield _taken(under_way, in_order)


def _taken(under_way: dict[Future[Result], int], in_order: bool) -> tuple[int, Result]:
    """Take a task that is done, or the first when it is: its number and result."""
    choice = list(under_way)[:1] if in_order else list(under_way)
    done: set[Future[Result]] = set()
    while not done:
        done, _ = wait(choice, _ASLEEP_SECONDS, FIRST_COMPLETED)
    # What is done counts, also where another task was lost meanwhile.
    future = min(done, key=lambda one: one.exception() is not None)
    return under_way.pop(future), future.result()


def one_blas_thread() -> AbstractContextManager[Any]:
    """Return a block with one thread of numpy's BLAS, for work that several processes may do beside each other.

    Many threads of each would wait for one another (10 times as long on a busy machine), and their number could change
    last bits.
    """
    return _libraries().limit(limits=1, user_api="blas")


@cache
def _libraries() -> Any:
    # Looking for them takes 4 ms each time.
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def expect_workers(workers: int, *modules: str) -> None:
    """Let another process import `modules` already, which local worker processes will start from.

    Called before this process has its own imports to do, so that both are done at the same time.
    """
    if workers > 1:
        _context(*modules)


def _imports_of(worker: Callable[..., Any]) -> list[str]:
    """Return the module of a worker's function, and those that it says in WORKERS_IMPORT it imports when called."""
    return [worker.__module__, *getattr(sys.modules[worker.__module__], "WORKERS_IMPORT", ())]


def _pool(worker: Callable[..., Any], processes: int) -> ProcessPoolExecutor:
    context = _context(*_imports_of(worker))
    # A semaphore is made before it is noted how to end it: an interrupt between them would leave it behind.
    with undisturbed():
        return ProcessPoolExecutor(processes, mp_context=context, initializer=_attend)


def _context(*modules: str) -> Any:
    """Return where worker processes come from, with the process running that they are forked from."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["catmorph.forked", *modules])
    # This starts a process too, and lets signals through when it has.
    resource_tracker.ensure_running()
    # Ctrl-C may come before `catmorph.forked` can see to it there.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


def _on_pool(
    worker: Callable[[Task], Result], tasks: Sequence[Task], workers: int, *, in_order: bool
) -> Iterator[Result]:
    left = dict(enumerate(tasks))
    broken = 0
    while left:
        try:
            for number, result in _pool_results(worker, list(left.items()), workers, in_order):
                del left[number]
                broken = 0
                yield result
        except BrokenProcessPool:
            # A worker was killed (out of memory, by hand): its unfinished tasks are done again.
            broken += 1
            if broken == _POOL_ATTEMPTS:
                raise _pool_is_dead(len(left)) from None


def _pool_is_dead(left: int) -> CatmorphError:
    return CatmorphError(f"worker processes died {_POOL_ATTEMPTS} times, {left} tasks are left",
                         hint="lower --workers or run.chunk_rows if memory is short, and run again")


def _pool_results(
    worker: Callable[[Task], Result], tasks: Sequence[tuple[int, Task]], workers: int, in_order: bool
) -> Iterator[tuple[int, Result]]:
    # In any order there are tasks at hand for all workers, should all be done at once; results in order may be large.
    ahead = workers if in_order else 2 * workers
    with _pool(worker, min(workers, len(tasks))) as pool:
        try:
            try:
                yield from _results(pool, worker, tasks, ahead, in_order=in_order)
            except Exception:
                # This waits for every worker: none may still write when the run's lock goes, or its task is done again.
                pool.shutdown(cancel_futures=True)
                raise
        except (KeyboardInterrupt, GeneratorExit):
            # A chunk can take minutes: what it has written is removed by the next run.
            _give_up(pool)
            raise


def _give_up(pool: ProcessPoolExecutor) -> None:
    processes = pool._processes
    results: Any = pool._result_queue
    with pool._shutdown_lock:  # held while a process is started, which thus is among them
        manager: Any = pool._executor_manager_thread
    # First no more are started: one that is while others are lost may be handed files that are closed already.
    pool.shutdown(wait=False, cancel_futures=True)
    for process in list(processes.values()):
        process.terminate()
    # The rest of what one of them was writing will not come: while this process could write it, it would be waited for.
    results._writer.close()
    # At its end Python would talk to this thread, which cannot be while the thread itself ends.
    if manager is not None:
        manager.join()


def _attend() -> None:
    """Leave Ctrl-C, which reaches every process of the terminal, to the parent; do not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: Any) -> None:
    # A killed parent closes no queue: without this its workers would wait for tasks for ever.
    parent.join()
    os._exit(1)
