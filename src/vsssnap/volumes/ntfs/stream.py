"""Attributes in clusters: their runs, and reading through them."""

from __future__ import annotations

import bisect
from array import array
from typing import TYPE_CHECKING

from vsssnap.volumes.ntfs.geometry import Geometry, bad

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vsssnap.blocks.reader import BlockReader

_MAX_RUNS = 1 << 20
_SPARSE = -1


class Stream:
    """The clusters of one attribute.

    Attributes:
        size: Bytes of the value.
        initialized: Bytes of it that were ever written; what follows reads as zeros.
        flags: Those of the attribute.
    """

    def __init__(
        self, volume: BlockReader, geometry: Geometry, *, size: int, initialized: int, flags: int
    ) -> None:
        self._volume = volume
        self._geometry = geometry
        self.size = size
        self.initialized = initialized
        self.flags = flags
        # Run by run: first VCN, first LCN (or sparse).  The next run's VCN is where it ends.
        self._vcns = array("q")
        self._lcns = array("q")
        self.clusters = 0

    def extend(self, data: bytes, first_vcn: int, last_vcn: int) -> None:
        """Append the runs of a fragment.

        Args:
            data: The mapping pairs, as they are in the record.
            first_vcn: Where the fragment begins; it must be where the last one ended.
            last_vcn: Its last cluster.

        Raises:
            CorruptImageError: the runs are none, leave the volume, or are too many.
        """
        if first_vcn != self.clusters or not first_vcn <= last_vcn + 1 < 1 << 48:
            raise bad(f"a fragment of clusters {first_vcn} to {last_vcn} at {self.clusters}", "runs", None)
        at, lcn = 0, 0
        while at < len(data) and data[at]:
            sizes = data[at]
            count, delta = sizes & 15, sizes >> 4
            if not 1 <= count <= 8 or delta > 8 or at + 1 + count + delta > len(data):
                raise bad(f"a run with header 0x{sizes:02x}", "runs", None)
            length = int.from_bytes(data[at + 1 : at + 1 + count], "little", signed=True)
            jump = data[at + 1 + count : at + 1 + count + delta]
            lcn += int.from_bytes(jump, "little", signed=True)
            here = lcn if delta else _SPARSE
            if length <= 0 or (delta and not 0 <= lcn <= self._geometry.clusters - length):
                raise bad(f"{length} clusters at {lcn} of {self._geometry.clusters}", "runs", None)
            if len(self._vcns) >= _MAX_RUNS:
                raise bad(f"more than {_MAX_RUNS} of them", "runs", None)
            self._vcns.append(self.clusters)
            self._lcns.append(here)
            self.clusters += length
            if self.clusters > last_vcn + 1:
                raise bad(f"they go behind cluster {last_vcn}", "runs", None)
            at += 1 + count + delta
        if self.clusters != last_vcn + 1:
            raise bad(f"they end at cluster {self.clusters}, not {last_vcn + 1}", "runs", None)

    def runs(self) -> Iterator[tuple[int, int]]:
        """First cluster and count of every run that is not sparse, in the order of the value."""
        for index, lcn in enumerate(self._lcns):
            if lcn != _SPARSE:
                yield lcn, self._end(index) - self._vcns[index]

    def _end(self, index: int) -> int:
        return self._vcns[index + 1] if index + 1 < len(self._vcns) else self.clusters

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the value; zeros where it is sparse, was never written or is over.

        Raises:
            DeviceReadError: the volume cannot be read.
        """
        size = self._geometry.cluster_size
        end = min(offset + length, self.initialized, self.size, self.clusters * size)
        parts, at = [], offset
        while at < end:
            index = bisect.bisect_right(self._vcns, at // size) - 1
            take = min(end, self._end(index) * size) - at
            lcn = self._lcns[index]
            if lcn == _SPARSE:
                parts.append(bytes(take))
            else:
                place = lcn * size + at - self._vcns[index] * size
                part = self._volume.pread(take, place)
                parts.append(part + bytes(take - len(part)))
            at += take
        return b"".join(parts) + bytes(offset + length - at)
