"""Running many tasks on the workers of a Dask cluster."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from typing import Any, TypeVar

from catmorph.errors import CatmorphError, UsageError

Task = TypeVar("Task")
Result = TypeVar("Result")

_ANSWER_SECONDS, _WORKERS_SECONDS = 10, 30
"""How long a Dask scheduler has to answer, and then to have a worker."""


def on_cluster(worker: Callable[[Task], Result], tasks: Sequence[Task], address: str) -> Iterator[Result]:
    """Yield ``worker(task)`` for every task, as they are done by the workers of the scheduler at `address`.

    Raises
    ------
    UsageError
        When no scheduler answers, it has no worker, or one of them cannot do this work.
    CatmorphError
        When workers keep dying, or the scheduler goes away.
    """
    # Half a second to import, which work on this machine does without.
    from distributed import KilledWorker, as_completed
    from distributed.comm import CommClosedError

    with _cluster(address) as client:
        _refuse_strangers(client, address, worker, tasks)
        futures = client.map(worker, tasks, pure=False, retries=2)
        try:
            for future in as_completed(futures, loop=client.loop):
                yield future.result()
        except KilledWorker as error:
            raise CatmorphError(f"worker processes on the cluster kept dying: {error}", where=address,
                                hint="lower run.chunk_rows if memory is short, and run again") from error
        except (CancelledError, CommClosedError) as error:
            raise CatmorphError("the Dask scheduler is not there any more", where=address,
                                hint="start it and its workers, and run again to go on") from error


def _cluster(address: str) -> Any:
    """Return the client of a Dask scheduler."""
    from distributed import Client

    # What it has to say of lost workers and connections, the commands say themselves.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    hint = "give --scheduler the address of one (tcp://HOST:PORT), which `dask scheduler` starts, or leave it out"
    if not address.strip():
        raise UsageError("the address of the Dask scheduler is empty", hint=hint)
    try:
        return Client(address, timeout=_ANSWER_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError, RuntimeError, ImportError) as error:
        raise UsageError(f"no Dask scheduler answers: {error}", where=address, hint=hint) from error


def _refuse_strangers(
    client: Any, address: str, worker: Callable[[Task], Result], tasks: Sequence[Task]
) -> None:
    """Raise unless there are workers, all with this catmorph: others drop tasks without a word, and those wait."""
    try:
        client.wait_for_workers(1, timeout=_WORKERS_SECONDS)
    except TimeoutError:
        raise UsageError(f"the Dask scheduler has had no worker for {_WORKERS_SECONDS} s", where=address,
                         hint=f"start some, `dask worker {address} --nthreads 1`") from None
    own = _version_for(pickle.dumps(None))
    found = client.run(_version_for, pickle.dumps((worker, tasks[:1])), on_error="return")
    for place, answer in sorted(found.items()):
        if answer != own:
            what = f"{type(answer).__name__}: {answer}" if isinstance(answer, BaseException) else f"version {answer}"
            raise UsageError(f"the Dask worker {place} cannot do this work with its catmorph: {what}", where=address,
                             hint=f"let all workers have catmorph {own}, as here")


def _version_for(work: bytes) -> str:
    """Return the version of catmorph on a machine that can do some work: a function and its task, pickled."""
    from importlib.metadata import version

    pickle.loads(work)
    return version("catmorph")
