"""Reading QCOW2 images and the snapshots inside them.

Source: QEMU, docs/interop/qcow2.txt.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, ClassVar

from vsssnap.blocks.extent import Extent, ExtentKind
from vsssnap.errors import CorruptImageError, DeviceReadError, UsageError
from vsssnap.formats._layers import LayeredReader, close_in_turn
from vsssnap.formats._zero import fill_zero
from vsssnap.formats.base import Depth
from vsssnap.formats.qcow2 import structs
from vsssnap.formats.qcow2.bitmaps import Qcow2Bitmap, bitmaps, dirty_extents
from vsssnap.formats.qcow2.cut import behind, is_cut, require_whole
from vsssnap.formats.qcow2.header import check_l1, corrupt
from vsssnap.formats.qcow2.mapping import ClusterMap, Kind
from vsssnap.formats.qcow2.packing import PackedClusters
from vsssnap.formats.qcow2.snapshots import Qcow2Snapshot, snapshots
from vsssnap.formats.qcow2.tables import Tables
from vsssnap.formats.qcow2.verify import verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from vsssnap.formats.base import Finding, ImageReader
    from vsssnap.formats.qcow2.header import Layout
    from vsssnap.formats.storage import Storage

Place = tuple[Kind, int, int]
"""What a run is, where it begins in the disk, and where in the file (of PACKED: its L2 entry)."""


class Files:
    """The files of an image, shared by its reader and those of its snapshots; the last one closes them."""

    def __init__(
        self, storage: Storage, layout: Layout, data: ImageReader | None, *, recover: bool = False
    ) -> None:
        self.storage = storage
        self.recover = recover  # what lies behind the end of the file is said to be unreadable then
        self.layout = layout
        self.data = data
        self.parent: ImageReader | None = None
        self.tables = Tables(storage, layout.cluster_size)
        self.packed = PackedClusters(storage, layout.fields.cluster_bits, layout.compression)
        self._users = 0
        self._lock = threading.Lock()

    def hold(self) -> None:
        """One more reader uses them."""
        with self._lock:
            self._users += 1

    def let_go(self) -> None:
        """One less; called once for each `hold`."""
        with self._lock:
            self._users -= 1
            if self._users:
                return
        try:
            self.storage.close()
        finally:
            close_in_turn(self.parent)
            close_in_turn(self.data)


class Qcow2Reader(LayeredReader):
    """A QCOW2 image, or one of the snapshots inside it; any number of threads at once.

    Attributes:
        layout: Its header.
    """

    format: ClassVar[str] = "qcow2"

    def __init__(self, files: Files, snapshot: Qcow2Snapshot | None = None, *, complete: bool = True) -> None:
        self._files = files
        self.layout = layout = files.layout
        self.parent = files.parent
        self._snapshot = snapshot
        self._complete = complete
        if snapshot is None:
            size, l1_offset = layout.fields.size, layout.fields.l1_table_offset
        else:
            size, l1_offset = snapshot.size, snapshot.l1_offset
        self._map = ClusterMap(files.storage, layout, files.tables, l1_offset)
        self.path = files.storage.name
        self.caches = (files.tables.cache, files.packed.cache)
        files.hold()
        super().__init__(size)

    def _release(self) -> None:
        self._files.let_go()

    @property
    def plain(self) -> bool:  # type: ignore[override]  # here it has to be looked for
        """Whether no cluster is compressed, here or in a backing file; reads tables up to the first one."""
        image: ImageReader | None = self
        while isinstance(image, Qcow2Reader):
            if image._is_packed():  # noqa: SLF001 - of this class
                return False
            image = image.parent
        return image is None or image.plain

    def _is_packed(self) -> bool:
        try:
            with self._gate:
                return any(kind is Kind.PACKED for kind, *_ in self._map.walk(0, self.size))
        except (CorruptImageError, DeviceReadError):
            return True  # nobody knows

    def _take(self, parent: ImageReader) -> None:
        self.parent = self._files.parent = parent

    # Reading.

    def _own(self, offset: int, end: int) -> Iterator[tuple[int, int, Place | None]]:
        walk = self._map.salvaged if self._files.recover else self._map.walk
        for kind, start, length, host in walk(offset, end - offset):
            place = None if kind is Kind.ABSENT else (kind, start, host)
            yield max(start, offset), min(start + length, end), place

    def _fetch(self, view: memoryview, first: int, place: Place) -> None:
        kind, start, host = place
        if kind is Kind.STORED:
            self._stored(view, host + first - start)
        elif kind is Kind.ZERO:
            fill_zero(view)
        elif kind is Kind.LOST:
            require_whole([Extent(first, len(view), ExtentKind.UNREADABLE)], self._files)
        else:
            for at, plain in self._files.packed.decoded([(start, host)], first, len(view)):
                view[:] = _part(plain, first - at, first - at + len(view))

    def _load(self, length: int, first: int, place: Place) -> bytes:
        kind, start, host = place
        if kind is Kind.STORED and self._files.data is None:
            return self._files.storage.pread(length, host + first - start)
        return super()._load(length, first, place)

    def _read_into(self, view: memoryview, offset: int) -> None:
        if self._files.recover:
            require_whole(self._extents(offset, len(view)), self._files)
        if self.parent is not None:
            super()._read_into(view, offset)
            return
        end = offset + len(view)
        packed: list[tuple[int, int]] = []
        for kind, start, length, host in self._map.walk(offset, len(view)):
            if kind is Kind.PACKED:
                packed.append((start, host))
                continue
            first, last = max(start, offset), min(start + length, end)
            part = view[first - offset : last - offset]
            if kind is Kind.STORED:
                self._stored(part, host + first - start)
            else:
                fill_zero(part)
        for at, plain in self._files.packed.decoded(packed, offset, len(view)):
            first, last = max(at, offset), min(at + len(plain), end)
            view[first - offset : last - offset] = _part(plain, first - at, last - at)

    def _read(self, length: int, offset: int) -> bytes:
        if self._files.recover:
            require_whole(self._extents(offset, length), self._files)
        if self.parent is not None:
            return super()._read(length, offset)
        parts = list(self._parts(offset, length))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _parts(self, offset: int, length: int) -> Iterator[bytes]:
        """As new bytes, which saves two copies, if it stands alone; compressed neighbours go together."""
        end = offset + length
        packed: list[tuple[int, int]] = []
        for kind, start, count, host in self._map.walk(offset, length):
            if kind is Kind.PACKED:
                packed.append((start, host))
                continue
            yield from self._unpacked(packed, offset, length)
            packed = []
            first, last = max(start, offset), min(start + count, end)
            if kind is Kind.STORED and self._files.data is None:
                yield self._files.storage.pread(last - first, host + first - start)
            elif kind is Kind.STORED:
                part = bytearray(last - first)
                self._stored(memoryview(part), host + first - start)
                yield bytes(part)
            else:
                yield bytes(last - first)
        yield from self._unpacked(packed, offset, length)

    def _unpacked(self, packed: list[tuple[int, int]], offset: int, length: int) -> Iterator[bytes]:
        for at, plain in self._files.packed.decoded(packed, offset, length):
            yield _part(plain, max(offset - at, 0), offset + length - at)

    def _stored(self, view: memoryview, host: int) -> None:
        if self._files.data is None:
            self._files.storage.preadinto(view, host)
        elif self._files.data.preadinto(view, host) < len(view):
            raise corrupt(
                self._files.storage,
                f"its data file ends at byte {self._files.data.size}, before {host + len(view)}",
                "data file",
                host,
            )

    # States.

    def _tell(self, first: int, stop: int, place: Place) -> Iterator[Extent]:
        kind, start, host = place
        if kind is Kind.STORED:
            yield from self._stored_extents(first, stop - first, host + first - start)
            return
        told = ExtentKind.ZERO if kind is Kind.ZERO else ExtentKind.DATA
        size = self._files.storage.size
        if kind is Kind.LOST or (self._files.recover and behind(kind, stop - first, host, self.layout, size)):
            told = ExtentKind.UNREADABLE
        yield Extent(first, stop - first, told)

    def _stored_extents(self, first: int, count: int, host: int) -> Iterator[Extent]:
        """Stored clusters may be holes of the file: preallocated and never written."""
        source = self._files.data or self._files.storage
        inside = max(0, min(count, source.size - host))
        for found in source.extents(host, inside):
            yield Extent(first + found.offset - host, found.length, found.kind)
        if inside < count:
            kind = ExtentKind.UNREADABLE if self._files.recover else ExtentKind.DATA
            yield Extent(first + inside, count - inside, kind)  # reading it tells what is wrong

    # Snapshots and bitmaps.

    @property
    def snapshots(self) -> tuple[Qcow2Snapshot, ...]:
        """The snapshots inside the image, in the order of their table.

        Raises:
            CorruptImageError: the table breaks a rule.
            ClosedError: the reader is closed.
        """
        with self._gate:
            return tuple(found for found, _ in snapshots(self._files.storage, self.layout))

    def open_snapshot(self, which: str) -> Qcow2Reader:
        """A snapshot as an image of its own; it stays readable when this one is closed.

        Args:
            which: Its id, or else its name.

        Raises:
            UsageError: there is none, or its name is not the only one.
            CorruptImageError: the snapshot table or its L1 table breaks a rule.
            ClosedError: the reader is closed.
        """
        known = self.snapshots
        found = [item for item in known if item.id == which] or [item for item in known if item.name == which]
        if len(found) != 1:
            raise UsageError(
                f"{self.path}: {len(found) or 'no'} snapshots are called {which!r}",
                hint="it has " + (", ".join(f"{item.id} ({item.name!r})" for item in known) or "none"),
            )
        (snapshot,) = found
        storage = self._files.storage
        if snapshot.size >= 1 << 63 or snapshot.l1_entries < self.layout.l1_needed(snapshot.size):
            raise corrupt(
                storage,
                f"snapshot {which!r} has {snapshot.l1_entries} L1 entries for {snapshot.size} bytes",
                "snapshot table",
                self.layout.fields.snapshots_offset,
            )
        with self._gate:
            check_l1(storage, self.layout, snapshot.l1_offset, snapshot.l1_entries)
            return Qcow2Reader(self._files, snapshot, complete=self._complete)

    @property
    def bitmaps(self) -> tuple[Qcow2Bitmap, ...]:
        """The persistent dirty bitmaps of the image.

        Raises:
            CorruptImageError: the directory breaks a rule.
            ClosedError: the reader is closed.
        """
        with self._gate:
            return tuple(bitmaps(self._files.storage, self.layout))

    def dirty_extents(self, name: str) -> Iterator[Extent]:
        """What a bitmap says was written: ascending, never touching, multiples of its granularity.

        Raises:
            UsageError: there is no such bitmap.
            CorruptImageError: it must not be trusted (see `Qcow2Bitmap.problem`), or breaks a rule.
            ClosedError: the reader is closed.
        """
        known = self.bitmaps
        found = next((item for item in known if item.name == name), None)
        if found is None:
            raise UsageError(
                f"{self.path}: no bitmap is called {name!r}",
                hint="it has " + (", ".join(repr(item.name) for item in known) or "none"),
            )
        if found.problem:
            raise corrupt(
                self._files.storage,
                f"bitmap {name!r} cannot be trusted: {found.problem}",
                "bitmap directory",
                None,
                "copy everything instead, and make a new bitmap",
            )
        return self._dirty(found)

    def _dirty(self, bitmap: Qcow2Bitmap) -> Iterator[Extent]:
        source = dirty_extents(self._files.storage, self.layout, self._files.tables, bitmap)
        while True:
            with self._gate:
                extent = next(source, None)
            if extent is None:
                return
            yield extent

    # Facts.

    def _paths(self) -> tuple[str, ...]:
        data = self._files.data.origins if self._files.data is not None else ()
        return (*super()._paths(), *data)

    @property
    def is_snapshot(self) -> bool:
        """Whether this is a snapshot inside an image."""
        return self._snapshot is not None

    def info(self) -> Mapping[str, Any]:
        """See `ImageReader`."""
        layout = self.layout
        facts: dict[str, Any] = {
            "stored_size": self._files.storage.size,
            "complete": self._complete and not is_cut(self._files, self._map),
            "identity": layout.lineage.identity.hex if layout.lineage is not None else "",
            "parents": [_printable(layout.backing)] if layout.backing else [],
            "features": layout.feature_words(),
            "version": layout.fields.version,
            "cluster_size": layout.cluster_size,
            "refcount_bits": 1 << layout.features.refcount_order,
            "compression": structs.COMPRESSION_NAMES[layout.compression],
        }
        if layout.backing:
            facts["backing_format"] = _printable(layout.backing_format)
        if layout.external:
            facts["data_file"] = _printable(layout.data_file)
        if self._snapshot is not None:
            facts["snapshot"] = _printable(self._snapshot.id)
            return facts
        try:
            facts["snapshots"] = [
                {
                    "id": _printable(item.id),
                    "name": _printable(item.name),
                    "created": item.created.isoformat(),
                    "size": item.size,
                }
                for item in self.snapshots
            ]
            facts["bitmaps"] = [
                {
                    "name": _printable(item.name),
                    "granularity": item.granularity,
                    "enabled": item.enabled,
                    "problem": item.problem,
                }
                for item in self.bitmaps
            ]
        except CorruptImageError as exc:
            facts["problem"] = str(exc)
        return facts

    def depths(self) -> tuple[Depth, ...]:
        """STRUCTURE: QCOW2 has no checksums of payload."""
        return (Depth.STRUCTURE,)

    def verify(self, depth: Depth, progress: Callable[[int], None]) -> Iterator[Finding]:
        """Tables, refcounts and overlaps, as ``qemu-img check`` does; the image's own file alone."""
        source = verify(self._files.storage, self.layout, self._files.tables, progress)
        while True:
            with self._gate:
                finding = next(source, None)
            if finding is None:
                return
            yield finding


def _part(plain: bytes, first: int, last: int) -> bytes:
    return plain if first == 0 and last >= len(plain) else plain[first:last]


def _printable(text: str) -> str:
    """Text that JSON can hold: names may be no UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
