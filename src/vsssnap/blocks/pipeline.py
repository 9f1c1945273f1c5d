"""Equal workers that pass over a volume together.

Every worker does the whole of an item: it takes the next one, reads it into a buffer of its
own, encodes it there (the bytes stay in that core's cache; measured faster than handing
buffers from a reader stage to a compressor stage) and stores it.  One worker at a time stores, and
it takes what the others finish meanwhile: no thread only writes, and none waits for another, as
they would in the system, which lets one writer into a file.  Where results must go in order,
they wait for the one that is next, and the output does not depend on timing.

Where results do not refer to the buffers, a worker keeps its one buffer, and results are stored
some at a time: between two compressions the interpreter finds neither its code nor its data in the
cache, so eight in a row cost little more than two alone.

Invariants: an item is taken only by a worker that already holds a place, so the item that
is next in order always has one and the others can never starve it; there are ``workers + 2``
places, each with a buffer, or a few more without, so memory does not grow with the volume; the first
error (by order of the items) stops all workers and is the one that is raised.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from vsssnap.blocks.extent import Extent, ExtentKind, coalesce

T = TypeVar("T")
R = TypeVar("R")

_TICK = 0.1  # seconds between two calls of `tick`
PATIENCE = 10.0  # seconds that workers are waited for once they are to stop
BRIEFLY = 0.5  # seconds, if it is the caller who wants to go
_BATCH = 8  # results that are stored in a row, where they may wait for each other
_BATCH_BYTES = 8 << 20  # but no more than these, before compression
_LATE = 0.05  # seconds that a result waits for others at most


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
        at, data = extent.offset, extent.kind is ExtentKind.DATA
        while at < extent.end:
            if at >= base + unit:
                yield from _close(pending, base, unit, size)
                pending, base = [], at - at % unit
            if at > base or extent.end - at < unit:
                stop = min(extent.end, base + unit)
                pending.append(Extent(at, stop - at, extent.kind))
            elif data:
                stop = base = at + unit
                yield Unit(at, unit, ((at, unit),), ())
            else:  # passes over its whole units in one step
                stop = base = extent.end - extent.end % unit
                yield Extent(at, stop - at, extent.kind)
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
        places: int,
        batch: int,
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
        self.batch = batch
        self.buffers = buffers
        self.free = list(range(places))
        self.place_free = threading.Condition(self.lock)
        self.finished = threading.Condition(self.lock)
        self.source = threading.Lock()  # held while the next item is made: extents() may do I/O
        self.running = 0
        self.stop = False
        self.ended = False
        self.error: tuple[int, BaseException] | None = None
        self.ready: dict[int, tuple[int, T, R, int]] = {}  # by the place in which they are stored
        self.turn = 0  # the next place
        self.worked = 0  # items that `work` is done with
        self.storing = False
        self.stored = 0.0  # when the last results were

    def running_more(self, count: int) -> None:
        """Count workers; those that run already count themselves down."""
        with self.lock:
            self.running += count

    def worker(self, own: bytearray | None) -> None:
        """Take and finish items until there are none, or something failed.

        Args:
            own: The worker's buffer, if results do not refer to it; else each place has one.
        """
        try:
            place: int | None = None
            while (place := self._place(place)) is not None:
                taken = self._take()
                if taken is None:
                    self._give_back(place)
                    self._store_rest()
                    return
                self._one(*taken, place, self.buffers[place] if own is None else own)
        finally:
            with self.lock:
                self.running -= 1
                self.finished.notify_all()

    def _one(self, number: int, item: T, place: int, buffer: bytearray) -> None:
        try:
            result = self.work(item, buffer)
        except BaseException as exc:
            self.fail(number, exc)
            return
        with self.lock:
            self.ready[number if self.ordered else self.worked] = (number, item, result, place)
            self.worked += 1
            due = len(self.ready) >= self.batch or self.ended or time.monotonic() > self.stored + _LATE
            if self.storing or not due:
                return  # whoever stores now, or next, finds it when its turn comes
            self.storing = True
        self._store()

    def _store_rest(self) -> None:
        with self.lock:
            if self.storing:
                return
            self.storing = True
        self._store()

    def _store(self) -> None:
        while True:
            with self.lock:
                entry = None if self.stop else self.ready.pop(self.turn, None)
                if entry is None:
                    self.storing = False
                    self.stored = time.monotonic()
                    return
            number, item, result, place = entry
            try:
                self.done(item, result)
            except BaseException as exc:
                self.fail(number, exc)
                return
            with self.lock:
                self.turn += 1
                self.free.append(place)
                self.place_free.notify()

    def _place(self, last: int | None) -> int | None:
        """A free place, if it can be the one held last: its buffer is in this core's cache."""
        with self.lock:
            while not self.free and not self.stop and not self.ended:
                self.place_free.wait()
            if self.stop or self.ended:
                return None
            if last in self.free:
                self.free.remove(last)
                return last
            return self.free.pop()

    def _give_back(self, place: int) -> None:
        with self.lock:
            self.free.append(place)
            self.place_free.notify()

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
            self.place_free.notify_all()
        return None

    def fail(self, number: int, exc: BaseException) -> None:
        """Keep the first error in the items' order and stop everybody."""
        with self.lock:
            if self.error is None or number < self.error[0]:
                self.error = (number, exc)
            self._stop()
            self.place_free.notify_all()
            self.finished.notify_all()

    def halt(self) -> None:
        """Stop everybody after the item in hand."""
        with self.lock:
            self._stop()
            self.place_free.notify_all()

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
    keeps: bool = True,
    tick: Callable[[], None] | None = None,
    halted: threading.Event | None = None,
) -> None:
    """Run ``work`` on every item in several threads, and ``done`` on every result.

    Args:
        items: Taken one at a time, in order, by one thread at a time.
        work: Gets an item and a buffer that is its own until ``done`` returned, or ``work``; any thread.
        done: Gets an item and its result; one call at a time, in any thread.  If ``ordered``, in the
            items' order.
        buffer_size: Bytes of each buffer.
        workers: Threads; None for one a processor, and one more if results refer to no buffer.
        ordered: See ``done``.
        keeps: Whether results refer to the buffers; else ``done`` may come later, and for several in a row.
        tick: Called in the calling thread now and then and once at the end; what it raises
            (and KeyboardInterrupt) stops the workers and is raised.
        halted: Set when the workers are to stop, so that one that waits in ``work`` need not be waited for.

    Raises:
        BaseException: the first error, by order of the items, of ``items``, ``work`` or ``done``.
    """
    # While one waits for the interpreter, or stores, the others pack.
    count = default_workers() + (not keeps) if workers is None else workers
    batch = 1 if keeps else max(1, min(_BATCH, _BATCH_BYTES // max(1, buffer_size)))
    state = _Pump(
        items,
        work,
        done,
        places=count + 2 * batch,
        batch=batch,
        buffers=[bytearray(buffer_size) for _ in range(count + 2 if keeps else 0)],
        ordered=ordered,
        halted=halted,
    )
    owned = [None if keeps else bytearray(buffer_size) for _ in range(count)]
    threads = [
        threading.Thread(target=state.worker, args=(own,), name=f"vsssnap-{n}", daemon=True)
        for n, own in enumerate(owned)
    ]
    started: list[threading.Thread] = []
    patience = BRIEFLY
    try:
        for thread in threads:
            state.running_more(1)
            try:
                thread.start()
            except RuntimeError as exc:  # "can't start new thread"; a few are enough
                state.running_more(-1)
                if not started:
                    raise MemoryError("the system starts no thread") from exc
                break
            except BaseException:
                state.running_more(-1)
                raise
            started.append(thread)
        while True:
            with state.lock:
                over = state.finished.wait_for(lambda: not state.running or state.stop, _TICK)
            if tick is not None and not state.stop:
                tick()
            if over:
                break
        patience = PATIENCE
    finally:
        state.halt()
        # One may hang in the system: a pipe that nobody reads, a disk that does not answer.  It holds
        # what it uses until it comes back, and ends with the process.
        until = time.monotonic() + patience
        for thread in started:
            thread.join(max(0.0, until - time.monotonic()))
    if state.error is not None:
        # The traceback is the worker's; a cycle through this frame would keep the buffers alive.
        error = state.error[1]
        state.error = None
        raise error
    if tick is not None:
        tick()
