"""The shadow copies that lie on a volume."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING
from uuid import UUID

from vsssnap.blocks.reader import as_reader
from vsssnap.errors import CorruptImageError, UsageError
from vsssnap.volumes.shadow.catalog import Catalog, read_boot, read_catalog, read_header
from vsssnap.volumes.shadow.changes import changes
from vsssnap.volumes.shadow.reader import view_behind
from vsssnap.volumes.shadow.store import MAX_VOLUME, Context, Place, ShadowStore
from vsssnap.volumes.shadow.table import OTHER, OWN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from vsssnap.blocks.extent import Extent
    from vsssnap.blocks.reader import BlockReader, SupportsPread
    from vsssnap.volumes.shadow.structs import SnapshotEntry


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
        self.stores = self._found(own, other, recover=recover)

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

    def _found(self, own: Catalog, other: Catalog, *, recover: bool) -> tuple[ShadowStore, ...]:
        ordered = sorted(own.snapshots, key=lambda entry: entry.stack_position)
        sizes = [entry.volume_size for entry in ordered if entry.volume_size <= MAX_VOLUME]
        context = Context(
            self._reader,
            self._storage,
            read_boot(self._reader),
            max([self._reader.size, *sizes]),
            tuple(own.problems),
        )
        stores = []
        for number, entry in enumerate(ordered, 1):
            store_id = UUID(bytes_le=entry.store_id)
            place = None
            if store_id in own.locations:
                place = Place(own.locations[store_id], self._reader, OWN)
            elif store_id in other.locations and self._storage is not None:
                place = Place(other.locations[store_id], self._storage, OTHER)
            store = ShadowStore(context, number, entry, place)
            self._judge(store, entry, own, other, recover=recover)
            stores.append(store)
        for older, newer in pairwise(stores):
            older.link(newer)
            if newer.position == older.position:
                for one in (older, newer):
                    one.refuse(_corrupt(f"{one.name}: another one has its stack position {one.position}"))
            elif newer.position != older.position + 1 and not recover:
                older.refuse(
                    _corrupt(
                        f"{older.name} depends on the one at stack position {older.position + 1},"
                        " which is not in the catalog"
                    ),
                    chain=True,
                )
        return tuple(stores)

    def _judge(
        self, store: ShadowStore, entry: SnapshotEntry, own: Catalog, other: Catalog, *, recover: bool
    ) -> None:
        """Refuse a shadow copy for what the catalogs say of it."""
        if store.store_id in own.doubled | other.doubled:
            store.refuse(_corrupt(f"{store.name}: the catalog names its store more than once"))
        if not 0 < entry.volume_size <= MAX_VOLUME:
            store.refuse(_corrupt(f"{store.name}: the catalog says it has {entry.volume_size} bytes"))
        if own.problems and not recover:
            store.refuse(
                _corrupt(
                    f"{store.name} may depend on others that are missing: {own.problems[0]}",
                    "recover=True opens it all the same",
                ),
                chain=True,
            )
        if store.file_reference is None:
            if self.redirected and self._storage is None:
                store.refuse(
                    UsageError(
                        f"{store.name}: its store lies on volume {self.storage_id}",
                        hint="pass that volume as storage",
                    )
                )
            problems = [*own.problems, *other.problems]
            because = f" ({problems[0]})" if problems else ""
            store.refuse(_corrupt(f"{store.name}: no catalog says where its store lies{because}"))

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
            allocated: Only with ``newer=None``: what is in use now (every extent that is DATA).
                Without it every block that the newest shadow copy did not protect counts as changed.
            exact: Compare the blocks, and leave out those that are the same after all.

        Returns:
            Ascending, with gaps; in units of 16 KiB, clipped at the end of the volume.

        Raises:
            ChangesUnknownError: the stores do not tell what changed; take a full image.  The message
                says why.
            UsageError: ``newer`` is not newer, or ``allocated`` is given for a shadow copy.
        """
        return changes(self, self._reader, older, newer, allocated, exact=exact)


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
