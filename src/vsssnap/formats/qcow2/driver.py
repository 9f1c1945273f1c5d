"""The ``qcow2`` driver."""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING, ClassVar

from vsssnap._units import whole
from vsssnap.errors import UsageError
from vsssnap.formats._storages import owning, require_empty
from vsssnap.formats.base import ImageFormat, ImageReader, ImageWriter, Probe, ResolveParent, options_of
from vsssnap.formats.qcow2 import structs
from vsssnap.formats.qcow2.header import Lineage, name_check, room_for
from vsssnap.formats.qcow2.opening import QEMU_NAMES, identity_of, open_image
from vsssnap.formats.qcow2.options import Qcow2Options
from vsssnap.formats.qcow2.packer import Qcow2Packer
from vsssnap.formats.qcow2.reader import Qcow2Reader
from vsssnap.formats.qcow2.writer import Qcow2Writer

if TYPE_CHECKING:
    from vsssnap.formats.storage import Storage


class Qcow2Format(ImageFormat):
    """QCOW2, versions 2 and 3 read, version 3 written: docs/formats/qcow2.md."""

    name: ClassVar[str] = "qcow2"
    suffixes: ClassVar[tuple[str, ...]] = (".qcow2",)
    options_type: ClassVar[type] = Qcow2Options
    features: ClassVar[frozenset[str]] = frozenset({"compression", "holes", "parents"})

    def probe(self, seen: Probe, /) -> int:
        """By the magic and the version."""
        if seen.head[:4] == structs.MAGIC:
            return 100 if seen.head[4:8] in (b"\0\0\0\2", b"\0\0\0\3") else 60
        return 10 if seen.name.lower().endswith(self.suffixes) else 0

    def wants_sidecar(self, options: object, /) -> bool:
        """By option."""
        return options_of(Qcow2Options, options, self.name).sidecar

    def open(
        self, storage: Storage, /, *, resolve_parent: ResolveParent | None = None, recover: bool = False
    ) -> Qcow2Reader:
        """See `ImageFormat`."""
        with owning(storage):
            return open_image(storage, resolve_parent, recover=recover)

    def create(
        self, storage: Storage, size: int, /, *, options: object = None, parent: ImageReader | None = None
    ) -> ImageWriter:
        """See `ImageFormat`.

        Raises:
            UsageError: ``storage`` is a pipe or not empty, or the size, an option or the parent is none
                that QCOW2 can hold.
        """
        with owning(storage):
            return _begin(storage, whole(size, "size"), options, parent)


def _begin(storage: Storage, size: int, options: object, parent: ImageReader | None) -> ImageWriter:
    chosen = options_of(Qcow2Options, options, Qcow2Format.name)
    chosen.check(size)
    require_empty(storage, seekable="and the header of a QCOW2 image is written last")
    identity = chosen.identity or uuid.uuid4()
    if parent is None:
        if chosen.backing_name is not None:
            raise UsageError("backing_name is given and no parent")
        lineage, backing = Lineage(identity), ("", "")
    else:
        backing = _backing(storage, chosen, parent)
        lineage = Lineage(identity, name_check(backing[0]), identity_of(parent), parent.size)
        room = room_for(chosen.cluster_size, backing[1], lineage)
        length = len(backing[0].encode("utf-8", "surrogateescape"))
        if not 0 < length <= room:
            raise UsageError(
                f"the parent's name has {length} bytes, there is room for {room}: {backing[0]!r}",
                hint="pass a shorter backing_name, or choose larger clusters",
            )
    kind = Qcow2Writer if chosen.compression == "none" else Qcow2Packer
    return kind(storage, size, chosen, parent, lineage, backing)


def _backing(storage: Storage, options: Qcow2Options, parent: ImageReader) -> tuple[str, str]:
    """Name and format of the parent, as the image records them."""
    kind = QEMU_NAMES.get(parent.format)
    if kind is None:
        raise UsageError(
            f"a {parent.format} image cannot be the parent of a QCOW2 image",
            hint=f"its parent is one of {', '.join(sorted(QEMU_NAMES))}",
        )
    if isinstance(parent, Qcow2Reader) and parent.is_snapshot:
        raise UsageError(
            "a snapshot inside an image cannot be a parent", hint="save it as an image of its own first"
        )
    if options.backing_name is not None:
        return options.backing_name, kind
    if not parent.path:
        raise UsageError("the parent has no path", hint="pass backing_name in the options")
    folder = os.path.dirname(os.path.abspath(storage.name))
    try:
        name = os.path.relpath(os.path.abspath(parent.path), folder)
    except ValueError:  # another drive
        name = os.path.abspath(parent.path)
    name = name.replace(os.sep, "/")
    # What looks like a protocol would be taken for one.
    protocol = ":" in name.partition("/")[0] and not os.path.isabs(name)
    return (f"./{name}" if protocol else name), kind
