"""What is being written to a block device, as the kernel counts it.

Source: Linux Documentation/block/stat.rst, ABI/stable/sysfs-block (inflight, queue/iostats).
"""

from __future__ import annotations

import mmap
import os
import sys
from dataclasses import dataclass

assert sys.platform != "win32"  # noqa: S101 - mypy for win32 skips the rest

from vsssnap._posix.topology import disk_of, partitions, sysfs  # noqa: E402 - only readable on Linux

__all__ = ["Activity", "activity", "counts_requests", "is_counted"]


@dataclass(frozen=True, slots=True)
class Activity:
    """What has been written to a block device since the system started.

    Attributes:
        written: Sectors of 512 bytes, by requests that are done.
        discarded: Likewise, discarded.
        beside: Sectors that were written or discarded through the whole disk, past its
            partitions, as lowest and highest number it can be; (0, 0) unless this is a partition.
        in_flight: Writes that are under way.
    """

    written: int
    discarded: int
    beside: tuple[int, int]
    in_flight: int

    def changed_since(self, before: Activity) -> str:
        """What was written since, in words; "" if nothing."""
        if sectors := self.written - before.written:
            return f"{sectors * 512} bytes were written"
        if sectors := self.discarded - before.discarded:
            return f"{sectors * 512} bytes were discarded"
        if self.beside[0] > before.beside[1]:
            return "its disk was written past the partition table"
        return "a write is under way" if self.in_flight else ""


def activity(rdev: int) -> Activity:
    """Read the counters of a block device; flush it before, or they miss what is in the cache.

    Source: Linux Documentation/block/stat.rst.  Requests without data (flushes) are left out,
    as some drivers count them as writes.

    Raises:
        OSError: the device is gone, or sysfs is not mounted.
    """
    # In flight first: a write that ends between the two reads is then seen by one of them.
    in_flight = int((sysfs(rdev) / "inflight").read_text().split()[1])
    written, discarded = _sectors(rdev)
    beside = (0, 0)
    if (disk := disk_of(rdev)) is not None:
        # The disk's counters hold those of its partitions, which go on being written meanwhile.
        parts = partitions(disk)
        low = sum(sum(_sectors(part)) for part in parts)
        total = sum(_sectors(disk))
        high = sum(sum(_sectors(part)) for part in parts)
        beside = (total - high, total - low)
    return Activity(written, discarded, beside, in_flight)


def _stat(rdev: int) -> list[int]:
    return [int(field) for field in (sysfs(rdev) / "stat").read_text().split()]


def _sectors(rdev: int) -> tuple[int, int]:
    fields = _stat(rdev)
    return fields[6], fields[13] if len(fields) > 13 else 0  # discards since Linux 4.18


def counts_requests(rdev: int) -> bool:
    """Whether the kernel keeps counters for a device at all (``queue/iostats``).

    Raises:
        OSError: the device is gone, or sysfs is not mounted.
    """
    if (sysfs(rdev) / "dm").is_dir():
        return True  # device-mapper counts by itself; the switch is about queues of requests, and it has none
    disk = disk_of(rdev)
    switch = sysfs(rdev if disk is None else disk) / "queue" / "iostats"
    return switch.read_text().strip() != "0"


def is_counted(fd: int, rdev: int, sector_size: int) -> bool:
    """Whether a request to a device shows in its counters; some drivers keep none.

    Args:
        fd: The device, open for reading.
        rdev: Its number.
        sector_size: Bytes.

    Raises:
        OSError: the device cannot be read.
    """
    if not counts_requests(rdev):
        return False
    before = _stat(rdev)[2]
    with mmap.mmap(-1, max(mmap.PAGESIZE, sector_size)) as buffer:
        direct = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
        try:
            with memoryview(buffer) as whole, whole[:sector_size] as view:
                os.preadv(direct, [view], 0)
        finally:
            os.close(direct)
    return _stat(rdev)[2] > before
