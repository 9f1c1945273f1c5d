"""Volumes that are written while they are snapshotted, and what a snapshot leaves behind."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vsssnap._volume import name_of
from vsssnap.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from vsssnap.blocks.reader import BlockReader

SECTOR = 512
LEAST = 1 << 16  # bytes that the check writes in, from the beginning of a volume

_PIECE = 1 << 20
_COUNTER = 8  # bytes
_MOMENT = 1.0  # seconds for threads and processes to end


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedVolume:
    """A volume for `check_provider`, and how the application on it behaves.

    Attributes:
        volume: What the provider is asked for: a path as text, or an object that it knows.
        write: ``write(data, offset)`` changes what is on the volume, within its first 64 KiB; after
            it returns, a snapshot must show it.  Where a power cut may change the order of writes,
            as for a block device, it must flush (``O_DSYNC``).  None for a volume that cannot be
            written here.
        read: The whole volume as it is at this moment.  None where that cannot be told, such as for
            a mounted file system with ``write`` going to a file of it: then what was written is
            searched in the snapshot.
    """

    volume: object
    write: Callable[[bytes, int], object] | None = None
    read: Callable[[], bytes] | None = None

    @property
    def name(self) -> str:
        """What the caller of `Snapshot` would find it by."""
        return name_of(self.volume)


class Written:
    """A volume with what it should hold, as far as that is known."""

    def __init__(self, checked: CheckedVolume, seed: int) -> None:
        self.checked = checked
        self._dice = random.Random(seed)  # noqa: S311 - repeatable, not secret
        # What a snapshot taken now would have to hold.
        self.content = None if checked.read is None else checked.read()
        self.mark = b""  # the last thing that was written
        size = LEAST if self.content is None or checked.write is None else len(self.content)
        if size < LEAST:
            raise UsageError(
                f"{checked.name} has {size} bytes, and the check writes in the first {LEAST}",
                hint="check a larger volume, or one without write=",
            )

    def learn(self) -> None:
        """Look at the volume anew, when nobody writes."""
        self.content = None if self.checked.read is None else self.checked.read()

    def write(self, data: bytes, offset: int) -> None:
        """Write as the application does; the snapshots that come later must show it."""
        if self.checked.write is None:
            return
        self.checked.write(data, offset)
        self.mark = data
        if self.content is not None:
            self.content = self.content[:offset] + data + self.content[offset + len(data) :]

    def stamp(self) -> None:
        """Write a sector of noise that nothing else holds."""
        self.write(self._dice.randbytes(SECTOR), self._dice.randrange(16, LEAST // SECTOR) * SECTOR)

    def scribble(self) -> None:
        """Write noise somewhere, without having it in any later snapshot that is compared."""
        if self.checked.write is not None:
            length = self._dice.choice((1, SECTOR, 4096))
            self.checked.write(self._dice.randbytes(length), self._dice.randrange(LEAST - length + 1))


class Pair:
    """Two places that an application counts up, always the first before the second.

    At every instant the first is at the same count as the second, or one ahead.
    """

    def __init__(self, first: CheckedVolume, second: CheckedVolume, seed: int) -> None:
        noise = random.Random(seed)  # noqa: S311 - repeatable, not secret
        # A sector each, known by noise of its own, so that it can be found anywhere.
        self._heads = [noise.randbytes(32), noise.randbytes(32)]
        self._tails = [noise.randbytes(SECTOR - 32 - _COUNTER) for _ in range(2)]
        self._places = ((first, 0), (second, 4096))
        self.count = 0

    def step(self) -> None:
        """Count up in both places."""
        self.count += 1
        for side, (checked, offset) in enumerate(self._places):
            if checked.write is not None:
                number = self.count.to_bytes(_COUNTER, "little")
                checked.write(self._heads[side] + number + self._tails[side], offset)

    def seen(self, side: int, reader: BlockReader) -> int:
        """The count in one place of a snapshot; the highest, where old ones may still lie around.

        Raises:
            ValueError: there is none.
        """
        head = self._heads[side]
        if self._places[side][0].read is not None:
            return self._parse(side, reader.pread(SECTOR, self._places[side][1]), 0)
        counts = [
            int.from_bytes(data[at + len(head) : at + len(head) + _COUNTER], "little")
            for data in pieces(reader)
            for at in found(data, head)
        ]
        if not counts:
            raise ValueError("nothing that was counted is there")
        return max(counts)

    def _parse(self, side: int, data: bytes, at: int) -> int:
        head = self._heads[side]
        if not data.startswith(head, at) or not data.endswith(self._tails[side]):
            raise ValueError("the sector is torn")
        return int.from_bytes(data[at + len(head) : at + len(head) + _COUNTER], "little")


def pieces(reader: BlockReader) -> Iterator[bytes]:
    """All data, in pieces that overlap by a sector."""
    before, expected = b"", 0
    for offset, block in reader.blocks(_PIECE):
        if offset != expected:
            before = b""
        data = before + bytes(block)
        yield data
        before, expected = data[-(SECTOR - 1) :], offset + len(block)


def found(data: bytes, what: bytes) -> Iterator[int]:
    """Where something lies in a piece, if the whole sector is in it."""
    at = data.find(what)
    while at >= 0:
        if at + SECTOR <= len(data):
            yield at
        at = data.find(what, at + 1)


def holds(reader: BlockReader, what: bytes) -> bool:
    """Whether a snapshot holds a sector somewhere."""
    return any(what in data for data in pieces(reader))


@contextmanager
def meanwhile(step: Callable[[], object], timeout: float) -> Iterator[Callable[[], None]]:
    """Repeat ``step`` in a thread until the end; gives a function that waits for ten more steps.

    Raises:
        AssertionError: the thread does not end; the error of a step passes.
    """
    stop = threading.Event()
    done = threading.Semaphore(0)
    raised: list[BaseException] = []

    def run() -> None:
        try:
            while not stop.is_set():
                step()
                done.release()
        except BaseException as exc:
            raised.append(exc)
            done.release(100)

    def more() -> None:
        while done.acquire(blocking=False):
            pass
        for _ in range(10):
            if not done.acquire(timeout=timeout):
                raise AssertionError(f"a write to the volume has not returned after {timeout:g} s")

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield more
    finally:
        stop.set()
        thread.join(timeout)
    if thread.is_alive():
        raise AssertionError(f"a write to the volume has not returned after {timeout:g} s")
    if raised:
        raise raised[0]


class Leftovers:
    """What this process holds, and what the caller looks at, before and after."""

    def __init__(self, left: Callable[[], object] | None) -> None:
        self._left = left
        self._before = self._look()

    def _look(self) -> dict[str, object]:
        return {
            "descriptors": descriptors(),
            "threads": Counter(thread.name for thread in threading.enumerate()),
            "processes": children(),
            "what left= shows": self._left() if self._left is not None else None,
        }

    def problem(self) -> str:
        """What is there now and was not before, or the reverse; "" if all is as it was.

        Threads and processes get a moment to end: that they were told to is not seen from outside.
        """
        until = time.monotonic() + _MOMENT
        while (found := self._problem()).startswith(("threads", "processes")) and time.monotonic() < until:
            time.sleep(0.01)
        return found

    def _problem(self) -> str:
        now = self._look()
        for what, before in self._before.items():
            after = now[what]
            if isinstance(before, Counter) and isinstance(after, Counter):
                more, less = after - before, before - after
                if what != "descriptors":
                    less.clear()  # what ends by itself is nobody's fault; a descriptor does not
                if more or less:
                    return f"{what}: {dict(more)} more, {dict(less)} fewer"
            elif before != after:
                return f"{what}: {before!r} before, {after!r} after"
        return ""


def descriptors() -> Counter[str]:
    """What is open in this process, by what it is; empty where /proc does not tell."""
    try:
        numbers = os.listdir("/proc/self/fd")
    except OSError:
        return Counter()
    seen: Counter[str] = Counter()
    for number in numbers:
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except OSError:  # the descriptor of the listing itself
            continue
        seen[target.split("[")[0] if target.startswith(("pipe:", "socket:")) else target] += 1
    return seen


def children() -> Counter[str]:
    """The processes that were started here and are not waited for; empty where /proc does not tell."""
    seen: Counter[str] = Counter()
    try:
        for task in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{task}/children", encoding="ascii") as file:
                seen.update(file.read().split())
    except OSError:  # no such file in this kernel, or the thread has ended
        pass
    return seen


def texts(values: object) -> bool:
    """Whether this is a tuple of texts."""
    return isinstance(values, tuple) and all(isinstance(value, str) for value in values)


def requested(volumes: Sequence[CheckedVolume]) -> tuple[object, ...]:
    """What `Snapshot` would hand to the provider: paths as text, objects as they are."""
    return tuple(
        os.fsdecode(checked.volume)
        if isinstance(checked.volume, str | bytes | os.PathLike)
        else checked.volume
        for checked in volumes
    )
