"""The VMDK format as a driver."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from vsssnap._units import whole
from vsssnap.errors import UsageError
from vsssnap.formats._parents import find_parent, spellings
from vsssnap.formats._storages import owning, require_empty
from vsssnap.formats.base import ImageFormat, ImageReader, ImageWriter, Probe, ResolveParent, options_of
from vsssnap.formats.vmdk import structs
from vsssnap.formats.vmdk.opening import is_descriptor, open_disk
from vsssnap.formats.vmdk.options import VmdkOptions
from vsssnap.formats.vmdk.reader import VmdkReader
from vsssnap.formats.vmdk.sparse import SparseWriter
from vsssnap.formats.vmdk.stream import StreamWriter

if TYPE_CHECKING:
    from vsssnap.formats.storage import Storage
    from vsssnap.formats.vmdk.descriptor import Descriptor


class VmdkFormat(ImageFormat):
    """Virtual Machine Disk, by VMware: docs/formats/vmdk.md."""

    name: ClassVar[str] = "vmdk"
    suffixes: ClassVar[tuple[str, ...]] = (".vmdk",)
    options_type: ClassVar[type] = VmdkOptions
    features: ClassVar[frozenset[str]] = frozenset({"compression", "holes", "streaming"})

    def probe(self, seen: Probe, /) -> int:
        """By the magic of an extent, or by the first line of a descriptor."""
        if seen.head.startswith(structs.MAGIC):
            version = int.from_bytes(seen.head[4:8], "little")
            return 100 if version in structs.VERSIONS else 60
        if is_descriptor(seen.head[:512]):
            return 95
        if seen.head[:8] == structs.SE_MAGIC.to_bytes(8, "little"):
            return 90
        if seen.head.startswith(structs.OLD_MAGIC + (1).to_bytes(4, "little")):
            return 60  # so that it is refused by its name
        return 10 if seen.name.lower().endswith(self.suffixes) else 0

    def wants_sidecar(self, options: object, /) -> bool:
        """By option."""
        return options_of(VmdkOptions, options, self.name).sidecar

    def disk_sector_size(self, options: object, /) -> int:
        """Disks have sectors of 512 bytes."""
        return 512

    def open(
        self, storage: Storage, /, *, resolve_parent: ResolveParent | None = None, recover: bool = False
    ) -> VmdkReader:
        """See `ImageFormat`; the files of its extents are opened by ``resolve_parent`` too.

        Raises:
            ImageNotFoundError: the parent or a file of an extent is not there.
        """
        with owning(storage):
            disk = open_disk(storage, resolve_parent, recover=recover)
            reader = VmdkReader(storage, disk, recover=recover)
        descriptor = disk.descriptor
        if descriptor is not None and descriptor.parent_cid != structs.NO_PARENT:
            reader.link(resolve_parent, lambda: _parent(storage.name, descriptor, resolve_parent))
        return reader

    def create(
        self, storage: Storage, size: int, /, *, options: object = None, parent: ImageReader | None = None
    ) -> ImageWriter:
        """See `ImageFormat`."""
        with owning(storage):
            return _begin(storage, whole(size, "size"), options, parent)


def _begin(storage: Storage, size: int, options: object, parent: ImageReader | None) -> ImageWriter:
    chosen = options_of(VmdkOptions, options, VmdkFormat.name)
    if parent is not None:
        raise UsageError(
            "VMDK images with a parent are read, not written",
            hint='choose a format with parents, such as "vsnap"',
        )
    kind = chosen.check(seekable=storage.seekable)
    require_empty(storage)
    writer = SparseWriter if kind == "monolithicSparse" else StreamWriter
    return writer(storage, size, chosen)


def _parent(child: str, descriptor: Descriptor, resolve: ResolveParent | None) -> VmdkReader:
    """The image whose content id a descriptor names."""
    wanted = descriptor.parent_cid
    return find_parent(
        resolve,
        spellings(descriptor.hint),
        VmdkReader,
        lambda found: "" if found.cid == wanted else f"it has the content {found.cid:08x}",
        child,
        f"the content {wanted:08x} ({descriptor.hint or 'no name'})",
    )
