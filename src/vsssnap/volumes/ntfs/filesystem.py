"""NTFS as a `FileSystem`: its map is $Bitmap, its exclusions are the runs of the files."""

from __future__ import annotations

import heapq
from itertools import islice
from typing import TYPE_CHECKING, Final
from uuid import UUID

from vsssnap.blocks.extent import Extent, ExtentKind
from vsssnap.errors import CorruptImageError, ImageError
from vsssnap.volumes import _runs
from vsssnap.volumes.base import FileSystem
from vsssnap.volumes.ntfs import journal
from vsssnap.volumes.ntfs.geometry import bad, geometry, is_ntfs
from vsssnap.volumes.ntfs.index import Directory
from vsssnap.volumes.ntfs.records import MasterFileTable, number_of
from vsssnap.volumes.ntfs.stream import Stream
from vsssnap.volumes.ntfs.structs import (
    BADCLUS,
    BITMAP,
    DATA,
    LOGFILE,
    ROOT,
    VOLUME,
    VOLUME_INFORMATION,
    VOLUME_NAME,
)
from vsssnap.volumes.policy import Exclusion

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from vsssnap.blocks.reader import BlockReader

VSS_ID: Final = UUID("3808876b-c176-4e48-b7ae-04046e6cc752")
"""Ends the names of the files that hold shadow copies, and begins their header on the volume."""

_VSS_HEADER = 0x1E00
_VSS_CATALOG = Extent(0x1E30, 8, ExtentKind.EXCLUDED)  # where the catalog begins: u64

_FOLDER = "\\System Volume Information\\"

_DIRTY = 1
_MAX_STORES = 2048  # Windows keeps 512 shadow copies of a volume
_MAX_PIECES = 1 << 20  # of all files that are left out

_IN_ROOT = {
    Exclusion.PAGE_FILE: "pagefile.sys",
    Exclusion.SWAP_FILE: "swapfile.sys",
    Exclusion.HIBERNATION: "hiberfil.sys",
}


def probe(volume: BlockReader) -> FileSystem | None:
    """The NTFS of a volume; None if it has none."""
    head = volume.pread(512, 0)
    return Ntfs(volume, head) if is_ntfs(head) else None


class Ntfs(FileSystem):
    """A volume that begins with the boot sector of NTFS.

    The map is not trusted if the volume is marked dirty, its log is open, or a structure on the way
    to $Bitmap is damaged.  Clusters that $BadClus holds count as free.
    """

    name = "ntfs"

    def __init__(self, volume: BlockReader, head: bytes) -> None:
        super().__init__(volume)
        self._bitmap: Stream | None = None
        self._bad: list[Extent] = []
        self._pieces = 0
        self._found: dict[Exclusion, Sequence[tuple[str, Sequence[Extent]]]] = {}
        try:
            self._geometry = geometry(head)
            self.size = self._geometry.clusters * self._geometry.cluster_size
            self.block_size = self._geometry.cluster_size
            self._blocks = self._geometry.clusters
            self.serial = f"{self._geometry.serial:016X}"
            if self._geometry.volume_size > volume.size:
                raise bad(
                    f"{self._geometry.volume_size} bytes on a volume of {volume.size}", "boot sector", 40
                )
            self._table = MasterFileTable(volume, self._geometry)
            self._read_volume()
            self._read_log()
            self._read_bitmap()
            self._read_bad_clusters()
        except CorruptImageError as exc:
            self.doubt = str(exc)

    # What is read when it is opened.

    def _read_volume(self) -> None:
        record = self._table.record(VOLUME)
        self.label = (record.value(VOLUME_NAME) or b"").decode("utf-16-le", "replace")
        information = record.value(VOLUME_INFORMATION)
        if information is None or len(information) < 12:
            raise bad("it says nothing of itself", "$Volume", None)
        self.dirty = bool(int.from_bytes(information[10:12], "little") & _DIRTY)
        if self.dirty:
            self.doubt = "the volume is marked dirty: it needs chkdsk"

    def _read_log(self) -> None:
        log = self._table.stream(self._table.record(LOGFILE), DATA)
        self.marks_use = not (isinstance(log, Stream) and journal.is_reset(log))
        why = journal.why_open(log) if isinstance(log, Stream) else "$LogFile has no clusters"
        if why:
            self.dirty = True
            self.doubt = self.doubt or why

    def _read_bitmap(self) -> None:
        stream = self._table.stream(self._table.record(BITMAP), DATA)
        if isinstance(stream, bytes) or stream is None:
            raise bad("it has no clusters", "$Bitmap", None)
        if stream.flags or min(stream.size, stream.initialized) * 8 < self._blocks:
            raise bad(
                f"{stream.size} bytes, flags 0x{stream.flags:x}, for {self._blocks} clusters", "$Bitmap", None
            )
        self._bitmap = stream
        # Nothing guards its runs: a wrong one shows in a map that calls free what leads to it.
        if not self._all_used([Extent(0, self.block_size), *self._extents(stream), *self._table.extents()]):
            raise bad("it calls the clusters of $Boot, $MFT or $Bitmap free", "$Bitmap", None)

    def _read_bad_clusters(self) -> None:
        stream = self._table.stream(self._table.record(BADCLUS), DATA, "$Bad")
        if not isinstance(stream, Stream):
            return
        found = self._extents(stream)
        first = self._geometry.mft_lcn * self.block_size
        if any(each.offset == 0 or each.offset <= first < each.end for each in found) or not self._all_used(
            found
        ):
            raise bad("it calls clusters bad that are free, or hold $Boot or $MFT", "$BadClus", None)
        self._bad = found
        if found:
            total = sum(extent.length for extent in found)
            self.notes += (f"{total} bytes in clusters that NTFS knows as bad are left out",)

    def _all_used(self, extents: Sequence[Extent]) -> bool:
        """Whether the map has all of these ranges as used."""
        return not any(True for each in extents for _ in super(Ntfs, self)._free(each.offset, each.end))

    def _extents(self, stream: Stream) -> list[Extent]:
        size = self._geometry.cluster_size
        found = sorted((lcn * size, count * size) for lcn, count in stream.runs())
        return [Extent(offset, length, ExtentKind.EXCLUDED) for offset, length in found]

    # The map.

    def _page(self, first: int, count: int) -> _runs.Runs:
        assert self._bitmap is not None  # noqa: S101 - without one there is a doubt, and no map
        return _runs.of_bits(self._bitmap.read(first // 8, -(-count // 8)), count)

    def _free(self, offset: int, end: int) -> Iterator[Extent]:
        if not self._bad:
            return super()._free(offset, end)
        return _merged(super()._free(offset, end), self._bad, offset, end)

    # What may be left out.

    def excluded(
        self, exclude: Collection[Exclusion], /
    ) -> Sequence[tuple[Exclusion, str, Sequence[Extent]]]:
        """See `FileSystem`; a damaged directory hides its files and adds a note."""
        if self.doubt:
            return ()
        result = []
        for kind in Exclusion:
            if kind not in exclude or kind is Exclusion.NOT_IN_SNAPSHOT:  # the volume does not tell which
                continue
            if kind not in self._found:
                try:
                    self._found[kind] = tuple(self._search(kind))
                except CorruptImageError as exc:
                    self._found[kind] = ()
                    self.notes += (f"the {kind} was not looked for: {exc}",)
            result += [(kind, path, extents) for path, extents in self._found[kind]]
        return result

    def _search(self, kind: Exclusion) -> Iterator[tuple[str, Sequence[Extent]]]:
        root = Directory(self._table, self._geometry, self._table.record(ROOT))
        if kind in _IN_ROOT:
            name = _IN_ROOT[kind]
            reference = root.find(name)
            stream = self._data(reference) if reference is not None else None
            if stream is None:
                return
            if kind is Exclusion.HIBERNATION and _hibernated(stream):
                self.notes += ("hiberfil.sys holds a hibernated system and is kept",)
                return
            yield "\\" + name, self._checked(name, stream)
            return
        # Windows never counts what it writes into these files as written: the runs are what tells.
        listed: set[int] = set()
        try:
            for found, name in sorted(self._named_stores(root).items()):
                stream = self._data(found)
                if stream is not None:
                    yield f"{_FOLDER}{name}", self._checked(name, stream)
                    listed.add(found)
        except CorruptImageError as exc:
            self.notes += (f"the {kind} was looked for by its catalog alone: {exc}",)
        for found, name, header in self._catalogued_stores():
            if found in listed:
                continue
            stream = self._data(found)
            extents = self._checked(name, stream) if stream is not None else []
            # A catalog may be older than the file table: what it names must be the store.
            if any(extent.offset <= header < extent.end for extent in extents):
                yield f"{_FOLDER}{name}", extents

    def _named_stores(self, root: Directory) -> dict[int, str]:
        """Shadow storage by its names: the catalog, and stores of this and other volumes."""
        reference = root.find("System Volume Information")
        if reference is None:
            return {}
        folder = self._table.record(number_of(reference), sequence=reference >> 48)
        ending = f"{{{VSS_ID}}}"
        stores = {
            found: name
            for name, found in Directory(self._table, self._geometry, folder)
            if name.lower().endswith(ending)
        }
        if len(stores) > _MAX_STORES:
            raise bad(f"{len(stores)} shadow copies", "System Volume Information", None)
        return stores

    def _catalogued_stores(self) -> Iterator[tuple[int, str, int]]:
        """Stores that the catalog of shadow copies names: file reference, name, offset of the header."""
        from vsssnap.volumes.shadow.catalog import read_catalog, read_header

        try:
            header = read_header(self.volume)
        except ImageError:
            return
        if header is None or not header.catalog_offset:
            return
        locations = read_catalog(self.volume, header.catalog_offset).locations
        for store_id, location in islice(sorted(locations.items()), _MAX_STORES):
            if location.file_reference:
                yield location.file_reference, f"{{{store_id}}}{{{VSS_ID}}}", location.store_header

    def _checked(self, name: str, stream: Stream) -> list[Extent]:
        """Where a file lies; nothing guards its runs, so a wrong one must not take other files along."""
        found = self._extents(stream)
        self._pieces += len(found)
        if self._pieces > _MAX_PIECES:
            raise bad(f"{name} and others lie in more than {_MAX_PIECES} pieces", "runs", None)
        if not self._all_used(found):
            raise bad(f"{name} lies in free clusters", "runs", None)
        return found

    def _data(self, reference: int) -> Stream | None:
        record = self._table.record(number_of(reference), sequence=reference >> 48)
        stream = self._table.stream(record, DATA)
        return stream if isinstance(stream, Stream) else None

    def blanked(self, exclude: Collection[Exclusion], /) -> Sequence[tuple[Extent, str]]:
        """See `FileSystem`: without the shadow storage nothing may point at it."""
        if self.doubt or Exclusion.SHADOW_STORAGE not in exclude:
            return ()
        header = self.volume.pread(64, _VSS_HEADER)
        if header[:16] != VSS_ID.bytes_le or not any(header[48:56]):
            return ()
        said = (
            f"the pointer to the catalog of shadow copies, 8 bytes at {_VSS_CATALOG.offset}, is zeroed: "
            "their storage is left out"
        )
        return ((_VSS_CATALOG, said),)


def _hibernated(stream: Stream) -> bool:
    """Whether a hibernation file holds a system: anything but zeros or the mark of one that woke up."""
    head = stream.read(0, 4096)
    return any(head) and head[:4].lower() != b"wake"


def _merged(free: Iterator[Extent], bad: Sequence[Extent], offset: int, end: int) -> Iterator[Extent]:
    """Free ranges and bad ones in one order."""
    clipped = (
        Extent(max(each.offset, offset), min(each.end, end) - max(each.offset, offset), ExtentKind.HOLE)
        for each in bad
        if each.offset < end and each.end > offset
    )
    at = offset
    for extent in heapq.merge(free, clipped, key=lambda each: each.offset):
        if extent.end > at:
            start = max(at, extent.offset)
            yield Extent(start, extent.end - start, ExtentKind.HOLE)
            at = extent.end
