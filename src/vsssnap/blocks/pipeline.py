"""Equal workers that pass over a volume together.

Every worker does the whole of an item: it takes the next one, reads it into a buffer of its
own, encodes it there (the bytes stay in that core's cache; measured faster than handing
buffers from a reader stage to a compressor stage) and stores it.  One worker at a time stores, and
it takes what the others finish meanwhile: no thread only writes, and none waits for another, as
they would in the system, which lets one writer into a file.  Where results must go in order,
they wait for the one that is next, and the output does not depend on timing.

Invariants: an item is taken only by a worker that already holds a buffer, so the item that
is next in order always has one and the others can never starve it; there are ``workers + 2``
buffers, so memory does not grow with the volume; the first error (by order of the items)
stops all workers and is the one that is raised.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

from vsssnap.blocks.extent import Extent, ExtentKind, coalesce

T = TypeVar("T")
R = TypeVar("R")

_TICK = 0.1  # seconds between two calls of `tick`
_FEW = 24  # items that are done before threads would have been started for them


def default_workers() -> int:
    """One worker for each processor this process may use, at most 16."""
    if hasattr(os, "sched_getaffinity"):
        return min(16, len(os.sched_getaffinity(0)))
    return min(16, os.cpu_count() or 1)


@dataclass(frozen=True, slots=True)
class Unit:
    """A block of the grid that holds data.

    Attributes:
        offset: First byte; a multiple of the grid's unit.
        length: Bytes; the last unit of a volume may be short.
        parts: ``(offset, length)`` of what must be read; the rest of the unit is zeros.
        marks: Ranges inside that are HOLE, EXCLUDED or UNREADABLE.
    """

    offset: int
    length: int
    parts: tuple[tuple[int, int], ...]
    marks: tuple[Extent, ...]


def plan(extents: Iterable[Extent], unit: int, size: int) -> Iterator[Unit | Extent]:
    """Cut a volume into units to read and ranges to mark, ascending and gap-free.

    Args:
        extents: What the volume holds, ascending and gap-free.
        unit: Bytes of the grid.
        size: Bytes of the volume.

    Yields:
        A `Unit` for each block of the grid with any DATA, and between them the ranges that have
        none, joined as far as they go: one `Extent` for a hole of any length.
    """
    return _join(_units(extents, unit, size))


def _units(extents: Iterable[Extent], unit: int, size: int) -> Iterator[Unit | Extent]:
    pending: list[Extent] = []  # what is known of the unit that begins at `base`
    base = 0
    for extent in coalesce(extents):
        at = extent.offset
        while at < extent.end:
            if at >= base + unit:
                yield from _close(pending, base, unit, size)
                pending, base = [], at - at % unit
            whole = at == base and extent.kind is not ExtentKind.DATA and extent.end - at >= unit
            # A range without data passes over its whole units in one step.
            stop = extent.end - extent.end % unit if whole else min(extent.end, base + unit)
            piece = Extent(at, stop - at, extent.kind)
            if whole:
                yield piece
                base = stop
            else:
                pending.append(piece)
            at = stop
    yield from _close(pending, base, unit, size)


def _close(pending: list[Extent], base: int, unit: int, size: int) -> Iterator[Unit | Extent]:
    if any(piece.kind is ExtentKind.DATA for piece in pending):
        yield Unit(
            base,
            min(unit, size - base),
            tuple((piece.offset, piece.length) for piece in pending if piece.kind is ExtentKind.DATA),
            tuple(p for p in pending if p.kind not in (ExtentKind.DATA, ExtentKind.ZERO)),
        )
    else:
        yield from pending


def _join(items: Iterable[Unit | Extent]) -> Iterator[Unit | Extent]:
    run: Extent | None = None
    for item in items:
        if isinstance(item, Extent) and run is not None and run.kind is item.kind and run.end == item.offset:
            run = Extent(run.offset, run.length + item.length, run.kind)
            continue
        if run is not None:
            yield run
        run = item if isinstance(item, Extent) else None
        if run is None:
            yield item
    if run is not None:
        yield run


class _Pump(Generic[T, R]):
    """The state that the workers of one `pump` share."""

    def __init__(
        self,
        items: Iterable[T],
        work: Callable[[T, bytearray], R],
        done: Callable[[T, R], None],
        *,
        buffers: list[bytearray],
        ordered: bool,
        halted: threading.Event | None,
    ) -> None:
        self.items = enumerate(items)
        self.work = work
        self.done = done
        self.ordered = ordered
        self.halted = halted
        self.lock = threading.Lock()
        self.free = deque(buffers)
        self.buffer_free = threading.Condition(self.lock)
        self.finished = threading.Condition(self.lock)
        self.source = threading.Lock()  # held while the next item is made: extents() may do I/O
        self.running = 0
        self.stop = False
        self.ended = False
        self.error: tuple[int, BaseException] | None = None
        self.ready: dict[int, tuple[int, T, R, bytearray]] = {}  # by the place in which they are stored
        self.turn = 0  # the next place
        self.worked = 0  # items that `work` is done with
        self.storing = False

    def worker(self) -> None:
        """Take and finish items until there are none, or something failed."""
        try:
            while (buffer := self._buffer()) is not None:
                taken = self._take()
                if taken is None:
                    self._give_back(buffer)
                    return
                self._one(*taken, buffer)
        finally:
            with self.lock:
                self.running -= 1
                self.finished.notify_all()

    def _one(self, number: int, item: T, buffer: bytearray) -> None:
        try:
            result = self.work(item, buffer)
        except BaseException as exc:
            self.fail(number, exc)
            return
        self._store(number, item, result, buffer)

    def _store(self, number: int, item: T, result: R, buffer: bytearray) -> None:
        with self.lock:
            place = number if self.ordered else self.worked
            self.worked += 1
            self.ready[place] = (number, item, result, buffer)
            if self.storing:
                return  # whoever stores now finds it when its turn comes
            self.storing = True
        while True:
            with self.lock:
                entry = None if self.stop else self.ready.pop(self.turn, None)
                if entry is None:
                    self.storing = False
                    return
            number, item, result, buffer = entry
            try:
                self.done(item, result)
            except BaseException as exc:
                self.fail(number, exc)
                return
            with self.lock:
                self.turn += 1
                self.free.append(buffer)
                self.buffer_free.notify()

    def _buffer(self) -> bytearray | None:
        with self.lock:
            while not self.free and not self.stop and not self.ended:
                self.buffer_free.wait()
            return None if self.stop or self.ended or not self.free else self.free.pop()

    def _give_back(self, buffer: bytearray) -> None:
        with self.lock:
            self.free.append(buffer)
            self.buffer_free.notify()

    def _take(self) -> tuple[int, T] | None:
        with self.source:
            if self.stop or self.ended:
                return None
            try:
                return next(self.items)
            except StopIteration:
                number = None
            except BaseException as exc:
                self.fail(-1, exc)
                return None
        with self.lock:
            self.ended = number is None
            self.buffer_free.notify_all()
        return None

    def fail(self, number: int, exc: BaseException) -> None:
        """Keep the first error in the items' order and stop everybody."""
        with self.lock:
            if self.error is None or number < self.error[0]:
                self.error = (number, exc)
            self._stop()
            self.buffer_free.notify_all()
            self.finished.notify_all()

    def halt(self) -> None:
        """Stop everybody after the item in hand."""
        with self.lock:
            self._stop()
            self.buffer_free.notify_all()

    def _stop(self) -> None:
        self.stop = True
        if self.halted is not None:
            self.halted.set()


def pump(
    items: Iterable[T],
    work: Callable[[T, bytearray], R],
    done: Callable[[T, R], None],
    *,
    buffer_size: int,
    workers: int | None = None,
    ordered: bool = False,
    tick: Callable[[], None] | None = None,
    halted: threading.Event | None = None,
) -> None:
    """Run ``work`` on every item in several threads, and ``done`` on every result.

    Args:
        items: Taken one at a time, in order, by one thread at a time.
        work: Gets an item and a buffer that is its own until ``done`` returned; any thread.
        done: Gets an item and its result; one call at a time, in any thread.  If ``ordered``, in the
            items' order.
        buffer_size: Bytes of each buffer.
        workers: Threads; None for one a processor.
        ordered: See ``done``.
        tick: Called in the calling thread now and then and once at the end; what it raises
            (and KeyboardInterrupt) stops the workers and is raised.
        halted: Set when the workers are to stop, so that one that waits in ``work`` need not be waited for.

    Raises:
        BaseException: the first error, by order of the items, of ``items``, ``work`` or ``done``.
    """
    count = default_workers() if workers is None else workers
    state = _Pump(
        items,
        work,
        done,
        buffers=[bytearray(buffer_size) for _ in range(count + 2)],
        ordered=ordered,
        halted=halted,
    )
    threads = [threading.Thread(target=state.worker, name=f"vsssnap-{n}", daemon=True) for n in range(count)]
    started: list[threading.Thread] = []
    try:
        for thread in threads:
            state.running += 1
            try:
                thread.start()
            except BaseException:
                state.running -= 1
                raise
            started.append(thread)
        while True:
            with state.lock:
                over = state.finished.wait_for(lambda: not state.running or state.stop, _TICK)
            if tick is not None and not state.stop:
                tick()
            if over:
                break
    finally:
        state.halt()
        for thread in started:
            thread.join()
    if state.error is not None:
        # The traceback is the worker's; a cycle through this frame would keep the buffers alive.
        error = state.error[1]
        state.error = None
        raise error
    if tick is not None:
        tick()


def mapped(items: Iterable[T], work: Callable[[T], R], *, ahead: int = 128) -> Iterator[tuple[T, R]]:
    """Every item with what ``work`` makes of it, in order; the work is done by several threads.

    Args:
        items: Taken in the thread that iterates, ``ahead`` of them at a time.
        work: Any thread, several at once.
        ahead: Results that are kept at most.

    Raises:
        BaseException: what ``items`` or ``work`` raised.
    """
    source = iter(items)
    while batch := list(islice(source, ahead)):
        if len(batch) <= _FEW:
            yield from ((item, work(item)) for item in batch)
            continue
        found: list[tuple[T, R]] = []

        def done(item: T, result: R, found: list[tuple[T, R]] = found) -> None:
            found.append((item, result))

        pump(batch, lambda item, _: work(item), done, buffer_size=0, ordered=True)
        yield from found
