"""Packing stamps of successive keys into full batches of one fixed shape."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

Key = TypeVar("Key", bound=Hashable)
Run = Callable[[np.ndarray, int], np.ndarray]
"""A function of one full batch (batch, channel, y, x) float32, and of how many stamps at its beginning count, that
returns their logits (n, class) float32."""


@dataclass
class _Waiting(Generic[Key]):
    """A key whose stamps are not all done: `done` rows of `logits` are filled."""

    key: Key
    logits: np.ndarray
    done: int = 0

    @property
    def complete(self) -> bool:
        return self.done == len(self.logits)


class Packer(Generic[Key]):
    """Fills one batch after another and gives each key its rows back.

    Parameters
    ----------
    run : callable
        The network, on one full batch. The array it gets is reused for the next batch.
    shape : tuple of int
        (batch, channel, y, x); rows of a last batch that no stamp fills are zero.
    classes : int
        Columns of the logits.
    """

    def __init__(self, run: Run, shape: tuple[int, int, int, int], classes: int):
        self._run, self._classes = run, classes
        self._buffer = np.zeros(shape, dtype=np.float32)
        self._used = 0
        self._spans: list[tuple[_Waiting[Key], int, int]] = []
        self._waiting: deque[_Waiting[Key]] = deque()

    def stream(self, items: Iterable[tuple[Key, np.ndarray]]) -> Iterator[tuple[Key, np.ndarray]]:
        """Yield (key, logits (n_i, class)) in the order of `items`, each as soon as its last stamp is done.

        In memory are one batch, the item at hand, and the logits of the keys that wait for it.
        """
        for key, inputs in items:
            yield from self.feed(key, inputs)
        yield from self.end()

    def feed(self, key: Key, inputs: np.ndarray) -> Iterator[tuple[Key, np.ndarray]]:
        """Take the stamps of one more key; yield the keys that they complete, as `stream` does.

        The stamps are taken as the iterator is read, to its end.
        """
        owner = _Waiting(key, np.empty((len(inputs), self._classes), dtype=np.float32))
        self._waiting.append(owner)
        for _ in self._fill(owner, inputs):
            yield from self._finished()
        yield from self._finished()

    def end(self) -> Iterator[tuple[Key, np.ndarray]]:
        """Run the last batch, and yield the keys that are left."""
        self._flush()
        yield from self._finished()

    def _fill(self, owner: _Waiting[Key], inputs: np.ndarray) -> Iterator[None]:
        """Put the stamps of `owner` into batches; yield after each batch that was run."""
        start = 0
        while start < len(inputs):
            take = min(len(inputs) - start, len(self._buffer) - self._used)
            self._buffer[self._used : self._used + take] = inputs[start : start + take]
            self._spans.append((owner, self._used, self._used + take))
            self._used += take
            start += take
            if self._used == len(self._buffer):
                self._flush()
                yield

    def _flush(self) -> None:
        if not self._used:
            return
        self._buffer[self._used :] = 0.0
        logits = self._run(self._buffer, self._used)
        for owner, begin, end in self._spans:
            owner.logits[owner.done : owner.done + end - begin] = logits[begin:end]
            owner.done += end - begin
        self._spans, self._used = [], 0

    def _finished(self) -> Iterator[tuple[Key, np.ndarray]]:
        while self._waiting and self._waiting[0].complete:
            owner = self._waiting.popleft()
            yield owner.key, owner.logits
