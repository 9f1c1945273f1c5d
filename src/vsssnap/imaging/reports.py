"""Options, progress and results of the imaging calls."""

from __future__ import annotations

import enum
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vsssnap._units import whole

if TYPE_CHECKING:
    from vsssnap.blocks.extent import Extent
    from vsssnap.formats.base import Depth, Finding

__all__ = [
    "CopyOptions",
    "CopyReport",
    "OnReadError",
    "Progress",
    "ProgressCallback",
    "VerifyReport",
]


class OnReadError(enum.StrEnum):
    """What a copy does when the source fails to deliver a range."""

    RAISE = "raise"
    """Stop: DeviceReadError, and no image."""
    MARK = "mark"
    """Mark the failing sectors UNREADABLE, keep all others and go on; the report lists them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyOptions:
    """How a copy runs.

    Attributes:
        workers: Threads, 1 to 64; None for one a processor, and one more for .vsnap images without a parent.
        rate_limit: Bytes of data a second that are read from the source at most, over all threads,
            so that a production server stays usable; None for no limit.
    """

    workers: int | None = None
    rate_limit: int | None = None

    def __post_init__(self) -> None:
        if self.workers is not None:
            whole(self.workers, "workers", least=1, most=64)
        if self.rate_limit is not None:
            whole(self.rate_limit, "rate_limit", least=1)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an operation is; passed to the ``progress`` callback about ten times a second.

    Attributes:
        done: Bytes of the volume that are settled, holes included.
        total: Bytes of the volume.
        rate: Bytes read a second, over the last seconds; what need not be read, such as holes, does
            not count, but in a verification all that is settled does.  0 until known.
        state: ``"copy"``, ``"verify"``, ``"read back"``, ``"compare"``, ``"finish"`` or ``"done"``.
        read: Bytes of them that were read.
        left: Seconds that are left if all goes on as in the last seconds; None until known.
    """

    done: int
    total: int
    rate: float
    state: str
    read: int = 0
    left: float | None = None


ProgressCallback = Callable[[Progress], None]
"""Called in the thread that called the operation; what it raises ends the operation.

At the state ``"done"`` the target is complete and stays.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyReport:
    """What a copy did.

    Attributes:
        size: Bytes of the volume.
        data: Bytes that were read and stored as data.
        zero: Bytes known to be zero without reading them.
        hole: Bytes that the source did not promise; zeros in the copy.
        excluded: Bytes left out on purpose; zeros in the copy.
        unchanged: Bytes that were not looked at: as in the parent, by ``changes``.
        changed: Of an increment, bytes of data that it holds of its own, before compression: what differs
            from the parent, in the steps in which the format compares; zeros only if the format has to
            store them.  None for other images, and where the format does not count.
        unreadable: Ranges the source failed to deliver; only with `OnReadError.MARK`.
        stored: Bytes of the finished image file; None if it is no file.
        flattened: Kinds that the target cannot tell from plain zeros, with their bytes.
        format: Name of the target's format, or "".
        path: The target, or "".
        seconds: Wall time.
        verified: Whether the target was read back and compared.
        wrapped: Whether the volume was put into a disk, which is what the numbers are about then.
    """

    size: int
    data: int = 0
    zero: int = 0
    hole: int = 0
    excluded: int = 0
    unchanged: int = 0
    changed: int | None = None
    unreadable: tuple[Extent, ...] = ()
    stored: int | None = None
    flattened: Mapping[str, int] = field(default_factory=dict)
    format: str = ""
    path: str = ""
    seconds: float = 0.0
    verified: bool = False
    wrapped: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What a verification found.

    Attributes:
        path: The image.
        format: Name of its format.
        depth: How deep it was looked; ``ok`` speaks of that and of nothing deeper.
        depths: The depths that can be had for this image.
        findings: What is wrong, at most 1000 of them.
        count: How many things are wrong, those beyond 1000 too.
        size: Bytes of the volume.
        checked: Bytes that were read and compared.
        sidecar: Whether checksums of a side-car file were used.
        seconds: Wall time.
    """

    path: str
    format: str
    depth: Depth
    depths: tuple[Depth, ...]
    findings: tuple[Finding, ...] = ()
    count: int = 0
    size: int = 0
    checked: int = 0
    sidecar: bool = False
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong down to ``depth``."""
        return not self.count


_EVERY = 0.1  # seconds between two reports


class Meter:
    """Counts settled bytes, and those of them that were read, from any thread; reports from one."""

    def __init__(self, callback: ProgressCallback | None, total: int, state: str) -> None:
        self._callback = callback
        self._total = total
        self._state = state
        self._lock = threading.Lock()
        self._done = 0
        self._read = 0
        self._history: deque[tuple[float, int, int]] = deque([(time.monotonic(), 0, 0)])
        self._next = 0.0  # when `settle` reports again

    def settle(self, count: int) -> None:
        """Settle ``count`` more bytes in the thread that called, and report now and then."""
        self.add(count, read=count)
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _EVERY
            self.tick()

    def add(self, count: int, *, read: int) -> None:
        """Settle ``count`` more bytes, ``read`` of which were read; any thread."""
        with self._lock:
            self._done += count
            self._read += read

    def reach(self, offset: int, *, read: int) -> None:
        """Settle all bytes below ``offset``, the last ``read`` of which were read; one thread at a time."""
        self._done = max(self._done, offset)
        self._read += read

    @property
    def done(self) -> int:
        """Bytes settled so far."""
        return self._done

    def tick(self) -> None:
        """Report; only in the thread that called the operation."""
        if self._callback is None:
            return
        now = time.monotonic()
        with self._lock:
            done, read = self._done, self._read
        self._history.append((now, done, read))
        while len(self._history) > 2 and now - self._history[0][0] > 3:
            self._history.popleft()
        since, done_before, read_before = self._history[0]
        took, settled = now - since, done - done_before
        rate = (read - read_before) / took if took else 0.0
        left = max(0, self._total - done) * took / settled if settled else None
        self._callback(Progress(done, self._total, rate, self._state, read, left))

    def enter(self, state: str) -> None:
        """Begin the next state, and report it."""
        self._state = state
        self.tick()


class RateLimit:
    """Keeps all threads together below a number of bytes a second."""

    def __init__(self, rate: int) -> None:
        """Allow ``rate`` bytes a second; setting ``halted`` lets everybody who waits go at once."""
        self._rate = rate
        self._lock = threading.Lock()
        self._free = time.monotonic()  # when what was admitted so far is used up
        self.halted = threading.Event()

    def wait(self, count: int) -> None:
        """Return when ``count`` more bytes may be read."""
        with self._lock:
            now = time.monotonic()
            begin = max(now, self._free)
            self._free = begin + count / self._rate
        if begin > now:
            self.halted.wait(begin - now)
