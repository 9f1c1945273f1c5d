"""The VHDX format as a driver."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from vsssnap._units import whole
from vsssnap.errors import UsageError
from vsssnap.formats._storages import owning, require_empty
from vsssnap.formats.base import ImageFormat, ImageReader, Probe, ResolveParent, options_of
from vsssnap.formats.vhdx import layout, locator, structs
from vsssnap.formats.vhdx.building import head_of
from vsssnap.formats.vhdx.child import VhdxChildWriter
from vsssnap.formats.vhdx.options import VhdxOptions
from vsssnap.formats.vhdx.reader import VhdxReader, open_parent
from vsssnap.formats.vhdx.writer import VhdxWriter

if TYPE_CHECKING:
    from vsssnap.formats.storage import Storage


class VhdxFormat(ImageFormat):
    """Virtual Hard Disk v2: docs/formats/vhdx.md."""

    name: ClassVar[str] = "vhdx"
    suffixes: ClassVar[tuple[str, ...]] = (".vhdx", ".avhdx")
    options_type: ClassVar[type] = VhdxOptions
    features: ClassVar[frozenset[str]] = frozenset({"holes", "parents"})

    def probe(self, seen: Probe, /) -> int:
        """By the file type identifier."""
        if seen.head.startswith(structs.IDENTIFIER):
            return 100
        return 10 if seen.name.lower().endswith(self.suffixes) else 0

    def wants_sidecar(self, options: object, /) -> bool:
        """By option."""
        return options_of(VhdxOptions, options, self.name).sidecar

    def disk_sector_size(self, options: object, /) -> int:
        """Disks have the logical sectors of the options."""
        given = options_of(VhdxOptions, options, self.name)
        return given.sector(512, given.logical_sector_size, "logical")

    def open(
        self, storage: Storage, /, *, resolve_parent: ResolveParent | None = None, recover: bool = False
    ) -> VhdxReader:
        """See `ImageFormat`; the log is replayed in memory, the file is not changed."""
        with owning(storage):
            found = layout.load(storage, recover=recover)
            reader = VhdxReader(found, recover=recover)
        known = found.locator
        if known is not None:
            reader.link(resolve_parent, lambda: open_parent(found, known, resolve_parent))
        return reader

    def create(
        self,
        storage: Storage,
        size: int,
        /,
        *,
        options: object = None,
        parent: ImageReader | None = None,
    ) -> VhdxWriter:
        """See `ImageFormat`.

        Raises:
            UsageError: a VHDX cannot hold this size, these options or this parent; or ``storage``
                is a pipe or not empty.
            TargetError: there is no room.
        """
        with owning(storage):
            chosen = options_of(VhdxOptions, options, self.name)
            return _begin(storage, whole(size, "size"), chosen, parent)


def _begin(storage: Storage, size: int, options: VhdxOptions, parent: ImageReader | None) -> VhdxWriter:
    require_empty(storage, seekable="a VHDX needs a file")
    if parent is None:
        head = head_of(options.geometry(size, None), options)
        return VhdxWriter(storage, head, fixed=options.fixed, preallocate=options.preallocate)
    if not isinstance(parent, VhdxReader):
        raise UsageError(
            f"a {parent.format} image cannot be the parent of a VHDX", hint="save a full VHDX image first"
        )
    if not parent.layout.complete or not parent.data_write_id.int:
        raise UsageError(
            f"{parent.name} is damaged, other programs will not see in it what was read here",
            hint="save a full image",
        )
    geometry = options.geometry(size, parent.layout.geometry)
    item = locator.build(parent.data_write_id, locator.paths_to(parent.name, storage.name))
    return VhdxChildWriter(storage, head_of(geometry, options, parent.layout, item), parent)
