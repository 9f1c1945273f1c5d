"""QCOW2 images in memory, and hands on their bytes by the offsets of the specification."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence

from vsssnap.formats.base import ImageReader, ImageWriter, ResolveParent
from vsssnap.formats.qcow2 import Qcow2Format, Qcow2Options, Qcow2Reader
from vsssnap.formats.raw import RawFormat
from vsssnap.formats.storage import MemoryStorage
from vsssnap.metadata import ImageMetadata

# Offsets of header fields: QEMU, docs/interop/qcow2.txt, section "Header".
VERSION, BACKING_OFFSET, BACKING_SIZE, CLUSTER_BITS, SIZE, CRYPT = 4, 8, 16, 20, 24, 32
L1_SIZE, L1_OFFSET, TABLE_OFFSET, TABLE_CLUSTERS, SNAPSHOTS, SNAPSHOTS_OFFSET = 36, 40, 48, 56, 60, 64
INCOMPATIBLE, COMPATIBLE, AUTOCLEAR, REFCOUNT_ORDER, HEADER_LENGTH, COMPRESSION = 72, 80, 88, 96, 100, 104


def write(
    volume: bytes | bytearray,
    options: Qcow2Options | None = None,
    *,
    parent: ImageReader | None = None,
    name: str = "image",
) -> bytearray:
    """An image of a volume, all of it stored as DATA."""
    storage = MemoryStorage(name=name)
    writer = Qcow2Format().create(storage, len(volume), options=options, parent=parent)
    put(writer, volume)
    finish(writer)
    return storage.data


def put(writer: ImageWriter, volume: bytes | bytearray) -> None:
    """Store a volume by aligned units."""
    for at in range(0, len(volume), writer.unit):
        writer.pwrite(memoryview(volume)[at : at + writer.unit], at)


def finish(writer: ImageWriter) -> None:
    """Complete and close."""
    writer.finish(ImageMetadata())
    writer.close()


def opened(
    data: bytes | bytearray,
    resolve: ResolveParent | None = None,
    *,
    recover: bool = False,
    name: str = "image",
) -> Qcow2Reader:
    """Open an image."""
    return Qcow2Format().open(MemoryStorage(data, name), resolve_parent=resolve, recover=recover)


class Folder:
    """Files in memory that images name; gives the calls it got."""

    def __init__(self, files: Mapping[str, bytes | bytearray]) -> None:
        self.files = dict(files)
        self.asked: list[tuple[tuple[str, ...], str | None]] = []

    def __call__(self, candidates: Sequence[str], /, *, format: str | None = None) -> ImageReader:
        """`ResolveParent`."""
        self.asked.append((tuple(candidates), format))
        (name,) = candidates
        data = self.files[name]
        if format == "raw":
            reader: ImageReader = RawFormat().open(MemoryStorage(data, name))
        else:
            reader = opened(data, self, name=name)
        reader.path = name
        return reader

    def open(self, name: str) -> ImageReader:
        """Open a file of it that is no raw one."""
        return self((name,))


def get(data: bytes | bytearray, offset: int, code: str = ">Q") -> int:
    """A number of an image."""
    (value,) = struct.unpack_from(code, data, offset)
    return int(value)


def changed(data: bytes | bytearray, offset: int, value: int, code: str = ">Q") -> bytearray:
    """A copy of an image with one number changed."""
    result = bytearray(data)
    struct.pack_into(code, result, offset, value)
    return result


def l2_entry_at(data: bytes | bytearray, cluster: int) -> int:
    """Where the L2 entry of a guest cluster lies (standard entries)."""
    size = 1 << get(data, CLUSTER_BITS, ">I")
    table, index = divmod(cluster, size // 8)
    l2 = get(data, get(data, L1_OFFSET) + table * 8) & 0x00FF_FFFF_FFFF_FE00
    assert l2
    return l2 + index * 8


def refcount_at(data: bytes | bytearray, cluster: int) -> int:
    """Where the refcount (of 16 bits) of a host cluster lies."""
    size = 1 << get(data, CLUSTER_BITS, ">I")
    block, index = divmod(cluster, size // 2)
    return get(data, get(data, TABLE_OFFSET) + block * 8) + index * 2


def with_extension(data: bytes | bytearray, kind: int, body: bytes) -> bytearray:
    """A copy with one more header extension, in front of the others."""
    length = get(data, HEADER_LENGTH, ">I") if get(data, VERSION, ">I") == 3 else 72
    size = 1 << get(data, CLUSTER_BITS, ">I")
    extension = struct.pack(">II", kind, len(body)) + body + bytes(-len(body) % 8)
    head = data[:length] + extension + data[length : size - len(extension)]
    result = bytearray(head + data[size:])
    backing = get(result, BACKING_OFFSET)
    return changed(result, BACKING_OFFSET, backing + len(extension)) if backing else result


Change = Callable[[bytearray], bytearray]
