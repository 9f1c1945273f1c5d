"""Faults to order: readers, storages and providers that fail when a test wants it.

A test states rules on one `Faults` and wraps what it uses::

    faults = Faults()
    faults.fail("pread", errno.EIO, nth=3)              # the third read
    faults.fail("pread", errno.EIO, over=(4096, 512))   # every read that touches these bytes
    faults.lose(after_bytes=1 << 20)                    # the snapshot is lost after 1 MiB was read
    source = FaultyReader(disk, faults)
    ...
    faults.verify_all_exercised()                       # no rule was in vain
"""

from __future__ import annotations

import copy
import errno as errnos
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from vsssnap._units import whole
from vsssnap.errors import DeviceReadError, SnapshotLostError, TargetError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vsssnap.blocks.extent import Extent
    from vsssnap.blocks.reader import SupportsPread
    from vsssnap.metadata import ImageMetadata

Error: TypeAlias = int | BaseException | Callable[[], BaseException]
"""What a rule raises: an errno (as the error the wrapped thing would raise), an error, or a
function that makes one."""

READS = frozenset({"pread", "extents", "confirm"})
WRITES = frozenset({"append", "pwrite", "truncate", "allocate", "flush", "close"})
STEPS = frozenset(
    {"unusable", "probe", "prepare", "take", "open", "alive", "release", "attach", "list", "purge"}
)

_HELD_AT_MOST = 60.0  # seconds that a held call waits for its test


@dataclass(eq=False)
class Fault:
    """One rule; made by `Faults`.

    Attributes:
        method: Which call it is about.
        nth: From which matching call on, 1 for the first; None for every one.
        times: For how many calls; None for all that follow.
        over: ``(offset, length)``: only calls that touch these bytes match.
        error: What the call raises, or None.
        short: By how many bytes its answer is short.
        until: What the call waits for, or None.
        seen: How many calls matched.
        fired: How often it had its effect.
        reached: Set when it first has its effect, before the call goes on: a test that waits for it
            knows that the call is running.
    """

    method: str
    nth: int | None = None
    times: int | None = 1
    over: tuple[int, int] | None = None
    error: Error | None = None
    short: int = 0
    until: threading.Event | None = None
    seen: int = 0
    fired: int = 0
    reached: threading.Event = field(default_factory=threading.Event)

    def __str__(self) -> str:
        text = self.method
        if self.over is not None:
            text += f" over {self.over[0]}+{self.over[1]}"
        if self.nth is not None:
            text += f", call {self.nth}"
        if self.until is not None:
            return f"{text}: held"
        return f"{text}: {f'short by {self.short}' if self.short else f'raises {self.error!r}'}"

    def applies(self, offset: int, length: int) -> bool:
        """Count a call of ``method``; whether the rule has its effect on it."""
        if self.over is not None:
            first, count = self.over
            if offset + length <= first or first + count <= offset:
                return False
        self.seen += 1
        first_call = self.nth or 1
        if self.seen < first_call or (self.times is not None and self.seen >= first_call + self.times):
            return False
        self.fired += 1
        return True


class Faults:
    """The rules of one test.  Thread-safe; one object may serve several wrappers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: list[Fault] = []
        self._read = 0
        self._written = 0
        self._lose_after: int | None = None
        self._silently = False
        self._full_after: int | None = None
        self._filled = False
        self._told_lost = False

    # Rules.

    def fail(
        self,
        method: str,
        error: Error,
        *,
        nth: int | None = None,
        times: int | None = None,
        over: tuple[int, int] | None = None,
    ) -> Fault:
        """Make calls raise.

        Args:
            method: A method of the wrapped thing: ``"pread"``, ``"flush"``, ``"take"`` ...
            error: What they raise; an error is raised as a fresh copy each time.
            nth: The first call of those that match, from 1; None for the first one.
            times: How many calls in a row; by default one if ``nth`` is given, else all.
            over: ``(offset, length)``: only calls that touch these bytes.
        """
        return self._add(method, nth, times, over, error=error)

    def shorten(self, *, by: int = 1, nth: int | None = None, over: tuple[int, int] | None = None) -> Fault:
        """Make ``pread`` give fewer bytes than asked for, as a source that breaks its contract does.

        A `FaultySource` gives them as they are.  A `FaultyReader` notices, as every reader must, and
        raises DeviceReadError.
        """
        rule = self._add("pread", nth, None, over)
        rule.short = whole(by, "by", least=1)
        return rule

    def hold(
        self,
        method: str,
        until: threading.Event,
        *,
        nth: int | None = None,
        over: tuple[int, int] | None = None,
    ) -> Fault:
        """Make a call wait until an event is set (at most a minute), and then go on as usual.

        Its `Fault.reached` is set when the call begins to wait.
        """
        rule = self._add(method, nth, 1, over)
        rule.until = until
        return rule

    def lose(self, *, after_bytes: int, silently: bool = False) -> None:
        """Lose the snapshot once so many bytes were read from it, by all readers together.

        From then on everything raises SnapshotLostError.

        Args:
            after_bytes: Bytes that are still read right.
            silently: Reads go on and give wrong bytes; only ``confirm`` and ``alive`` tell.
        """
        self._lose_after = whole(after_bytes, "after_bytes")
        self._silently = silently

    def fill(self, *, after_bytes: int) -> None:
        """Let the storage be full (ENOSPC) once so many bytes were written to it.

        The write that meets the end puts down what there is room for, as disks do.
        """
        self._full_after = whole(after_bytes, "after_bytes")

    def _add(
        self,
        method: str,
        nth: int | None,
        times: int | None,
        over: tuple[int, int] | None,
        *,
        error: Error | None = None,
    ) -> Fault:
        known = READS | WRITES | STEPS
        if method not in known:
            raise UsageError(
                f"there is no call {method!r} to fail", hint=f"known are {', '.join(sorted(known))}"
            )
        if nth is not None:
            whole(nth, "nth", least=1)
            times = 1 if times is None else times
        rule = Fault(method, nth, times, over, error=error)
        with self._lock:
            self._rules.append(rule)
        return rule

    # What the wrappers ask.

    def hit(
        self,
        method: str,
        offset: int = 0,
        length: int = 0,
        *,
        wrap: Callable[[int], BaseException] | None = None,
    ) -> int:
        """Let the rules have their effect on a call; for wrappers of one's own.

        Args:
            method: Name of the call.
            offset: First byte it is about.
            length: Bytes it is about.
            wrap: Makes the error of an errno; by default OSError.

        Returns:
            By how many bytes its answer is to be short.

        Raises:
            BaseException: what a rule says.
        """
        with self._lock:
            rules = [rule for rule in self._rules if rule.method == method and rule.applies(offset, length)]
        short = 0
        for rule in rules:
            rule.reached.set()
            if rule.until is not None:
                rule.until.wait(_HELD_AT_MOST)
            short = max(short, rule.short)
        for rule in rules:
            if rule.error is not None:
                raise _made(rule.error, wrap)
        return short

    def count_read(self, length: int) -> bool:
        """Note that bytes are read; False if the snapshot is lost and they must be wrong.

        Raises:
            SnapshotLostError: it is lost, and not silently.
        """
        with self._lock:
            self._read += length
            lost = self._lose_after is not None and self._read > self._lose_after
        if lost and not self._silently:
            self.check_lost()
        return not lost

    def check_lost(self) -> None:
        """Raise SnapshotLostError if `lose` has come to pass."""
        with self._lock:
            lost = self._lose_after is not None and self._read > self._lose_after
            self._told_lost = self._told_lost or lost
        if lost:
            raise SnapshotLostError(
                f"the snapshot was lost after {self._lose_after} bytes were read",
                hint="discard the copy and take the snapshot again",
            )

    def room(self, length: int) -> int:
        """Note that bytes are written; how many of them there is room for."""
        with self._lock:
            before, self._written = self._written, self._written + length
            if self._full_after is None or self._written <= self._full_after:
                return length
            self._filled = True
            return max(0, self._full_after - before)

    def verify_all_exercised(self) -> None:
        """Raise if a rule never had its effect: the test did not test what it says.

        Raises:
            AssertionError: naming the rules.
        """
        idle = [str(rule) for rule in self._rules if not rule.fired]
        if self._lose_after is not None and not self._told_lost:
            idle.append(f"the snapshot is lost after {self._lose_after} bytes ({self._read} were read)")
        if self._full_after is not None and not self._filled:
            idle.append(f"the storage is full after {self._full_after} bytes ({self._written} were written)")
        if idle:
            raise AssertionError(f"faults that never fired: {'; '.join(idle)}")


def _made(error: Error, wrap: Callable[[int], BaseException] | None) -> BaseException:
    if isinstance(error, int):
        return wrap(error) if wrap is not None else OSError(error, os.strerror(error))
    # A copy: one object raised on several threads would collect all their tracebacks.
    return copy.copy(error) if isinstance(error, BaseException) else error()


def read_error(number: int, offset: int, length: int) -> DeviceReadError:
    """What a reader raises when the device under it fails."""
    return DeviceReadError(
        f"cannot read {length} bytes at {offset}: {os.strerror(number)}",
        offset=offset,
        length=length,
        call="pread",
        code=number,
        hint="the fault was ordered by a test",
    )


def write_error(number: int, name: str, call: str) -> TargetError:
    """What a storage raises when the disk under it is full or fails."""
    full = number in (errnos.ENOSPC, errnos.EDQUOT, errnos.EFBIG)
    return TargetError(
        f"{name}: {call} failed: {os.strerror(number)}",
        path=name,
        call=call,
        code=number,
        hint="make room or choose another target" if full else "the fault was ordered by a test",
    )


class FaultySource:
    """A plain source (``size``, ``pread``, ``extents``, ``confirm``) with faults; it may lie.

    What it wraps stays open and unharmed.
    """

    def __init__(self, source: SupportsPread, faults: Faults) -> None:
        """Wrap a source.

        Args:
            source: What is read.
            faults: Rules for ``pread``, ``extents`` and ``confirm``, and `Faults.lose`.
        """
        self._source = source
        self._faults = faults
        self.size = source.size
        self.sector_size: int = getattr(source, "sector_size", 512)
        metadata: ImageMetadata | None = getattr(source, "metadata", None)
        self.metadata = metadata

    def pread(self, length: int, offset: int, /) -> bytes:
        """What the source holds, as the rules have it."""
        short = self._faults.hit(
            "pread", offset, length, wrap=lambda number: read_error(number, offset, length)
        )
        right = self._faults.count_read(length)
        data = self._source.pread(length, offset)
        if not right:
            data = bytes(byte ^ 0xA5 for byte in data)
        return data[: max(0, len(data) - short)]

    def extents(self, offset: int, length: int, /) -> Iterator[Extent]:
        """The source's; all DATA if it has none."""
        from vsssnap.blocks.reader import as_reader  # needs the whole reader only when asked

        self._faults.hit("extents", offset, length, wrap=lambda number: read_error(number, offset, length))
        yield from as_reader(self._source).extents(offset, length)

    def confirm(self) -> None:
        """The source's, as the rules have it."""
        self._faults.hit("confirm", wrap=lambda number: read_error(number, 0, 0))
        self._faults.check_lost()
        method = getattr(self._source, "confirm", None)
        if method is not None:
            method()
