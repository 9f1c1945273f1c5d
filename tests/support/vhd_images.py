"""VHD images in memory that refer to one another by name."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from uuid import UUID

from vsssnap import ImageMetadata
from vsssnap.errors import ImageNotFoundError
from vsssnap.formats import ImageReader, MemoryStorage
from vsssnap.formats.vhd import VhdFormat, VhdOptions

FORMAT = VhdFormat()
NOTHING = ImageMetadata()
BLOCK = 512 << 10


def resolver(files: dict[str, bytearray]) -> object:
    """Opens them as parents, by the last part of a path."""

    def resolve(names: Sequence[str], /, *, format: str | None = None) -> ImageReader:
        for name in map(os.path.basename, names):
            if name in files:
                return opened(files, name)
        raise ImageNotFoundError("not there")

    return resolve


def opened(files: dict[str, bytearray], name: str) -> ImageReader:
    """One of them."""
    return FORMAT.open(MemoryStorage(files[name], name), resolve_parent=resolver(files))  # type: ignore[arg-type]


def sample(*, child: bool) -> tuple[dict[str, bytes], str, bytes]:
    """An image, or a child of one: its files, its name and its content.

    It has three blocks: data, nothing, and a short one.
    """
    dice = random.Random(11)
    data = bytearray(dice.randbytes(2 * BLOCK + 1536))
    data[BLOCK : 2 * BLOCK] = bytes(BLOCK)
    files: dict[str, bytearray] = {}
    options = VhdOptions(block_size=BLOCK, identity=UUID(int=1))
    storage = MemoryStorage(name="parent.vhd")
    writer = FORMAT.create(storage, len(data), options=options)
    writer.pwrite(memoryview(bytes(data)), 0)
    writer.finish(NOTHING)
    files["parent.vhd"] = storage.data
    if not child:
        return {"parent.vhd": bytes(storage.data)}, "parent.vhd", bytes(data)
    with opened(files, "parent.vhd") as parent:
        data[BLOCK + 4096 : BLOCK + 8192] = dice.randbytes(4096)
        data[0:4096] = bytes(4096)
        storage = MemoryStorage(name="child.vhd")
        options = VhdOptions(block_size=BLOCK, identity=UUID(int=2))
        writer = FORMAT.create(storage, len(data), options=options, parent=parent)
        writer.pwrite(memoryview(bytes(data)), 0)
        writer.finish(NOTHING)
    files["child.vhd"] = storage.data
    return {name: bytes(image) for name, image in files.items()}, "child.vhd", bytes(data)
