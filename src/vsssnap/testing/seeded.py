"""Disks of any size whose content is computed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blake3 import blake3

from vsssnap._units import round_up, whole
from vsssnap.blocks.extent import Extent, ExtentKind
from vsssnap.blocks.reader import BlockReader
from vsssnap.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_KEY = "vsssnap.testing seeded disk"


class SeededDisk(BlockReader):
    """A disk that is made up as it is read: the same seed, the same bytes, no memory.

    It is cut into at most ``regions`` equal regions.  Each holds one island of data with gaps
    around it; where the island lies, how long it is, what kind the gaps are and what the data
    look like (noise, a repeated pattern, or zeros that are reported as DATA) follows from the
    seed and the region's number.  So a disk of 2**63 - 1 bytes has some thousand extents and
    some MiB of data, and can be copied whole.
    """

    def __init__(
        self,
        size: int,
        seed: int = 0,
        *,
        regions: int = 1024,
        island: int = 1 << 16,
        align: int = 512,
        gaps: Sequence[ExtentKind] = (ExtentKind.ZERO, ExtentKind.HOLE),
        sector_size: int = 512,
    ) -> None:
        """Describe a disk.

        Args:
            size: Bytes, up to 2**63 - 1.
            seed: Any whole number.
            regions: Most regions; a small disk has fewer.
            island: Most bytes of data in a region.
            align: Bytes; islands begin and end at its multiples.  1 for any byte.
            gaps: Kinds of what lies between islands; of those that read as zeros.
            sector_size: Of the disk.

        Raises:
            UsageError: an argument is out of bounds, or a kind does not read as zeros.
        """
        super().__init__(size, sector_size=sector_size)
        self.seed = seed
        self._align = whole(align, "align", least=1)
        self._island = round_up(whole(island, "island", least=1), self._align)
        if not gaps or any(not Extent(0, 1, kind).reads_as_zero for kind in gaps):
            raise UsageError("gaps must be kinds that read as zeros", hint="use ZERO, HOLE or EXCLUDED")
        self._gaps = tuple(gaps)
        least = max(4096, self._align)
        count = whole(regions, "regions", least=1)
        self._region = round_up(max(least, -(-self.size // count)), self._align)
        self._key = blake3(repr(seed).encode(), derive_key_context=_KEY).digest()

    def _plan(self, region: int) -> tuple[int, int, ExtentKind, int]:
        """Of one region: where its island begins and ends (on the disk), the gaps' kind, the look."""
        dice = blake3(region.to_bytes(16, "little"), key=self._key).digest(24)
        base = region * self._region
        room = min(self._region, self.size - base)
        most = -(-min(self._island, room) // self._align)
        # Whole regions of data and of nothing now and then, any length in between.
        roll = dice[0] % 8
        cells = 0 if roll == 0 else most if roll == 1 else int.from_bytes(dice[1:9], "little") % (most + 1)
        slack = -(-room // self._align) - cells
        first = min(base + int.from_bytes(dice[9:17], "little") % (slack + 1) * self._align, self.size)
        end = min(first + cells * self._align, self.size)
        return first, end, self._gaps[dice[17] % len(self._gaps)], dice[18] % 4

    def _data(self, look: int, offset: int, length: int) -> bytes:
        if look == 0:
            return bytes(length)
        if look == 1:
            pattern = blake3(look.to_bytes(1, "little"), key=self._key).digest(32)
            skip = offset % 32
            return (pattern * (length // 32 + 2))[skip : skip + length]
        return blake3(key=self._key).digest(length, seek=offset)

    def _extents(self, offset: int, length: int) -> Iterator[Extent]:
        end = offset + length
        for region in range(offset // self._region, (end - 1) // self._region + 1):
            base = region * self._region
            first, last, kind, _ = self._plan(region)
            stop = min(base + self._region, self.size)
            for start, until, what in (
                (base, first, kind),
                (first, last, ExtentKind.DATA),
                (last, stop, kind),
            ):
                low, high = max(start, offset), min(until, end)
                if low < high:
                    yield Extent(low, high - low, what)

    def _read_into(self, view: memoryview, offset: int) -> None:
        at, end = offset, offset + len(view)
        while at < end:
            region = at // self._region
            stop = min(end, (region + 1) * self._region)
            first, last, _, look = self._plan(region)
            low, high = min(max(first, at), stop), max(min(last, stop), at)
            if low >= high:
                low = high = stop
            view[at - offset : low - offset] = bytes(low - at)
            if low < high:
                view[low - offset : high - offset] = self._data(look, low, high - low)
            view[high - offset : stop - offset] = bytes(stop - high)
            at = stop

    def expected(self, length: int, offset: int, /) -> bytes:
        """What `pread` must give, worked out in another way.

        It takes the whole data of the regions it meets and cuts the range out of them, where
        `pread` makes each piece at its place.
        """
        whole(length, "length")
        end = min(self.size, whole(offset, "offset") + length)
        if offset >= end:
            return b""
        result = bytearray(end - offset)
        for region in range(offset // self._region, (end - 1) // self._region + 1):
            first, last, _, look = self._plan(region)
            low, high = max(first, offset), min(last, end)
            if low < high:
                data = self._data(look, first, last - first)
                result[low - offset : high - offset] = data[low - first : high - first]
        return bytes(result)
