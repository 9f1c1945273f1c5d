"""The shadow copies that lie on a volume."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final
from uuid import UUID

from vsssnap.blocks.reader import as_reader
from vsssnap.errors import ChangesUnknownError, CorruptImageError, UsageError
from vsssnap.volumes.shadow.catalog import Catalog, read_boot, read_catalog, read_header
from vsssnap.volumes.shadow.changes import changes, in_use
from vsssnap.volumes.shadow.reader import view_behind
from vsssnap.volumes.shadow.stack import Context, Level, Place
from vsssnap.volumes.shadow.store import ShadowStore
from vsssnap.volumes.shadow.table import OTHER, OWN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from vsssnap.blocks.extent import Extent
    from vsssnap.blocks.reader import BlockReader, SupportsPread


MAX_VOLUME: Final = 1 << 53
"""Bytes of the largest NTFS volume: 2**32 clusters of 2 MiB."""


class ShadowVolume:
    """A volume with shadow copies: a device, or any image of one.  Thread-safe.

    Opening it reads the catalog and the header of each store; tables are read when a shadow copy is
    opened.  It closes neither the volume nor the storage.

    Attributes:
        enabled: Whether the volume ever had shadow copies.
        volume_id: The volume's id in its header; None without one.
        storage_id: The id of the volume that holds the shadow storage; None without a header.
        maximum_size: Bytes that the shadow storage may grow to; 0 for no bound.
        stores: The shadow copies, oldest first.
        problems: What is wrong with the catalog, a sentence each; what is wrong with a shadow copy
            says its ``health``.
    """

    def __init__(
        self, reader: SupportsPread, storage: SupportsPread | None = None, *, recover: bool = False
    ) -> None:
        """Look for shadow copies.

        Args:
            reader: The volume.
            storage: The volume that holds its shadow storage, where that is another one.
            recover: Let shadow copies be opened although the catalog is damaged: a newer one that is
                missing from it makes their content wrong.

        Raises:
            UsageError: ``reader`` or ``storage`` is itself the view of a shadow copy, or ``storage`` is
                not the volume that the header names.
            CorruptImageError: the volume header is damaged.
            UnsupportedFeatureError: it is of an unknown version.
            DeviceReadError: it cannot be read.
        """
        self._reader = as_reader(reader)
        self._storage = as_reader(storage) if storage is not None else None
        for one in (self._reader, self._storage):
            _refuse_view(one)
        self._levels: tuple[Level, ...] = ()
        self.stores: tuple[ShadowStore, ...] = ()
        self.problems: tuple[str, ...] = ()
        self.volume_id: UUID | None = None
        self.storage_id: UUID | None = None
        self.maximum_size = 0
        header = read_header(self._reader)
        self.enabled = header is not None
        if header is None:
            return
        self.volume_id, self.storage_id = UUID(bytes_le=header.volume_id), UUID(bytes_le=header.storage_id)
        self.maximum_size = header.maximum_size
        if not header.catalog_offset:
            return
        own = read_catalog(self._reader, header.catalog_offset)
        other = self._storage_catalog(self.storage_id)
        self.problems = tuple(own.problems)
        self._levels = self._found(own, other, recover=recover)
        self.stores = tuple(ShadowStore(level) for level in self._levels)

    @property
    def redirected(self) -> bool:
        """Whether its shadow storage lies on another volume."""
        return self.storage_id != self.volume_id

    def _storage_catalog(self, expected: UUID) -> Catalog:
        if self._storage is None:
            return Catalog()
        header = read_header(self._storage)
        found = UUID(bytes_le=header.volume_id) if header is not None else None
        if header is None or found != expected:
            what = f"volume {found}" if found else "a volume without shadow storage"
            raise UsageError(
                f"storage is {what}; the shadow storage lies on volume {expected}",
                hint="pass the volume with that id, or none if it is the volume itself",
            )
        return read_catalog(self._storage, header.catalog_offset) if header.catalog_offset else Catalog()

    def _found(self, own: Catalog, other: Catalog, *, recover: bool) -> tuple[Level, ...]:
        ordered = sorted(own.snapshots, key=lambda entry: entry.stack_position)
        sizes = [entry.volume_size for entry in ordered if entry.volume_size <= MAX_VOLUME]
        context = Context(
            self._reader,
            self._storage,
            read_boot(self._reader),
            max([self._reader.size, *sizes]),
            tuple(own.problems),
        )
        levels = []
        for number, entry in enumerate(ordered, 1):
            store_id = UUID(bytes_le=entry.store_id)
            place = None
            if store_id in own.locations:
                place = Place(own.locations[store_id], self._reader, OWN)
            elif store_id in other.locations and self._storage is not None:
                place = Place(other.locations[store_id], self._storage, OTHER)
            level = Level(context, number, entry, place)
            self._judge(level, own, other, recover=recover)
            levels.append(level)
        for older, newer in pairwise(levels):
            _link(older, newer, recover=recover)
        return tuple(levels)

    def _judge(self, level: Level, own: Catalog, other: Catalog, *, recover: bool) -> None:
        """Refuse a shadow copy for what the catalogs say of it."""
        if level.store_id in own.doubled | other.doubled:
            level.refuse(_corrupt(f"{level.name}: the catalog names its store more than once"))
        if not 0 < level.entry.volume_size <= MAX_VOLUME:
            level.refuse(_corrupt(f"{level.name}: the catalog says it has {level.entry.volume_size} bytes"))
        if own.problems and not recover:
            message = f"{level.name} may depend on others that are missing: {own.problems[0]}"
            level.refuse(_corrupt(message, "recover=True opens it all the same"), chain=True)
        if level.place is None:
            if self.redirected and self._storage is None:
                message = f"{level.name}: its store lies on volume {self.storage_id}"
                level.refuse(UsageError(message, hint="pass that volume as storage"))
            problems = [*own.problems, *other.problems]
            because = f" ({problems[0]})" if problems else ""
            level.refuse(_corrupt(f"{level.name}: no catalog says where its store lies{because}"))

    def find(self, wanted: ShadowStore | UUID | str | int) -> ShadowStore | None:
        """A shadow copy by its number, store id or shadow copy id; None if there is none."""
        if isinstance(wanted, ShadowStore):
            return wanted if wanted in self.stores else None
        if isinstance(wanted, int):
            return self.stores[wanted - 1] if 0 < wanted <= len(self.stores) else None
        try:
            name = wanted if isinstance(wanted, UUID) else UUID(str(wanted))
        except ValueError:
            return None
        return next((store for store in self.stores if name in (store.store_id, store.copy_id)), None)

    def changed_extents(
        self,
        older: ShadowStore | UUID | str | int,
        newer: ShadowStore | UUID | str | int | None = None,
        *,
        allocated: Iterable[Extent] | None = None,
        exact: bool = False,
    ) -> Iterator[Extent]:
        """What may differ between two shadow copies, or one and the volume as it is now.

        An image of ``older`` with these ranges replaced by those of ``newer`` is an image of
        ``newer``: DATA is to be copied; ZERO held something in ``older`` and is not in use in ``newer``.
        Ranges in between did not change.  Besides what a store kept, blocks count that were not
        protected: nobody recorded what was written to them.

        Args:
            older: Its number, store id or shadow copy id, or the shadow copy.
            newer: A newer one; None for the volume as it is now.
            allocated: Only with ``newer=None``: what is in use now; extents that read as zeros are
                not.  By default the volume's file system tells, without the files of
                `DEFAULT_EXCLUSIONS`, as `view_of` leaves them out; where its map cannot be trusted,
                every block that the newest shadow copy did not protect counts as changed.
            exact: Compare the blocks, and leave out those that are the same after all.

        Returns:
            Ascending, with gaps; in units of 16 KiB, clipped at the end of the volume.

        Raises:
            ChangesUnknownError: the stores do not tell what changed; take a full image.  The message
                says why.
            UsageError: ``newer`` is not newer, or ``allocated`` is given for a shadow copy.
        """
        first = self.find(older)
        if first is None:
            shown = older.store_id if isinstance(older, ShadowStore) else older
            raise ChangesUnknownError(
                f"there is no shadow copy {shown} on the volume any more", hint="take a full image"
            )
        last = None if newer is None else self.find(newer)
        if newer is not None and last is None:
            raise UsageError(f"there is no shadow copy {newer}", hint="see ShadowVolume.stores")
        if last is not None and last.number <= first.number:
            raise UsageError(f"shadow copy {last.number} is not newer than {first.number}")
        if last is not None and allocated is not None:
            raise UsageError("allocated is about the volume as it is now, not about a shadow copy")
        if self.problems:
            raise ChangesUnknownError(
                f"shadow copies may be missing: {self.problems[0]}", hint="take a full image"
            )
        passed = self._levels[first.number - 1 : None if last is None else last.number]

        def readers() -> tuple[BlockReader, BlockReader]:
            return first.open(), self._reader if last is None else last.open()

        if last is None and allocated is None:
            allocated = in_use(self._reader)
        return changes(
            passed,
            self._reader,
            to_present=last is None,
            allocated=allocated,
            readers=readers if exact else None,
        )


def _link(older: Level, newer: Level, *, recover: bool) -> None:
    """Put a shadow copy on the stack above the next older one."""
    older.link(newer)
    below, above = older.entry.stack_position, newer.entry.stack_position
    if above == below:
        for one in (older, newer):
            one.refuse(_corrupt(f"{one.name}: another one has its stack position {below}"))
    elif above != below + 1 and not recover:
        message = (
            f"{older.name} depends on the one at stack position {below + 1}, which is not in the catalog"
        )
        older.refuse(_corrupt(message), chain=True)


def _refuse_view(reader: BlockReader | None) -> None:
    shown = view_behind(reader) if reader is not None else None
    if shown is not None:
        raise UsageError(
            f"this is the view of a shadow copy ({shown.metadata.snapshot_id}), which shows the volume"
            " header of the present",
            hint="open the volume itself",
        )


def _corrupt(message: str, hint: str = "") -> CorruptImageError:
    return CorruptImageError(message, structure="catalog", hint=hint)
