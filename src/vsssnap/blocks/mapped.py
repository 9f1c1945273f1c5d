"""Work on many small items in several threads, with the results in order.

The thread that iterates goes on finding items while the others work on those it has found: what
is found by reading (frames in a file, entries of an index) takes about as long as what is done with it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Generic, TypeVar

from vsssnap.blocks.pipeline import BRIEFLY, default_workers

T = TypeVar("T")
R = TypeVar("R")

_FEW = 3  # groups that are done before threads would have been started for them


def mapped(
    items: Iterable[T],
    work: Callable[[T, bytearray], R],
    *,
    buffer_size: int = 0,
    ahead: int = 256,
    group: int = 8,
) -> Iterator[tuple[T, R]]:
    """Every item with what ``work`` makes of it, in order; the work is done by several threads.

    Args:
        items: Taken in the thread that iterates, up to ``ahead`` of them before their results are.
        work: Gets an item and a buffer that is its own until it returns; any thread, several at once.
        buffer_size: Bytes of each buffer.
        ahead: Items and results that are kept at most.
        group: Items that are handed over and taken at once: fewer, the longer one takes.

    Raises:
        BaseException: what ``items`` or ``work`` raised, when it is that item's turn.
    """
    failed: list[Exception] = []
    source = _until_it_fails(items, failed)
    few = _FEW * group
    first = list(islice(source, few))
    crew = _Crew(work, group)
    try:
        if len(first) == few and crew.start(buffer_size):
            waiting: deque[T] = deque()
            for found in chain([first], iter(lambda: list(islice(source, group)), [])):
                crew.put(found)
                waiting.extend(found)
                if len(waiting) >= ahead:
                    for result in crew.take(ahead // 2):
                        yield waiting.popleft(), result
            for result in crew.take(len(waiting)):
                yield waiting.popleft(), result
        else:
            own = bytearray(buffer_size)
            yield from ((item, work(item, own)) for item in chain(first, source))
    finally:
        crew.stop()
    if failed:
        raise failed.pop()


def _until_it_fails(items: Iterable[T], failed: list[Exception]) -> Iterator[T]:
    """Items up to an error, which is put aside: those before it have results that come first."""
    try:
        yield from items
    except Exception as exc:
        failed.append(exc)


class _Crew(Generic[T, R]):
    """Threads that take items from one end and leave results at the other."""

    def __init__(self, work: Callable[[T, bytearray], R], group: int) -> None:
        self._work = work
        self._group = group
        self._lock = threading.Lock()
        self._more = threading.Condition(self._lock)
        self._enough = threading.Condition(self._lock)
        self._todo: deque[tuple[int, T]] = deque()
        self._found: dict[int, R] = {}
        self._failed: dict[int, BaseException] = {}
        self._put = self._taken = 0  # how many items, and results
        self._done = 0  # results without a gap
        self._wanted = 0
        self._stop = False
        self._threads: list[threading.Thread] = []

    def start(self, buffer_size: int) -> bool:
        """Start the threads; whether the system gave any."""
        # Made here: a thread that finds no memory ends, and its results would be waited for without end.
        buffers = [bytearray(buffer_size) for _ in range(default_workers())]
        for number, own in enumerate(buffers):
            thread = threading.Thread(target=self._run, args=(own,), name=f"vsssnap-{number}", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                break
            self._threads.append(thread)
        return bool(self._threads)

    def put(self, items: list[T]) -> None:
        """Items to work on."""
        with self._lock:
            self._todo.extend(enumerate(items, self._put))
            self._put += len(items)
            self._more.notify(-(-len(items) // self._group))

    def take(self, count: int) -> Iterator[R]:
        """The next results; waits for all of them first."""
        with self._lock:
            self._wanted = self._taken + count
            while self._done < self._wanted:
                self._enough.wait()
        for number in range(self._taken, self._wanted):
            self._taken = number + 1
            if number in self._failed:
                raise self._failed.pop(number)
            yield self._found.pop(number)

    def stop(self) -> None:
        """Let the threads end after the items in hand.

        They are waited for briefly: one that reads a disk which does not answer ends when it does.
        """
        with self._lock:
            self._stop = True
            self._todo.clear()
            self._more.notify_all()
        until = time.monotonic() + BRIEFLY
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _run(self, buffer: bytearray) -> None:
        while True:
            with self._lock:
                while not self._todo and not self._stop:
                    self._more.wait()
                if self._stop:
                    return
                items = [self._todo.popleft() for _ in range(min(self._group, len(self._todo)))]
            found: dict[int, R] = {}
            failed: dict[int, BaseException] = {}
            for number, item in items:
                try:
                    found[number] = self._work(item, buffer)
                except BaseException as exc:
                    failed[number] = exc
            with self._lock:
                self._found.update(found)
                self._failed.update(failed)
                while self._done in self._found or self._done in self._failed:
                    self._done += 1
                if self._done >= self._wanted:
                    self._enough.notify()
